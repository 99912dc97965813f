"""Every answer of a tiny problem, one after the other: the judge of formulations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from moeopt.dispatch import Plan
from moeopt.placement import Placement

if TYPE_CHECKING:
    from moeopt.problem import Problem

__all__ = ["every_candidate", "every_partition"]

_MOST_EXPERTS = 8


def every_candidate(problem: Problem) -> Iterator[Placement | Plan]:
    """All admissible placements of one layer, and of each the best dispatch where copies meet a load tolerance.

    Up to the names of GPUs where these are interchangeable. ValueError for what is too large to list.
    """
    if problem.replicas:
        from moeopt.enumeration import every_placement

        found: Iterator[Placement | Plan] = every_placement(problem)
    else:
        found = every_partition(problem)
    for candidate in found:
        placement = candidate.placement if isinstance(candidate, Plan) else candidate
        if problem.max_moves is None or problem.moves(placement)[0] <= problem.max_moves:
            yield candidate


def every_partition(problem: Problem) -> Iterator[Placement]:
    """All placements of one layer without copies that keep the slots and the load cap.

    Up to the names of GPUs where these are interchangeable (equal slots and speeds, no price on nodes, no budget of
    moves, which this ignores otherwise).
    Raises ValueError for more than 8 experts, several layers, or replicas.
    """
    if len(problem.workload.layers) != 1 or problem.workload.n_experts > _MOST_EXPERTS or problem.replicas:
        raise ValueError(
            f"brute force is for one layer of at most {_MOST_EXPERTS} experts without replicas, found "
            f"{len(problem.workload.layers)} layers, {problem.workload.n_experts} experts, "
            f"{problem.replicas} replicas"
        )
    workload, cluster = problem.workload, problem.cluster
    load = workload.layers[0].load.tolist()
    free = cluster.slots_of.tolist()
    room = [sum(load)] * cluster.gpus if problem.load_caps is None else problem.load_caps.tolist()
    alike = cluster.equal and (cluster.nodes == 1 or not cluster.node_cost) and problem.max_moves is None

    def extend(gpu_of: list[int]) -> Iterator[list[int]]:
        if len(gpu_of) == len(load):
            yield gpu_of
            return
        weight = load[len(gpu_of)]
        opened = max(gpu_of, default=-1) + 1  # of interchangeable GPUs only the first unused one is tried
        for gpu in range(min(cluster.gpus, opened + 1) if alike else cluster.gpus):
            if free[gpu] and room[gpu] >= weight:
                free[gpu], room[gpu] = free[gpu] - 1, room[gpu] - weight
                yield from extend([*gpu_of, gpu])
                free[gpu], room[gpu] = free[gpu] + 1, room[gpu] + weight

    for gpu_of in extend([]):
        yield Placement.partition([gpu_of], cluster, layer_ids=workload.layer_ids, model=workload.model)
