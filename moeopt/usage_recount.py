"""The usage checker's own walk over every marked content of a GPU, in lexicographic order, in exact integers."""

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
    sole: NDArray[np.int64],
    share: NDArray[np.int64],
) -> None:
    """Adds to `share` [load prices] what one of several copies changes, whose entries are first to end - 1."""
    for entry in range(first, end):
        row = demand[entry]
        for j in range(len(load_prices)):
            saved = max(0, price[entry] - load_prices[j] * tokens[row])
            share[j] -= saved if sole[row] else max(0, saved - max(0, slack[row, j]))


@njit(cache=True)  # type: ignore[untyped-decorator]
def _change_sole(
    first: int,
    end: int,
    demand: NDArray[np.int64],
    tokens: NDArray[np.int64],
    load_prices: NDArray[np.int64],
    slack: NDArray[np.int64],
    sole: NDArray[np.int64],
    share: NDArray[np.int64],
) -> None:
    """Adds to `share` [load prices] what an only copy changes: its demands are served here, all of them."""
    for entry in range(first, end):
        row = demand[entry]
        for j in range(len(load_prices)):
            share[j] += load_prices[j] * tokens[row] + (0 if sole[row] else max(0, slack[row, j]))


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
    told: NDArray[np.bool_],
    sole_prices: NDArray[np.int64],
    copy_prices: NDArray[np.int64],
    loads: NDArray[np.int64],
    most_load: int,
) -> Any:
    """(least, content, marks): the least Phi(B, F) over contents B of `size` experts, and the first that has it.

    Entries start[e] to start[e + 1] - 1 are the prices of expert e, one a demand that has it: `demand` and `price`
    [entries]; `tokens` and `alone` [demands]; `load_prices` ascend from 0. Experts in `told` may be in F as far as
    `loads` [experts] of F sum to `most_load` at most.
    """
    experts = len(start) - 1
    slack = np.repeat(alone, len(load_prices)).reshape(len(alone), len(load_prices))
    sole = np.zeros(len(alone), np.int64)  # experts of F in each demand
    shares = np.zeros((size + 1, len(load_prices)), np.int64)
    shares[0] = -load_prices * cap
    carried = np.zeros(size + 1, np.int64)  # load of F
    best, best_marks = np.full(size, -1, np.int64), np.zeros(size, np.bool_)
    if size == 0:
        return shares[0].max(), best, best_marks
    chosen, marked = (
        np.full(size, -1, np.int64),
        np.ones(size, np.bool_),
    )  # the next: the next expert, not in F
    least, level, found = np.int64(0), 0, False
    while level >= 0:
        expert = chosen[level]
        if not marked[level] and told[expert] and carried[level] + loads[expert] <= most_load:
            marked[level] = True
        else:
            chosen[level] += 1
            marked[level] = False
            expert = chosen[level]
        if expert > experts - size + level:  # too few are left
            level -= 1
            if level >= 0:
                first, end = start[chosen[level]], start[chosen[level] + 1]
                if marked[level]:
                    for entry in range(first, end):
                        sole[demand[entry]] -= 1
                else:
                    _spend(first, end, demand, price, tokens, load_prices, slack, -1)
            continue
        first, end = start[expert], start[expert + 1]
        shares[level + 1] = shares[level]
        carried[level + 1] = carried[level]
        if marked[level]:
            shares[level + 1] -= sole_prices[expert]
            carried[level + 1] += loads[expert]
            _change_sole(first, end, demand, tokens, load_prices, slack, sole, shares[level + 1])
        else:
            shares[level + 1] -= copy_prices[expert]
            _change(first, end, demand, price, tokens, load_prices, slack, sole, shares[level + 1])
        if level < size - 1:
            if marked[level]:
                for entry in range(first, end):
                    sole[demand[entry]] += 1
            else:
                _spend(first, end, demand, price, tokens, load_prices, slack, 1)
            level += 1
            chosen[level] = expert
            marked[level] = True
        elif not found or shares[size].max() < least:
            found = True
            least = shares[size].max()
            best[:] = chosen
            best_marks[:] = marked
    return least, best, best_marks
