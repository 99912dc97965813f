"""Set-partition columns: possible contents of one GPU and what each costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

EMPTY = -1  # member that pads a block smaller than the largest


@dataclass(frozen=True, eq=False)
class Columns:
    """All contents a GPU may have in one layer, on interchangeable GPUs.

    | field | holds |
    |---|---|
    | members | int16 [columns, m]: expert ids ascending, padded at the end with -1; the empty block is not listed |
    | cost | int64 [columns] |
    | offset | cost of a placement = offset + sum of the cost of its blocks; an empty GPU costs nothing |
    | n_experts | E |
    | groups | G: a placement has at most this many non-empty blocks |
    """

    members: NDArray[np.int16]
    cost: NDArray[np.int64]
    offset: int
    n_experts: int
    groups: int

    def __len__(self) -> int:
        return len(self.cost)

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """int64 [columns]: experts in each block."""
        return np.asarray((self.members >= 0).sum(axis=1))

    @cached_property
    def full(self) -> bool:
        """Whether every slot is used, so that the number of blocks follows from the cover constraints."""
        return bool(self.members.shape[1] * self.groups == self.n_experts)

    def priced(self, prices: NDArray[Any]) -> NDArray[Any]:
        """[columns]: sum of `prices` [experts] over the members of each block."""
        extended = np.append(prices, prices.dtype.type(0))
        total = extended[self.members[:, 0]].copy()
        for column in self.members.T[1:]:
            total += extended[column]
        return total

    def gpu_of(self, blocks: Sequence[int]) -> NDArray[np.int64]:
        """int64 [experts]: the GPU of each expert when GPU i holds the i-th of these blocks."""
        gpu_of = np.full(self.n_experts, -1, np.int64)
        for gpu, block in enumerate(blocks):
            held = self.members[block]
            gpu_of[held[held >= 0]] = gpu
        return gpu_of


def contents(n_experts: int, sizes: Sequence[int]) -> list[NDArray[np.int16]]:
    """For each size r, int16 [C(E, r), r]: all subsets in colexicographic order: the row of a subset is its rank."""
    largest = max(sizes)
    wanted: list[NDArray[np.int16]] = []
    subsets = np.empty((1, 0), np.int16)
    for size in range(1, largest + 1):
        # By largest element t, then the (size-1)-subsets of 0..t-1: a prefix of the smaller list.
        parts = [
            np.column_stack([subsets[: comb(top, size - 1)], np.full(comb(top, size - 1), top, np.int16)])
            for top in range(size - 1, n_experts)
        ]
        subsets = np.concatenate(parts)
        if size in sizes:
            wanted.append(subsets)
    return wanted


def block_sizes(n_experts: int, gpus: int, *, slots: int) -> range:
    """Sizes of non-empty blocks that occur in some placement of E experts on G GPUs of m slots."""
    least = n_experts - (gpus - 1) * min(slots, n_experts)
    return range(max(1, least), min(slots, n_experts) + 1)


def column_count(n_experts: int, gpus: int, *, slots: int) -> int:
    """How many columns enumeration would list."""
    return sum(comb(n_experts, size) for size in block_sizes(n_experts, gpus, slots=slots))
