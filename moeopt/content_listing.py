"""The tables that a search over the contents of a few GPUs reads."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from moeopt.columns import contents
from moeopt.content_prices import ContentPrices
from moeopt.gatherings import Demands, content_sizes, demands
from moeopt.placement import Placement
from moeopt.problem import Problem

__all__ = ["Listing", "unsearchable"]

MOST_GPUS, MOST_EXPERTS = 4, 18
_LARGEST = 1 << 58


def unsearchable(problem: Problem) -> str:
    """Why the search does not take a problem that `covers` states; empty when it does."""
    cluster, experts = problem.cluster, problem.workload.n_experts
    if not 2 <= cluster.gpus <= MOST_GPUS:
        return f"the search lists contents of 2 to {MOST_GPUS} GPUs, found {cluster.gpus}"
    if experts > MOST_EXPERTS:
        return f"the search tabulates subsets of up to {MOST_EXPERTS} experts, found {experts}"
    asked = demands(problem, unit=problem.cluster.further_gpu)
    if int(asked.tokens @ asked.weights) * problem.workload.layers[0].top_k * cluster.gpus >= _LARGEST:
        return "the objective does not fit 64 bits with room to spare"
    return ""


@dataclass(eq=False)
class Listing:
    """What the search reads; bit b of a mask is the expert with the b-th largest load.

    | field | holds |
    |---|---|
    | heaviest | int64 [experts]: the expert of each bit |
    | masks | int64 [contents], by ascending reduced cost, then those with the most weight inside first |
    | reduced, reduced_scale, base | reduced_scale x objective >= base + sum of the reduced costs of the contents |
    | starts, order, number | lists of contents, and which one a mask is: see `moeopt.content_kernels` |
    | inside, loads | int64 [2^experts]: weight of the sets within a mask, load of a mask |
    | touch, split | bounds: see `moeopt.content_bounds` |
    | asked, members | demands, and their members as bits [demands, k] |
    | cap | activations that a GPU may serve, -1 for any number |
    | scale, highest | prices are in 1 / scale of the objective, and no higher |
    """

    problem: Problem
    heaviest: NDArray[np.int64]
    masks: NDArray[np.int64]
    reduced: NDArray[np.int64]
    reduced_scale: int
    base: int
    starts: NDArray[np.int64]
    order: NDArray[np.int32]
    number: NDArray[np.int32]
    inside: NDArray[np.int64]
    loads: NDArray[np.int64]
    touch: NDArray[np.int64]
    split: NDArray[np.int64]
    asked: Demands
    members: NDArray[np.int64]
    cap: int
    scale: int
    highest: int

    @classmethod
    def of(cls, problem: Problem, prices: ContentPrices | None = None) -> Listing:
        """The tables of a problem of one layer."""
        from moeopt.content_bounds import splits, touches
        from moeopt.content_kernels import MOST_SPARE

        (sets,) = problem.workload.layers
        experts, gpus = sets.n_experts, problem.cluster.gpus
        heaviest = np.argsort(-sets.load, kind="stable").astype(np.int64)
        bit_of = np.empty(experts, np.int64)
        bit_of[heaviest] = np.arange(experts)
        cap = -1 if problem.load_cap is None else problem.load_cap
        asked = demands(problem, unit=problem.cluster.further_gpu)
        members = bit_of[sets.members[asked.sets]]
        inside = np.zeros(1 << experts, np.int64)
        np.add.at(inside, (1 << members).sum(axis=1), asked.tokens * asked.weights)
        loads = np.zeros(1 << experts, np.int64)
        for bit, expert in enumerate(heaviest.tolist()):
            with_bit = np.s_[:, 1]
            inside.reshape(-1, 2, 1 << bit)[with_bit] += inside.reshape(-1, 2, 1 << bit)[:, 0]
            loads.reshape(-1, 2, 1 << bit)[with_bit] += sets.load[expert]
        sizes = [size for size in content_sizes(problem) if size]
        listed = [(1 << block.astype(np.int64)).sum(axis=1) for block in contents(experts, sizes)]
        masks = np.concatenate([np.zeros(int(0 in content_sizes(problem)), np.int64), *listed])
        if cap >= 0:
            masks = masks[loads[masks] >= loads[-1] - (gpus - 1) * cap]
        if prices is None:
            prices = ContentPrices(np.zeros(1 << experts, np.int64), 1, 0)
        reduced = prices.reduced[_renamed(masks, heaviest)]
        order = np.lexsort((-inside[masks], reduced))
        masks, reduced = masks[order], reduced[order]
        lists = [np.flatnonzero(masks >> bit & 1) for bit in range(experts)] + [np.arange(len(masks))]
        for triple in product(range(experts), repeat=3):
            whole = (1 << np.array(triple)).sum()
            lists.append(
                np.flatnonzero(masks & whole == whole) if sorted(set(triple)) == [*triple] else lists[0][:0]
            )
        touch = touches(inside, min(problem.replicas, MOST_SPARE))
        number = np.full(1 << experts, -1, np.int32)
        number[masks] = np.arange(len(masks))
        total = max(1, int(asked.tokens @ asked.weights)) * sets.top_k * gpus
        return cls(
            problem,
            heaviest,
            masks,
            reduced,
            prices.scale,
            prices.base,
            np.cumsum([0, *map(len, lists)]),
            np.concatenate(lists).astype(np.int32),
            number,
            inside,
            loads,
            touch,
            splits(touch[0], loads, gpus - 1, max(sizes, default=0), cap, len(touch) - 1),
            asked,
            members,
            cap,
            1 if cap < 0 else min(1 << 20, _LARGEST // total),
            _LARGEST // max(1, int(loads[-1]) * gpus),
        )

    def placement(self, held: NDArray[np.int64]) -> Placement:
        """The placement of masks [gpus]."""
        experts = len(self.heaviest)
        hosts = np.zeros((experts, len(held)), bool)
        hosts[self.heaviest] = held[None, :] >> np.arange(experts)[:, None] & 1
        workload, cluster = self.problem.workload, self.problem.cluster
        first = hosts.argmax(axis=1)
        return Placement(
            hosts[None], first[None], cluster.nodes, cluster.slots, workload.layer_ids, workload.model
        )

    def named(self, held: NDArray[np.int64]) -> list[int]:
        """Masks [gpus] with bit e for expert e."""
        return [int(mask) for mask in _renamed(held, self.heaviest)]


def _renamed(masks: NDArray[np.int64], names: NDArray[np.int64]) -> NDArray[np.int64]:
    """Masks whose bit b is called names[b]."""
    named: NDArray[np.int64] = ((masks[:, None] >> np.arange(len(names)) & 1) << names).sum(axis=1)
    return named
