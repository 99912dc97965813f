"""Compiled kernel: how many groups of experts - GPUs, or nodes - the tokens of a layer touch."""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

WORD = 64  # groups that one mask holds


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def touch_sums(
    members: NDArray[np.int32], counts: NDArray[np.int64], group_of: NDArray[np.int32], groups: int
) -> Any:
    """int64 [families]: sum over tokens of the groups that their experts are in.

    `members` int32 [sets, k], `counts` int64 [sets, families]; `group_of` int32 [experts], ids below `groups`.
    """
    (sets, k), families = members.shape, counts.shape[1]
    total = np.zeros(families, np.int64)
    if groups <= WORD:
        bit_of = np.empty(len(group_of), np.uint64)
        for expert in range(len(group_of)):
            bit_of[expert] = np.uint64(1) << np.uint64(group_of[expert])
        for row in range(sets):
            mask = np.uint64(0)
            for column in range(k):
                mask |= bit_of[members[row, column]]
            touched = ones(mask)
            for family in range(families):
                total[family] += touched * counts[row, family]
        return total
    marks = np.full(groups, -1, np.int64)
    for row in range(sets):
        touched = 0
        for column in range(k):
            group = group_of[members[row, column]]
            touched += marks[group] != row
            marks[group] = row
        for family in range(families):
            total[family] += touched * counts[row, family]
    return total


@njit(inline="always")  # type: ignore[untyped-decorator]
def ones(word: int) -> Any:
    """Bits of a 64-bit word that are set, added up in ever wider fields without a branch (Knuth, TAOCP 7.1.3)."""
    x = np.uint64(word)
    x = x - ((x >> np.uint64(1)) & np.uint64(0x5555555555555555))
    x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((x * np.uint64(0x0101010101010101)) >> np.uint64(56))
