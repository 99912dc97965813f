"""Compiled kernel: swap search on the exact fan-out, GPUs and nodes at once, with kicks out of local optima."""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from moeopt.workload import ExpertSets


def incidence(sets: ExpertSets) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """(starts [experts + 1], set indices): the sets of each expert, ascending."""
    flat = sets.members.ravel()
    order = np.argsort(flat, kind="stable")
    starts = np.searchsorted(flat[order], np.arange(sets.n_experts + 1))
    return starts.astype(np.int64), (order // sets.top_k).astype(np.int32)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def search_swaps(
    members: NDArray[np.int32],
    weights: NDArray[np.float64],
    starts: NDArray[np.int64],
    of_expert: NDArray[np.int32],
    load: NDArray[np.float64],
    cap: float,
    penalty: float,
    labels: NDArray[np.int32],
    prices: NDArray[np.float64],
    kicks: NDArray[np.int64],
    orders: NDArray[np.int64],
) -> Any:
    """Improve `labels` by swaps until none helps, then kick, improve and keep the better, once for each row of `kicks`.

    `labels` int32 [levels, seats]: GPU (level 0) and node of each seat's expert; seats beyond E are empty slots: a
    swap with one is a move. `prices` [levels]; `kicks` [rounds, 2 x swaps]: seats to exchange; `orders` [rounds,
    seats].
    A swap of e (on g) and f (on h) changes the cost of the sets with one of the two: arrive[e, h] - leave[e] +
    arrive[f, g] - leave[f], plus what sets with both were wrongly credited. Load above `cap` costs `penalty` each.
    Returns the best labels of level 0.
    """
    levels, seats = labels.shape
    experts = len(starts) - 1
    n_sets, k = members.shape
    width = labels.max() + 1
    count = np.zeros((levels, n_sets, width), np.uint8)
    arrive = np.zeros((levels, experts, width))
    leave = np.zeros((levels, experts))
    carried = np.zeros(width)
    for e in range(experts):
        carried[labels[0, e]] += load[e]
    for level in range(levels):
        for s in range(n_sets):
            for j in range(k):
                count[level, s, labels[level, members[s, j]]] += 1
        for e in range(experts):
            for i in range(starts[e], starts[e + 1]):
                s = of_expert[i]
                for g in range(width):
                    if count[level, s, g] == 0:
                        arrive[level, e, g] += weights[s]
                if count[level, s, labels[level, e]] == 1:
                    leave[level, e] += weights[s]
    value, best_value = 0.0, np.inf
    best = labels[0].copy()
    undo = np.empty((kicks.shape[0] + 64 * seats, 2), np.int64)
    for round_ in range(kicks.shape[0] + 1):
        done = 0
        if round_ > 0:
            for i in range(0, kicks.shape[1], 2):
                e, f = kicks[round_ - 1, i], kicks[round_ - 1, i + 1]
                if labels[0, e] != labels[0, f] and (e < experts or f < experts) and done < len(undo):
                    value += _delta(
                        e,
                        f,
                        experts,
                        labels,
                        prices,
                        arrive,
                        leave,
                        members,
                        weights,
                        starts,
                        of_expert,
                        count,
                    )
                    value += _overload(e, f, experts, labels, load, carried, cap) * penalty
                    _swap(
                        e,
                        f,
                        experts,
                        labels,
                        load,
                        carried,
                        members,
                        weights,
                        starts,
                        of_expert,
                        count,
                        arrive,
                        leave,
                    )
                    undo[done, 0], undo[done, 1] = e, f
                    done += 1
        improved = True
        while improved:
            improved = False
            for e in orders[round_ % len(orders)]:
                if e >= experts:
                    continue
                gain, partner = -1e-9 * (1 + abs(value)), -1
                for f in range(seats):
                    if labels[0, f] == labels[0, e]:
                        continue
                    rough = _overload(e, f, experts, labels, load, carried, cap) * penalty
                    for level in range(levels):
                        g, h = labels[level, e], labels[level, f]
                        if g == h:
                            continue
                        change = arrive[level, e, h] - leave[level, e]
                        if f < experts:
                            change += arrive[level, f, g] - leave[level, f]
                        rough += prices[level] * change
                    if rough < gain:
                        exact = _overload(e, f, experts, labels, load, carried, cap) * penalty
                        exact += _delta(
                            e,
                            f,
                            experts,
                            labels,
                            prices,
                            arrive,
                            leave,
                            members,
                            weights,
                            starts,
                            of_expert,
                            count,
                        )
                        if exact < gain:
                            gain, partner = exact, f
                if partner >= 0 and done < len(undo):
                    _swap(
                        e,
                        partner,
                        experts,
                        labels,
                        load,
                        carried,
                        members,
                        weights,
                        starts,
                        of_expert,
                        count,
                        arrive,
                        leave,
                    )
                    value += gain
                    undo[done, 0], undo[done, 1] = e, partner
                    done += 1
                    improved = True
        if value < best_value - 1e-9 * (1 + abs(value)) or round_ == 0:
            best_value = value
            best[:] = labels[0]
        elif value > best_value:
            for i in range(done - 1, -1, -1):
                _swap(
                    undo[i, 0],
                    undo[i, 1],
                    experts,
                    labels,
                    load,
                    carried,
                    members,
                    weights,
                    starts,
                    of_expert,
                    count,
                    arrive,
                    leave,
                )
            value = best_value
    return best


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _overload(
    e: int,
    f: int,
    experts: int,
    labels: NDArray[np.int32],
    load: NDArray[np.float64],
    carried: NDArray[np.float64],
    cap: float,
) -> float:
    """How much more load stands above the cap after the swap."""
    g, h = labels[0, e], labels[0, f]
    shift = (load[e] if e < experts else 0.0) - (load[f] if f < experts else 0.0)
    before = max(carried[g] - cap, 0.0) + max(carried[h] - cap, 0.0)
    after = max(carried[g] - shift - cap, 0.0) + max(carried[h] + shift - cap, 0.0)
    return float(after - before)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _delta(
    e: int,
    f: int,
    experts: int,
    labels: NDArray[np.int32],
    prices: NDArray[np.float64],
    arrive: NDArray[np.float64],
    leave: NDArray[np.float64],
    members: NDArray[np.int32],
    weights: NDArray[np.float64],
    starts: NDArray[np.int64],
    of_expert: NDArray[np.int32],
    count: NDArray[np.uint8],
) -> float:
    """Change of cost when seats e and f are exchanged."""
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
    experts: int,
    labels: NDArray[np.int32],
    load: NDArray[np.float64],
    carried: NDArray[np.float64],
    members: NDArray[np.int32],
    weights: NDArray[np.float64],
    starts: NDArray[np.int64],
    of_expert: NDArray[np.int32],
    count: NDArray[np.uint8],
    arrive: NDArray[np.float64],
    leave: NDArray[np.float64],
) -> None:
    """Exchange two seats and bring counts, arrive and leave up to date."""
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
