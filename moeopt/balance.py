"""Equal counts, even loads: heaviest expert first, then swaps between the fullest GPU and the others."""

import numpy as np
from numpy.typing import NDArray

from moeopt.placement import Placement
from moeopt.problem import Problem


def balanced(
    load: NDArray[np.int64], slots: NDArray[np.int64], *, speeds: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """int64 [experts]: heaviest first, each to the GPU with room for an equal share that ends up least loaded.

    Load counts relative to `speeds` int64 [gpus], where they are given.
    """
    pace = np.ones(len(slots)) if speeds is None else speeds / speeds.max()
    sizes = np.zeros(len(slots), np.int64)
    room = np.minimum(slots, -(-len(load) // len(slots)))
    if room.sum() < len(load):
        room = slots
    carried = np.zeros(len(slots), np.int64)
    gpu_of = np.empty(len(load), np.int64)
    for expert in np.argsort(-load, kind="stable"):
        free = np.flatnonzero(sizes < room)
        gpu = free[np.argmin((carried[free] + load[expert]) / pace[free])]
        gpu_of[expert] = gpu
        sizes[gpu] += 1
        carried[gpu] += load[expert]
    return gpu_of


def levelled(
    load: NDArray[np.int64],
    gpu_of: NDArray[np.int64],
    *,
    slots: NDArray[np.int64],
    speeds: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Swap or move experts away from the most loaded GPU while that lowers the larger of the two loads.

    Load counts relative to `speeds` int64 [gpus], where they are given.
    """
    pace = np.ones(len(slots)) if speeds is None else speeds / speeds.max()
    gpu_of = gpu_of.copy()
    carried = np.bincount(gpu_of, weights=load, minlength=len(slots)).astype(np.int64)
    while True:
        fullest = int((carried / pace).argmax())
        highest = carried[fullest] / pace[fullest]
        own = np.flatnonzero(gpu_of == fullest)
        other = np.flatnonzero(gpu_of != fullest)
        shift = load[own][:, None] - load[other][None, :]  # what leaves the fullest GPU in a swap
        after = np.maximum(
            (carried[fullest] - shift) / pace[fullest],
            (carried[gpu_of[other]][None, :] + shift) / pace[gpu_of[other]][None, :],
        )
        sizes = np.bincount(gpu_of, minlength=len(slots))
        roomy = np.flatnonzero((sizes < slots) & (np.arange(len(slots)) != fullest))
        moved = np.maximum(
            (carried[fullest] - load[own][:, None]) / pace[fullest],
            (carried[roomy][None, :] + load[own][:, None]) / pace[roomy][None, :],
        )
        best_swap = after.min(initial=highest)
        best_move = moved.min(initial=highest)
        if min(best_swap, best_move) >= highest:
            return gpu_of
        if best_move < best_swap:
            i, j = np.unravel_index(moved.argmin(), moved.shape)
            gpu_of[own[i]] = roomy[j]
        else:
            i, j = np.unravel_index(after.argmin(), after.shape)
            gpu_of[own[i]], gpu_of[other[j]] = gpu_of[other[j]], fullest
        carried = np.bincount(gpu_of, weights=load, minlength=len(slots)).astype(np.int64)


def lightest(problem: Problem) -> Placement:
    """A partition of a problem of one layer with loads as even as packing and swaps make them."""
    (sets,) = problem.workload.layers
    slots, speeds = problem.cluster.slots_of, problem.cluster.speeds_of
    packed = balanced(sets.load, slots, speeds=speeds)
    return problem.partition(levelled(sets.load, packed, slots=slots, speeds=speeds))
