"""The families checker's own kernels: what a block costs each family, and the search over covers of the experts."""

from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from moeopt.expert_sets import ExpertSets

COMPLETE, FOUND, LONG = 0, 1, 2  # how a search ends
MOST = np.int64(1) << np.int64(62)


class Closing(NamedTuple):
    """Blocks, what may be spent on them, and the objective of those that cover the experts.

    | field | holds |
    |---|---|
    | blocks | int64 [n, m]: experts, padded with -1 at the end of a row |
    | reduced | int64 [n, budgets]: reduced costs, at least 0 and below 2^62 |
    | budgets | int64 [budgets]: the most that reduced costs may sum to, below 2^62 |
    | costs | int64 [n, families]: what a block costs each family |
    | offsets | int64 [families]: what a family pays beside its blocks |
    | units, masses | int64 [families]: of `moeopt.risk.Risk` |
    | total | of `moeopt.risk.Risk` |
    | experts, gpus | E, G |
    | bound | objectives below it are looked for |
    """

    blocks: NDArray[np.int64]
    reduced: NDArray[np.int64]
    budgets: NDArray[np.int64]
    costs: NDArray[np.int64]
    offsets: NDArray[np.int64]
    units: NDArray[np.int64]
    masses: NDArray[np.int64]
    total: int
    experts: int
    gpus: int
    bound: int


class Tokens(NamedTuple):
    """Tokens by expert set and family: an entry is one set in one family.

    | field | holds |
    |---|---|
    | family, amount | int64 [entries]: family and number of tokens |
    | start, holding | the entries with expert e are holding[start[e]:start[e + 1]] |
    """

    family: NDArray[np.int64]
    amount: NDArray[np.int64]
    start: NDArray[np.int64]
    holding: NDArray[np.int64]

    @classmethod
    def of(cls, sets: ExpertSets) -> "Tokens":
        """Those of one layer."""
        row, family = np.nonzero(sets.counts)
        experts = sets.members[row].ravel()
        return cls(
            family,
            sets.counts[row, family],
            np.append(0, np.cumsum(np.bincount(experts, minlength=sets.n_experts))),
            np.argsort(experts, kind="stable") // sets.top_k,
        )


