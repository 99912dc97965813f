"""A statement in whole numbers, and what row multipliers prove about it, exactly.

For any integer row multipliers Y at scale S, and columns between their bounds,

    S cost(x)  >=  S offset + sum over rows of Y (the side of the row it has the sign of)
                   + sum over columns of min over its bounds of (S c - A'Y) x  =  dual.

Every admissible answer has a whole cost, a multiple of the divisor of the costs where all columns that cost
something are whole, so no answer costs less than dual / S, rounded up to such a multiple.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import gcd
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from moeopt.formulation import Formulation, LazyRows, Separable, Tabulated
from moeopt.judged import Judged
from moeopt.matrix import Matrix, from_pyomo

if TYPE_CHECKING:
    from scipy.sparse import csr_array

__all__ = ["Multipliers", "WholeModel"]

_SAFE = float(1 << 61)
_EXACT = float(1 << 53)
Multipliers = tuple[NDArray[np.int64], list[int]]  # rows, and a number for each


@dataclass(frozen=True, eq=False)
class WholeModel:
    """A formulation of one problem in integers.

    | field | holds |
    |---|---|
    | costs, offset | int64 [columns] and the constant |
    | divisor | divides the cost of every answer |
    | lower, upper | int64 [columns] |
    | integer | bool [columns]: columns that are whole |
    | rows | csr int64 [rows, columns] |
    | row_lower, row_upper | float [rows]: whole, -inf and inf where there is no side |
    | attainable | the least cost that an answer can have, given a bound |
    """

    costs: NDArray[np.int64]
    offset: int
    divisor: int
    lower: NDArray[np.int64]
    upper: NDArray[np.int64]
    integer: NDArray[np.bool_]
    rows: csr_array
    row_lower: NDArray[np.float64]
    row_upper: NDArray[np.float64]
    attainable: Callable[[int], int] = int

    @classmethod
    def of(cls, formulation: Formulation, problem: Judged, *, keys: NDArray[Any] | None = None) -> Self:
        """By the formulation's own matrix, or compiled from Pyomo; ValueError where a number is not whole.

        `keys` int [rows, width] adds these of its lazy rows, after the others.
        """
        attainable = getattr(problem, "attainable", int)
        if isinstance(formulation, Tabulated):
            costs, offset = formulation.costs(problem)
            model = replace(cls._of(formulation.matrix(problem), costs, int(offset)), attainable=attainable)
            if keys is None or not len(keys):
                return model
            if not isinstance(formulation, Separable):
                raise ValueError(
                    f"{formulation.name} has no rows that are found on demand, {len(keys)} are named"
                )
            return model.grown(formulation.lazy(problem, keys))
        matrix, _ = from_pyomo(formulation.build(problem))
        if np.abs(matrix.cost).max(initial=abs(matrix.offset)) >= _EXACT:
            raise ValueError("costs beyond 2^53 need `costs` of the formulation: floats lose their digits")
        whole = cls._of(matrix, _whole("costs", matrix.cost), int(matrix.offset))
        return replace(whole, attainable=attainable)

    @classmethod
    def _of(cls, matrix: Matrix, costs: NDArray[np.int64], offset: int) -> Self:
        from scipy.sparse import csr_array

        rows = csr_array(
            (_whole("rows", matrix.rows.data), matrix.rows.indices, matrix.rows.indptr),
            shape=matrix.rows.shape,
        )
        _check_sides(matrix.row_lower, matrix.row_upper)
        divisor = gcd(offset, *np.unique(costs).tolist()) if matrix.integer[costs != 0].all() else 1
        return cls(
            costs,
            offset,
            divisor or 1,
            _whole("lower bounds", matrix.lower),
            _whole("upper bounds", matrix.upper),
            matrix.integer,
            rows,
            matrix.row_lower,
            matrix.row_upper,
        )

    def grown(self, rows: LazyRows) -> Self:
        """With these rows after the others."""
        from scipy.sparse import csr_array, vstack

        _check_sides(rows.lower, rows.upper)
        whole = csr_array(rows.rows)
        whole = csr_array((_whole("rows", whole.data), whole.indices, whole.indptr), shape=whole.shape)
        return replace(
            self,
            rows=vstack([self.rows, whole], format="csr"),
            row_lower=np.concatenate([self.row_lower, rows.lower]),
            row_upper=np.concatenate([self.row_upper, rows.upper]),
        )

    def dual(
        self, multipliers: Multipliers, *, scale: int, lower: NDArray[np.int64], upper: NDArray[np.int64]
    ) -> int:
        """What the multipliers prove of the points between `lower` and `upper`, times scale; exact.

        ValueError when a multiplier presses on a side that its row does not have, or a row does not exist.
        """
        total, reduced = self._reduced(multipliers, scale, lower, upper)
        return total + int((reduced * np.where(reduced > 0, lower, upper).astype(reduced.dtype)).sum())

    def narrowed(
        self, multipliers: Multipliers, *, scale: int, ceiling: int
    ) -> tuple[Self, NDArray[np.bool_], NDArray[np.int64]]:
        """The model of the points that cost less than `ceiling`, over fewer columns; kept [columns], rest [columns].

        A point is worth dual + |S c - A'Y| |x - bound| at least, summed over its columns, so a whole column of which
        one step reaches the ceiling stays at its bound: `rest`, for columns that are not kept.
        """
        total, reduced = self._reduced(multipliers, scale, self.lower, self.upper)
        ends = np.where(reduced > 0, self.lower, self.upper)
        dual = total + int((reduced * ends.astype(reduced.dtype)).sum())
        fixed = self.integer & np.asarray(abs(reduced) >= scale * ceiling - dual, bool)
        rest = np.where(fixed, ends, 0)
        body = (self.rows @ rest).astype(float)
        model = replace(
            self,
            costs=self.costs[~fixed],
            offset=self.offset + int((self.costs * rest).sum()),
            lower=self.lower[~fixed],
            upper=self.upper[~fixed],
            integer=self.integer[~fixed],
            rows=self.rows[:, np.flatnonzero(~fixed)],
            row_lower=self.row_lower - body,
            row_upper=self.row_upper - body,
        )
        _whole("rows of columns that are left out", body)
        _check_sides(model.row_lower, model.row_upper)
        return model, ~fixed, rest

    def reduced(self, multipliers: Multipliers, *, scale: int) -> tuple[int, NDArray[Any]]:
        """S offset plus the multipliers times the sides they press on, and S c - A'Y [columns], both exact."""
        return self._reduced(multipliers, scale, self.lower, self.upper)

    def _reduced(
        self, multipliers: Multipliers, scale: int, lower: NDArray[np.int64], upper: NDArray[np.int64]
    ) -> tuple[int, NDArray[Any]]:
        """S offset plus the multipliers times the sides they press on, and S c - A'Y [columns], both exact."""
        places, numbers = multipliers
        if len(places) != len(numbers) or (
            len(places) and not 0 <= places.min() <= places.max() < len(self.row_lower)
        ):
            raise ValueError(f"{len(numbers)} multipliers for {len(places)} rows of {len(self.row_lower)}")
        positive = np.array([number > 0 for number in numbers], bool)
        sides = np.where(positive, self.row_lower[places], self.row_upper[places])
        if not np.isfinite(sides).all():
            at = int(places[np.flatnonzero(~np.isfinite(sides))[0]])
            raise ValueError(f"a multiplier presses on a side that row {at} does not have")
        total = scale * self.offset + sum(
            number * side for number, side in zip(numbers, sides.astype(np.int64).tolist(), strict=True)
        )
        part = self.rows[places]
        counts = np.diff(part.indptr)
        # Whether 64 bits hold every sum, by an estimate with a factor of two to spare.
        largest = max((abs(number) for number in numbers), default=0)
        peak = scale * float(np.abs(self.costs).max(initial=1))
        peak += float(largest) * float(np.abs(part.data).max(initial=1)) * len(places)
        reach = float(np.maximum(np.abs(lower), np.abs(upper)).max(initial=0))
        kind: Any = np.int64 if peak * max(reach, 1.0) * len(self.costs) < _SAFE else object
        reduced = self.costs.astype(kind) * scale
        pressed = part.data.astype(kind) * np.repeat(np.array(numbers, kind), counts)
        np.subtract.at(reduced, part.indices, pressed)
        return total, reduced

    def bound(self, dual: int, scale: int) -> int:
        """The least cost that a dual value allows."""
        return self.attainable(self.divisor * -(-dual // (scale * self.divisor)))


def _check_sides(lower: NDArray[np.float64], upper: NDArray[np.float64]) -> None:
    for name, sides in (("row_lower", lower), ("row_upper", upper)):
        _whole(name, sides[np.isfinite(sides)])


def _whole(name: str, values: NDArray[np.float64]) -> NDArray[np.int64]:
    fine = np.abs(values) <= _EXACT
    fine[fine] = np.mod(values[fine], 1) == 0
    if not fine.all():
        raise ValueError(
            f"{name} must be whole numbers up to 2^53 for an exact bound, found {values[~fine][:1]}"
        )
    return values.astype(np.int64)
