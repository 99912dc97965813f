"""Compiled kernel: the cheapest set of GPUs that serves each expert set when experts have copies."""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

UNREACHED = np.int64(1) << np.int64(40)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def cheapest_covers(
    members: NDArray[np.int32], hosts: NDArray[np.bool_], gpus_per_node: int, gpu_cost: int, node_cost: int
) -> NDArray[Any]:
    """int32 [sets, k]: the GPU that serves each member, at least total cost of GPUs and nodes touched.

    Dynamic programme over subsets of the set, node by node and GPU by GPU: least[mask] is the cost of
    serving at least the members in `mask`; a GPU that holds `own` gives least[mask & ~own] + gpu_cost.
    Ties go to the lowest GPU. Work: candidate GPUs x 2^k per set that has a choice.
    """
    n_sets, k = members.shape
    n_experts, n_gpus = hosts.shape
    copies = np.zeros(n_experts, np.int64)
    first = np.zeros(n_experts, np.int32)
    for e in range(n_experts):
        for g in range(n_gpus - 1, -1, -1):
            if hosts[e, g]:
                copies[e] += 1
                first[e] = g
    served = np.empty((n_sets, k), np.int32)
    states = 1 << k
    least = np.empty((n_gpus + 1, states), np.int64)  # within the open node, after each of its candidates
    closed = np.empty((n_gpus + 1, states), np.int64)  # after each node
    candidate = np.empty(n_gpus, np.int64)
    own = np.empty(n_gpus, np.int64)
    for s in range(n_sets):
        choice = False
        for j in range(k):
            served[s, j] = first[members[s, j]]
            choice = choice or copies[members[s, j]] > 1
        if not choice:
            continue
        count = 0
        for g in range(n_gpus):
            mask = 0
            for j in range(k):
                if hosts[members[s, j], g]:
                    mask |= 1 << j
            if mask:
                candidate[count], own[count] = g, mask
                count += 1
        closed[0, :] = UNREACHED
        closed[0, 0] = 0
        n_nodes = 0
        position = 0
        node_end = np.empty(count, np.int64)
        while position < count:
            node = candidate[position] // gpus_per_node
            before = closed[n_nodes]
            previous = before + node_cost
            while position < count and candidate[position] // gpus_per_node == node:
                row = least[position]
                for mask in range(states):
                    through = previous[mask & ~own[position]] + gpu_cost
                    row[mask] = min(previous[mask], through)
                previous = row
                position += 1
            node_end[n_nodes] = position
            n_nodes += 1
            for mask in range(states):
                closed[n_nodes, mask] = min(before[mask], previous[mask])
        mask = states - 1
        for node in range(n_nodes - 1, -1, -1):
            if closed[node + 1, mask] == closed[node, mask]:
                continue
            start = node_end[node - 1] if node else 0
            for position in range(node_end[node] - 1, start - 1, -1):
                idle = least[position - 1, mask] if position > start else closed[node, mask] + node_cost
                if least[position, mask] == idle:
                    continue
                for j in range(k):
                    if mask >> j & 1 and own[position] >> j & 1:
                        served[s, j] = candidate[position]
                mask &= ~own[position]
    return served
