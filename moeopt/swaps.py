"""Compiled kernels: swaps of experts on the exact fan-out, GPUs and nodes at once, every count kept up to date."""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def exchange(
    pairs: NDArray[np.int64],
    labels: NDArray[np.int32],
    prices: NDArray[np.float64],
    load: NDArray[np.float64],
    cap: NDArray[np.float64],
    penalty: float,
    members: NDArray[np.int32],
    weights: NDArray[np.float64],
    starts: NDArray[np.int64],
    of_expert: NDArray[np.int32],
    count: NDArray[np.uint8],
    arrive: NDArray[np.float64],
    leave: NDArray[np.float64],
    carried: NDArray[np.float64],
) -> float:
    """Swap the seats of each pair [swaps, 2], in order; the change of cost. Tables as in `seating.Seating`."""
    change = 0.0
    for row in range(len(pairs)):
        e, f = pairs[row, 0], pairs[row, 1]
        if labels[0, e] != labels[0, f]:
            change += _delta(e, f, labels, prices, weights, starts, of_expert, count, arrive, leave)
            change += _overload(e, f, labels, load, carried, cap) * penalty
            _swap(e, f, labels, load, members, weights, starts, of_expert, count, arrive, leave, carried)
    return change


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def descend(
    order: NDArray[np.int64],
    labels: NDArray[np.int32],
    prices: NDArray[np.float64],
    load: NDArray[np.float64],
    cap: NDArray[np.float64],
    penalty: float,
    members: NDArray[np.int32],
    weights: NDArray[np.float64],
    starts: NDArray[np.int64],
    of_expert: NDArray[np.int32],
    count: NDArray[np.uint8],
    arrive: NDArray[np.float64],
    leave: NDArray[np.float64],
    carried: NDArray[np.float64],
) -> Any:
    """(change of cost, swaps int64 [swaps, 2]): the best swap of each seat of `order` while one helps."""
    experts, seats = len(load), labels.shape[1]
    least = 1e-9 * (1.0 + weights.sum())  # below it a gain is rounding
    made = np.empty((64 * seats, 2), np.int64)
    total, done, idle, turn = 0.0, 0, 0, 0
    while idle < len(order) and done < len(made):
        e = order[turn % len(order)]
        turn += 1
        idle += 1
        if e >= experts:
            continue
        gain, partner = -least, -1
        for f in range(seats):
            if labels[0, f] == labels[0, e]:
                continue
            # Without what sets with both take back, this is a lower bound; most swaps end here.
            rough = _overload(e, f, labels, load, carried, cap) * penalty
            for level in range(len(prices)):
                g, h = labels[level, e], labels[level, f]
                if g != h:
                    change = arrive[level, e, h] - leave[level, e]
                    if f < experts:
                        change += arrive[level, f, g] - leave[level, f]
                    rough += prices[level] * change
            if rough < gain:
                exact = _delta(e, f, labels, prices, weights, starts, of_expert, count, arrive, leave)
                exact += _overload(e, f, labels, load, carried, cap) * penalty
                if exact < gain:
                    gain, partner = exact, f
        if partner >= 0:
            _swap(
                e, partner, labels, load, members, weights, starts, of_expert, count, arrive, leave, carried
            )
            total += gain
            made[done, 0], made[done, 1] = e, partner
            done += 1
            idle = 0
    return total, made[:done].copy()


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _overload(
    e: int,
    f: int,
    labels: NDArray[np.int32],
    load: NDArray[np.float64],
    carried: NDArray[np.float64],
    cap: NDArray[np.float64],
) -> float:
    """How much more load stands above the caps [gpus] after the swap."""
    experts = len(load)
    g, h = labels[0, e], labels[0, f]
    shift = (load[e] if e < experts else 0.0) - (load[f] if f < experts else 0.0)
    before = max(carried[g] - cap[g], 0.0) + max(carried[h] - cap[h], 0.0)
    after = max(carried[g] - shift - cap[g], 0.0) + max(carried[h] + shift - cap[h], 0.0)
    return float(after - before)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _delta(
    e: int,
    f: int,
    labels: NDArray[np.int32],
    prices: NDArray[np.float64],
    weights: NDArray[np.float64],
    starts: NDArray[np.int64],
    of_expert: NDArray[np.int32],
    count: NDArray[np.uint8],
    arrive: NDArray[np.float64],
    leave: NDArray[np.float64],
) -> float:
    """Change of the fan-out when seats e and f are exchanged."""
    experts = len(starts) - 1
    change = 0.0
    for level in range(labels.shape[0]):
        g, h = labels[level, e], labels[level, f]
        if g == h:
            continue
        own = 0.0
        if e < experts:
            own += arrive[level, e, h] - leave[level, e]
        if f < experts:
            own += arrive[level, f, g] - leave[level, f]
        if e < experts and f < experts:
            # Sets with both keep both GPUs: take back the credit for leaving.
            i, j = starts[e], starts[f]
            while i < starts[e + 1] and j < starts[f + 1]:
                if of_expert[i] == of_expert[j]:
                    s = of_expert[i]
                    own += weights[s] * ((count[level, s, g] == 1) + (count[level, s, h] == 1))
                    i += 1
                    j += 1
                elif of_expert[i] < of_expert[j]:
                    i += 1
                else:
                    j += 1
        change += prices[level] * own
    return change


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _swap(
    e: int,
    f: int,
    labels: NDArray[np.int32],
    load: NDArray[np.float64],
    members: NDArray[np.int32],
    weights: NDArray[np.float64],
    starts: NDArray[np.int64],
    of_expert: NDArray[np.int32],
    count: NDArray[np.uint8],
    arrive: NDArray[np.float64],
    leave: NDArray[np.float64],
    carried: NDArray[np.float64],
) -> None:
    """Exchange two seats and bring counts, arrive and leave up to date."""
    experts = len(load)
    g, h = labels[0, e], labels[0, f]
    shift = (load[e] if e < experts else 0.0) - (load[f] if f < experts else 0.0)
    carried[g] -= shift
    carried[h] += shift
    for level in range(labels.shape[0]):
        a, b = labels[level, e], labels[level, f]
        if a == b:
            continue
        for which in range(2):
            mover, source, target = (e, a, b) if which == 0 else (f, b, a)
            labels[level, mover] = target
            if mover >= experts:
                continue
            # The mover's own terms are recounted from its sets once it has arrived.
            for i in range(starts[mover], starts[mover + 1]):
                s = of_expert[i]
                weight = weights[s]
                left, reached = count[level, s, source] - 1, count[level, s, target] + 1
                count[level, s, source], count[level, s, target] = left, reached
                for j in range(members.shape[1]):
                    x = members[s, j]
                    if left == 0:
                        arrive[level, x, source] += weight
                    if reached == 1:
                        arrive[level, x, target] -= weight
                    if x == mover:
                        leave[level, x] += weight * ((reached == 1) - (left == 0))
                    elif labels[level, x] == source:
                        leave[level, x] += weight * (left == 1)
                    elif labels[level, x] == target:
                        leave[level, x] -= weight * (reached == 2)
