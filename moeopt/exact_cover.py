"""Compiled kernel: cheapest exact cover of the experts by blocks, within a budget; stops and goes on where it stood."""

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numba import njit
from numpy.typing import NDArray

DONE, PAUSED, FULL = 0, 1, 2
ARENA_LIMIT = 200_000_000  # candidate entries, 4 bytes each
_NEVER = np.int64(1) << np.int64(62)


@dataclass(eq=False)
class Search:
    """Depth-first search over blocks of reduced cost at most `budget`, cheapest first.

    A node covers the expert with the fewest candidates left. It is cut when the cheapest share of a block's reduced
    cost, added over the experts still open, exceeds the budget left. A cover counts when it costs less than `ceiling`;
    it lowers the ceiling to its cost, and the budget to scale x ceiling + base if that is less.

    | field | holds |
    |---|---|
    | best | labels of the blocks of the cheapest cover found; empty when there is none |
    | budget | covers of total reduced cost up to this are looked at |
    | ceiling | only covers whose blocks cost less in sum count |
    | nodes, looks | nodes visited so far, and candidates looked at in them: what time goes by |
    """

    members: NDArray[np.int16]
    cost: NDArray[np.int64]
    reduced: NDArray[np.int64]
    budget: int
    ceiling: int
    scale: int
    base: int
    empty: int
    n_experts: int
    groups: int
    _masks: NDArray[np.uint64]
    _arena: NDArray[np.int32]
    _stack: NDArray[np.int64]
    _covered: NDArray[np.uint64]
    _chosen: NDArray[np.int64]
    _chosen_best: NDArray[np.int64]
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
        budget: int,
        ceiling: int,
        scale: int,
        base: int,
        empty: int,
        n_experts: int,
        groups: int,
        labels: NDArray[np.int64],
    ) -> Self:
        """A search that has not started. `members` [blocks, m] padded with -1; `reduced` int64 [blocks], at least 0.

        `labels` int64 [blocks] are the names that `best` uses; `empty` is the reduced cost of a group left empty.
        """
        order = np.argsort(reduced, kind="stable")
        members, reduced = np.ascontiguousarray(members[order]), reduced[order]
        words = (n_experts + 63) // 64
        masks = np.zeros((len(members), words), np.uint64)
        for column in members.T:
            rows = np.flatnonzero(column >= 0)
            held = column[rows].astype(np.uint64)
            masks[rows, held // 64] |= np.uint64(1) << (held % np.uint64(64))
        arena = np.empty(min(len(members) * (groups + 1), ARENA_LIMIT) + 1, np.int32)
        arena[: len(members)] = np.arange(len(members))
        # Per depth: first and last candidate, branch expert, branch position, reduced cost so far.
        stack = np.zeros((groups + 2, 5), np.int64)
        stack[0, 1] = len(members)
        return cls(
            members=members,
            cost=cost[order],
            reduced=reduced,
            budget=budget,
            ceiling=ceiling,
            scale=scale,
            base=base,
            empty=empty,
            n_experts=n_experts,
            groups=groups,
            _masks=masks,
            _arena=arena,
            _stack=stack,
            _covered=np.zeros((groups + 2, words), np.uint64),
            _chosen=np.zeros(groups + 2, np.int64),
            _chosen_best=np.full(groups, -1, np.int64),
            _labels=labels[order],
        )

    def run(self, looks: int) -> int:
        """Go on for about so many looks: DONE when the search is complete, PAUSED, or FULL when memory is."""
        ceiling = self.ceiling
        state, self._depth, self._entering, self.budget, self.ceiling, visited, looked = _descend(
            self.members,
            self.cost,
            self.reduced,
            self._masks,
            self._arena,
            self._stack,
            self._covered,
            self._chosen,
            self._chosen_best,
            self._depth,
            self._entering,
            self.budget,
            self.ceiling,
            self.scale,
            self.base,
            self.empty,
            self.n_experts,
            looks,
        )
        self.nodes += visited
        self.looks += looked
        if self.ceiling < ceiling:
            self.best = self._labels[self._chosen_best[self._chosen_best >= 0]]
        return int(state)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _descend(
    members: NDArray[np.int16],
    cost: NDArray[np.int64],
    reduced: NDArray[np.int64],
    masks: NDArray[np.uint64],
    arena: NDArray[np.int32],
    stack: NDArray[np.int64],
    covered: NDArray[np.uint64],
    chosen: NDArray[np.int64],
    best: NDArray[np.int64],
    depth: int,
    entering: bool,
    budget: int,
    ceiling: int,
    scale: int,
    base: int,
    empty: int,
    n_experts: int,
    limit: int,
) -> Any:
    m = members.shape[1]
    words = masks.shape[1]
    groups = len(best)
    candidates = np.zeros(n_experts, np.int64)
    share = np.zeros(n_experts, np.int64)
    one = np.uint64(1)
    visited = looks = 0
    while depth >= 0:
        if entering:
            if looks >= limit:
                return PAUSED, depth, entering, budget, ceiling, visited, looks
            visited += 1
            entering = False
            first, last = stack[depth, 0], stack[depth, 1]
            looks += 1 + last - first
            spent = stack[depth, 4]
            open_experts = 0
            for e in range(n_experts):
                candidates[e] = 0
                share[e] = _NEVER
                if not covered[depth, e // 64] >> np.uint64(e % 64) & one:
                    open_experts += 1
            if open_experts == 0:
                total = 0
                for d in range(depth):
                    total += cost[chosen[d]]
                if total < ceiling and spent + (groups - depth) * empty <= budget:
                    ceiling = total
                    budget = min(budget, scale * ceiling + base)
                    best[:] = -1
                    best[:depth] = chosen[:depth]
                depth -= 1
                continue
            if open_experts > (groups - depth) * m:
                depth -= 1
                continue
            for position in range(first, last):
                block = arena[position]
                size = 0
                for j in range(m):
                    size += members[block, j] >= 0
                part = reduced[block] // size
                for j in range(size):
                    e = members[block, j]
                    candidates[e] += 1
                    share[e] = min(share[e], part)
            least = spent
            branch = -1
            for e in range(n_experts):
                if covered[depth, e // 64] >> np.uint64(e % 64) & one:
                    continue
                if candidates[e] == 0:
                    branch = -1
                    break
                least += share[e]
                if branch < 0 or candidates[e] < candidates[branch]:
                    branch = e
            if branch < 0 or least > budget:
                depth -= 1
                continue
            keep = first
            for position in range(first, last):
                block = arena[position]
                through = least + reduced[block]
                for j in range(m):
                    if members[block, j] >= 0:
                        through -= share[members[block, j]]
                if through <= budget:
                    arena[keep] = block
                    keep += 1
            stack[depth, 1] = keep
            stack[depth, 2] = branch
            stack[depth, 3] = first
        branch = stack[depth, 2]
        word, bit = branch // 64, one << np.uint64(branch % 64)
        position, last = stack[depth, 3], stack[depth, 1]
        block = -1
        while position < last:
            trial = arena[position]
            position += 1
            if masks[trial, word] & bit and stack[depth, 4] + reduced[trial] <= budget:
                block = trial
                break
        stack[depth, 3] = position
        if block < 0 or depth == groups:
            depth -= 1
            continue
        spent = stack[depth, 4] + reduced[block]
        end = last
        looks += last - stack[depth, 0]
        for position in range(stack[depth, 0], last):
            trial = arena[position]
            if spent + reduced[trial] > budget:
                continue
            clash = False
            for w in range(words):
                clash = clash or (masks[trial, w] & masks[block, w]) != 0
            if not clash:
                if end >= len(arena):
                    return FULL, depth, entering, budget, ceiling, visited, looks
                arena[end] = trial
                end += 1
        chosen[depth] = block
        for w in range(words):
            covered[depth + 1, w] = covered[depth, w] | masks[block, w]
        depth += 1
        stack[depth, 0], stack[depth, 1], stack[depth, 4] = last, end, spent
        entering = True
    return DONE, depth, entering, budget, ceiling, visited, looks
