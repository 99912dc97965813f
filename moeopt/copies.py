"""Compiled kernel: what every single added, moved or dropped copy would change."""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

UNREACHED = 1e300


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def survey(
    members: NDArray[np.int32],
    weights: NDArray[np.float64],
    tokens: NDArray[np.float64],
    hosts: NDArray[np.bool_],
    prices: NDArray[np.float64],
    order: NDArray[np.int64],
    gpus_per_node: int,
    gpu_cost: int,
    node_cost: int,
) -> Any:
    """(saved, moved, lost), each [experts, gpus]: changes of the priced cost of the cheapest covers.

    saved[e, g]: by a further copy of e on g. moved[e, g]: increase when g serves e in place of all its copies.
    lost[e, g]: increase when g drops its copy; infinite for an only copy. Sets `members` int32 [sets, k] with objective
    `weights` and `tokens` [sets]; an activation on GPU g costs prices[g] more. `order`: GPUs, dearest first within each
    node, nodes ascending, so that of two GPUs of a cover the cheaper serves what both hold.

    One table for each set: least[mask], the cheapest cover of a part of it. With e on g the rest of the set, without
    what g holds, costs least[rest]; with a price on nodes there is a table for each node, taken as paid.
    """
    n_sets, k = members.shape
    experts, gpus = hosts.shape
    states = 1 << k
    full = states - 1
    nodes = gpus // gpus_per_node if node_cost else 1
    saved, moved, lost = np.zeros((experts, gpus)), np.zeros((experts, gpus)), np.zeros((experts, gpus))
    bits = np.zeros(states, np.int64)
    for mask in range(1, states):
        bits[mask] = bits[mask >> 1] + (mask & 1)
    own = np.empty(gpus, np.int64)
    tables = np.empty((nodes + 1, states))
    opened = np.empty(states)
    through = np.empty((k, gpus))
    for s in range(n_sets):
        for g in range(gpus):
            own[g] = 0
            for j in range(k):
                if hosts[members[s, j], g]:
                    own[g] |= 1 << j
        gpu_price, node_price, n = weights[s] * gpu_cost, weights[s] * node_cost, tokens[s]
        for free in range(
            nodes + 1 if node_cost else 1
        ):  # node 0 is free in table 0 ..., the last has none free
            _fill(
                tables[free], opened, own, order, bits, prices, gpu_price, node_price, n, gpus_per_node, free
            )
        now = tables[nodes if node_cost else 0, full]
        for j in range(k):
            e = members[s, j]
            first, second = UNREACHED, UNREACHED
            for g in range(gpus):
                taken = own[g] | 1 << j
                rest = tables[g // gpus_per_node if node_cost else 0, full & ~taken]
                value = gpu_price + node_price + n * prices[g] * bits[taken] + rest
                through[j, g] = value
                if hosts[e, g]:
                    if value < first:
                        first, second = value, first
                    elif value < second:
                        second = value
                else:
                    moved[e, g] += value - now
                    if value < now:
                        saved[e, g] += now - value
            for g in range(gpus):
                if hosts[e, g]:
                    lost[e, g] += (second if through[j, g] == first else first) - now
    for e in range(experts):
        if hosts[e].sum() == 1:
            for g in range(gpus):
                lost[e, g] = np.inf
    return saved, moved, lost


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _fill(
    table: NDArray[np.float64],
    opened: NDArray[np.float64],
    own: NDArray[np.int64],
    order: NDArray[np.int64],
    bits: NDArray[np.int64],
    prices: NDArray[np.float64],
    gpu_price: float,
    node_price: float,
    tokens: float,
    gpus_per_node: int,
    free: int,
) -> None:
    """table[mask]: cheapest service of exactly the members in `mask`, nothing paid for node `free`."""
    states = len(table)
    table[:] = UNREACHED
    table[0] = 0.0
    node = -1
    for position in range(len(order)):
        g = order[position]
        if (node_price > 0 and g // gpus_per_node != node) or position == 0:
            node = g // gpus_per_node
            fee = 0.0 if node == free else node_price
            for mask in range(states):
                opened[mask] = table[mask] + fee
        if own[g]:
            for mask in range(states - 1, 0, -1):  # downwards: smaller masks still are without g
                taken = mask & own[g]
                if taken:
                    value = opened[mask & ~taken] + gpu_price + tokens * prices[g] * bits[taken]
                    opened[mask] = min(opened[mask], value)
        if position + 1 == len(order) or (node_price > 0 and order[position + 1] // gpus_per_node != node):
            for mask in range(states):
                table[mask] = min(table[mask], opened[mask])
