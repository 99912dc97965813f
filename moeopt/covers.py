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

    Dynamic programme over subsets of the members with a choice, node by node and GPU by GPU: least[mask] is the cost
    of serving at least these of `mask` and every member without a choice so far; a GPU that holds `own` gives
    least[mask & ~own] + gpu_cost, and one that holds a member without a choice has no other way. Ties go to the lowest
    GPU. Work: candidate GPUs x 2^(members with a choice) per set that has one.
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
    starts = np.zeros(n_experts + 1, np.int64)
    starts[1:] = np.cumsum(copies)
    held = np.empty(starts[-1], np.int32)  # GPUs of each expert, ascending
    for e in range(n_experts):
        at = starts[e]
        for g in range(n_gpus):
            if hosts[e, g]:
                held[at] = g
                at += 1
    served = np.empty((n_sets, k), np.int32)
    least = np.empty((n_gpus + 1, 1 << k), np.int64)  # within the open node, after each of its candidates
    closed = np.empty((n_gpus + 1, 1 << k), np.int64)  # after each node
    candidate = np.empty(n_gpus, np.int64)
    own = np.zeros(n_gpus, np.int64)  # by GPU
    alone = np.zeros(n_gpus, np.bool_)  # by GPU: holds a member without a choice
    seen = np.zeros(n_gpus, np.bool_)
    node_end = np.empty(n_gpus, np.int64)
    node_alone = np.empty(n_gpus, np.bool_)
    open_members = np.empty(k, np.int64)
    for s in range(n_sets):
        bits = 0
        for j in range(k):
            served[s, j] = first[members[s, j]]
            if copies[members[s, j]] > 1:
                open_members[bits] = j
                bits += 1
        if not bits:
            continue
        count = 0
        bit = 0
        for j in range(k):
            e = members[s, j]
            single = copies[e] == 1
            for at in range(starts[e], starts[e + 1]):
                g = held[at]
                if not seen[g]:
                    seen[g], own[g], alone[g] = True, 0, False
                    place = count
                    while place and candidate[place - 1] > g:
                        candidate[place] = candidate[place - 1]
                        place -= 1
                    candidate[place] = g
                    count += 1
                if single:
                    alone[g] = True
                else:
                    own[g] |= 1 << bit
            bit += not single
        states = 1 << bits
        closed[0, 1:states] = UNREACHED
        closed[0, 0] = 0
        n_nodes = 0
        position = 0
        while position < count:
            node = candidate[position] // gpus_per_node
            before = closed[n_nodes]
            previous = before
            entry = node_cost
            needed = False
            while position < count and candidate[position] // gpus_per_node == node:
                g = candidate[position]
                row = least[position]
                for mask in range(states):
                    through = previous[mask & ~own[g]] + entry + gpu_cost
                    row[mask] = through if alone[g] else min(previous[mask] + entry, through)
                needed = needed or alone[g]
                previous = row
                entry = 0
                position += 1
            node_end[n_nodes], node_alone[n_nodes] = position, needed
            n_nodes += 1
            for mask in range(states):
                closed[n_nodes, mask] = previous[mask] if needed else min(before[mask], previous[mask])
        mask = states - 1
        for node in range(n_nodes - 1, -1, -1):
            if not node_alone[node] and closed[node + 1, mask] == closed[node, mask]:
                continue
            start = node_end[node - 1] if node else 0
            for position in range(node_end[node] - 1, start - 1, -1):
                g = candidate[position]
                idle = least[position - 1, mask] if position > start else closed[node, mask] + node_cost
                if not alone[g] and least[position, mask] == idle:
                    continue
                for bit in range(bits):
                    if mask >> bit & 1 and own[g] >> bit & 1:
                        served[s, open_members[bit]] = g
                mask &= ~own[g]
        for position in range(count):
            seen[candidate[position]] = False
    return served
