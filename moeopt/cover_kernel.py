"""Compiled kernel of the exact-cover search: depth first, stopped and continued at will, objectives at its leaves."""

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

DONE, PAUSED, FULL, FOUND = range(4)
_NEVER = np.int64(1) << np.int64(62)


class Goal(NamedTuple):
    """The objective of a cover, given what it costs each family: as of `moeopt.risk.Risk`, or a plain sum.

    | field | holds |
    |---|---|
    | offsets, units, masses | int64 [families]: cost of a cover of no blocks; weight of one unit of cost; of the tail |
    | total | the objective is the largest sum of m x units x cost over 0 <= m <= masses of this sum |
    """

    offsets: NDArray[np.int64]
    units: NDArray[np.int64]
    masses: NDArray[np.int64]
    total: int


SUM = Goal(np.zeros(1, np.int64), np.ones(1, np.int64), np.ones(1, np.int64), 1)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _objective(
    cost: NDArray[np.int64], chosen: NDArray[np.int64], depth: int, goal: Goal, left: NDArray[np.int64]
) -> Any:
    """That of a cover; `left` int64 [families] is room to work in."""
    for f in range(cost.shape[1]):
        left[f] = goal.offsets[f]
        for d in range(depth):
            left[f] += cost[chosen[d], f]
        left[f] *= goal.units[f]
    rest, total = goal.total, np.int64(0)
    while rest > 0:  # the dearest families first
        dearest = -1
        for f in range(len(left)):
            if left[f] > -_NEVER and goal.masses[f] > 0 and (dearest < 0 or left[f] > left[dearest]):
                dearest = f
        if dearest < 0:
            break
        part = min(rest, goal.masses[dearest])
        total += part * left[dearest]
        rest -= part
        left[dearest] = -_NEVER
    return total


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def descend(
    members: NDArray[np.int16],
    cost: NDArray[np.int64],
    reduced: NDArray[np.int64],
    masks: NDArray[np.uint64],
    arena: NDArray[np.int32],
    stack: NDArray[np.int64],
    spent: NDArray[np.int64],
    covered: NDArray[np.uint64],
    chosen: NDArray[np.int64],
    depth: int,
    entering: bool,
    budgets: NDArray[np.int64],
    ceiling: int,
    goal: Goal,
    empty: NDArray[np.int64],
    n_experts: int,
    groups: int,
    limit: int,
) -> Any:
    """(state, depth, entering, objective of a cover found, nodes visited, candidates looked at) of `Search`."""
    m = members.shape[1]
    words = masks.shape[1]
    sets = reduced.shape[1]
    candidates = np.zeros(n_experts, np.int64)
    share = np.zeros((n_experts, sets), np.int64)
    least = np.zeros(sets, np.int64)
    families = np.zeros(cost.shape[1], np.int64)
    one = np.uint64(1)
    visited = looks = 0
    while depth >= 0:
        if entering:
            if looks >= limit:
                return PAUSED, depth, entering, 0, visited, looks
            visited += 1
            entering = False
            first, last = stack[depth, 0], stack[depth, 1]
            looks += 1 + last - first
            open_experts = 0
            for e in range(n_experts):
                candidates[e] = 0
                for j in range(sets):
                    share[e, j] = _NEVER
                if not covered[depth, e // 64] >> np.uint64(e % 64) & one:
                    open_experts += 1
            if open_experts == 0:
                counts = True
                for j in range(sets):
                    counts = counts and spent[depth, j] + (groups - depth) * empty[j] <= budgets[j]
                if counts:
                    objective = _objective(cost, chosen, depth, goal, families)
                    if objective < ceiling:
                        return FOUND, depth, entering, objective, visited, looks
                depth -= 1
                continue
            if open_experts > (groups - depth) * m:
                depth -= 1
                continue
            for position in range(first, last):
                block = arena[position]
                size = 0
                for i in range(m):
                    size += members[block, i] >= 0
                for j in range(sets):
                    part = reduced[block, j] // size
                    for i in range(size):
                        share[members[block, i], j] = min(share[members[block, i], j], part)
                for i in range(size):
                    candidates[members[block, i]] += 1
            for j in range(sets):
                least[j] = spent[depth, j]
            branch = -1
            for e in range(n_experts):
                if covered[depth, e // 64] >> np.uint64(e % 64) & one:
                    continue
                if candidates[e] == 0:
                    branch = -1
                    break
                for j in range(sets):
                    least[j] += share[e, j]
                if branch < 0 or candidates[e] < candidates[branch]:
                    branch = e
            beyond = branch < 0
            for j in range(sets):
                beyond = beyond or least[j] > budgets[j]
            if beyond:
                depth -= 1
                continue
            keep = first
            for position in range(first, last):
                block = arena[position]
                within = True
                for j in range(sets):
                    through = least[j] + reduced[block, j]
                    for i in range(m):
                        if members[block, i] >= 0:
                            through -= share[members[block, i], j]
                    within = within and through <= budgets[j]
                if within:
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
            if masks[trial, word] & bit and spent[depth, 0] + reduced[trial, 0] <= budgets[0]:
                block = trial
                break
        stack[depth, 3] = position
        if block < 0 or depth == groups:
            depth -= 1
            continue
        end = last
        looks += last - stack[depth, 0]
        for position in range(stack[depth, 0], last):
            trial = arena[position]
            clash = False
            for w in range(words):
                clash = clash or (masks[trial, w] & masks[block, w]) != 0
            for j in range(sets):
                clash = clash or spent[depth, j] + reduced[block, j] + reduced[trial, j] > budgets[j]
            if not clash:
                if end >= len(arena):
                    return FULL, depth, entering, 0, visited, looks
                arena[end] = trial
                end += 1
        chosen[depth] = block
        for w in range(words):
            covered[depth + 1, w] = covered[depth, w] | masks[block, w]
        for j in range(sets):
            spent[depth + 1, j] = spent[depth, j] + reduced[block, j]
        depth += 1
        stack[depth, 0], stack[depth, 1] = last, end
        entering = True
    return DONE, depth, entering, 0, visited, looks
