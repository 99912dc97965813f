"""The checker's own counting and searching, written apart from the prover's and by another way."""

from itertools import combinations
from math import comb
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

MOST = np.int64(1) << np.int64(62)


@njit(cache=True)  # type: ignore[untyped-decorator]
def discounts_of(
    blocks: NDArray[np.int16], triples: NDArray[np.int64], discounts: NDArray[np.int64], experts: int
) -> Any:
    """int64 [blocks]: by the pairs inside a block; a triple that lies inside whole counts at its first pair only."""
    start = np.zeros(experts * experts + 1, np.int64)
    for t in range(len(triples)):
        for a in range(3):
            for b in range(a + 1, 3):
                start[triples[t, a] * experts + triples[t, b] + 1] += 1
    start = np.cumsum(start)
    fill = start.copy()
    third = np.empty(3 * len(triples), np.int64)
    amount = np.empty(3 * len(triples), np.int64)
    for t in range(len(triples)):
        for a in range(3):
            for b in range(a + 1, 3):
                pair = triples[t, a] * experts + triples[t, b]
                third[fill[pair]] = triples[t, 3 - a - b]
                amount[fill[pair]] = discounts[t]
                fill[pair] += 1
    total = np.zeros(len(blocks), np.int64)
    for row in range(len(blocks)):
        block = blocks[row]
        for a in range(len(block)):
            for b in range(a + 1, len(block)):
                pair = block[a] * experts + block[b]
                for entry in range(start[pair], start[pair + 1]):
                    whole = False
                    for c in range(len(block)):
                        whole = whole or block[c] == third[entry]
                    if not whole or third[entry] > block[b]:
                        total[row] += amount[entry]
    return total


