"""Compiled kernel: the cheapest other way to serve a token of an expert set whose experts have copies."""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

MOST_ASSIGNMENTS = 128  # of a set: beyond that only moves towards one GPU are tried


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def hops_of(served: NDArray[np.int32], node_of: NDArray[np.int64], gpu_cost: int, node_cost: int) -> int:
    """Cost of the GPUs and nodes that one token touches."""
    cost = 0
    for j in range(len(served)):
        new_gpu, new_node = True, True
        for i in range(j):
            if served[i] == served[j]:
                new_gpu = new_node = False
                break
            if node_of[served[i]] == node_of[served[j]]:
                new_node = False
        cost += gpu_cost * new_gpu + node_cost * new_node
    return cost


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _score(
    trial: NDArray[np.int32],
    now: NDArray[np.int32],
    hops: int,
    weight: float,
    node_of: NDArray[np.int64],
    gpu_cost: int,
    node_cost: int,
    prices: NDArray[np.float64],
    g: int,
    room: NDArray[np.int64],
) -> Any:
    """Extra cost of `trial`: for each activation that leaves GPU g; with g < 0 for a token, if it saves and fits."""
    k = len(trial)
    relief = 0
    change = 0.0
    for j in range(k):
        relief += (now[j] == g) - (trial[j] == g)
        change += prices[trial[j]] - prices[now[j]]
    if g >= 0 and relief <= 0:
        return np.inf
    change += weight * (hops_of(trial, node_of, gpu_cost, node_cost) - hops)
    if g >= 0:
        return change / relief
    if change >= 0:
        return np.inf
    for j in range(k):
        more = 0
        for i in range(k):
            more += (trial[i] == trial[j]) - (now[i] == trial[j])
        if more > room[trial[j]] and more > 0:
            return np.inf
    return change


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def cheapest_detour(
    experts: NDArray[np.int32],
    now: NDArray[np.int32],
    weight: float,
    starts: NDArray[np.int64],
    hosts: NDArray[np.int32],
    node_of: NDArray[np.int64],
    gpu_cost: int,
    node_cost: int,
    prices: NDArray[np.float64],
    g: int,
    room: NDArray[np.int64],
    trial: NDArray[np.int32],
    best: NDArray[np.int32],
) -> Any:
    """Lowest extra cost of serving one token of `experts` other than by `now`, written to `best`; infinite if none.

    With g >= 0 the cost, `prices` [gpus] included, of each activation that GPU g is relieved of; with g < 0 the change
    for a token, where it is a saving and `room` [gpus] holds what comes. `trial` [k] is scratch space.
    """
    k = len(experts)
    hops = hops_of(now, node_of, gpu_cost, node_cost)
    lowest = np.inf
    assignments = 1
    for j in range(k):
        assignments = min(assignments * (starts[experts[j] + 1] - starts[experts[j]]), MOST_ASSIGNMENTS + 1)
    if assignments <= MOST_ASSIGNMENTS:
        for number in range(assignments):
            rest = number
            for j in range(k):
                copies = starts[experts[j] + 1] - starts[experts[j]]
                trial[j] = hosts[starts[experts[j]] + rest % copies]
                rest //= copies
            score = _score(trial, now, hops, weight, node_of, gpu_cost, node_cost, prices, g, room)
            if score < lowest:
                lowest = score
                best[:] = trial
        return lowest
    for h in range(len(node_of)):
        for which in range(k + 2):  # one member to h; all that g serves and h holds; all that h holds
            trial[:] = now
            for j in range(k):
                if j == which or (which == k and now[j] == g) or which == k + 1:
                    for i in range(starts[experts[j]], starts[experts[j] + 1]):
                        if hosts[i] == h:
                            trial[j] = h
            score = _score(trial, now, hops, weight, node_of, gpu_cost, node_cost, prices, g, room)
            if score < lowest:
                lowest = score
                best[:] = trial
    return lowest
