"""The contents checker's own tables and search: every placement with copies on at most four GPUs, cheapest first cut.

Sets of experts are bit masks. inside[M] is the weight of the expert sets within M; touch(M) = W - inside[not M] that of
the sets with an expert of M. A token touches every GPU that alone holds one of its experts, so a placement whose GPU
g alone holds P_g costs at least sum_g touch(P_g) - W, and a further copy spares the touches of one expert only.
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

NEVER = 1 << 61


@njit(cache=True)  # type: ignore[untyped-decorator]
def shared_touch(
    touch: NDArray[np.int64],
    fewer: NDArray[np.int64],
    load: NDArray[np.int64],
    size: NDArray[np.int64],
    slots: int,
    cap: int,
) -> Any:
    """int64 [2^E]: least total touch of a mask shared among some GPUs, given `fewer`, that among one GPU less.

    No share has more than `slots` experts or load beyond `cap`; NEVER where that cannot be.
    """
    least = np.full(len(touch), NEVER, np.int64)
    least[0] = 0
    for mask in range(1, len(touch)):
        low = mask & -mask
        rest = mask ^ low
        part = rest
        while True:
            own = part | low
            if size[own] <= slots and load[own] <= cap:
                least[mask] = min(least[mask], touch[own] + fewer[mask ^ own])
            if part == 0:
                break
            part = (part - 1) & rest
    return np.minimum(least, NEVER)


@njit(cache=True)  # type: ignore[untyped-decorator]
def _at_least(
    alone: NDArray[np.int64],
    held: NDArray[np.int64],
    chosen: int,
    uncovered: int,
    spare: int,
    touch: NDArray[np.int64],
    shared: NDArray[np.int64],
    size: NDArray[np.int64],
    limit: int,
    spread: NDArray[np.int64],
) -> Any:
    """Whether every completion costs at least `limit`, which is counted with W added.

    `touch` and `shared` have a row for each number of experts left out. The spare copies go to experts that a chosen
    GPU holds alone, or to uncovered ones that both open GPUs then hold, in the best proportion: spread[j] for j copies.
    A set that touches neither of two GPUs alone still pays when it has an expert that only these two hold.
    """
    most = min(spare, len(touch) - 1)
    least = touch[0, uncovered] + shared[most, uncovered]
    for gpu in range(chosen):
        least += touch[most, alone[gpu]]
    if least >= limit:
        return True
    for spent in range(most + 1):
        spread[spent] = touch[0, uncovered] + shared[spent, uncovered]
    for gpu in range(chosen):
        for spent in range(most, -1, -1):
            best = spread[spent] + touch[0, alone[gpu]]
            for here in range(1, spent + 1):
                best = min(best, spread[spent - here] + touch[here, alone[gpu]])
            spread[spent] = best
    if spread[most] >= limit:
        return True
    for first in range(chosen):
        for second in range(first + 1, chosen):
            both = held[first] & held[second]
            for other in range(chosen):
                if other not in (first, second):
                    both &= ~held[other]
            if both == 0:
                continue
            apart = alone[first] | alone[second]
            kept, cheapest = both, NEVER
            while True:  # the experts of `both` that get no further copy
                spent = size[both ^ kept]
                if spent <= most:
                    cheapest = min(cheapest, spread[most - spent] + touch[0, apart | kept])
                if kept == 0:
                    break
                kept = (kept - 1) & both
            if cheapest - touch[0, apart] >= limit:
                return True
    return False


@njit(cache=True)  # type: ignore[untyped-decorator]
def _overloaded(
    held: NDArray[np.int64], chosen: int, gpus: int, spare: int, load: NDArray[np.int64], cap: int
) -> bool:
    """Whether no completion can be balanced: Hall's condition, exact when all GPUs are chosen and no copy is spare.

    Experts are in order of descending load, so that the heaviest of a mask are its lowest bits.
    """
    for group in range(1, 1 << chosen):
        inner, outer, members = 0, 0, 0
        for gpu in range(chosen):
            if group >> gpu & 1:
                inner |= held[gpu]
                members += 1
            else:
                outer |= held[gpu]
        if load[inner] < load[-1] - (gpus - members) * cap:
            return True
        captive = inner & ~outer
        for _ in range(spare):
            captive &= captive - 1
        if load[captive] > members * cap:
            return True
    return False


@njit(cache=True)  # type: ignore[untyped-decorator]
def cover_cost(held: NDArray[np.int64], inside: NDArray[np.int64]) -> int:
    """Weight of further GPUs touched: the sets outside of every union of j contents, summed over j.

    Inclusion and exclusion: a set within several unions is within what these have in common.
    """
    gpus = len(held)
    unions = np.empty(8, np.int64)  # C(4, 2) at most
    common = np.empty(64, np.int64)
    cost = 0
    for picked in range(1, gpus):
        count = 0
        for group in range(1, 1 << gpus):
            members, union = 0, 0
            for gpu in range(gpus):
                if group >> gpu & 1:
                    members += 1
                    union |= held[gpu]
            if members == picked:
                unions[count] = union
                count += 1
        cost += inside[-1]
        common[0] = len(inside) - 1
        for choice in range(1, 1 << count):
            index, sign, rest = 0, -1, choice & (choice - 1)
            while not choice >> index & 1:
                index += 1
            common[choice] = common[rest] & unions[index]
            while rest:
                rest &= rest - 1
                sign = -sign
            cost += sign * inside[common[choice]]
    return cost


@njit(cache=True)  # type: ignore[untyped-decorator]
def _up_to_highest(mask: int) -> Any:
    """All bits up to the highest one of the mask."""
    for shift in (1, 2, 4, 8, 16):
        mask |= mask >> shift
    return mask


@njit(cache=True)  # type: ignore[untyped-decorator]
def _following(chosen: int, among: int, deeper: bool) -> Any:
    """The part of `among` after `chosen` in preorder, where parts grow by higher bits; -1 after the last one.

    Parts that grow out of `chosen` are left out unless `deeper`.
    """
    if deeper:
        above = among & ~_up_to_highest(chosen)
        if above:
            return chosen | above & -above
    while chosen:
        below = _up_to_highest(chosen)
        chosen &= below >> 1
        above = among & ~below
        if above:
            return chosen | above & -above
    return -1


@njit(cache=True)  # type: ignore[untyped-decorator]
def cheap_placements(
    slots: int,
    copies: int,
    inside: NDArray[np.int64],
    touch: NDArray[np.int64],
    shared: NDArray[np.int64],
    load: NDArray[np.int64],
    size: NDArray[np.int64],
    cap: int,
    limit: int,
    found: NDArray[np.int64],
    most: int,
) -> Any:
    """(count, steps): placements that cost less than `limit` and can be balanced, written to the rows of `found`.

    `found` int64 [room, gpus]; the search ends where it is full, and after `most` steps. `touch` int64 [spared, 2^E],
    `shared` int64 [open GPUs, spared, 2^E], `load` and `size` int64 [2^E]; experts by descending load.

    GPU after GPU takes the lowest expert that is still uncovered (its branch), a part of the other uncovered ones,
    and copies of covered ones. Of the contents that hold a branch, the least mask is chosen there: no multiset of
    contents is met twice. Once all experts are covered, contents ascend.
    """
    gpus, experts = found.shape[1], size[-1]
    ceiling = limit + inside[-1]
    held = np.zeros(gpus, np.int64)
    uncovered, spare = np.zeros(gpus + 1, np.int64), np.zeros(gpus + 1, np.int64)
    uncovered[0], spare[0] = len(inside) - 1, copies - experts
    alone = np.zeros((gpus + 1, gpus), np.int64)
    branch, part, rest = np.zeros(gpus, np.int64), np.zeros(gpus, np.int64), np.zeros(gpus, np.int64)
    extra, fewest, largest = np.full(gpus, -1, np.int64), np.zeros(gpus, np.int64), np.zeros(gpus, np.int64)
    spread = np.zeros(len(touch), np.int64)
    branch[0] = 1
    rest[0] = uncovered[0] ^ 1
    level, steps, count = 0, 0, 0
    while level >= 0 and steps < most and count < len(found):
        steps += 1
        later = gpus - 1 - level
        if extra[level] < 0:  # the next part of the uncovered experts
            if rest[level] < 0:
                level -= 1
                continue
            own = rest[level] | branch[level]
            rest[level] = (rest[level] - 1) & (uncovered[level] ^ branch[level]) if rest[level] > 0 else -1
            left = uncovered[level] ^ own
            least = max(0, size[left] + spare[level] - later * slots)
            largest[level] = min(spare[level], slots - size[own])
            if least > largest[level] or size[left] > later * slots:
                continue
            alone[level, level] = held[level] = own
            if _at_least(
                alone[level], held, level + 1, left, spare[level], touch, shared[later], size, ceiling, spread
            ):
                continue
            part[level], extra[level], fewest[level] = own, 0, least
        copied = extra[level]
        after, spent = level + 1, size[copied]
        for before in range(level):
            alone[after, before] = alone[level, before] & ~copied
        alone[after, level] = part[level]
        uncovered[after] = uncovered[level] ^ part[level]
        spare[after] = spare[level] - spent
        held[level] = part[level] | copied
        pruned = copied != 0 and _at_least(
            alone[after],
            held,
            after,
            uncovered[after],
            spare[after],
            touch,
            shared[later],
            size,
            ceiling,
            spread,
        )
        covered = len(inside) - 1 ^ uncovered[level]
        extra[level] = _following(copied, covered, not pruned and spent < largest[level])
        for before in range(level):
            if held[level] < held[before] and (branch[before] == 0 or held[level] & branch[before]):
                pruned = True
        if pruned or spent < fewest[level]:
            continue
        if later == 0 and cover_cost(held, inside) >= limit:
            continue
        if cap < load[-1] and _overloaded(held, after, gpus, spare[after], load, cap):
            continue
        if later == 0:
            found[count] = held
            count += 1
            continue
        level = after
        branch[level] = uncovered[level] & -uncovered[level]
        rest[level] = uncovered[level] ^ branch[level]
        extra[level] = -1
    return count, steps
