"""Compiled kernels: simulated annealing over the copies of a layer, the tokens they concern dispatched anew."""

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from moeopt.serving import Desk, Service, Traffic, serve

GUIDED = 0.5  # of the proposals bring together two experts of one set
SHARES = (0.05, 0.2, 1.0)  # of the sets of each expert that a move concerns, evaluated by and by
SURELY = 1.5  # standard errors above its threshold at which a move is given up after a part of it


class Undo(NamedTuple):
    """What a move may have to put back.

    | field | holds |
    |---|---|
    | turn, mark | int64 [1], [sets]: whether a set is already among the affected ones |
    | affected | int32 [sets] |
    | served, hops | int32 [sets, k], float [sets]: of the affected ones before |
    | loads | float [gpus] before |
    | seats, experts | int64 [3], int32 [3]: seats changed and what they held |
    """

    turn: NDArray[np.int64]
    mark: NDArray[np.int64]
    affected: NDArray[np.int32]
    served: NDArray[np.int32]
    hops: NDArray[np.float64]
    loads: NDArray[np.float64]
    seats: NDArray[np.int64]
    experts: NDArray[np.int32]

    @classmethod
    def of(cls, *, sets: int, top_k: int, gpus: int) -> "Undo":
        """Empty space for `sets` sets."""
        turn, mark = np.zeros(1, np.int64), np.zeros(sets, np.int64)
        affected, served = np.zeros(sets, np.int32), np.zeros((sets, top_k), np.int32)
        seats, experts = np.zeros(3, np.int64), np.zeros(3, np.int32)
        return cls(turn, mark, affected, served, np.zeros(sets), np.zeros(gpus), seats, experts)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def overload(soft: NDArray[np.float64], loads: NDArray[np.float64], slope: float) -> float:
    """What loads above `soft` cost: half the slope times the square of each excess."""
    total = 0.0
    for g in range(len(loads)):
        excess = loads[g] - soft[g]
        if excess > 0:
            total += excess * excess
    return 0.5 * slope * total


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _overload_at(
    scale: float,
    soft: NDArray[np.float64],
    before: NDArray[np.float64],
    now: NDArray[np.float64],
    slope: float,
) -> float:
    """`overload` where every load has gone `scale` times as far from `before` as it stands now."""
    total = 0.0
    for g in range(len(now)):
        excess = before[g] + scale * (now[g] - before[g]) - soft[g]
        if excess > 0:
            total += excess * excess
    return 0.5 * slope * total


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def sweep(order: NDArray[np.int32], traffic: Traffic, service: Service, desk: Desk, slope: float) -> float:
    """Serve the sets anew in this order; the cost, overload included."""
    for i in range(len(order)):
        s = order[i]
        for j in range(service.served.shape[1]):
            service.loads[service.served[s, j]] -= traffic.tokens[s]
        serve(order[i : i + 1], traffic, service, desk, slope)
    return float(service.hops.sum() + overload(traffic.soft, service.loads, slope))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _seat(seat: int, e: int, service: Service) -> None:
    """Put expert e (-1: nothing) on a seat; what it held leaves."""
    g, old = service.gpu[seat], service.expert[seat]
    if old >= 0:
        last = service.copies[old] - 1
        for c in range(last):
            if service.hosts[old, c] == g:
                service.hosts[old, c] = service.hosts[old, last]
                break
        service.copies[old] = last
        service.at[old, g] = False
    service.expert[seat] = e
    if e >= 0:
        service.hosts[e, service.copies[e]] = g
        service.copies[e] += 1
        service.at[e, g] = True


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _proposal(
    draw: NDArray[np.float64],
    spare: int,
    traffic: Traffic,
    service: Service,
    undo: Undo,
    new: NDArray[np.int32],
) -> int:
    """Seats to change (`undo.seats`) and what they will hold (`new`); how many, 0 for none.

    Two copies change places; a copy gives its slot to another expert's; an expert takes a slot whose copy
    moves to that of a third.
    """
    expert, gpu, copies, first, at = service.expert, service.gpu, service.copies, service.first, service.at
    seats = len(expert)
    b = int(draw[0] * seats)
    h, other = gpu[b], expert[b]
    if draw[1] < GUIDED and other >= 0 and traffic.starts[other + 1] > traffic.starts[other]:
        begin = traffic.starts[other]
        s = traffic.of_expert[begin + int(draw[2] * (traffic.starts[other + 1] - begin))]
        j = int(draw[3] * traffic.members.shape[1])
        e, g = traffic.members[s, j], service.served[s, j]
        a = first[g]
        while expert[a] != e:
            a += 1
        b = first[h] + int(draw[4] * (first[h + 1] - first[h]))
        if expert[b] == other:
            return 0
    else:
        a = int(draw[2] * seats)
        e, g = expert[a], gpu[a]
    f = expert[b]
    if e < 0 or e == f or g == h or at[e, h]:
        return 0
    redundant = (f >= 0 and copies[f] > 1) or (f < 0 and spare > 0)
    undo.seats[0], new[0] = b, e
    if redundant and draw[5] < 0.5:
        return 1
    if (f < 0 or not at[f, g]) and (draw[5] < 0.75 or f < 0 or copies[f] > 1):
        undo.seats[1], new[1] = a, f
        return 2
    if f < 0:
        return 0
    # The copy that makes room goes to the slot of a third one that is not the last of its expert.
    start = int(draw[6] * seats)
    for i in range(seats):
        c = (start + i) % seats
        x = expert[c]
        if c in (a, b) or gpu[c] == h or at[f, gpu[c]]:
            continue
        if (x < 0 and spare > 0) or (x >= 0 and copies[x] > 1 and x != f and x != e):
            undo.seats[1], new[1] = c, f
            return 2
    return 0


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def attempt(
    draws: NDArray[np.float64],
    temperatures: NDArray[np.float64],
    spare: int,
    traffic: Traffic,
    service: Service,
    desk: Desk,
    undo: Undo,
    slope: float,
) -> Any:
    """A move for each row of `draws` [moves, 8] in [0, 1): (change, accepted, tried, copies that may still be added).

    The sets that a move concerns are served anew, a share of each expert's first, then more, then all: they come in
    random order, so a part is a sample, and a move whose estimate stands far above its threshold is given up.
    """
    new = np.empty(3, np.int32)
    members, served, hops, loads = traffic.members, service.served, service.hops, service.loads
    tokens, starts, of_expert, at = traffic.tokens, traffic.starts, traffic.of_expert, service.at
    mark, affected = undo.mark, undo.affected
    k, nodes = members.shape[1], traffic.costs[1] > 0.0
    total, accepted, tried = 0.0, 0, 0
    for turn in range(len(draws)):
        count = _proposal(draws[turn], spare, traffic, service, undo, new)
        if count == 0:
            continue
        tried += 1
        before = overload(traffic.soft, loads, slope)
        undo.loads[:] = loads
        undo.turn[0] += 1
        now = undo.turn[0]
        for i in range(count):
            undo.experts[i] = service.expert[undo.seats[i]]
        for i in range(count):
            _seat(undo.seats[i], new[i], service)
        limit = -temperatures[turn] * np.log(1.0 - draws[turn, 7])
        many, hops_change, change = 0, 0.0, 0.0
        squares, seen = 0.0, 0.0
        for stage in range(len(SHARES)):
            begun, share = many, SHARES[stage]
            for i in range(2 * count):
                seat = undo.seats[i // 2]
                g = service.gpu[seat]
                e = undo.experts[i // 2] if i % 2 == 0 else new[i // 2]
                if e < 0:
                    continue
                size = starts[e + 1] - starts[e]
                low, high = starts[e] + int(seen * size), starts[e] + int(share * size)
                for x in range(low, high):
                    s = of_expert[x]
                    if mark[s] == now:
                        continue
                    concerned = False
                    for j in range(k):
                        if i % 2 == 0:
                            concerned |= members[s, j] == e and served[s, j] == g
                        else:
                            m = members[s, j]
                            concerned |= not at[m, served[s, j]]
                            concerned |= m != e and at[m, g]
                            concerned |= m == e and (
                                nodes or loads[served[s, j]] > traffic.soft[served[s, j]]
                            )
                    if concerned:
                        mark[s] = now
                        affected[many] = s
                        undo.hops[many] = hops[s]
                        for j in range(k):
                            undo.served[many, j] = served[s, j]
                            loads[served[s, j]] -= tokens[s]
                        many += 1
            serve(affected[begun:many], traffic, service, desk, slope)
            for i in range(begun, many):
                own = hops[affected[i]] - undo.hops[i]
                hops_change += own
                squares += own * own
            seen = share
            change = (
                hops_change / share
                + _overload_at(1.0 / share, traffic.soft, undo.loads, loads, slope)
                - before
            )
            if change > limit + SURELY / share * np.sqrt((1.0 - share) * squares):
                break
        if change <= limit:
            total += change
            accepted += 1
            for i in range(count):
                spare -= (undo.experts[i] < 0) - (new[i] < 0)
            continue
        for i in range(count):
            _seat(undo.seats[i], -1, service)
        for i in range(count):
            _seat(undo.seats[i], undo.experts[i], service)
        for i in range(many):
            s = affected[i]
            hops[s] = undo.hops[i]
            for j in range(k):
                served[s, j] = undo.served[i, j]
        loads[:] = undo.loads
    return total, accepted, tried, spare
