"""Counting slots: k experts need at least so many GPUs, whatever the traffic."""

import numpy as np
from numpy.typing import NDArray

from moeopt.certificate import Proof
from moeopt.objectives import least_fullest
from moeopt.problem import Problem


def counting_proof(problem: Problem, *, cost: int | None) -> Proof:
    """The bound (fewest GPUs - 1) gpu_cost + (fewest nodes - 1) node_cost per token; holds with replicas and any load.

    Weak, but never absent: for the fan-out of a problem of one layer. Of the load it is `least_fullest`. `cost` is
    that of the placement it goes with.
    """
    if problem.objective == "load":
        return _proof(problem, least_fullest(problem), cost=cost)
    cluster, k = problem.cluster, problem.workload.top_k
    per_node = np.bincount(cluster.node_of, weights=cluster.slots_of, minlength=cluster.nodes)
    further_gpus, further_nodes = fewest(cluster.slots_of, k) - 1, fewest(per_node, k) - 1
    bound = problem.total_weight * (cluster.gpu_cost * further_gpus + cluster.node_cost * further_nodes)
    return _proof(problem, bound, cost=cost)


def stronger(problem: Problem, proof: Proof) -> Proof:
    """The proof; that of the counting bound where it proves more, which multipliers of a hasty relaxation may allow."""
    if problem.objective != "fan-out":
        return proof
    counted = counting_proof(problem, cost=proof.cost)
    return counted if counted.bound > proof.bound else proof


def fewest(capacities: NDArray[np.number], k: int) -> int:
    """How many of the capacities, largest first, hold k experts."""
    return int(np.searchsorted(np.cumsum(np.sort(capacities)[::-1]), k)) + 1


def _proof(problem: Problem, bound: int, *, cost: int | None) -> Proof:
    return Proof(
        layer_id=problem.workload.layer_ids[0],
        digest=problem.workload.digest,
        kind="counting",
        bound=bound,
        cost=cost,
        optimal=cost == bound,
    )
