"""Powers of two that bring a model to numbers a float solver can tell apart; exact both ways."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from moeopt.matrix import Matrix
from moeopt.solvers.protocol import Outcome

if TYPE_CHECKING:
    from scipy.sparse import csr_array

__all__ = ["Scale"]

_WIDEST = 16  # bits of the range of a continuous column that is scaled
_LARGEST = (
    30  # bits of what stays as it is: solvers grant rows an absolute tolerance, which scaling would widen
)

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scale:
    """What the numbers of a model are measured in.

    Costs of 50 bits in a row are beyond a solver that works to 1e-6: such rows, and the continuous columns that
    hold such costs, are measured in larger units. Everything else stays as it is.

    | field | holds |
    |---|---|
    | rows | float [rows]: the scaled row is the row divided by this |
    | columns | float [columns]: a value is the scaled value times this; 1 for integer columns |
    | cost | the objective is the scaled objective times this |
    """

    rows: Floats
    columns: Floats
    cost: float

    @classmethod
    def of(cls, matrix: Matrix) -> Self:
        """The units of a model; 1 wherever its numbers are moderate."""
        widest = np.maximum(np.abs(matrix.lower), np.abs(matrix.upper))
        wide = ~matrix.integer & np.isfinite(widest) & (widest > 2.0**_LARGEST)
        columns = np.where(wide, _power(np.where(wide, widest, 1.0)) / 2.0**_WIDEST, 1.0)
        dearest = np.abs(matrix.cost * columns).max(initial=0.0)
        cost = float(_power(dearest)) if dearest > 2.0**_LARGEST else 1.0
        return cls(_heights(matrix.rows, columns), columns, cost)

    @property
    def plain(self) -> bool:
        """Whether every unit is 1."""
        return self.cost == 1.0 and bool((self.rows == 1.0).all() and (self.columns == 1.0).all())

    def applied(self, matrix: Matrix) -> Matrix:
        """The same model in these units."""
        return replace(
            matrix,
            cost=matrix.cost * self.columns / self.cost,
            offset=matrix.offset / self.cost,
            lower=matrix.lower / self.columns,
            upper=matrix.upper / self.columns,
            rows=_divided(matrix.rows, self.rows, self.columns),
            row_lower=matrix.row_lower / self.rows,
            row_upper=matrix.row_upper / self.rows,
        )

    def extended(self, rows: csr_array) -> tuple[Self, csr_array, Floats]:
        """With further rows: (units of all, the rows in their units, the units of the new rows)."""
        heights = _heights(rows, self.columns)
        known = replace(self, rows=np.append(self.rows, heights))
        return known, _divided(rows, heights, self.columns), heights

    def outcome(self, outcome: Outcome) -> Outcome:
        """What a solver says of the scaled model, in the units of the model itself."""
        return replace(
            outcome,
            objective=None if outcome.objective is None else outcome.objective * self.cost,
            bound=None if outcome.bound is None else outcome.bound * self.cost,
            x=None if outcome.x is None else outcome.x * self.columns,
            row_duals=None if outcome.row_duals is None else outcome.row_duals * self.cost / self.rows,
            col_duals=None if outcome.col_duals is None else outcome.col_duals * self.cost / self.columns,
        )


def _heights(rows: csr_array, columns: Floats) -> Floats:
    """Units of rows, given those of the columns."""
    largest = np.zeros(rows.shape[0])
    at = np.repeat(np.arange(largest.size), np.diff(rows.indptr))
    np.maximum.at(largest, at, np.abs(rows.data) * columns[rows.indices])
    return np.where(largest > 2.0**_LARGEST, _power(np.maximum(largest, 1.0)), 1.0)


def _divided(rows: csr_array, heights: Floats, columns: Floats) -> csr_array:
    scaled = rows.copy()
    scaled.data = rows.data * columns[rows.indices] / np.repeat(heights, np.diff(rows.indptr))
    return scaled


def _power(values: NDArray[np.float64] | np.float64) -> Floats:
    """The powers of two next below."""
    return np.exp2(np.floor(np.log2(values)))
