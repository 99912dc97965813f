"""Compiled kernel: how many GPUs and nodes the tokens of a layer touch, every expert being on one GPU."""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

WORD = 64  # GPUs that one mask holds


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def touch_sums(
    members: NDArray[np.int32],
    counts: NDArray[np.int64],
    gpu_of: NDArray[np.int32],
    node_of: NDArray[np.int32],
    gpus: int,
) -> Any:
    """(int64 [families], int64 [families]): tokens times GPUs, and tokens times nodes, that their experts are on.

    `members` int32 [sets, k], `counts` int64 [sets, families]; `gpu_of`, `node_of` int32 [experts], ids below `gpus`.
    """
    sets, k = members.shape
    families = counts.shape[1]
    on_gpus, on_nodes = np.zeros(families, np.int64), np.zeros(families, np.int64)
    gpu_marks, node_marks = np.full(gpus, -1, np.int64), np.full(gpus, -1, np.int64)
    one = np.uint64(1)
    for row in range(sets):
        touched, reached = 0, 0
        if gpus <= WORD:
            gpu_mask, node_mask = np.uint64(0), np.uint64(0)
            for column in range(k):
                expert = members[row, column]
                gpu_bit = one << np.uint64(gpu_of[expert])
                node_bit = one << np.uint64(node_of[expert])
                touched += (gpu_mask & gpu_bit) == 0
                reached += (node_mask & node_bit) == 0
                gpu_mask |= gpu_bit
                node_mask |= node_bit
        else:
            for column in range(k):
                expert = members[row, column]
                gpu, node = gpu_of[expert], node_of[expert]
                touched += gpu_marks[gpu] != row
                reached += node_marks[node] != row
                gpu_marks[gpu] = row
                node_marks[node] = row
        for family in range(families):
            on_gpus[family] += touched * counts[row, family]
            on_nodes[family] += reached * counts[row, family]
    return on_gpus, on_nodes