def pairs_inside(blocks: NDArray[np.int16], together: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64 [n, families]: co-activation inside each block; `together` int64 [E, E, families]."""
    total = np.zeros((len(blocks), together.shape[2]), np.int64)
    for i, j in combinations(range(blocks.shape[1]), 2):
        total += together[blocks[:, i], blocks[:, j]]
    return total


@njit(cache=True)  # type: ignore[untyped-decorator]
def tokens_meeting(blocks: NDArray[np.int16], tokens: Tokens, families: int) -> Any:
    """int64 [n, families]: tokens that choose an expert of each block; rows in lexicographic order are fastest.

    The first expert counts its tokens, every further one those that none before it has: they are remembered from
    row to row as far as the rows agree.
    """
    size = blocks.shape[1]
    counted = np.full(len(tokens.amount), -1, np.int16)  # the place of the expert that counts the entry
    sums = np.zeros((size + 1, families), np.int64)
    total = np.empty((len(blocks), families), np.int64)
    for row in range(len(blocks)):
        same = 0
        if row > 0:
            while same < size - 1 and blocks[row, same] == blocks[row - 1, same]:
                same += 1
            for place in range(same, size - 1):
                e = blocks[row - 1, place]
                for entry in tokens.holding[tokens.start[e] : tokens.start[e + 1]]:
                    if counted[entry] == place:
                        counted[entry] = -1
        for place in range(same, size):
            e = blocks[row, place]
            sums[place + 1] = sums[place]
            for entry in tokens.holding[tokens.start[e] : tokens.start[e + 1]]:
                if counted[entry] < 0:
                    sums[place + 1, tokens.family[entry]] += tokens.amount[entry]
                    if place < size - 1:
                        counted[entry] = place
        total[row] = sums[size]
    return total


@njit(cache=True)  # type: ignore[untyped-decorator]
def cover_below(closing: Closing, patience: int) -> Any:
    """(end, nodes): FOUND when at most G disjoint blocks cover all experts at an objective below the bound.

    Covers that exceed a budget may be passed over. LONG: `patience` steps are spent; a step looks at one open block.
    Every node takes the open expert that the fewest blocks hold and tries each of them. The open blocks of a level,
    those disjoint from the blocks taken so far, lie in `stack` from `first` to `last` of the level.
    """
    blocks, reduced, experts = closing.blocks, closing.reduced, closing.experts
    count, slots = blocks.shape
    deepest = min(closing.gpus, experts)
    first, last = np.zeros(deepest + 1, np.int64), np.zeros(deepest + 1, np.int64)
    place, branch = np.zeros(deepest + 1, np.int64), np.zeros(deepest + 1, np.int64)
    chosen, missing = np.zeros(deepest + 1, np.int64), np.zeros(deepest + 1, np.int64)
    room = np.zeros((deepest + 1, len(closing.budgets)), np.int64)
    spent = np.zeros((deepest + 1, len(closing.offsets)), np.int64)
    covered, taken = np.zeros(experts, np.bool_), np.zeros(experts, np.bool_)
    stack = np.arange(max(2 * count, 1))
    last[0], missing[0], room[0], spent[0] = count, experts, closing.budgets, closing.offsets
    level, nodes, steps, fresh = 0, 0, 0, True
    while level >= 0:
        if fresh:
            fresh = False
            nodes += 1
            steps += last[level] - first[level]
            place[level] = first[level]
            if missing[level] == 0:
                if _worst(spent[level] * closing.units, closing.masses, closing.total) < closing.bound:
                    return FOUND, nodes
                last[level] = first[level]
            else:
                kept, branch[level] = _narrowed(
                    closing, stack[first[level] : last[level]], covered, room[level]
                )
                last[level] = first[level] + kept
        if steps > patience:
            return LONG, nodes
        while place[level] < last[level] and not _holds(blocks[stack[place[level]]], branch[level]):
            place[level] += 1
        if place[level] == last[level]:
            level -= 1
            if level >= 0:
                for e in blocks[chosen[level]]:
                    if e >= 0:
                        covered[e] = False
            continue
        block, after = stack[place[level]], level + 1
        place[level] += 1
        size = 0
        for e in blocks[block]:
            size += e >= 0
        missing[after] = missing[level] - size
        if missing[after] > (closing.gpus - after) * slots:
            continue
        room[after], spent[after] = room[level] - reduced[block], spent[level] + closing.costs[block]
        chosen[level], first[after] = block, last[level]
        for e in blocks[block]:
            if e >= 0:
                covered[e] = taken[e] = True
        end = last[level]
        if end + last[level] - first[level] > len(stack):
            stack = np.concatenate((stack, np.empty_like(stack)))
        steps += last[level] - first[level]
        for other in stack[first[level] : last[level]]:
            if not _meets(blocks[other], taken) and _fits(reduced[other], room[after]):
                stack[end] = other
                end += 1
        for e in blocks[block]:
            if e >= 0:
                taken[e] = False
        last[after] = end
        level, fresh = after, True
    return COMPLETE, nodes


@njit(cache=True)  # type: ignore[untyped-decorator]
def _narrowed(
    closing: Closing, opened: NDArray[np.int64], covered: NDArray[np.bool_], room: NDArray[np.int64]
) -> tuple[int, int]:
    """(how many open blocks stay, moved to the front; the open expert that the fewest hold): 0 without a cover.

    Each expert of a block bears an equal share of its reduced cost, rounded down. The open experts need at least the
    sum of their cheapest shares; a block leaves when what it adds to that does not fit a budget.
    """
    blocks, reduced, budgets = closing.blocks, closing.reduced, len(room)
    options = np.zeros(closing.experts, np.int64)
    cheapest = np.full((closing.experts, budgets), MOST)
    for block in opened:
        size = 0
        for e in blocks[block]:
            size += e >= 0
        for k in range(budgets):
            share = reduced[block, k] // size
            for e in blocks[block, :size]:
                if share < cheapest[e, k]:
                    cheapest[e, k] = share
        for e in blocks[block, :size]:
            options[e] += 1
    need = np.zeros(budgets, np.int64)
    for e in range(closing.experts):
        if not covered[e]:
            if options[e] == 0:
                return 0, -1
            for k in range(budgets):
                need[k] += cheapest[e, k]
                if need[k] > room[k]:  # at once: the sum of all shares might not fit 64 bits
                    return 0, -1
    kept = 0
    for block in opened:
        fits = True
        for k in range(budgets):
            rest = need[k] + reduced[block, k]
            for e in blocks[block]:
                if e >= 0:
                    rest -= cheapest[e, k]
            fits = fits and rest <= room[k]
        if fits:
            opened[kept] = block
            kept += 1
        else:
            for e in blocks[block]:
                if e >= 0:
                    options[e] -= 1
    branch = -1
    for e in range(closing.experts):
        if not covered[e] and (branch < 0 or options[e] < options[branch]):
            branch = e
    return kept if options[branch] > 0 else 0, branch


@njit(cache=True)  # type: ignore[untyped-decorator]
def _worst(costs: NDArray[np.int64], masses: NDArray[np.int64], total: int) -> int:
    """The objective, given the cost of each family: the dearest families first, each as often as its mass allows."""
    left, objective, done = total, 0, np.zeros(len(costs), np.bool_)
    for _ in range(len(costs)):
        dearest = -1
        for family in range(len(costs)):
            if not done[family] and (dearest < 0 or costs[family] > costs[dearest]):
                dearest = family
        done[dearest] = True
        objective += min(masses[dearest], left) * costs[dearest]
        left -= min(masses[dearest], left)
    return objective


@njit(cache=True)  # type: ignore[untyped-decorator]
def _holds(block: NDArray[np.int64], expert: int) -> bool:
    for e in block:  # noqa: SIM110
        if e == expert:
            return True
    return False


@njit(cache=True)  # type: ignore[untyped-decorator]
def _meets(block: NDArray[np.int64], taken: NDArray[np.bool_]) -> bool:
    for e in block:  # noqa: SIM110
        if e >= 0 and taken[e]:
            return True
    return False


@njit(cache=True)  # type: ignore[untyped-decorator]
def _fits(reduced: NDArray[np.int64], room: NDArray[np.int64]) -> bool:
    for k in range(len(room)):  # noqa: SIM110
        if reduced[k] > room[k]:
            return False
    return True
