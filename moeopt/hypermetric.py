"""Compiled kernels for the cuts b'Yb >= least(b) that every partition matrix Y keeps, b in {-1, 0, 1}^n.

Y_ij = 1 when i and j share one of G groups: b'Yb is the sum over groups of the square of a whole number, and these
numbers sum to s = sum(b). Of G whole numbers with that sum, the most even ones have the least squares. For |s| <= G
that is |s|: the 2-partition inequalities (M. Groetschel, Y. Wakabayashi, Facets of the clique partitioning polytope,
Mathematical Programming 47, 1990), of which b = e_i + e_k - e_j are the triangles y_ij + y_jk - y_ik <= 1. With b >= 0
and s > G it is the pigeonhole: so many experts on so few GPUs make so many pairs.

A cut is a row of `WIDTH` numbers: +(i + 1) or -(i + 1) for each i with b_i = +1 or -1, then zeros.
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["WIDTH", "broken_cuts", "broken_triples", "least_square", "press", "relax"]

WIDTH = 10  # most experts of a cut
_BOXES = 1000  # of equal violation, to find the most broken without sorting
BROKEN = 1e-3  # violation of b'Yb >= least(b) from which a cut counts as broken


@njit(cache=True)  # type: ignore[untyped-decorator]
def least_square(total: int, groups: int) -> int:
    """Least sum of squares of so many whole numbers with this sum."""
    whole, rest = abs(total) // groups, abs(total) % groups
    return int((groups - rest) * whole * whole + rest * (whole + 1) * (whole + 1))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def press(square: NDArray[np.float64], cuts: NDArray[np.int16], forces: NDArray[np.float64]) -> None:
    """Add forces [cuts] x bb' to the upper triangle of `square`, in place; the diagonal stays."""
    for row in range(len(cuts)):
        for a in range(WIDTH):
            p = cuts[row, a]
            if p == 0:
                break
            for b in range(a + 1, WIDTH):
                q = cuts[row, b]
                if q == 0:
                    break
                i, j = abs(p) - 1, abs(q) - 1
                square[min(i, j), max(i, j)] += forces[row] if p * q > 0 else -forces[row]


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def relax(
    square: NDArray[np.float64],
    cuts: NDArray[np.int16],
    forces: NDArray[np.float64],
    groups: int,
    sweeps: int,
) -> None:
    """Sweeps of dual coordinate ascent towards the nearest y >= 0 that keeps the cuts, in place.

    `square` (upper triangle) is the point plus forces x bb'; its positive part is y. Each cut in turn moves by the
    step that would mend it, if all its pairs were positive, and no further than its force stays >= 0.
    """
    for _ in range(sweeps):
        for row in range(len(cuts)):
            total, size, value = 0, 0, 0.0
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
            short = 0.5 * (least_square(total, groups) - size) - value
            move = max(short / (0.5 * size * (size - 1)), -forces[row])
            if move == 0.0:
                continue
            forces[row] += move
            for a in range(size):
                for b in range(a):
                    p, q = cuts[row, a], cuts[row, b]
                    i, j = abs(p) - 1, abs(q) - 1
                    square[min(i, j), max(i, j)] += move if p * q > 0 else -move


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def broken_triples(y: NDArray[np.float64], most: int) -> Any:
    """The most broken triangles, up to `most`: cuts int16 [rows, WIDTH]. A triple breaks one of its three at most."""
    n = len(y)
    tally = np.zeros(_BOXES, np.int64)
    cuts = np.zeros((most, WIDTH), np.int16)
    level = _BOXES
    count = 0
    for collects in (False, True):
        for i in range(n):
            for j in range(i + 1, n):
                for k in range(j + 1, n):
                    least = min(y[i, j], y[j, k], y[i, k])
                    over = 2.0 * (y[i, j] + y[j, k] + y[i, k] - 2.0 * least - 1.0)
                    if over <= BROKEN:
                        continue
                    box = min(_BOXES - 1, int(over * _BOXES / 2.0))
                    if not collects:
                        tally[box] += 1
                    elif box >= level and count < most:
                        centre = k if least == y[i, j] else (i if least == y[j, k] else j)
                        cuts[count, 0] = -(i + 1) if centre == i else i + 1
                        cuts[count, 1] = -(j + 1) if centre == j else j + 1
                        cuts[count, 2] = -(k + 1) if centre == k else k + 1
                        count += 1
        kept = 0
        while level > 0 and (kept == 0 or kept + tally[level - 1] <= most):
            level -= 1
            kept += tally[level]
    return cuts[:count]


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def broken_cuts(y: NDArray[np.float64], starts: NDArray[np.int64], groups: int, largest: int) -> Any:
    """Cuts int16 [rows, WIDTH] of 4 to `largest` experts, found by local search from each pair [starts, 2], + and -.

    One b_i changes at a time, to the least b'Yb - least(b).
    """
    n = len(y)
    cuts = np.zeros((len(starts), WIDTH), np.int16)
    b, ties = np.zeros(n), np.zeros(n)
    count = 0
    for start in range(len(starts)):
        b[:] = 0.0
        ties[:] = 0.0
        for side in range(2):
            i = starts[start, side]
            b[i] = 1.0 - 2.0 * side
            ties += b[i] * y[i]
        total, size = 0, 2
        square = 2.0 - 2.0 * y[starts[start, 0], starts[start, 1]]
        value = square
        for _ in range(4 * largest):
            best, where, change = value - 1e-9, -1, 0.0
            for i in range(n):
                for new in (-1.0, 0.0, 1.0):
                    move = new - b[i]
                    if move == 0.0 or (b[i] == 0.0 and size == largest):
                        continue
                    after = square + 2.0 * move * ties[i] + move * move
                    after -= least_square(total + int(move), groups)
                    if after < best:
                        best, where, change = after, i, move
            if where < 0:
                break
            square += 2.0 * change * ties[where] + change * change
            size += (b[where] == 0.0) - (b[where] + change == 0.0)
            b[where] += change
            total += int(change)
            ties += change * y[where]
            value = best
        if value < -BROKEN and size > 3:
            at = 0
            for i in range(n):
                if b[i] != 0.0:
                    cuts[count, at] = i + 1 if b[i] > 0.0 else -(i + 1)
                    at += 1
            count += 1
    return cuts[:count]
