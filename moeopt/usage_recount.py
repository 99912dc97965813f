"""The usage checker's own walk over every content of a GPU, in lexicographic order, in exact integers."""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["least_share"]


@njit(cache=True)  # type: ignore[untyped-decorator]
def _change(
    first: int,
    end: int,
    demand: NDArray[np.int64],
    price: NDArray[np.int64],
    tokens: NDArray[np.int64],
    load_prices: NDArray[np.int64],
    slack: NDArray[np.int64],
    share: NDArray[np.int64],
) -> None:
    """Adds to `share` [load prices] what a further expert changes, whose entries are first to end - 1."""
    for entry in range(first, end):
        row = demand[entry]
        for j in range(len(load_prices)):
            share[j] -= max(0, price[entry] - load_prices[j] * tokens[row] - max(0, slack[row, j]))


@njit(cache=True)  # type: ignore[untyped-decorator]
def _spend(
    first: int,
    end: int,
    demand: NDArray[np.int64],
    price: NDArray[np.int64],
    tokens: NDArray[np.int64],
    load_prices: NDArray[np.int64],
    slack: NDArray[np.int64],
    sign: int,
) -> None:
    """Takes what an expert saves out of `slack` [demands, load prices]; puts it back with sign -1."""
    for entry in range(first, end):
        row = demand[entry]
        for j in range(len(load_prices)):
            slack[row, j] -= sign * max(0, price[entry] - load_prices[j] * tokens[row])


@njit(cache=True)  # type: ignore[untyped-decorator]
def least_share(
    size: int,
    start: NDArray[np.int64],
    demand: NDArray[np.int64],
    price: NDArray[np.int64],
    tokens: NDArray[np.int64],
    alone: NDArray[np.int64],
    load_prices: NDArray[np.int64],
    cap: int,
) -> Any:
    """(least, content): the least Phi(B) over the contents B of `size` experts, and the first B that has it.

    Phi(B) = max over K in `load_prices` of sum_d min(0, alone[d] - sum over B of max(0, price - K tokens[d])) - K cap.
    Entries start[e] to start[e + 1] - 1 are the prices of expert e, one a demand that has it:
    `demand` and `price` [entries]; `tokens` and `alone` [demands]; `load_prices` ascend from 0.
    """
    experts = len(start) - 1
    slack = np.repeat(alone, len(load_prices)).reshape(len(alone), len(load_prices))
    shares = np.zeros((size + 1, len(load_prices)), np.int64)
    shares[0] = -load_prices * cap
    if size == 0:
        return shares[0].max(), np.zeros(0, np.int64)
    chosen, content = np.full(size, -1, np.int64), np.zeros(size, np.int64)
    least, level = np.int64(1), 0  # no Phi is above 0
    while level >= 0:
        chosen[level] += 1
        expert = chosen[level]
        if expert > experts - size + level:  # too few are left
            level -= 1
            if level >= 0:
                first, end = start[chosen[level]], start[chosen[level] + 1]
                _spend(first, end, demand, price, tokens, load_prices, slack, -1)
            continue
        first, end = start[expert], start[expert + 1]
        shares[level + 1] = shares[level]
        _change(first, end, demand, price, tokens, load_prices, slack, shares[level + 1])
        if level < size - 1:
            _spend(first, end, demand, price, tokens, load_prices, slack, 1)
            level += 1
            chosen[level] = expert
        elif shares[size].max() < least:
            least = shares[size].max()
            content[:] = chosen
    return least, content
