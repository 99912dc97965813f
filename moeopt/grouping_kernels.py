"""Compiled sweeps over the cuts of one layer, where the pairs of requests belong to all layers."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from moeopt.hypermetric import WIDTH, least_square

__all__ = ["relax_layer"]


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def relax_layer(
    square: NDArray[np.float64],
    cuts: NDArray[np.int16],
    forces: NDArray[np.float64],
    groups: int,
    requests: int,
    share: float,
) -> None:
    """A sweep of dual coordinate ascent towards the nearest y >= 0 that keeps the cuts, in place.

    As `moeopt.hypermetric.relax`, except that a pair of seats below `requests` gives way by `share` of a force: as
    the mean over layers, it weighs more in the distance.
    """
    for row in range(len(cuts)):
        total, size, value, give = 0, 0, 0.0, 0.0
        for a in range(WIDTH):
            p = cuts[row, a]
            if p == 0:
                break
            size += 1
            total += 1 if p > 0 else -1
            for b in range(a):
                q = cuts[row, b]
                i, j = abs(p) - 1, abs(q) - 1
                y = max(square[min(i, j), max(i, j)], 0.0)
                value += y if p * q > 0 else -y
                give += share if max(i, j) < requests else 1.0
        short = 0.5 * (least_square(total, groups) - size) - value
        move = max(short / give, -forces[row])
        if move == 0.0:
            continue
        forces[row] += move
        for a in range(size):
            for b in range(a):
                p, q = cuts[row, a], cuts[row, b]
                i, j = abs(p) - 1, abs(q) - 1
                step = move * share if max(i, j) < requests else move
                square[min(i, j), max(i, j)] += step if p * q > 0 else -step
