"""Compiled kernels: how evenly the copies let the load be spread, a flow from experts to GPUs."""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def reachable_cap(
    load: NDArray[np.int64], starts: NDArray[np.int64], hosts: NDArray[np.int32], gpus: int, cap: int
) -> int:
    """The smallest cap, at least `cap`, that some split of each expert's load over its GPUs keeps.

    `load` int64 [experts]; expert e is on hosts[starts[e]:starts[e + 1]]; cap >= 0. Flows inside a bisection: exact.
    """
    low, high = cap, cap
    for e in range(len(load)):
        high += load[e]
    while low < high:
        middle = low if low == cap else low + (high - low) // 2
        if shortage(load, starts, hosts, gpus, middle)[0] == 0:
            high = middle
        else:
            low = middle + 1
    return high


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def shortage(
    load: NDArray[np.int64], starts: NDArray[np.int64], hosts: NDArray[np.int32], gpus: int, cap: int
) -> Any:
    """(activations above the cap in the best split, bool [gpus]: GPUs that cannot shed theirs to the others).

    Shortest augmenting paths from overloaded GPUs; where none is left, the GPUs reached are a minimum cut.
    """
    experts = len(load)
    spread = np.zeros((experts, gpus), np.int64)
    loads = np.zeros(gpus, np.int64)
    for e in range(experts):
        spread[e, hosts[starts[e]]] = load[e]
        loads[hosts[starts[e]]] += load[e]
    stuck = np.zeros(gpus, np.bool_)
    source = np.empty(gpus, np.int64)
    through = np.empty(gpus, np.int64)
    queue = np.empty(gpus, np.int64)
    for root in range(gpus):
        while loads[root] > cap and not stuck[root]:
            source[:] = -1
            source[root] = root
            queue[0] = root
            first, last, goal = 0, 1, -1
            while first < last and goal < 0:
                g = queue[first]
                first += 1
                for e in range(experts):
                    if spread[e, g] == 0:
                        continue
                    for i in range(starts[e], starts[e + 1]):
                        h = hosts[i]
                        if source[h] < 0:
                            source[h], through[h] = g, e
                            queue[last] = h
                            last += 1
                            if loads[h] < cap and goal < 0:
                                goal = h
            if goal < 0:
                for g in range(gpus):
                    stuck[g] = stuck[g] or source[g] >= 0
                break
            amount = min(loads[root] - cap, cap - loads[goal])
            h = goal
            while h != root:
                amount = min(amount, spread[through[h], source[h]])
                h = source[h]
            loads[root] -= amount
            loads[goal] += amount
            h = goal
            while h != root:
                spread[through[h], source[h]] -= amount
                spread[through[h], h] += amount
                h = source[h]
    return np.maximum(loads - cap, 0).sum(), stuck
