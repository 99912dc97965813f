"""Compiled kernels: tokens moved between copies until no GPU serves more than a cap, at little extra cost."""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from moeopt.detours import cheapest_detour, hops_of

PASSES = 4  # of the clean-up


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def relieve(
    members: NDArray[np.int32],
    weights: NDArray[np.float64],
    tokens: NDArray[np.int64],
    served: NDArray[np.int32],
    loads: NDArray[np.int64],
    starts: NDArray[np.int64],
    hosts: NDArray[np.int32],
    node_of: NDArray[np.int64],
    gpu_cost: int,
    node_cost: int,
    cap: int,
) -> Any:
    """Move tokens until `loads` keep a cap that can be kept: (origin, served, tokens, prices).

    Groups are tokens of one set and one family: `members` and `served` int32 [groups, k], `weights` objective weight
    of a token, `tokens` int64 [groups], all with a choice; `loads` int64 [gpus] includes all other tokens.
    `starts`, `hosts`: the GPUs of each expert. The answer lists parts of groups, `origin` their groups.

    An auction: the fullest GPU sheds its excess where that costs least per activation, prices of other GPUs
    included, and asks the rate of the last move (and a little more) from then on. What is left, if anything, follows
    cheapest paths of single moves, which exist whenever the cap can be kept. A clean-up undoes what fits back.
    """
    groups, k = members.shape
    gpus = len(loads)
    size = 2 * groups + 64 * gpus
    origin = np.empty(size, np.int64)
    part = np.empty((size, k), np.int32)
    amount = np.empty(size, np.int64)
    origin[:groups], part[:groups], amount[:groups] = np.arange(groups), served, tokens
    used = groups
    prices, free = np.zeros(gpus), np.zeros(gpus)
    rates, which, target = np.empty(size), np.empty(size, np.int64), np.empty((size, k), np.int32)
    trial, best, room = np.empty(k, np.int32), np.empty(k, np.int32), np.empty(gpus, np.int64)
    step = (gpu_cost + node_cost) * max((weights * tokens).sum() / max(tokens.sum(), 1), 1.0) / 8
    for round_ in range(16 * gpus):
        g = loads.argmax()
        excess = loads[g] - cap
        if excess <= 0 or used + 1 >= size:
            break
        if round_ % (2 * gpus) == 2 * gpus - 1:
            step *= 2
        count = 0
        for a in range(used):
            for j in range(k):
                if part[a, j] == g:
                    o = origin[a]
                    rate = cheapest_detour(
                        members[o],
                        part[a],
                        weights[o],
                        starts,
                        hosts,
                        node_of,
                        gpu_cost,
                        node_cost,
                        prices,
                        g,
                        room,
                        trial,
                        best,
                    )
                    if rate < np.inf:
                        rates[count], which[count], target[count] = rate, a, best
                        count += 1
                    break
        rate = 0.0
        for i in np.argsort(rates[:count], kind="mergesort"):
            if excess <= 0:
                break
            rate = rates[i]
            relief = 0
            for j in range(k):
                relief += (part[which[i], j] == g) - (target[i, j] == g)
            moved = min(amount[which[i]], -(-excess // relief))
            used = _move(which[i], moved, target[i], origin, part, amount, used, loads)
            excess = loads[g] - cap
        prices[g] += max(rate, 0.0) + step
    while loads.max() > cap:
        if used + gpus >= size:
            origin, part, amount = _longer(origin, used), _longer_rows(part, used), _longer(amount, used)
            size = len(origin)
        used = _augment(
            members,
            weights,
            starts,
            hosts,
            node_of,
            gpu_cost,
            node_cost,
            cap,
            origin,
            part,
            amount,
            used,
            loads,
        )
    if len(rates) < size:
        rates, which = np.empty(size), np.empty(size, np.int64)
    for _ in range(PASSES):
        if used * 2 >= size:
            origin, part, amount = _longer(origin, used), _longer_rows(part, used), _longer(amount, used)
            size = len(origin)
            rates, which = np.empty(size), np.empty(size, np.int64)
        count = 0
        room[:] = cap - loads
        for a in range(used):
            o = origin[a]
            saving = cheapest_detour(
                members[o],
                part[a],
                weights[o],
                starts,
                hosts,
                node_of,
                gpu_cost,
                node_cost,
                free,
                -1,
                room,
                trial,
                best,
            )
            if saving < np.inf:
                rates[count], which[count] = saving, a
                count += 1
        for i in np.argsort(rates[:count], kind="mergesort"):
            a = which[i]
            o = origin[a]
            room[:] = cap - loads
            saving = cheapest_detour(
                members[o],
                part[a],
                weights[o],
                starts,
                hosts,
                node_of,
                gpu_cost,
                node_cost,
                free,
                -1,
                room,
                trial,
                best,
            )
            if saving < np.inf:
                moved = amount[a]
                for j in range(k):
                    more = 0
                    for i_ in range(k):
                        more += (best[i_] == best[j]) - (part[a, i_] == best[j])
                    if more > 0:
                        moved = min(moved, room[best[j]] // more)
                used = _move(a, moved, best, origin, part, amount, used, loads)
        if count == 0:
            break
    return origin[:used], part[:used], amount[:used], prices


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _move(
    a: int,
    moved: int,
    target: NDArray[np.int32],
    origin: NDArray[np.int64],
    part: NDArray[np.int32],
    amount: NDArray[np.int64],
    used: int,
    loads: NDArray[np.int64],
) -> int:
    """Serve `moved` tokens of part `a` by `target`, as a new part unless that is all of them; parts then used."""
    for j in range(part.shape[1]):
        loads[part[a, j]] -= moved
        loads[target[j]] += moved
    if moved == amount[a]:
        part[a] = target
        return used
    amount[a] -= moved
    origin[used], part[used], amount[used] = origin[a], target, moved
    return used + 1


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _augment(
    members: NDArray[np.int32],
    weights: NDArray[np.float64],
    starts: NDArray[np.int64],
    hosts: NDArray[np.int32],
    node_of: NDArray[np.int64],
    gpu_cost: int,
    node_cost: int,
    cap: int,
    origin: NDArray[np.int64],
    part: NDArray[np.int32],
    amount: NDArray[np.int64],
    used: int,
    loads: NDArray[np.int64],
) -> int:
    """Relieve the fullest GPU along the cheapest path of single moves to a GPU below the cap; parts then used."""
    gpus, k = len(loads), members.shape[1]
    cost = np.full((gpus, gpus), np.inf)
    what = np.empty((gpus, gpus, 2), np.int64)
    trial = np.empty(k, np.int32)
    for a in range(used):
        experts = members[origin[a]]
        hops = hops_of(part[a], node_of, gpu_cost, node_cost)
        trial[:] = part[a]
        for j in range(k):
            g = part[a, j]
            for i in range(starts[experts[j]], starts[experts[j] + 1]):
                h = hosts[i]
                if h == g:
                    continue
                trial[j] = h
                change = max(weights[origin[a]] * (hops_of(trial, node_of, gpu_cost, node_cost) - hops), 0.0)
                if change < cost[g, h]:
                    cost[g, h], what[g, h, 0], what[g, h, 1] = change, a, j
            trial[j] = g
    root = loads.argmax()
    distance = np.full(gpus, np.inf)
    source = np.full(gpus, -1)
    distance[root] = 0.0
    for _ in range(gpus):
        for g in range(gpus):
            for h in range(gpus):
                if h != root and distance[g] + cost[g, h] < distance[h]:
                    distance[h], source[h] = distance[g] + cost[g, h], g
    goal = -1
    for h in range(gpus):
        if loads[h] < cap and distance[h] < np.inf and (goal < 0 or distance[h] < distance[goal]):
            goal = h
    moved = min(loads[root] - cap, cap - loads[goal])
    h = goal
    while h != root:
        moved = min(moved, amount[what[source[h], h, 0]])
        h = source[h]
    # From the far end back, so that no GPU on the way rises; a part met twice may have fewer tokens left.
    h = goal
    while h != root:
        a, j = what[source[h], h]
        moved = min(moved, amount[a])
        trial[:] = part[a]
        trial[j] = h
        used = _move(a, moved, trial, origin, part, amount, used, loads)
        h = source[h]
    return used


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _longer(values: NDArray[np.int64], used: int) -> Any:
    longer = np.empty(4 * len(values), np.int64)
    longer[:used] = values[:used]
    return longer


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _longer_rows(values: NDArray[np.int32], used: int) -> Any:
    longer = np.empty((4 * len(values), values.shape[1]), np.int32)
    longer[:used] = values[:used]
    return longer
