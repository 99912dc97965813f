"""What every exchange of two experts, and every move of one, would change, in array expressions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from moeopt.cluster import Cluster
from moeopt.expert_sets import ExpertSets

__all__ = ["Exchanges"]


@dataclass(frozen=True, eq=False)
class Exchanges:
    """Changes of the exact fan-out of a placement without copies.

    | field | holds |
    |---|---|
    | swaps | int64 [experts, experts]: e and f change places; 0 where they share a GPU |
    | moves | int64 [experts, gpus]: e moves to the GPU |
    """

    swaps: NDArray[np.int64]
    moves: NDArray[np.int64]

    @classmethod
    def of(
        cls, sets: ExpertSets, gpu_of: NDArray[np.int64], *, weights: NDArray[np.int64], cluster: Cluster
    ) -> Self:
        """Of the placement `gpu_of` int [experts], a set weighing `weights` int64 [sets]."""
        swaps = np.zeros((sets.n_experts, sets.n_experts), np.int64)
        moves = np.zeros((sets.n_experts, cluster.gpus), np.int64)
        levels = [(cluster.gpu_cost, np.arange(cluster.gpus))]
        if cluster.nodes > 1:
            levels.append((cluster.node_cost, cluster.node_of))
        for price, group_of in levels:
            if price:
                own = group_of[gpu_of]
                arriving, shared = _level(sets, own, weights, int(group_of.max()) + 1)
                change = arriving[:, own] + arriving[:, own].T + shared
                swaps += price * np.where(own[:, None] == own, 0, change)
                moves += price * arriving[:, group_of]
        return cls(swaps, moves)


def _level(
    sets: ExpertSets, own: NDArray[np.int64], weights: NDArray[np.int64], groups: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(int64 [experts, groups] change when e moves there, int64 [experts, experts] what a swap takes back).

    `own` int [experts] is the GPU or node of each expert. A set that has both of a swap keeps both groups.
    """
    experts, k, rows = sets.n_experts, sets.top_k, np.arange(len(sets))
    held = own[sets.members]
    count = np.zeros((len(sets), groups), np.int64)
    for column in held.T:
        count[rows, column] += 1
    alone = np.where(np.take_along_axis(count, held, axis=1) == 1, weights[:, None], 0)
    absent = np.where(count == 0, weights[:, None], 0)
    arriving = np.zeros((experts, groups), np.int64)
    leaving = np.zeros(experts, np.int64)
    shared = np.zeros((experts, experts), np.int64)
    for place, column in enumerate(sets.members.T):
        np.add.at(arriving, column, absent)
        np.add.at(leaving, column, alone[:, place])
        for other in range(place + 1, k):
            np.add.at(shared, (column, sets.members[:, other]), alone[:, place] + alone[:, other])
    arriving -= leaving[:, None]
    arriving[np.arange(experts), own] = 0
    return arriving, shared + shared.T
