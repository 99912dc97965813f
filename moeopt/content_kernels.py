"""Compiled kernel: every way to fill a few GPUs with contents that may cost less than a ceiling."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from moeopt.content_bounds import can_balance, count_of, objective, too_dear
from moeopt.dispatch_prices import raised

__all__ = ["DONE", "FULL", "PAUSED", "descend"]

DONE, PAUSED, FULL = 0, 1, 2
MOST_SPARE = 4  # copies that the tables of the bounds know


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def lowest(mask: int) -> int:
    """The first expert of a mask that has one."""
    bit = 0
    while not mask >> bit & 1:
        bit += 1
    return bit


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _options(missing: int, held: int, spare: int, left: int) -> int:
    """How many contents `_constructed` looks at, given how many experts are missing and covered."""
    total, ways = 0, 1
    for more in range(spare + 1):
        if left or more == spare:
            total += ways
        ways = ways * (held - more) // (more + 1)
    return total << (missing - 1) if left and missing else total


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _constructed(
    found: NDArray[np.int32],
    missing: int,
    covered: int,
    own: int,
    spare: int,
    left: int,
    number: NDArray[np.int32],
    bits: NDArray[np.int64],
) -> int:
    """Contents of `own`, other missing experts (all of them on the last GPU) and `spare` covered ones at most, written
    to `found`; how many. `number` int32 [2^experts]: which content a mask is, -1 for none."""
    held = 0
    todo = covered
    while todo:
        bits[held] = todo & -todo
        held += 1
        todo &= todo - 1
    rest = missing & ~own
    part = rest
    count = 0
    while True:
        for more in range(0 if left else spare, spare + 1):
            ways = np.int64((1 << more) - 1)  # then the next number with as many bits: Gosper's hack
            while ways < np.int64(1) << held:
                mask = part | own
                for place in range(held):
                    if ways >> place & 1:
                        mask |= bits[place]
                if number[mask] >= 0:
                    found[count] = number[mask]
                    count += 1
                if more == 0:
                    break
                up = ways + (ways & -ways)
                ways = ((up ^ ways) // (ways & -ways) >> 2) | up
        if part == 0 or left == 0:
            return count
        part = (part - 1) & rest


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def descend(
    state: NDArray[np.int64],
    stack: NDArray[np.int64],
    best: NDArray[np.int64],
    leaves: NDArray[np.int64],
    experts: int,
    masks: NDArray[np.int64],
    reduced: NDArray[np.int64],
    reduced_scale: int,
    base: int,
    starts: NDArray[np.int64],
    order: NDArray[np.int32],
    number: NDArray[np.int32],
    arena: NDArray[np.int32],
    stored: NDArray[np.int64],
    inside: NDArray[np.int64],
    loads: NDArray[np.int64],
    touch: NDArray[np.int64],
    split: NDArray[np.int64],
    members: NDArray[np.int64],
    tokens: NDArray[np.int64],
    weights: NDArray[np.int64],
    copies: int,
    cap: int,
    scale: int,
    steps: int,
    highest: int,
    limit: int,
) -> int:
    """Go on for about `limit` contents looked at: DONE, PAUSED, or FULL when `leaves` is.

    `masks` [contents] by ascending reduced cost: reduced_scale x objective >= base + the sum of `reduced` over GPUs.
    `order[starts[l] : starts[l + 1]]` ascend: contents with expert l; for l = experts all of them; then those with
    experts a < b < c, for l = experts + 1 + (a experts + b) experts + c.

    state: depth, entering, ceiling, nodes, leaves, looks. stack [gpus, 8] of each depth: covered experts, copies so
    far, branch expert, content chosen, what is left of its list, whether that is in `arena` [gpus, contents], reduced
    cost so far.

    A node fills the next GPU: with a content of the heaviest open expert that does not come before another one chosen
    for the same expert. Without a cap (-1) a cheaper placement goes to `best` and lowers the ceiling. With one,
    placements whose covers cost less than the ceiling go to `leaves` [, 2 gpus + 2]: masks, prices, scale x the bound
    these show, objective of the covers.
    """
    groups = len(stack)
    full = (np.int64(1) << experts) - 1
    largest = np.int64(0)
    for mask in masks:
        largest = max(largest, count_of(mask))
    union = np.zeros(1 << groups, np.int64)
    held = np.zeros(groups, np.int64)
    price = np.zeros(groups, np.int64)
    bits = np.zeros(64, np.int64)
    parts, common, spread = np.zeros(6, np.int64), np.zeros(64, np.int64), np.zeros(len(touch), np.int64)
    looks = 0
    depth = state[0]
    for d in range(depth):
        held[d] = masks[stack[d, 3]]
        for others in range(1 << d):
            union[1 << d | others] = union[others] | held[d]
    while depth >= 0:
        if looks >= limit or state[4] == len(leaves):
            state[0] = depth
            state[5] += looks
            return FULL if state[4] == len(leaves) else PAUSED
        covered, short = stack[depth, 0], copies - stack[depth, 1]
        missing = full & ~covered
        if state[1]:
            state[1] = 0
            state[3] += 1
            e = lowest(missing) if missing else experts
            some = e
            if depth == groups - 1 and count_of(missing) > 2:  # the last GPU holds all of them
                rest = missing & (missing - 1)
                some = experts + 1 + (e * experts + lowest(rest)) * experts + lowest(rest & (rest - 1))
            stack[depth, 2], stack[depth, 4], stack[depth, 5] = e, starts[some], starts[some + 1]
            stack[depth, 6] = 0
            left, spare = groups - depth - 1, short - count_of(missing)
            options = _options(count_of(missing), count_of(covered), spare, left)
            if 2 * options < stack[depth, 5] - stack[depth, 4]:
                own = np.int64(1) << e if missing else np.int64(0)
                count = _constructed(arena[depth], missing, covered, own, spare, left, number, bits)
                stack[depth, 4], stack[depth, 5], stack[depth, 6] = 0, count, 1
                looks += options
        left = groups - depth - 1
        spare = short - count_of(missing)
        deeper = False
        while stack[depth, 4] < stack[depth, 5] and looks < limit:
            c = arena[depth, stack[depth, 4]] if stack[depth, 6] else order[stack[depth, 4]]
            stack[depth, 4] += 1
            looks += 1
            if stack[depth, 7] + reduced[c] > reduced_scale * (state[2] - 1) - base:
                if not stack[depth, 6]:
                    stack[depth, 4] = stack[depth, 5]
                continue
            mask = masks[c]
            size = count_of(mask)
            again = count_of(mask & covered)
            if (
                again > spare
                or count_of(missing) - size + again > left * largest
                or not (size <= short if left else size == short)
                or short - size > left * largest
            ):
                continue
            before = False
            for d in range(depth):
                before |= c < stack[d, 3] and (stack[d, 2] == experts or mask >> stack[d, 2] & 1 == 1)
            if before:
                continue
            held[depth] = mask
            for others in range(1 << depth):
                union[1 << depth | others] = union[others] | mask
            if left == 0:
                # A set that a GPU cannot be spared for touches it.
                value = (groups - 1) * inside[full]
                for g in range(groups):
                    value -= inside[union[(1 << groups) - 1 & ~(1 << g)]]
                if value >= state[2]:
                    continue
            if cap >= 0 and not can_balance(union, depth + 1, groups, spare - again, loads, cap):
                continue
            if left:
                looks += 4
                if too_dear(union, depth + 1, spare - again, state[2], touch, split[left - 1], spread):
                    continue
                stack[depth, 3] = c
                deeper = True
                break
            looks += 50
            value = objective(union, groups, inside, parts, common)
            if value >= state[2]:
                continue
            if cap < 0:
                state[2] = value
                best[:] = held
                continue
            stack[depth, 3] = c
            for g in range(groups):
                price[g] = stored[stack[g, 3]]
            shown = raised(held, price, members, tokens, weights, scale, cap, state[2], steps, highest)
            looks += 100 * len(tokens)
            at = state[4]
            for g in range(groups):
                stored[stack[g, 3]] = price[g]
                leaves[at, g], leaves[at, groups + g] = held[g], price[g]
            leaves[at, 2 * groups], leaves[at, 2 * groups + 1] = shown, value
            state[4] += 1
            if state[4] == len(leaves):
                break
        if deeper:
            mask = masks[stack[depth, 3]]
            depth += 1
            stack[depth, 0] = covered | mask
            stack[depth, 1] = copies - short + count_of(mask)
            stack[depth, 7] = stack[depth - 1, 7] + reduced[stack[depth - 1, 3]]
            state[1] = 1
        elif stack[depth, 4] == stack[depth, 5]:
            depth -= 1
    state[0] = depth
    state[5] += looks
    return DONE
