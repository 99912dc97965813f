"""Compiled kernel: weight of the expert sets that meet each block, by inclusion-exclusion."""

from itertools import combinations
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
    containing = np.concatenate(
        [_containing(members, weights, binomial, size) for size in range(1, largest + 1)]
    )
    starts = np.cumsum([0] + [comb(n_experts, size) for size in range(1, largest + 1)])
    return np.asarray(_alternating_sum(subsets, containing, starts, binomial, largest))


def _containing(
    members: NDArray[np.int32], weights: NDArray[np.int64], binomial: NDArray[np.int64], size: int
) -> NDArray[np.int64]:
    """int64 [C(E, size)]: weight of the sets that contain each subset, by colexicographic rank."""
    total = np.zeros(int(binomial[-1, size]), np.int64)
    for chosen in combinations(range(members.shape[1]), size):
        rank = sum(binomial[members[:, column], place + 1] for place, column in enumerate(chosen))
        np.add.at(total, rank, weights)
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
