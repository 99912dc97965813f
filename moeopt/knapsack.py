"""A multiple-choice knapsack with small whole budgets, by dynamic programming."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["split_budget"]


def split_budget(values: Sequence[Sequence[int]], total: int) -> tuple[list[int], int]:
    """(choice of each row, sum): the least sum of values[row][choice] with choices that sum to `total` at most."""
    best: dict[int, tuple[int, list[int]]] = {0: (0, [])}
    for row in values:
        reached: dict[int, tuple[int, list[int]]] = {}
        for spent, (value, choices) in best.items():
            for choice, more in enumerate(row[: total - spent + 1]):
                at = spent + choice
                if at not in reached or value + more < reached[at][0]:
                    reached[at] = value + more, [*choices, choice]
        best = reached
    spent = min(best, key=lambda at: (best[at][0], at))
    return best[spent][1], best[spent][0]
