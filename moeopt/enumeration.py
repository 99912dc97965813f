"""Every placement with copies of a tiny layer, and its best dispatch: the judge of formulations with replicas."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, product
from math import comb, prod

import numpy as np
from numpy.typing import NDArray

from moeopt.dispatch import Dispatch, Plan
from moeopt.placement import Placement
from moeopt.problem import Problem

__all__ = ["MOST_PLACEMENTS", "MOST_STATES", "best_dispatch", "every_placement"]

MOST_PLACEMENTS = 2_000_000  # tuples of contents, covering or not
MOST_STATES = 2_000_000  # tokens x load vectors x assignments of one placement


def every_placement(problem: Problem) -> Iterator[Placement | Plan]:
    """All placements of one layer that can be optimal; with a load tolerance all plans of least cost, one a placement.

    All E + R copies are placed, for another copy never costs anything; with a budget of moves, which copies spend,
    every number of copies is listed, within the budget or not. Up to the names of GPUs where these are interchangeable
    (equal slots and speeds, no price on nodes, no budget of moves). Placements that no dispatch brings under the load
    caps are left out.

    Raises ValueError for several layers and for more than MOST_PLACEMENTS tuples of contents.
    """
    if len(problem.workload.layers) != 1:
        raise ValueError(f"enumeration is for one layer, found {len(problem.workload.layers)}")
    cluster, experts = problem.cluster, problem.workload.n_experts
    slots = np.minimum(cluster.slots_of, experts).tolist()
    free = problem.max_moves is not None
    alike = cluster.equal and (cluster.nodes == 1 or not cluster.node_cost) and not free
    listed = [_contents(experts, range(size + 1)) for size in slots]
    count = comb(len(listed[0]) + cluster.gpus - 1, cluster.gpus) if alike else prod(map(len, listed))
    if count > MOST_PLACEMENTS:
        raise ValueError(f"brute force ends at {MOST_PLACEMENTS:,} tuples of contents, found {count:,}")
    copies, everyone = experts + problem.replicas, (1 << experts) - 1

    def extend(chosen: list[int], held: int, placed: int) -> Iterator[list[int]]:
        gpu = len(chosen)
        if gpu == cluster.gpus:
            if held == everyone and (placed == copies or free):
                yield [listed[at][content] for at, content in enumerate(chosen)]
            return
        for content in range(chosen[-1] if alike and chosen else 0, len(listed[gpu])):
            mask = listed[gpu][content]
            total = placed + mask.bit_count()
            short = max((everyone & ~(held | mask)).bit_count(), 0 if free else copies - total)
            if total <= copies and short <= min(sum(slots[gpu + 1 :]), copies - total):
                yield from extend([*chosen, content], held | mask, total)

    for masks in extend([], 0, 0):
        hosts = np.array([[mask >> e & 1 for mask in masks] for e in range(experts)], bool)
        workload = problem.workload
        placement = Placement(
            hosts[None],
            hosts.argmax(axis=1)[None],
            cluster.nodes,
            cluster.slots,
            workload.layer_ids,
            workload.model,
        )
        if problem.load_caps is None:
            yield placement
        elif (dispatch := best_dispatch(problem, hosts)) is not None:
            yield Plan(placement, (dispatch,))


def best_dispatch(problem: Problem, hosts: NDArray[np.bool_]) -> Dispatch | None:
    """The cheapest dispatch of one tiny layer within the load caps, by dynamic programming; None when there is none.

    `hosts` bool [experts, gpus]. Token by token over the loads of all GPUs: a state keeps its least cost, and which
    assignment came last. Independent of any solver. ValueError for a tail, without a load tolerance, or above
    MOST_STATES steps.
    """
    caps = problem.load_caps
    if caps is None or problem.risk is not None:
        raise ValueError("the best dispatch is for a load tolerance and the mean over families")
    (sets,) = problem.workload.layers
    cluster = problem.cluster
    node_of, room = cluster.node_of.tolist(), caps.tolist()
    tokens = [
        (at, family)
        for at, counts in enumerate(sets.counts.tolist())
        for family, count in enumerate(counts)
        for _ in range(count)
    ]
    host_of = [np.flatnonzero(row).tolist() for row in hosts]
    states: dict[tuple[int, ...], int] = {(0,) * cluster.gpus: 0}
    history: list[dict[tuple[int, ...], tuple[tuple[int, ...], tuple[int, ...]]]] = []
    steps = 0
    for at, family in tokens:
        choices = list(product(*(host_of[e] for e in sets.members[at].tolist())))
        steps += len(states) * len(choices)
        if steps > MOST_STATES:
            raise ValueError(f"brute force ends at {MOST_STATES:,} steps of dispatch, found {steps:,}")
        reached: dict[tuple[int, ...], int] = {}
        came: dict[tuple[int, ...], tuple[tuple[int, ...], tuple[int, ...]]] = {}
        for choice in choices:
            further = cluster.gpu_cost * (len(set(choice)) - 1)
            further += cluster.node_cost * (len({node_of[gpu] for gpu in choice}) - 1)
            price = further * int(problem.multipliers[family])
            for loads, cost in states.items():
                after = list(loads)
                for gpu in choice:
                    after[gpu] += 1
                key = tuple(after)
                if all(load <= most for load, most in zip(key, room, strict=True)) and (
                    key not in reached or cost + price < reached[key]
                ):
                    reached[key], came[key] = cost + price, (loads, choice)
        states = reached
        history.append(came)
    if not states:
        return None
    key = min(states, key=lambda loads: (states[loads], loads))
    total: dict[tuple[int, tuple[int, ...]], NDArray[np.int64]] = {}
    for (at, family), came in zip(reversed(tokens), reversed(history), strict=True):
        key, choice = came[key]
        total.setdefault((at, choice), np.zeros(sets.counts.shape[1], np.int64))[family] += 1
    order = sorted(total)
    return Dispatch(
        np.array([at for at, _ in order], np.int32),
        np.array([choice for _, choice in order], np.int32).reshape(-1, sets.top_k),
        np.array([total[row] for row in order], np.int64).reshape(-1, sets.counts.shape[1]),
    )


def _contents(experts: int, sizes: range) -> list[int]:
    """Every set of experts of these sizes, as bits; ValueError where the list itself is too long."""
    if (count := sum(comb(experts, size) for size in sizes)) > MOST_PLACEMENTS:
        raise ValueError(f"brute force ends at {MOST_PLACEMENTS:,} contents of a GPU, found {count:,}")
    return [sum(1 << e for e in chosen) for size in sizes for chosen in combinations(range(experts), size)]
