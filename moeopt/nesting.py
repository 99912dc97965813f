"""Compiled kernel: the cheapest way to share the experts of a node among its GPUs."""

from math import comb
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

NEVER = 1 << 61  # cost of a node without an admissible share; twice it fits in 64 bits


def cheapest_shares(
    nodes: NDArray[np.int16],
    contents: NDArray[np.int64],
    *,
    load: NDArray[np.int64],
    slots: NDArray[np.int64],
    caps: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int16]]:
    """int64 [nodes] and int16 [nodes, r]: least total cost of the GPUs of each node, and the GPU of each expert then.

    | parameter | holds |
    |---|---|
    | nodes | int16 [nodes, r]: experts of each node, ascending |
    | contents | int64: cost of a GPU by the number of its experts, 0 first, then by colexicographic rank; below 2^60 |
    | load | int64 [experts] |
    | slots, caps | int64 [gpus]: most experts, and most load, of each GPU |

    The cost is NEVER where no share is admissible. A dynamic programme over the subsets of each node, one GPU after
    the other: 2^r steps for each of the first two, 3^r for each further one.
    """
    largest = int(min(slots.max(), nodes.shape[1]))
    binomial = np.array(
        [[comb(e, size) for size in range(largest + 1)] for e in range(len(load) + 1)], np.int64
    )
    starts = np.append(0, binomial[-1].cumsum())
    costs, gpu_of = _shared(nodes, contents, load, slots, caps, binomial, starts, largest)
    return costs, gpu_of


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _shared(
    nodes: NDArray[np.int16],
    contents: NDArray[np.int64],
    load: NDArray[np.int64],
    slots: NDArray[np.int64],
    caps: NDArray[np.int64],
    binomial: NDArray[np.int64],
    starts: NDArray[np.int64],
    largest: int,
) -> Any:
    count, r = nodes.shape
    gpus, whole = len(slots), (1 << r) - 1
    costs = np.full(count, NEVER, np.int64)
    gpu_of = np.zeros((count, r), np.int16)
    size, rank = np.zeros(1 << r, np.int64), np.zeros(1 << r, np.int64)
    held, alone = np.zeros(1 << r, np.int64), np.zeros(1 << r, np.int64)  # load and cost on one GPU
    least = np.full((gpus, 1 << r), NEVER, np.int64)  # of a subset on the first GPUs
    chosen = np.zeros((gpus, 1 << r), np.int64)
    for node in range(count):
        for top in range(r):
            expert = nodes[node, top]
            for below in range(1 << top):
                mask = below | 1 << top
                size[mask] = size[below] + 1
                held[mask] = held[below] + load[expert]
                if size[mask] <= largest:
                    rank[mask] = rank[below] + binomial[expert, size[mask]]
                    alone[mask] = contents[starts[size[mask]] + rank[mask]]
        for gpu in range(gpus):
            for mask in range(0 if gpu < gpus - 1 else whole, whole + 1):
                best, share = NEVER, 0
                part = mask
                while True:
                    if size[part] <= slots[gpu] and held[part] <= caps[gpu]:
                        rest = mask ^ part
                        value = alone[part] + (least[gpu - 1, rest] if gpu else 0)
                        if value < best and (gpu or not rest):
                            best, share = value, part
                    if part == 0 or gpu == 0:
                        break
                    part = (part - 1) & mask
                least[gpu, mask], chosen[gpu, mask] = best, share
        costs[node] = least[gpus - 1, whole]
        if costs[node] < NEVER:
            rest = whole
            for gpu in range(gpus - 1, -1, -1):
                for place in range(r):
                    if chosen[gpu, rest] >> place & 1:
                        gpu_of[node, place] = gpu
                rest ^= chosen[gpu, rest]
    return costs, gpu_of
