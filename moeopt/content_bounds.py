"""Compiled kernels: what placements cost at least that begin with some contents, and what a full one costs.

GPUs hold bit masks of experts, the heaviest expert first; `inside` int64 [2^experts] is the weight of the sets within a
mask, `loads` the load of a mask, `union` int64 [2^gpus] what some of the GPUs hold together.
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from moeopt.dispatch_prices import NEVER

__all__ = ["can_balance", "count_of", "objective", "splits", "too_dear", "touches"]


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def count_of(mask: int) -> Any:
    """How many experts a mask has."""
    mask -= (mask >> 1) & 0x5555555555555555
    mask = (mask & 0x3333333333333333) + ((mask >> 2) & 0x3333333333333333)
    mask = (mask + (mask >> 4)) & 0x0F0F0F0F0F0F0F0F
    return (mask * 0x0101010101010101) >> 56


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def touches(inside: NDArray[np.int64], spare: int) -> Any:
    """int64 [spare + 1, 2^experts]: least weight of the sets with an expert of a mask, but for so many of these."""
    full = len(inside) - 1
    table = np.empty((spare + 1, full + 1), np.int64)
    for mask in range(full + 1):
        table[0, mask] = inside[full] - inside[full ^ mask]
    _with_fewer(table)
    return table


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def splits(
    touch: NDArray[np.int64], loads: NDArray[np.int64], gpus: int, largest: int, cap: int, spare: int
) -> Any:
    """int64 [gpus, spare + 1, 2^experts]: weight, at least, of further GPUs that sets touch when 1, 2, ... GPUs share
    the experts of a mask.

    Up to so many of these several may hold. No GPU gets more than `largest` experts, or more than `cap` load of experts
    that it alone holds (-1: any load); NEVER where that cannot be. `touch` int64 [2^experts]: as `touches` without any
    expert less.
    """
    size = len(touch)
    table = np.full((gpus, spare + 1, size), NEVER, np.int64)
    total = np.full((gpus, size), NEVER, np.int64)
    for mask in range(size):
        if count_of(mask) <= largest and (cap < 0 or loads[mask] <= cap):
            total[0, mask] = touch[mask]
    for more in range(1, gpus):
        total[more, 0] = 0
        for mask in range(1, size):
            lowest = mask & -mask
            rest = mask ^ lowest
            part = rest
            while count_of(mask) <= (more + 1) * largest:
                own = part | lowest
                if total[0, own] < NEVER:
                    total[more, mask] = min(total[more, mask], touch[own] + total[more - 1, mask ^ own])
                if part == 0:
                    break
                part = (part - 1) & rest
    for more in range(gpus):
        for mask in range(size):
            if total[more, mask] < NEVER:
                table[more, 0, mask] = total[more, mask] - touch[mask]
        _with_fewer(table[more])
    return table


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _with_fewer(table: NDArray[np.int64]) -> None:
    """Rows after the first: the least of the row before over masks with one expert less."""
    for row in range(1, len(table)):
        for mask in range(table.shape[1]):
            best = table[row - 1, mask]
            todo = mask
            while todo:
                best = min(best, table[row - 1, mask ^ (todo & -todo)])
                todo &= todo - 1
            table[row, mask] = best


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def too_dear(
    union: NDArray[np.int64],
    filled: int,
    spare: int,
    ceiling: int,
    touch: NDArray[np.int64],
    split: NDArray[np.int64],
    spread: NDArray[np.int64],
) -> bool:
    """Whether placements that begin with these GPUs, `spare` copies left, cost the ceiling at least.

    A set touches each GPU that alone holds one of its experts; another one for experts that none of these holds, and
    further ones where the GPUs left (`split` int64 [spare + 1, 2^experts]) part these. Copies spare touches of the
    experts copied: the best way to spend them is found by min-plus convolution in `spread`.
    """
    everything = (1 << filled) - 1
    full = touch.shape[1] - 1
    missing = full & ~union[everything]
    copies = min(spare, len(touch) - 1)
    if spare > copies:
        return False
    limit = ceiling + touch[0, full]
    least = touch[0, missing] + split[copies, missing]
    for g in range(filled):
        least += touch[copies, union[everything] & ~union[everything & ~(1 << g)]]
    if least >= limit:  # even if every GPU had all the copies
        return True
    for spent in range(copies + 1):
        spread[spent] = min(NEVER, touch[0, missing] + split[spent, missing])
    for g in range(filled):
        alone = union[everything] & ~union[everything & ~(1 << g)]
        for spent in range(copies, -1, -1):
            best = spread[spent] + touch[0, alone]
            for here in range(1, spent + 1):
                best = min(best, spread[spent - here] + touch[here, alone])
            spread[spent] = best
    if spread[copies] >= limit:
        return True
    # Sets that touch neither of two GPUs alone, and have an expert that no third one holds, touch one of them.
    for g in range(filled):
        for h in range(g):
            pair = 1 << g | 1 << h
            only = union[everything] & ~union[everything & ~pair]
            apart = only & ~(union[1 << g] & union[1 << h])
            both = only & ~apart
            kept = both
            least = NEVER
            while both:
                spent = count_of(both ^ kept)
                if spent <= copies:
                    least = min(least, spread[copies - spent] + touch[0, apart | kept] - touch[0, apart])
                if kept == 0:
                    break
                kept = (kept - 1) & both
            if both and least >= limit:
                return True
    return False


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def can_balance(
    union: NDArray[np.int64], filled: int, groups: int, spare: int, loads: NDArray[np.int64], cap: int
) -> bool:
    """Whether the first `filled` GPUs may be part of a placement that meets the cap (Hall's condition).

    They must be able to take what the others cannot, and experts that they alone hold must fit there, but for `spare`
    of them that get a copy elsewhere.
    """
    last = 1 << (filled - 1)
    for chosen in range(last, 2 * last):  # without the last GPU they were looked at before
        if loads[union[chosen]] < loads[-1] - (groups - count_of(chosen)) * cap:
            return False
    if filled == groups:
        return True  # the other condition says the same of the other GPUs
    everything = 2 * last - 1
    for chosen in range(1, 2 * last):
        alone = union[chosen] & ~union[everything & ~chosen]
        for _ in range(spare):
            alone &= alone - 1
        if loads[alone] > count_of(chosen) * cap:
            return False
    return True


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _within(
    parts: NDArray[np.int64], count: int, common: NDArray[np.int64], inside: NDArray[np.int64]
) -> Any:
    """Weight of the sets that lie within one of the first `count` masks, by inclusion and exclusion."""
    total = np.int64(0)
    common[0] = -1
    for chosen in range(1, 1 << count):
        lowest = 0
        while not chosen >> lowest & 1:
            lowest += 1
        mask = common[chosen & (chosen - 1)] & parts[lowest]
        common[chosen] = mask
        if mask:
            total += inside[mask] if count_of(chosen) & 1 else -inside[mask]
    return total


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def objective(
    union: NDArray[np.int64],
    groups: int,
    inside: NDArray[np.int64],
    parts: NDArray[np.int64],
    common: NDArray[np.int64],
) -> Any:
    """Objective of the cheapest cover of every set: it needs more than j GPUs where no j of them contain it."""
    total = np.int64(0)
    for size in range(1, groups):
        count = 0
        for chosen in range(1, 1 << groups):
            if count_of(chosen) == size:
                parts[count] = union[chosen]
                count += 1
        total += inside[-1] - _within(parts, count, common, inside)
    return total
