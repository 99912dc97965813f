"""Compiled kernels: swaps of experts on the exact fan-out, GPUs and nodes at once, every count kept up to date."""

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray


class Room(NamedTuple):
    """What no swap changes.

    | field | holds |
    |---|---|
    | prices | float [levels]: cost of a further GPU, of a further node |
    | load, cap, penalty | float [experts]; float [gpus]: load of a GPU above its cap costs `penalty` each |
    | members, weights | the sets: int [sets, k], ids ascending in a row; float [sets] |
    | starts, of_expert | int64 [experts + 1] and set indices: the sets of each expert, ascending |
    | pair_starts, of_pair | int64 [experts^2 + 1] and set indices: the sets with both e < f, at e * experts + f |
    """

    prices: NDArray[np.float64]
    load: NDArray[np.float64]
    cap: NDArray[np.float64]
    penalty: float
    members: NDArray[Any]
    weights: NDArray[np.float64]
    starts: NDArray[np.int64]
    of_expert: NDArray[np.int32]
    pair_starts: NDArray[np.int64]
    of_pair: NDArray[np.int32]


class Tally(NamedTuple):
    """What swaps keep up to date; a label is a GPU at level 0, a node at level 1.

    | field | holds |
    |---|---|
    | labels | int32 [levels, seats]: GPU and node of each seat; seats beyond the experts are empty slots |
    | held | uint8 [levels, sets, labels]: members of a set on a GPU or node |
    | arrive | float [levels, labels, experts]: weight of the expert's sets that would newly touch the label |
    | leave | float [levels, experts]: weight of the sets that would cease to touch the present label |
    | carried | float [gpus]: load |
    """

    labels: NDArray[np.int32]
    held: NDArray[np.uint8]
    arrive: NDArray[np.float64]
    leave: NDArray[np.float64]
    carried: NDArray[np.float64]


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def index(members: NDArray[Any], experts: int) -> Any:
    """`starts`, `of_expert`, `pair_starts` and `of_pair` of a `Room`, by counting."""
    sets, k = members.shape
    starts = np.zeros(experts + 1, np.int64)
    pair_starts = np.zeros(experts * experts + 1, np.int64)
    for s in range(sets):
        for i in range(k):
            e = int(members[s, i])
            starts[e + 1] += 1
            for j in range(i + 1, k):
                pair_starts[e * experts + members[s, j] + 1] += 1
    for expert in range(experts):
        starts[expert + 1] += starts[expert]
    for pair in range(experts * experts):
        pair_starts[pair + 1] += pair_starts[pair]
    of_expert, of_pair = np.empty(starts[-1], np.int32), np.empty(pair_starts[-1], np.int32)
    free, pair_free = starts.copy(), pair_starts.copy()
    for s in range(sets):
        for i in range(k):
            e = int(members[s, i])
            of_expert[free[e]] = s
            free[e] += 1
            for j in range(i + 1, k):
                pair = e * experts + members[s, j]
                of_pair[pair_free[pair]] = s
                pair_free[pair] += 1
    return starts, of_expert, pair_starts, of_pair


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def tallied(labels: NDArray[np.int32], width: int, room: Room) -> Any:
    """(cost, `held`, `arrive`, `leave`) of seats with `labels`, from scratch; cost: fan-out, load above its cap."""
    (sets, k), levels, experts = room.members.shape, len(labels), len(room.load)
    held = np.zeros((levels, sets, width), np.uint8)
    arrive = np.zeros((levels, width, experts))
    leave = np.zeros((levels, experts))
    cost = 0.0
    for level in range(levels):
        own = labels[level]
        total = np.zeros(experts)
        for s in range(sets):
            weight = room.weights[s]
            touched = 0
            for i in range(k):
                e = room.members[s, i]
                total[e] += weight
                touched += held[level, s, own[e]] == 0
                if held[level, s, own[e]] == 0:
                    for j in range(k):
                        arrive[level, own[e], room.members[s, j]] -= weight
                held[level, s, own[e]] += 1
            for i in range(k):
                e = room.members[s, i]
                if held[level, s, own[e]] == 1:
                    leave[level, e] += weight
            cost += room.prices[level] * weight * (touched - 1)
        arrive[level] += total
    carried = np.zeros(width)
    for e in range(experts):
        carried[labels[0, e]] += room.load[e]
    for gpu in range(width):
        cost += room.penalty * max(carried[gpu] - room.cap[gpu], 0.0)
    return cost, held, arrive, leave


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def exchange(pairs: NDArray[np.int64], room: Room, tally: Tally) -> float:
    """Swap the seats of each pair [swaps, 2], in order; the change of cost."""
    change = 0.0
    for row in range(len(pairs)):
        e, f = pairs[row, 0], pairs[row, 1]
        if tally.labels[0, e] != tally.labels[0, f]:
            change += _rough(e, f, room, tally) + _shared(e, f, room, tally)
            change += _overload(e, f, room, tally) * room.penalty
            _swap(e, f, room, tally)
    return change


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def descend(order: NDArray[np.int64], room: Room, tally: Tally) -> Any:
    """(change of cost, swaps int64 [swaps, 2]): the best swap of each seat of `order` while one helps."""
    experts, seats = len(room.load), tally.labels.shape[1]
    least = 1e-9 * (1.0 + room.weights.sum())  # below it a gain is rounding
    made = np.empty((64 * seats, 2), np.int64)
    total, done, idle, turn = 0.0, 0, 0, 0
    capped = np.isfinite(room.cap).any()
    while idle < len(order) and done < len(made):
        e = order[turn % len(order)]
        turn += 1
        idle += 1
        if e >= experts:
            continue
        gain, partner = -least, -1
        for f in range(seats):
            if tally.labels[0, f] == tally.labels[0, e]:
                continue
            # Without what sets with both take back, this is a lower bound; most swaps end here.
            change = _rough(e, f, room, tally)
            if capped:
                change += _overload(e, f, room, tally) * room.penalty
            if change < gain:
                change += _shared(e, f, room, tally)
                if change < gain:
                    gain, partner = change, f
        if partner >= 0:
            _swap(e, partner, room, tally)
            total += gain
            made[done, 0], made[done, 1] = e, partner
            done += 1
            idle = 0
    return total, made[:done].copy()


