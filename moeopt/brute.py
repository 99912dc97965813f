"""Every answer of a tiny problem, one after the other: the judge of formulations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from math import prod
from typing import TYPE_CHECKING

from moeopt.dispatch import Plan
from moeopt.placement import Placement

if TYPE_CHECKING:
    from moeopt.problem import Problem

__all__ = ["every_candidate", "every_partition"]

_MOST_EXPERTS = 8
_MOST_JOINED = 100_000  # placements of several layers


def every_candidate(problem: Problem) -> Iterator[Placement | Plan]:
    """All admissible placements of one layer, and of each the best dispatch where copies meet a load tolerance.

    Of several layers only with a budget of copies over all of them, and no tolerance. Up to the names of GPUs where
    these are interchangeable. ValueError for what is too large to list.
    """
    if problem.total_replicas is not None:
        yield from _every_joined(problem, problem.total_replicas)
        return
    if problem.replicas:
        from moeopt.enumeration import every_placement

        found: Iterator[Placement | Plan] = every_placement(problem)
    else:
        found = every_partition(problem)
    for candidate in found:
        placement = candidate.placement if isinstance(candidate, Plan) else candidate
        if problem.max_moves is None or problem.moves(placement)[0] <= problem.max_moves:
            yield candidate


def _every_joined(problem: Problem, total: int) -> Iterator[Placement]:
    """Every choice of a number of copies for each layer, within the budget, and of a placement with so many."""
    if problem.load_caps is not None:
        raise ValueError(
            f"several layers are listed without a load tolerance, found {problem.load_tolerance}"
        )
    choices: list[list[Placement]] = []
    for index in range(len(problem.workload.layers)):
        layer = problem.layer(index)  # without the budget
        listed = (replace(layer, replicas=copies).candidates() for copies in range(problem.replicas + 1))
        choices.append([found for part in listed for found in part if isinstance(found, Placement)])
    if (count := prod(map(len, choices))) > _MOST_JOINED:
        raise ValueError(
            f"brute force ends at {_MOST_JOINED:,} placements of several layers, found {count:,}"
        )
    for parts in product(*choices):
        joined = Placement.join(parts)
        if int(joined.hosts.sum()) - joined.primary.size <= total:
            yield joined


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