def inside_weight(blocks: NDArray[np.int16], affinity: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64 [blocks]: co-activation between members."""
    total = np.zeros(len(blocks), np.int64)
    for i, j in combinations(range(blocks.shape[1]), 2):
        total += affinity[blocks[:, i], blocks[:, j]]
    return total


def lexicographic(experts: int, size: int) -> NDArray[np.int16]:
    """int16 [C(E, size), size]: all subsets in lexicographic order."""
    return np.asarray(_list_subsets(experts, size, comb(experts, size)))


@njit(cache=True)  # type: ignore[untyped-decorator]
def _list_subsets(experts: int, size: int, count: int) -> Any:
    subsets = np.empty((count, size), np.int16)
    current = np.arange(size)
    for row in range(count):
        subsets[row] = current
        place = size - 1
        while place >= 0 and current[place] == experts - size + place:
            place -= 1
        if place >= 0:
            current[place] += 1
            for later in range(place + 1, size):
                current[later] = current[later - 1] + 1
    return subsets


@njit(cache=True)  # type: ignore[untyped-decorator]
def meeting_weight(
    experts: int, size: int, count: int, members: NDArray[np.int32], weights: NDArray[np.int64]
) -> Any:
    """int64 [count]: weight of the sets that meet each subset, in lexicographic order.

    All but the last two members are fixed in turn; the sets that avoid them are tallied by pair, and the last two add
    the sets with either one: tally[e, e] + tally[f, f] - tally[e, f].
    """
    costs = np.empty(count, np.int64)
    depth = max(size - 2, 0)
    avoiding = np.empty((depth + 1, len(members)), np.int64)
    number = np.zeros(depth + 1, np.int64)
    met = np.zeros(depth + 1, np.int64)
    avoiding[0] = np.arange(len(members))
    number[0] = len(members)
    prefix = np.full(depth + 1, -1, np.int64)
    tally = np.zeros((experts, experts), np.int64)
    row = 0
    level = 0
    while level >= 0:
        if level < depth:
            prefix[level] += 1
            e = prefix[level]
            if e > experts - size + level:
                level -= 1
                continue
            met[level + 1] = met[level]
            kept = 0
            for i in range(number[level]):
                s = avoiding[level, i]
                holds = False
                for j in range(members.shape[1]):
                    holds = holds or members[s, j] == e
                if holds:
                    met[level + 1] += weights[s]
                else:
                    avoiding[level + 1, kept] = s
                    kept += 1
            number[level + 1] = kept
            prefix[level + 1] = e
            level += 1
            continue
        first = prefix[depth - 1] + 1 if depth > 0 else 0
        tally[first:, first:] = 0
        for i in range(number[level]):
            s = avoiding[level, i]
            for a in range(members.shape[1] - 1, -1, -1):
                if members[s, a] < first:  # members ascend
                    break
                for b in range(a, members.shape[1]):
                    tally[members[s, a], members[s, b]] += weights[s]
        for e in range(first, experts):
            if size == 1:
                costs[row] = tally[e, e]
                row += 1
                continue
            for f in range(e + 1, experts):
                costs[row] = met[level] + tally[e, e] + tally[f, f] - tally[e, f]
                row += 1
        level -= 1
    return costs


def cheaper_cover(
    blocks: NDArray[np.int16],
    reduced: NDArray[np.int64],
    *,
    costs: NDArray[np.int64],
    limits: tuple[int, int, int],
    experts: int,
    gpus: int,
) -> bool:
    """Whether at most `gpus` disjoint blocks cover all experts within limits = (budget, empty, bound): total reduced
    cost, empty GPUs at `empty` each, at most `budget`, and total cost below `bound`."""
    budget, empty, bound = limits
    if not len(blocks):
        return False
    order = np.argsort(reduced, kind="stable")
    covered = np.zeros(experts, np.bool_)
    blocks, reduced, costs = blocks[order], reduced[order], costs[order]
    found = _extend(blocks, reduced, costs, np.arange(len(order)), covered, budget, empty, bound, gpus)
    return bool(found)


@njit(cache=True)  # type: ignore[untyped-decorator]
def _extend(
    blocks: NDArray[np.int64],
    reduced: NDArray[np.int64],
    costs: NDArray[np.int64],
    open_blocks: NDArray[np.int64],
    covered: NDArray[np.bool_],
    budget: int,
    empty: int,
    bound: int,
    gpus: int,
) -> bool:
    """Recursive: `open_blocks` are those disjoint from `covered`; budget, bound and gpus are what is left."""
    missing = (~covered).sum()
    if missing == 0:
        return gpus * empty <= budget and bound > 0
    if missing > gpus * blocks.shape[1]:
        return False
    options = np.zeros(len(covered), np.int64)
    cheapest = np.full(len(covered), MOST)
    for block in open_blocks:
        size = (blocks[block] >= 0).sum()
        for e in blocks[block, :size]:
            options[e] += 1
            cheapest[e] = min(cheapest[e], reduced[block] // size)
    least, branch = 0, -1
    for e in range(len(covered)):
        if not covered[e]:
            if options[e] == 0:
                return False
            least += cheapest[e]
            if branch < 0 or options[e] < options[branch]:
                branch = e
    if least > budget:
        return False
    useful = np.empty(len(open_blocks), np.int64)
    count = 0
    for block in open_blocks:
        rest = least + reduced[block]
        for e in blocks[block]:
            if e >= 0:
                rest -= cheapest[e]
        if rest <= budget:
            useful[count] = block
            count += 1
    useful = useful[:count]
    for block in useful:
        holds = False
        for e in blocks[block]:
            holds = holds or e == branch
        if not holds or reduced[block] > budget:
            continue
        taken = covered.copy()
        for e in blocks[block]:
            if e >= 0:
                taken[e] = True
        disjoint = np.empty(count, np.int64)
        left = 0
        for other in useful:
            clash = reduced[other] > budget - reduced[block]
            for e in blocks[other]:
                clash = clash or (e >= 0 and taken[e])
            if not clash:
                disjoint[left] = other
                left += 1
        rest = budget - reduced[block]
        if _extend(
            blocks, reduced, costs, disjoint[:left], taken, rest, empty, bound - costs[block], gpus - 1
        ):
            return True
    return False
