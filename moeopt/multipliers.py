"""Row multipliers of a linear relaxation as integers, and the bound that they prove, exactly."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import gcd

import numpy as np
from numpy.typing import NDArray

from moeopt.matrix import Matrix

__all__ = ["SCALE", "exact_bound", "whole_multipliers"]

SCALE = 1 << 30  # rounding a multiplier moves the bound by 2^-31 of what its row is off, at most


def whole_multipliers(
    matrix: Matrix, duals: NDArray[np.float64], *, unit: int, scale: int = SCALE
) -> list[int]:
    """Duals float [rows], of costs measured in `unit`, rounded to multiples of 1/scale.

    A dual that presses on a side its row does not have is float noise, and becomes 0.
    """
    duals = np.where((duals > 0) & (matrix.row_lower == -np.inf), 0.0, duals)
    duals = np.where((duals < 0) & (matrix.row_upper == np.inf), 0.0, duals)
    # Fractions, because unit times scale times a dual overflows the digits of a float.
    return [round(Fraction(dual) * unit * scale) if dual else 0 for dual in duals.tolist()]


def exact_bound(
    matrix: Matrix,
    multipliers: Sequence[int],
    *,
    costs: NDArray[np.int64],
    offset: int,
    scale: int = SCALE,
) -> tuple[int, dict[str, int]]:
    """What the multipliers of the rows prove: (bound, {"scale", "dual", "checksum"}).

    dual is the Lagrangian bound times scale, checksum the sum over columns p = 1, 2, ... of p times the
    square of the reduced cost; bound is dual / scale rounded up to a multiple of the greatest common divisor
    of the costs. The rows must hold integers. `costs` int64 [columns] and `offset` are the objective, exact
    where the matrix has rounded it.
    """
    rows = matrix.rows
    if not (np.mod(rows.data, 1) == 0).all():
        raise ValueError("rows must hold whole numbers for an exact bound")
    reduced = [scale * cost for cost in costs.tolist()]
    dual = scale * offset
    starts, columns, entries = (
        rows.indptr.tolist(),
        rows.indices.tolist(),
        rows.data.astype(np.int64).tolist(),
    )
    for row, multiplier in enumerate(multipliers):
        if multiplier:
            side = matrix.row_lower[row] if multiplier > 0 else matrix.row_upper[row]
            dual += multiplier * int(side)
            for at in range(starts[row], starts[row + 1]):
                reduced[columns[at]] -= multiplier * entries[at]
    for number, low, high in zip(reduced, matrix.lower.tolist(), matrix.upper.tolist(), strict=True):
        dual += number * int(low if number > 0 else high) if number else 0
    checksum = sum(place * number * number for place, number in enumerate(reduced, 1))
    divisor = gcd(offset, *costs.tolist()) or 1
    bound = divisor * -(-dual // (scale * divisor))
    return bound, {"scale": scale, "dual": dual, "checksum": checksum}
