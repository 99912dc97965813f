"""A statement in whole numbers, and what row multipliers prove about it, exactly.

For any integer row multipliers Y at scale S, and columns between their bounds,

    S cost(x)  >=  S offset + sum over rows of Y (the side of the row it has the sign of)
                   + sum over columns of min over its bounds of (S c - A'Y) x  =  dual.

Every admissible answer has a whole cost, a multiple of the divisor of the costs where all columns that cost
something are whole, so no answer costs less than dual / S, rounded up to such a multiple.
"""

from __future__ import annotations

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

    @classmethod
    def of(cls, formulation: Formulation, problem: Judged, *, keys: NDArray[Any] | None = None) -> Self:
        """By the formulation's own matrix, or compiled from Pyomo; ValueError where a number is not whole.

        `keys` int [rows, width] adds these of its lazy rows, after the others.
        """
        if isinstance(formulation, Tabulated):
            costs, offset = formulation.costs(problem)
            model = cls._of(formulation.matrix(problem), costs, int(offset))
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
        return cls._of(matrix, _whole("costs", matrix.cost), int(matrix.offset))

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
        ends = np.where(reduced > 0, lower, upper).astype(kind)
        return total + int((reduced * ends).sum())

    def bound(self, dual: int, scale: int) -> int:
        """The least cost that a dual value allows."""
        return self.divisor * -(-dual // (scale * self.divisor))


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
