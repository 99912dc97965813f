"""The door to a solver for models of large numbers: scaled on the way in, scaled back on the way out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from moeopt.scaling import Scale
from moeopt.solvers.door import Session
from moeopt.solvers.protocol import Outcome
from moeopt.solvers.request import as_point

if TYPE_CHECKING:
    from scipy.sparse import csc_array, csr_array

    from moeopt.matrix import Matrix

__all__ = ["ScaledSession"]

Floats = NDArray[np.float64]


class ScaledSession(Session):
    """A session that measures rows, continuous columns and costs in powers of two; see `moeopt.scaling.Scale`.

    Everything goes in and comes out in the units of the model; models of moderate numbers pass as they are.
    """

    _scale: Scale | None = None

    def solve(self, matrix: Matrix, **limits: Any) -> Outcome:
        """As `Session.solve`."""
        scale = Scale.of(matrix)
        if scale.plain or not self.linear:  # a solver that counts in whole numbers needs the very numbers
            return super().solve(matrix, **limits)
        if limits.get("start") is not None:
            limits["start"] = as_point(matrix, limits["start"]) / scale.columns
        if (hear := limits.get("on_incumbent")) is not None:
            limits["on_incumbent"] = _heard(hear, scale)
        if (learn := limits.get("on_bound")) is not None:
            limits["on_bound"] = lambda bound: learn(bound * scale.cost)
        return scale.outcome(super().solve(scale.applied(matrix), **limits))

    def load(self, matrix: Matrix, /) -> None:
        """As `Session.load`; rows and columns added later are measured in the units of this model."""
        self._scale = Scale.of(matrix)
        super().load(matrix if self._scale.plain else self._scale.applied(matrix))

    def add_columns(self, *, cost: Floats, lower: Floats, upper: Floats, columns: csc_array) -> None:
        """As `Session.add_columns`."""
        if self._scale is not None and not self._scale.plain:
            raise RuntimeError("a scaled model takes no further columns")
        super().add_columns(cost=cost, lower=lower, upper=upper, columns=columns)

    def add_rows(self, *, rows: csr_array, row_lower: Floats, row_upper: Floats) -> None:
        """As `Session.add_rows`."""
        if self._scale is not None and not self._scale.plain:
            self._scale, rows, units = self._scale.extended(rows)
            row_lower, row_upper = row_lower / units, row_upper / units
        super().add_rows(rows=rows, row_lower=row_lower, row_upper=row_upper)

    def set_bounds(self, *, lower: Floats, upper: Floats) -> None:
        """As `Session.set_bounds`."""
        columns = 1.0 if self._scale is None else self._scale.columns
        super().set_bounds(lower=lower / columns, upper=upper / columns)

    def resolve(self, **limits: Any) -> Outcome:
        """As `Session.resolve`."""
        outcome = super().resolve(**limits)
        return outcome if self._scale is None or self._scale.plain else self._scale.outcome(outcome)


def _heard(hear: Callable[[Floats, float], object], scale: Scale) -> Callable[[Floats, float], object]:
    return lambda x, objective: hear(x * scale.columns, objective * scale.cost)
