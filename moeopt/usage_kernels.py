"""Compiled kernels: what contents of a GPU are worth to the tokens at given prices, and who would be served by them.

A demand is a set of experts with n tokens of weight w in all. At price x[d, i] of serving its member i, and k of an
activation, a GPU that holds B is worth v_d(A) = min(0, w - sum over the members in A = d & B of max(0, x - k n)).
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def worths(
    members: NDArray[np.int64],
    tokens: NDArray[Any],
    weights: NDArray[Any],
    prices: NDArray[Any],
    activation: float,
    binomial: NDArray[np.int64],
    starts: NDArray[np.int64],
) -> Any:
    """[subsets], typed as `weights`: m(A), which sum over the subsets A of a content to its worth (Moebius inversion).

    Subsets of up to as many experts as `starts` has entries - 1, by size, then by colexicographic rank.
    """
    largest = len(starts) - 1
    count, k = members.shape
    zero = weights.dtype.type(0)
    total = np.zeros(starts[-1], weights.dtype)
    worth, paid = np.zeros(1 << k, weights.dtype), np.zeros(1 << k, weights.dtype)
    size, rank = np.zeros(1 << k, np.int64), np.zeros(1 << k, np.int64)
    for d in range(count):
        for i in range(k):
            gain = max(zero, prices[d, i] - activation * tokens[d])
            for below in range(1 << i):
                mask = below | 1 << i
                size[mask] = size[below] + 1
                if size[mask] <= largest:
                    rank[mask] = rank[below] + binomial[members[d, i], size[mask]]
                paid[mask] = paid[below] + gain
                worth[mask] = min(zero, weights[d] - paid[mask])
        for i in range(k):
            for mask in range(1 << k):
                if mask >> i & 1:
                    worth[mask] -= worth[mask ^ 1 << i]
        for mask in range(1, 1 << k):
            if size[mask] <= largest and worth[mask] != zero:
                total[starts[size[mask] - 1] + rank[mask]] += worth[mask]
    return total


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def gathered(
    contents: NDArray[np.int16],
    table: NDArray[Any],
    binomial: NDArray[np.int64],
    starts: NDArray[np.int64],
) -> Any:
    """[contents]: sum of `table` over the subsets of each content that it tabulates."""
    largest = len(starts) - 1
    m = contents.shape[1]
    result = np.zeros(len(contents), table.dtype)
    size, rank = np.zeros(1 << m, np.int64), np.zeros(1 << m, np.int64)
    for row in range(len(contents)):
        value = table.dtype.type(0)
        for i in range(m):
            e = contents[row, i]
            for below in range(1 << i):
                mask = below | 1 << i
                size[mask] = size[below] + 1
                if size[mask] <= largest:
                    rank[mask] = rank[below] + binomial[e, size[mask]]
                    value += table[starts[size[mask] - 1] + rank[mask]]
        result[row] = value
    return result


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def holdings(
    contents: NDArray[np.int16],
    shares: NDArray[np.float64],
    binomial: NDArray[np.int64],
    starts: NDArray[np.int64],
) -> Any:
    """float [subsets]: of each subset the sum of `shares` over the contents that contain it."""
    largest = len(starts) - 1
    m = contents.shape[1]
    total = np.zeros(starts[-1])
    size, rank = np.zeros(1 << m, np.int64), np.zeros(1 << m, np.int64)
    for row in range(len(contents)):
        if shares[row] < 1e-9:
            continue
        for i in range(m):
            e = contents[row, i]
            for below in range(1 << i):
                mask = below | 1 << i
                size[mask] = size[below] + 1
                if size[mask] <= largest:
                    rank[mask] = rank[below] + binomial[e, size[mask]]
                    total[starts[size[mask] - 1] + rank[mask]] += shares[row]
    return total


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def served(
    members: NDArray[np.int64],
    tokens: NDArray[np.float64],
    weights: NDArray[np.float64],
    prices: NDArray[np.float64],
    activation: float,
    holding: NDArray[np.float64],
    binomial: NDArray[np.int64],
    starts: NDArray[np.int64],
    result: NDArray[np.float64],
) -> None:
    """Add to result[d, i] the share of contents that would serve member i, given how many hold each subset."""
    largest = len(starts) - 1
    count, k = members.shape
    exactly, paid = np.zeros(1 << k), np.zeros(1 << k)
    size, rank = np.zeros(1 << k, np.int64), np.zeros(1 << k, np.int64)
    for d in range(count):
        for i in range(k):
            gain = max(0.0, prices[d, i] - activation * tokens[d])
            for below in range(1 << i):
                mask = below | 1 << i
                size[mask] = size[below] + 1
                paid[mask] = paid[below] + gain
                exactly[mask] = 0.0
                if size[mask] <= largest:
                    rank[mask] = rank[below] + binomial[members[d, i], size[mask]]
                    exactly[mask] = holding[starts[size[mask] - 1] + rank[mask]]
        for i in range(k):  # from "holds at least" to "holds exactly"
            for mask in range(1, 1 << k):
                if not mask >> i & 1:
                    exactly[mask] -= exactly[mask | 1 << i]
        for mask in range(1, 1 << k):
            if exactly[mask] > 0.0 and paid[mask] > weights[d]:
                for i in range(k):
                    if mask >> i & 1 and prices[d, i] > activation * tokens[d]:
                        result[d, i] += exactly[mask]
