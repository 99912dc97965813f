"""Compiled kernel: weight of the expert sets that meet each block, by inclusion-exclusion."""

from math import comb
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray


def meeting_weight(
    subsets: NDArray[np.int16], members: NDArray[np.int32], *, weights: NDArray[np.int64], n_experts: int
) -> NDArray[np.int64]:
    """int64 [blocks]: weight of the sets that share an expert with each block of `subsets` [blocks, m].

    By inclusion-exclusion over the non-empty subsets A of a block: the sum of (-1)^(|A|+1) x weight of the sets
    that contain A.
    Exact: every partial sum stays below C(m, m/2) x total weight, which must be below 2^62.
    """
    m = subsets.shape[1]
    largest = min(m, members.shape[1])
    binomial = np.array(
        [[comb(e, r) for r in range(largest + 1)] for e in range(n_experts + 1)], dtype=np.int64
    )
    starts = np.cumsum([0] + [comb(n_experts, size) for size in range(1, largest + 1)])
    containing = _containing(members, weights, binomial, starts, largest)
    return np.asarray(_alternating_sum(subsets, containing, starts, binomial, largest))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _containing(
    members: NDArray[np.int32],
    weights: NDArray[np.int64],
    binomial: NDArray[np.int64],
    starts: NDArray[np.int64],
    largest: int,
) -> NDArray[Any]:
    """int64 [starts[-1]]: weight of the sets that contain each subset, by size, then by colexicographic rank."""
    total = np.zeros(starts[-1], np.int64)
    n_sets, width = members.shape
    most = binomial[width].sum()  # subsets of a set, the empty one among them
    size = np.zeros(most, np.int64)
    rank = np.zeros(most, np.int64)
    for row in range(n_sets):
        count = 1  # the empty subset
        for place in range(width):
            expert = members[row, place]
            for below in range(count):
                if size[below] < largest:
                    size[count] = size[below] + 1
                    rank[count] = rank[below] + binomial[expert, size[count]]
                    total[starts[size[count] - 1] + rank[count]] += weights[row]
                    count += 1
    return total


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _alternating_sum(
    subsets: NDArray[np.int16],
    containing: NDArray[np.int64],
    starts: NDArray[np.int64],
    binomial: NDArray[np.int64],
    largest: int,
) -> NDArray[Any]:
    n_blocks, m = subsets.shape
    result = np.zeros(n_blocks, np.int64)
    size = np.zeros(1 << m, np.int64)
    rank = np.zeros(1 << m, np.int64)
    for block in range(n_blocks):
        total = 0
        for top in range(m):
            expert = subsets[block, top]
            for below in range(1 << top):  # every subset whose largest place is `top`
                if size[below] >= largest:
                    size[below | 1 << top] = largest + 1
                    continue
                mask = below | 1 << top
                size[mask] = size[below] + 1
                rank[mask] = rank[below] + binomial[expert, size[mask]]
                value = containing[starts[size[mask] - 1] + rank[mask]]
                total += value if size[mask] & 1 else -value
        result[block] = total
    return result
