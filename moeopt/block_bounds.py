"""Compiled kernels: what completing a partial content of a GPU costs at least.

A partial content P has cost c(P) so far. Adding the experts C costs sum of alone(e) - ov(C), where alone(e) is the
weight of the sets of e that P does not meet yet, less the price of e, and ov(C) the weight of those sets x (members in
C - 1) where that is positive. Of a set with r members in C each of these members saves 1 - 1/r, and for every whole t
    1 - 1/r <= (t - 1) / (t + 1) + (r - 1) / (t (t + 1)).
Summed over the sets of e: with u their weight and Q the weight that e shares with its r - 1 best partners, e saves at
most (t - 1) / (t + 1) u + Q / (t (t + 1)); t = floor(Q / u) + 1 gives the least. So the own cost of e less that saving,
summed over the cheapest experts that may still enter, bounds every completion from below. An expert whose own cost
does not fit with the cheapest others leaves; the rest is bounded again, until none leaves.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def tightened(
    order: NDArray[np.int64],
    count: int,
    alone: NDArray[np.int64],
    pairs: NDArray[np.int64],
    shared: NDArray[np.int64],
    low: NDArray[np.int64],
    room: int,
    need: int,
    k: int,
    left: int,
) -> int:
    """How many of the experts order[:count] stay in front, when need..room of them enter for at most `left`.

    Fills shared[e]: what e shares with its best room - 2 partners among those that stay. `pairs` may be too large.
    """
    top = np.zeros(room, np.int64)
    while count >= need:
        for i in range(count):
            e = order[i]
            top[:] = 0
            for j in range(count):
                value = pairs[e, order[j]]
                if value <= top[room - 2] or j == i:
                    continue
                at = room - 2
                while at > 0 and top[at - 1] < value:
                    top[at] = top[at - 1]
                    at -= 1
                top[at] = value
            total = np.int64(0)
            for at in range(room - 2):
                total += top[at]
            shared[e] = total
            own = pairs[e, e] if k else np.int64(0)
            low[i] = alone[e] - saving(total + top[room - 2], own, room, k)
        before = count
        count = fitting(order, count, low, room, need, left)
        if before - count <= count // 4:  # another round costs more than it rules out
            return count
    return 0


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def saving(shared: int, own: int, room: int, k: int) -> int:
    """Rounded up; k = 0: pairs count by themselves, half for each end. `own` may be too small only with `shared`."""
    if k == 0:
        return (shared + 1) // 2
    limit = min(room, k)
    shared = min(shared, (limit - 1) * own)
    if shared <= 0:
        return 0
    t = shared // own + 1
    return -((-((t - 1) * t * own + shared)) // (t * (t + 1)))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def fitting(
    order: NDArray[np.int64], count: int, low: NDArray[np.int64], room: int, need: int, left: int
) -> int:
    """How many experts stay in front: those that with the cheapest need - 1 others, and more where that saves, fit."""
    if count < need:
        return 0
    near = np.empty(room, np.int64)
    kept = 0
    for i in range(count):
        value = low[i]
        if kept == room and value >= near[room - 1]:
            continue
        at = min(kept, room - 1)
        while at > 0 and near[at - 1] > value:
            near[at] = near[at - 1]
            at -= 1
        near[at] = value
        kept = min(kept + 1, room)
    least = others = np.int64(0)
    for i in range(kept):
        least += near[i] if i < need else min(near[i], 0)
        if i < room - 1:
            others += near[i] if i < need - 1 else min(near[i], 0)
    if least > left:
        return 0
    stay = 0
    for i in range(count):
        if low[i] <= near[kept - 1] or others + low[i] <= left:
            order[stay], low[stay] = order[i], low[i]
            stay += 1
    return stay


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def pair_fits(
    order: NDArray[np.int64], count: int, own: NDArray[np.int64], pairs: NDArray[np.int64], left: int
) -> bool:
    """Whether some two of the experts order[:count] enter for at most `left`; `pairs` may be too large."""
    for i in range(count):
        e = order[i]
        for j in range(i):
            if own[e] + own[order[j]] - pairs[e, order[j]] <= left:
                return True
    return False
