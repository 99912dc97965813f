"""Counting slots proves exactly how few GPUs and nodes k experts fit on, and nothing more."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings

from moeopt.certificate import Proof
from moeopt.cluster import Cluster
from moeopt.counting_checker import check_counting
from moeopt.problem import Problem
from moeopt.testing import brute_force
from moeopt.trace import Trace
from tests.problem_strategies import problems


def proof_of(problem: Problem, bound: int, **numbers: int) -> Proof:
    return Proof(problem.workload.layer_ids[0], problem.workload.digest, "counting", bound, numbers=numbers)


def counted(problem: Problem) -> int:
    """The bound that counting proves, as its refusal says it."""
    refusal = check_counting(problem, proof_of(problem, -1))
    return int(refusal.removeprefix("counting proves ").partition(",")[0])


def fewest(cluster: Cluster, k: int, *, of_nodes: bool) -> int:
    """By trying every set of GPUs: fewest GPUs, or fewest nodes, with room for k experts."""
    best = cluster.gpus
    for chosen in product([False, True], repeat=cluster.gpus):
        used = np.flatnonzero(chosen)
        if cluster.slots_of[used].sum() >= k:
            best = min(best, len(set(cluster.node_of[used])) if of_nodes else len(used))
    return best


@pytest.mark.parametrize("k", [1, 2, 3, 5])
@pytest.mark.parametrize(
    "cluster",
    [
        Cluster(1, 3, 2),
        Cluster(1, 3, 9),
        Cluster(1, 4, (1, 4, 0, 1)),
        Cluster(2, 2, (3, 0, 1, 2), gpu_cost=2, node_cost=5),
        Cluster(3, 2, 1, gpu_cost=0, node_cost=1),
    ],
)
def test_it_counts_the_fewest_gpus_and_nodes_that_hold_k_experts(cluster: Cluster, k: int) -> None:
    rng = np.random.default_rng(0)
    ids = np.array([[rng.permutation(6)[:k]] for _ in range(5)])
    problem = Problem.from_trace(Trace(ids, 6), cluster)
    per_token = cluster.gpu_cost * (fewest(cluster, k, of_nodes=False) - 1)
    per_token += cluster.node_cost * (fewest(cluster, k, of_nodes=True) - 1)
    bound = 5 * per_token
    assert check_counting(problem, proof_of(problem, bound)) == ""
    for wrong in (bound - 1, bound + 1):
        refusal = check_counting(problem, proof_of(problem, wrong))
        assert refusal == f"counting proves {bound}, the certificate says {wrong}"


@settings(max_examples=80, deadline=None)
@given(problem=problems(objectives=("fan-out",)))
def test_no_placement_costs_less_than_counting_proves(problem: Problem) -> None:
    least, _ = brute_force(problem)
    assert least is None or counted(problem) <= least


def test_it_needs_no_numbers_and_knows_no_cut() -> None:
    ids = np.array([[[0, 1]]])
    problem = Problem.from_trace(Trace(ids, 2), Cluster(1, 2, 1))
    assert check_counting(problem, proof_of(problem, 1)) == ""
    assert (
        check_counting(problem, proof_of(problem, 1, dual=1)) == "counting needs no numbers, found ['dual']"
    )
    cut = Problem.from_trace(Trace(ids, 2), Cluster(1, 2, 1), objective="cut")
    assert check_counting(cut, proof_of(cut, 1)) == "counting bounds the fan-out and the load only"
