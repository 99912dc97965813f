"""Compiled kernels: what contents of a GPU are worth to the tokens at given prices, and who would be served by them.

A demand is a set of experts with n tokens of weight w in all. x[d, i] is the price of serving its member i, k of an
activation. Some experts of a content are marked: they have no other copy, and serve all their tokens. A GPU with the
marked experts F and the others O, parts of d, is worth to d, where paid = sum over O of max(0, x - k n),

    v_d(F, O) = min(0, w - paid) if F is empty, else w + |F| k n - paid.

Subsets of contents are tabulated by size r, then by colexicographic rank, then by marks: bit j for the j-th expert.
`starts` says where each size begins, for sizes up to its entries - 1.
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def markings(
    contents: NDArray[np.int16],
    told: NDArray[np.bool_],
    loads: NDArray[np.int64],
    cap: int,
    rows: NDArray[np.int32],
    marks: NDArray[np.int32],
) -> Any:
    """How many marked contents there are: experts of `told` may be marked as long as their load is within `cap`.

    Writes the row of the content and its marks, bit i for expert i, into `rows` and `marks` as far as these reach.
    """
    count = 0
    m = contents.shape[1]
    for row in range(len(contents)):
        for mask in range(1 << m):
            load = np.int64(0)
            allowed = True
            for i in range(m):
                if mask >> i & 1:
                    allowed = allowed and told[contents[row, i]]
                    load += loads[contents[row, i]]
            if allowed and load <= cap:
                if count < len(rows):
                    rows[count], marks[count] = row, mask
                count += 1
    return count


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _bits(mask: int, marked: int, k: int) -> Any:
    """Marks of a subset of k members: bit j says whether its j-th member is in `marked`."""
    bits, j = 0, 0
    for i in range(k):
        if mask >> i & 1:
            bits |= (marked >> i & 1) << j
            j += 1
    return bits


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def worths(
    members: NDArray[np.int64],
    tokens: NDArray[Any],
    weights: NDArray[Any],
    prices: NDArray[Any],
    activation: float,
    told: NDArray[np.bool_],
    binomial: NDArray[np.int64],
    starts: NDArray[np.int64],
) -> Any:
    """[marked subsets], typed as `weights`: they sum over the subsets of a content to its worth (Moebius inversion).

    Subsets of up to as many experts as `starts` has entries - 1.
    """
    largest = len(starts) - 1
    count, k = members.shape
    zero = weights.dtype.type(0)
    total = np.zeros(starts[-1], weights.dtype)
    worth, paid = np.zeros(1 << k, weights.dtype), np.zeros(1 << k, weights.dtype)
    size, rank = np.zeros(1 << k, np.int64), np.zeros(1 << k, np.int64)
    for d in range(count):
        markable = 0
        for i in range(k):
            if told[members[d, i]]:
                markable |= 1 << i
            gain = max(zero, prices[d, i] - activation * tokens[d])
            for below in range(1 << i):
                mask = below | 1 << i
                size[mask] = size[below] + 1
                if size[mask] <= largest:
                    rank[mask] = rank[below] + binomial[members[d, i], size[mask]]
                paid[mask] = paid[below] + gain
        for marked in range(1 << k):
            if marked & ~markable:
                continue
            for mask in range(1 << k):
                worth[mask] = weights[d] - paid[mask & ~marked]
                if mask & marked:
                    worth[mask] += activation * tokens[d] * size[mask & marked]
                else:
                    worth[mask] = min(zero, worth[mask])
            for i in range(k):
                for mask in range(1 << k):
                    if mask >> i & 1:
                        worth[mask] -= worth[mask ^ 1 << i]
            for mask in range(1, 1 << k):
                if mask & marked == marked and size[mask] <= largest and worth[mask] != zero:
                    at = starts[size[mask] - 1] + (rank[mask] << size[mask]) + _bits(mask, marked, k)
                    total[at] += worth[mask]
    return total


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def gathered(
    contents: NDArray[np.int16],
    rows: NDArray[np.int32],
    marks: NDArray[np.int32],
    tables: NDArray[Any],
    paid: NDArray[Any],
    binomial: NDArray[np.int64],
    starts: NDArray[np.int64],
) -> Any:
    """(worth, level) [rows] each: the most that the levels sum to, and the first level that does.

    A level, a column of `tables` [marked subsets, levels], sums to that of the subsets of content `rows` with these
    `marks`, less `paid` [levels].
    """
    largest, levels = len(starts) - 1, len(paid)
    m = contents.shape[1]
    worth, level = np.zeros(len(rows), tables.dtype), np.zeros(len(rows), np.int8)
    size, rank, bits = np.zeros(1 << m, np.int64), np.zeros(1 << m, np.int64), np.zeros(1 << m, np.int64)
    sums = np.zeros(levels, tables.dtype)
    for number in range(len(rows)):
        for j in range(levels):
            sums[j] = -paid[j]
        for i in range(m):
            e = contents[rows[number], i]
            marked = marks[number] >> i & 1
            for below in range(1 << i):
                mask = below | 1 << i
                size[mask] = size[below] + 1
                if size[mask] <= largest:
                    rank[mask] = rank[below] + binomial[e, size[mask]]
                    bits[mask] = bits[below] | marked << size[below]
                    at = starts[size[mask] - 1] + (rank[mask] << size[mask]) + bits[mask]
                    for j in range(levels):
                        sums[j] += tables[at, j]
        worth[number] = sums[0]
        for j in range(1, levels):
            if sums[j] > worth[number]:
                worth[number], level[number] = sums[j], j
    return worth, level


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def holdings(
    contents: NDArray[np.int16],
    rows: NDArray[np.int32],
    marks: NDArray[np.int32],
    shares: NDArray[np.float64],
    binomial: NDArray[np.int64],
    starts: NDArray[np.int64],
) -> Any:
    """float [marked subsets]: of each the sum of `shares` [rows] over the marked contents that contain it."""
    largest = len(starts) - 1
    m = contents.shape[1]
    total = np.zeros(starts[-1])
    size, rank, bits = np.zeros(1 << m, np.int64), np.zeros(1 << m, np.int64), np.zeros(1 << m, np.int64)
    for number in range(len(rows)):
        if shares[number] < 1e-9:
            continue
        for i in range(m):
            e = contents[rows[number], i]
            marked = marks[number] >> i & 1
            for below in range(1 << i):
                mask = below | 1 << i
                size[mask] = size[below] + 1
                if size[mask] <= largest:
                    rank[mask] = rank[below] + binomial[e, size[mask]]
                    bits[mask] = bits[below] | marked << size[below]
                    total[starts[size[mask] - 1] + (rank[mask] << size[mask]) + bits[mask]] += shares[number]
    return total


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def served(
    members: NDArray[np.int64],
    tokens: NDArray[np.float64],
    weights: NDArray[np.float64],
    prices: NDArray[np.float64],
    activation: float,
    told: NDArray[np.bool_],
    holding: NDArray[np.float64],
    binomial: NDArray[np.int64],
    starts: NDArray[np.int64],
    result: NDArray[np.float64],
) -> None:
    """Add to result[d, i] the contents that would serve member i, not marked, given how many hold each subset."""
    largest = len(starts) - 1
    count, k = members.shape
    full = 1 << k
    exactly, paid = np.zeros((full, full)), np.zeros(full)  # marked, then all
    size, rank = np.zeros(full, np.int64), np.zeros(full, np.int64)
    for d in range(count):
        markable = 0
        for i in range(k):
            if told[members[d, i]]:
                markable |= 1 << i
            gain = max(0.0, prices[d, i] - activation * tokens[d])
            for below in range(1 << i):
                mask = below | 1 << i
                size[mask] = size[below] + 1
                paid[mask] = paid[below] + gain
                if size[mask] <= largest:
                    rank[mask] = rank[below] + binomial[members[d, i], size[mask]]
        for marked in range(full):
            if marked & ~markable:
                continue
            for mask in range(full):
                exactly[marked, mask] = 0.0
                if mask and mask & marked == marked and size[mask] <= largest:
                    at = starts[size[mask] - 1] + (rank[mask] << size[mask]) + _bits(mask, marked, k)
                    exactly[marked, mask] = holding[at]
        for i in range(k):  # from "holds at least" to "holds exactly"
            bit = 1 << i
            for marked in range(full):
                if marked & ~markable or marked & bit:
                    continue
                for mask in range(full):
                    if mask & bit == 0 and mask & marked == marked:
                        exactly[marked, mask] -= exactly[marked, mask | bit]
                        if markable & bit:
                            exactly[marked, mask] -= exactly[marked | bit, mask | bit]
        for marked in range(full):
            if marked & ~markable:
                continue
            for mask in range(1, full):
                if exactly[marked, mask] > 1e-12 and (marked or paid[mask] > weights[d]):
                    for i in range(k):
                        if (mask & ~marked) >> i & 1 and prices[d, i] > activation * tokens[d]:
                            result[d, i] += exactly[marked, mask]
