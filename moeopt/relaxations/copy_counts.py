"""Numbers of copies: the cheapest that add up to a total, and how often each number is chosen at a temperature."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["cheapest_counts", "chosen_counts"]

NEVER = -1e30


def cheapest_counts(costs: list[list[int]], further: int) -> int:
    """Least sum of costs[e][c] over numbers c of further copies, `further` in all; exact."""
    best: list[int | None] = [0] + [None] * further
    for row in costs:
        reached: list[int | None] = [None] * (further + 1)
        for spent, before in enumerate(best):
            if before is None:
                continue
            for more, cost in enumerate(row[: further + 1 - spent]):
                total = before + cost
                held = reached[spent + more]
                reached[spent + more] = total if held is None else min(held, total)
        best = reached
    if best[further] is None:
        raise ValueError(
            f"{further} further copies, {len(costs)} experts have up to {len(costs[0]) - 1} each"
        )
    return best[further]  # type: ignore[return-value]


def chosen_counts(costs: NDArray[np.float64], further: int, *, heat: float) -> NDArray[np.float64]:
    """float [experts, counts]: how often each count is chosen, in proportion to exp(- sum of costs / heat)."""
    worth = -costs / heat
    counts = range(min(costs.shape[1], further + 1))
    forward, backward = [_start(further)], [_start(further)]
    for row in worth:
        forward.append(_joined(forward[-1], row, counts))
    for row in worth[::-1]:
        backward.append(_joined(backward[-1], row, counts))
    shares = np.zeros_like(costs)
    for e, row in enumerate(worth):
        before, after = forward[e], backward[len(worth) - 1 - e]
        for c in counts:
            left = further - c  # others' copies, split before and after
            shares[e, c] = np.exp(
                row[c] + _summed(before[: left + 1] + after[left::-1]) - forward[-1][further]
            )
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def _start(further: int) -> NDArray[np.float64]:
    worth = np.full(further + 1, NEVER)
    worth[0] = 0.0
    return worth


def _joined(before: NDArray[np.float64], row: NDArray[np.float64], counts: range) -> NDArray[np.float64]:
    """Logarithms of sums over the count of one more expert."""
    terms = np.full((len(counts), len(before)), NEVER)
    for c in counts:
        terms[c, c:] = before[: len(before) - c] + row[c]
    return np.asarray(_summed(terms))


def _summed(terms: NDArray[np.float64]) -> Any:
    """Logarithm of the sum of exponentials, along the first axis."""
    top = terms.max(axis=0)
    return top + np.log(np.exp(terms - top).sum(axis=0))
