"""Reduced-cost fixing: of many columns, those that a better point can use."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from moeopt.matrix import Matrix

__all__ = ["Core"]

_SAFE = 1e-9  # relative; float noise of a reduced cost


@dataclass(frozen=True, eq=False)
class Core:
    """A model without the columns that no point worth at most `ceiling` moves from their bound.

    With row multipliers y, D the bound they prove and r = cost - y rows the reduced costs, a point x is worth
    D + sum over columns of |r| |x - bound| or more, the bound being the lower one for r > 0 and the upper one
    for r < 0. An integer column with D + |r| > ceiling therefore stays at its bound. A point that is known to
    be worth the ceiling stays feasible. D is evaluated at the multipliers, so that any multipliers are valid.

    | field | holds |
    |---|---|
    | matrix | the model over the columns that are kept |
    | kept | bool [columns] |
    | rest | float [columns]: the bound of each column that is not kept, 0 of the others |
    """

    matrix: Matrix
    kept: NDArray[np.bool_]
    rest: NDArray[np.float64]

    @classmethod
    def of(cls, matrix: Matrix, *, duals: NDArray[np.float64], ceiling: float) -> Self:
        """`duals` float [rows]: multipliers, positive on lower sides; of the last rows they may be missing (0).

        `ceiling` is a value in the units of the matrix. Without finite bounds on a column nothing is fixed.
        """
        y = np.zeros(matrix.row_lower.size)
        y[: duals.size] = duals
        y = np.where(np.isfinite(np.where(y > 0, matrix.row_lower, matrix.row_upper)), y, 0.0)
        sides = np.where(y > 0, matrix.row_lower, matrix.row_upper)
        reduced = matrix.cost - matrix.rows.T @ y
        bounds = np.where(reduced > 0, matrix.lower, matrix.upper)
        used = reduced != 0
        proved = float(y[y != 0] @ sides[y != 0] + reduced[used] @ bounds[used]) + matrix.offset
        room = ceiling - proved + _SAFE * max(1.0, abs(ceiling), float(np.abs(matrix.cost).max(initial=0.0)))
        fixed = matrix.integer & (np.abs(reduced) > room) & bool(np.isfinite(proved) and room >= 0)
        rest = np.where(fixed, bounds, 0.0)
        names = matrix.column_names
        body = matrix.rows @ rest
        core = replace(
            matrix,
            cost=matrix.cost[~fixed],
            offset=matrix.offset + float(matrix.cost @ rest),
            lower=matrix.lower[~fixed],
            upper=matrix.upper[~fixed],
            integer=matrix.integer[~fixed],
            rows=matrix.rows[:, np.flatnonzero(~fixed)],
            row_lower=matrix.row_lower - body,
            row_upper=matrix.row_upper - body,
            column_names=tuple(names[at] for at in np.flatnonzero(~fixed)) if names else (),
        )
        return cls(core, ~fixed, rest)

    def inside(self, x: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """A point float [columns] of the model over the kept columns; None when it needs others."""
        if (x[~self.kept] != self.rest[~self.kept]).any():
            return None
        return x[self.kept]

    def outside(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """A point of `matrix` as float [columns] of the model."""
        point = self.rest.copy()
        point[self.kept] = x
        return point
