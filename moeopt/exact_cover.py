"""Compiled kernel: cheapest exact cover of the experts by blocks, within budgets; stops and goes on where it stood."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from moeopt.cover_kernel import DONE, FOUND, FULL, PAUSED, SUM, Goal, descend

__all__ = ["DONE", "FULL", "PAUSED", "Goal", "Search"]

ARENA_LIMIT = 200_000_000  # candidate entries, 4 bytes each


@dataclass(eq=False)
class Search:
    """Depth-first search over blocks within all budgets of reduced costs, cheapest of the first first.

    Each of J sets of prices gives a block a reduced cost, at least 0, and a cover a budget. A node covers the expert
    with the fewest candidates left. It is cut when the cheapest share of a block's reduced cost, added over the experts
    still open, exceeds a budget. A cover counts when its objective is below `ceiling`; it lowers the ceiling to
    its objective, and the budgets to those of the new ceiling if they are less.

    | field | holds |
    |---|---|
    | best | labels of the blocks of the cheapest cover found; empty when there is none |
    | budgets | int64 [J]: covers within all of them are looked at |
    | ceiling | only covers of a lower objective count |
    | nodes, looks | nodes visited so far, and candidates looked at in them: what time goes by |
    """

    members: NDArray[np.int16]
    cost: NDArray[np.int64]
    reduced: NDArray[np.int64]
    goal: Goal
    budgets: NDArray[np.int64]
    ceiling: int
    limits: Callable[[int], NDArray[np.int64]]
    empty: NDArray[np.int64]
    n_experts: int
    groups: int
    _masks: NDArray[np.uint64]
    _arena: NDArray[np.int32]
    _stack: NDArray[np.int64]
    _spent: NDArray[np.int64]
    _covered: NDArray[np.uint64]
    _chosen: NDArray[np.int64]
    _labels: NDArray[np.int64]
    best: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    nodes: int = 0
    looks: int = 0
    _depth: int = 0
    _entering: bool = True

    @classmethod
    def over(
        cls,
        members: NDArray[np.int16],
        reduced: NDArray[np.int64],
        *,
        cost: NDArray[np.int64],
        budgets: NDArray[np.int64],
        ceiling: int,
        limits: Callable[[int], NDArray[np.int64]],
        empty: NDArray[np.int64],
        n_experts: int,
        groups: int,
        labels: NDArray[np.int64],
        goal: Goal = SUM,
    ) -> Self:
        """A search that has not started. `members` [blocks, m] padded with -1; `reduced` int64 [blocks, J], at least 0.

        `cost` int64 [blocks, families]. `limits` gives the budgets of covers below an objective. `labels` int64
        [blocks] are the names that `best` uses; `empty` int64 [J] the reduced costs of a group left empty.
        """
        order = np.argsort(reduced[:, 0], kind="stable")
        members, reduced = np.ascontiguousarray(members[order]), np.ascontiguousarray(reduced[order])
        words = (n_experts + 63) // 64
        masks = np.zeros((len(members), words), np.uint64)
        for column in members.T:
            rows = np.flatnonzero(column >= 0)
            held = column[rows].astype(np.uint64)
            masks[rows, held // 64] |= np.uint64(1) << (held % np.uint64(64))
        arena = np.empty(min(len(members) * (groups + 1), ARENA_LIMIT) + 1, np.int32)
        arena[: len(members)] = np.arange(len(members))
        stack = np.zeros(
            (groups + 2, 4), np.int64
        )  # first and last candidate, branch expert, branch position
        stack[0, 1] = len(members)
        return cls(
            members=members,
            cost=np.ascontiguousarray(cost[order]),
            reduced=reduced,
            goal=goal,
            budgets=np.array(budgets, np.int64),
            ceiling=ceiling,
            limits=limits,
            empty=empty,
            n_experts=n_experts,
            groups=groups,
            _masks=masks,
            _arena=arena,
            _stack=stack,
            _spent=np.zeros((groups + 2, reduced.shape[1]), np.int64),
            _covered=np.zeros((groups + 2, words), np.uint64),
            _chosen=np.zeros(groups + 2, np.int64),
            _labels=labels[order],
        )

    def run(self, looks: int) -> int:
        """Go on for about so many looks: DONE when the search is complete, PAUSED, or FULL when memory is."""
        end = self.looks + looks
        while True:
            state, self._depth, self._entering, objective, visited, looked = descend(
                self.members,
                self.cost,
                self.reduced,
                self._masks,
                self._arena,
                self._stack,
                self._spent,
                self._covered,
                self._chosen,
                self._depth,
                self._entering,
                self.budgets,
                self.ceiling,
                self.goal,
                self.empty,
                self.n_experts,
                self.groups,
                end - self.looks,
            )
            self.nodes += visited
            self.looks += looked
            if state != FOUND:
                return int(state)
            self.ceiling = int(objective)
            self.best = self._labels[self._chosen[: self._depth]]
            self.budgets = np.minimum(self.budgets, self.limits(self.ceiling))
            self._depth -= 1