@njit(inline="always")  # type: ignore[untyped-decorator]
def _overload(e: int, f: int, room: Room, tally: Tally) -> float:
    """How much more load stands above the caps after the swap."""
    g, h = tally.labels[0, e], tally.labels[0, f]
    shift = _shift(e, f, room)
    before = max(tally.carried[g] - room.cap[g], 0.0) + max(tally.carried[h] - room.cap[h], 0.0)
    after = max(tally.carried[g] - shift - room.cap[g], 0.0)
    after += max(tally.carried[h] + shift - room.cap[h], 0.0)
    return float(after - before)


@njit(inline="always")  # type: ignore[untyped-decorator]
def _shift(e: int, f: int, room: Room) -> float:
    """Load that leaves the GPU of seat e when it is exchanged with seat f."""
    experts = len(room.load)
    return float((room.load[e] if e < experts else 0.0) - (room.load[f] if f < experts else 0.0))


@njit(inline="always")  # type: ignore[untyped-decorator]
def _rough(e: int, f: int, room: Room, tally: Tally) -> float:
    """Change of the fan-out when seats e and f are exchanged, were no set to hold both."""
    experts = len(room.load)
    change = 0.0
    for level in range(len(room.prices)):
        g, h = tally.labels[level, e], tally.labels[level, f]
        if g == h:
            continue
        own = 0.0
        if e < experts:
            own += tally.arrive[level, h, e] - tally.leave[level, e]
        if f < experts:
            own += tally.arrive[level, g, f] - tally.leave[level, f]
        change += room.prices[level] * own
    return change


@njit(inline="always")  # type: ignore[untyped-decorator]
def _shared(e: int, f: int, room: Room, tally: Tally) -> float:
    """What `_rough` leaves out: sets with both keep both labels, so the credit for leaving is taken back."""
    experts = len(room.load)
    change = 0.0
    if e < experts and f < experts:
        pair = min(e, f) * experts + max(e, f)
        for i in range(room.pair_starts[pair], room.pair_starts[pair + 1]):
            s = room.of_pair[i]
            for level in range(len(room.prices)):
                g, h = tally.labels[level, e], tally.labels[level, f]
                if g != h:
                    alone = (tally.held[level, s, g] == 1) + (tally.held[level, s, h] == 1)
                    change += room.prices[level] * room.weights[s] * alone
    return change


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _swap(e: int, f: int, room: Room, tally: Tally) -> None:
    """Exchange two seats and bring counts, arrive and leave up to date."""
    experts, k = len(room.load), room.members.shape[1]
    shift = _shift(e, f, room)
    tally.carried[tally.labels[0, e]] -= shift
    tally.carried[tally.labels[0, f]] += shift
    for level in range(len(tally.labels)):
        labels, held, leave = tally.labels[level], tally.held[level], tally.leave[level]
        a, b = labels[e], labels[f]
        if a == b:
            continue
        for which in range(2):
            mover, source, target = (e, a, b) if which == 0 else (f, b, a)
            labels[mover] = target
            if mover >= experts:
                continue
            departed, reached = tally.arrive[level, source], tally.arrive[level, target]
            for i in range(room.starts[mover], room.starts[mover + 1]):
                s = room.of_expert[i]
                weight = room.weights[s]
                left, now = held[s, source] - 1, held[s, target] + 1
                held[s, source], held[s, target] = left, now
                if left == 0:
                    leave[mover] -= weight
                    for j in range(k):
                        departed[room.members[s, j]] += weight
                elif left == 1:
                    for j in range(k):
                        if labels[room.members[s, j]] == source:
                            leave[room.members[s, j]] += weight
                if now == 1:
                    leave[mover] += weight
                    for j in range(k):
                        reached[room.members[s, j]] -= weight
                elif now == 2:
                    for j in range(k):
                        x = room.members[s, j]
                        if x != mover and labels[x] == target:
                            leave[x] -= weight
