"""The priced checker's own listing: every block of a GPU whose reduced cost is small, without listing the others.

A block grows from nothing. Of the experts already in it, alone[e] is the cost that expert e would add: the weight of
the sets that hold e and touch none of them (fan-out), or minus its co-activation with them (cut). together[e, f] is
the weight of the sets that hold both e and f and touch none of them (fan-out), or the co-activation (cut). Adding the
experts C costs

    sum over e in C of (scale alone[e] - price[e]) - scale overlap(C),

where a set with n >= 2 members in C overlaps n - 1 times its weight (fan-out), n (n - 1) / 2 times (cut). Each of its
n members answers for an equal part of that: `_share` bounds what one expert answers for.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

COMPLETE, NEGATIVE, MANY, LONG = 0, 1, 2, 3  # how a listing ends


class Priced(NamedTuple):
    """Traffic of a layer and prices, as the kernels read them.

    | field | holds |
    |---|---|
    | fan_out | the cost is the fan-out; else the cut |
    | scale | of the costs, unit of a further GPU included |
    | group | price of a GPU |
    | price, load | int64 [E] |
    | alone, together | int64 [E], [E, E]: those of the empty block |
    | members, weights | int32 [sets, k], int64 [sets] |
    | start, holding | the sets that hold expert e are holding[start[e]:start[e + 1]] |
    """

    fan_out: bool
    scale: int
    group: int
    price: NDArray[np.int64]
    load: NDArray[np.int64]
    alone: NDArray[np.int64]
    together: NDArray[np.int64]
    members: NDArray[np.int32]
    weights: NDArray[np.int64]
    start: NDArray[np.int64]
    holding: NDArray[np.int64]


@njit(cache=True)  # type: ignore[untyped-decorator]
def near_blocks(priced: Priced, size: int, threshold: int, largest: int, most: int, patience: int) -> Any:
    """(blocks int16 [n, size], reduced int64 [n], end): blocks of `size` experts with a load of at most `largest` and
    a reduced cost of at most `threshold`.

    `end` is COMPLETE, or says why the listing stopped: NEGATIVE, the last block has a negative reduced cost; MANY,
    there are more than `most` blocks; LONG, `patience` steps are spent. A step looks at one option of a block.
    """
    price, load, scale, experts = priced.price, priced.load, priced.scale, len(priced.price)
    width = priced.members.shape[1]
    blocks, reduced, count = np.empty((1024, size), np.int16), np.empty(1024, np.int64), 0
    depth = max(size - 2, 0)  # experts chosen one by one; the last two come as pairs
    chosen = np.full(depth + 2, -1, np.int64)
    value, loaded = np.zeros(depth + 1, np.int64), np.zeros(depth + 1, np.int64)
    alone, together = np.empty((depth + 1, experts), np.int64), priced.together.copy()
    shared = np.zeros((depth + 1, experts), np.int64)
    options, number = np.empty((depth + 1, experts), np.int64), np.zeros(depth + 1, np.int64)
    place = np.zeros(depth + 1, np.int64)
    touched = np.full(len(priced.members), -1, np.int16)  # the level whose expert first touches the set
    is_option = np.zeros((depth + 1, experts), np.bool_)  # in the tally of the level
    low, small = np.empty(experts, np.int64), np.empty(experts, np.int64)
    value[0], alone[0], number[0] = -priced.group, priced.alone, experts
    options[0] = np.argsort(-price)  # the dear share most: the rest is easier without them
    level, steps, fresh = 0, 0, True
    while level >= 0:
        more = size - level
        room = threshold - value[level], largest - loaded[level]
        if fresh:
            fresh, place[level] = False, 0
            steps += number[level] * number[level]
            if more > 2:
                number[level] = _tightened(
                    priced, options[level], number[level], alone[level], together, shared[level], more, room
                )
            for i in range(number[level] if more <= 2 else 0):
                e = options[level, i]
                chosen[level] = e
                for j in range(i + 1, number[level] if more == 2 else i + 2):
                    own, weight = scale * alone[level, e] - price[e], load[e]
                    if more == 2:
                        f = options[level, j]
                        chosen[level + 1] = f
                        own += scale * (alone[level, f] - together[e, f]) - price[f]
                        weight += load[f]
                    if own > room[0] or weight > room[1]:
                        continue
                    if count == most:
                        return blocks[:count], reduced[:count], MANY
                    if count == len(blocks):
                        blocks = np.concatenate((blocks, np.empty_like(blocks)))
                        reduced = np.concatenate((reduced, np.empty_like(reduced)))
                    blocks[count], reduced[count] = np.sort(chosen[:size]), value[level] + own
                    count += 1
                    if reduced[count - 1] < 0:
                        return blocks[:count], reduced[:count], NEGATIVE
        if steps > patience:
            return blocks[:count], reduced[:count], LONG
        if more <= 2 or place[level] + more > number[level]:
            level -= 1
            if level >= 0 and priced.fan_out:
                _tally(priced, together, touched, is_option[level], chosen[level], level, 1)
            continue
        e, after = options[level, place[level]], level + 1
        place[level] += 1
        value[after] = value[level] + scale * alone[level, e] - price[e]
        loaded[after] = loaded[level] + load[e]
        room = threshold - value[after], largest - loaded[after]
        found = 0
        for f in options[level, place[level] : number[level]]:
            options[after, found] = f
            alone[after, f] = alone[level, f] - together[e, f]
            part = _share(priced.fan_out, scale, alone[after, f], shared[level, f], min(more - 2, width - 1))
            low[found], small[found] = scale * alone[after, f] - price[f] - part, load[f]
            found += 1
        steps += found
        found = _fitting(options[after], found, low, small, more - 1, room)
        steps += found * found
        if more == 3:
            if not _some_pair(priced, options[after, :found], alone[after], together, room[0]):
                continue
        else:  # first by what is known without looking at a set
            found = _tightened(
                priced, options[after], found, alone[after], together, shared[after], more - 1, room
            )
            if found == 0:
                continue
        chosen[level], number[after] = e, found
        if priced.fan_out:
            is_option[level] = False
            is_option[level][options[after, :found]] = True
            _tally(priced, together, touched, is_option[level], e, level, -1)
            steps += priced.start[e + 1] - priced.start[e]
        level, fresh = after, True
    return blocks[:count], reduced[:count], COMPLETE


@njit(cache=True)  # type: ignore[untyped-decorator]
def _share(fan_out: bool, scale: int, alone: int, together: int, others: int) -> int:
    """The most overlap, scaled and rounded up, that an expert answers for, next to at most `others` further ones.

    The sets that hold it weigh `alone`, and with the others that they hold, counted each, at most `together`. Cut: half
    of that. Fan-out: a set with y others in the block overlaps y times and the expert answers for y / (1 + y), concave
    in y; drawn linear between whole y it bounds the mean over sets, and the piece from t - 1 to t lies on the line
    (t - 1) / (t + 1) + y / (t (t + 1)).
    """
    if not fan_out:
        return -(-scale * together // 2)
    together = min(together, others * alone)
    if together <= 0:
        return 0
    t = together // alone + 1
    numerator, denominator = t * (t - 1) * alone + together, t * (t + 1)
    return scale * (numerator // denominator) - (-scale * (numerator % denominator) // denominator)


@njit(cache=True)  # type: ignore[untyped-decorator]
def _least_of(values: NDArray[np.int64], number: int, count: int, least: NDArray[np.int64]) -> None:
    """The `count` smallest of the first `number` values, ascending; number >= count >= 1."""
    for i in range(number):
        value = values[i]
        j = min(i, count)
        if j == count:
            if value >= least[count - 1]:
                continue
            j -= 1
        while j > 0 and least[j - 1] > value:
            least[j] = least[j - 1]
            j -= 1
        least[j] = value


@njit(cache=True)  # type: ignore[untyped-decorator]
def _fitting(
    options: NDArray[np.int64],
    number: int,
    low: NDArray[np.int64],
    small: NDArray[np.int64],
    count: int,
    room: tuple[int, int],
) -> int:
    """How many options stay, moved to the front with their `low` and `small`.

    An option stays when `count` options, itself among them, have `low` of at most room[0] together, and when `count`
    have `small` of at most room[1]: each by the smallest others.
    """
    least = np.empty(count, np.int64)
    for values, limit in ((low, room[0]), (small, room[1])):
        if number < count:
            return 0
        _least_of(values, number, count, least)
        others = least[: count - 1].sum()
        kept = 0
        for i in range(number):
            if others + max(values[i], least[count - 1]) <= limit:
                options[kept], low[kept], small[kept] = options[i], low[i], small[i]
                kept += 1
        number = kept
    return number if number >= count else 0


@njit(cache=True)  # type: ignore[untyped-decorator]
def _tightened(
    priced: Priced,
    options: NDArray[np.int64],
    number: int,
    alone: NDArray[np.int64],
    together: NDArray[np.int64],
    shared: NDArray[np.int64],
    more: int,
    room: tuple[int, int],
) -> int:
    """How many options stay when `more` >= 2 are to be added: moved to the front, in their order.

    Fewer options share less, so this repeats until none leaves. `together` may be too large. `shared` is written for
    the options that stay: the most weight that one shares with `more` - 2 others, each counted. `room` is what
    reduced cost and load may still grow by.
    """
    low, small = np.empty(number, np.int64), np.empty(number, np.int64)
    partners, most = np.empty(number, np.int64), np.empty(more, np.int64)
    others = min(more - 1, priced.members.shape[1] - 1) if priced.fan_out else more - 1
    while number >= more:
        for i in range(number):
            e, count = options[i], 0
            for j in range(number):
                if j != i:
                    partners[count] = -together[e, options[j]]
                    count += 1
            _least_of(partners, count, more - 1, most)
            shared[e] = -most[: more - 2].sum()
            part = _share(priced.fan_out, priced.scale, alone[e], shared[e] - most[more - 2], others)
            low[i], small[i] = priced.scale * alone[e] - priced.price[e] - part, priced.load[e]
        before = number
        number = _fitting(options, number, low, small, more, room)
        if number == before:
            return number
    return 0


@njit(cache=True)  # type: ignore[untyped-decorator]
def _some_pair(
    priced: Priced,
    options: NDArray[np.int64],
    alone: NDArray[np.int64],
    together: NDArray[np.int64],
    room: int,
) -> bool:
    """Whether two options cost at most `room` together, by a `together` that may be too large."""
    for i in range(len(options)):
        e = options[i]
        left = room - priced.scale * alone[e] + priced.price[e]
        for f in options[:i]:
            if priced.scale * (alone[f] - together[e, f]) - priced.price[f] <= left:
                return True
    return False


@njit(cache=True)  # type: ignore[untyped-decorator]
def _tally(
    priced: Priced,
    together: NDArray[np.int64],
    touched: NDArray[np.int16],
    is_option: NDArray[np.bool_],
    expert: int,
    level: int,
    sign: int,
) -> None:
    """Take the sets that `expert` is the first to touch out of `together` (sign -1), for pairs of options; put them
    back (sign 1)."""
    inside = np.empty(priced.members.shape[1], np.int64)
    before, now = (-1, level) if sign < 0 else (level, -1)
    for s in priced.holding[priced.start[expert] : priced.start[expert + 1]]:
        if touched[s] != before:
            continue
        touched[s] = now
        count = 0
        for e in priced.members[s]:
            if is_option[e]:
                for f in inside[:count]:
                    together[e, f] += sign * priced.weights[s]
                    together[f, e] += sign * priced.weights[s]
                inside[count] = e
                count += 1
