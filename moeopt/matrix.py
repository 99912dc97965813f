"""The standard form of a linear or mixed-integer minimisation model: what every solver is given."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.sparse import csr_array

__all__ = ["Canonical", "Matrix", "canonical", "from_pyomo"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Matrix:
    """Minimise ``cost @ x + offset`` over ``lower <= x <= upper`` and ``row_lower <= rows @ x <= row_upper``.

    Arrays are copied, checked once and read-only; ``rows`` is never densified. A matrix is compared with
    `canonical`, not with ``==``.

    ============  =====================  ==================================================================
    cost          float[columns]         finite
    lower, upper  float[columns]         -inf and inf where a column has no bound
    integer       bool[columns]          the columns that must be whole numbers
    rows          csr[rows, columns]     any sparse or dense input; duplicates are summed, zeros dropped
    row_lower     float[rows]            -inf where a row has no lower bound
    row_upper     float[rows]            inf where a row has no upper bound
    offset        float                  the constant of the objective
    column_names  tuple of str           empty, or one a column
    row_names     tuple of str           empty, or one a row
    ============  =====================  ==================================================================

    Raises
    ------
    ValueError
        A shape does not fit, a number is NaN or infinite where it may not be, or a lower bound is above its
        upper bound; the message names the field, the entry and the values.
    """

    cost: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    integer: NDArray[np.bool_]
    rows: csr_array
    row_lower: NDArray[np.float64]
    row_upper: NDArray[np.float64]
    offset: float = 0.0
    column_names: tuple[str, ...] = ()
    row_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        rows = _compressed(self.rows)
        count, width = rows.shape
        integer = np.array(self.integer)
        if integer.dtype != np.bool_ or integer.shape != (width,):
            raise ValueError(
                f"integer must be bool[{width}], one a column; found {integer.dtype}{list(integer.shape)}"
            )
        fields: dict[str, Any] = {"rows": rows, "integer": integer, "offset": float(self.offset)}
        for name, size in (
            ("cost", width),
            ("lower", width),
            ("upper", width),
            ("row_lower", count),
            ("row_upper", count),
        ):
            array = np.array(getattr(self, name), dtype=np.float64)
            if array.shape != (size,):
                raise ValueError(
                    f"{name} must have shape ({size},) to fit rows {rows.shape}; found {array.shape}"
                )
            fields[name] = array
        for name, size in (("column_names", width), ("row_names", count)):
            fields[name] = tuple(getattr(self, name))
            if len(fields[name]) not in (0, size):
                raise ValueError(f"{name} must be empty or hold {size} names; found {len(fields[name])}")
        for name, array in (
            ("cost", fields["cost"]),
            ("rows", rows.data),
            ("offset", np.array([fields["offset"]])),
        ):
            if not np.isfinite(array).all():
                raise ValueError(f"{name} must be finite; found {array[~np.isfinite(array)][0]}")
        _check_bounds("lower", "upper", fields["lower"], fields["upper"])
        _check_bounds("row_lower", "row_upper", fields["row_lower"], fields["row_upper"])
        for name, field in fields.items():
            for array in (field.data, field.indices, field.indptr) if name == "rows" else (field,):
                if isinstance(array, np.ndarray):
                    array.flags.writeable = False
            object.__setattr__(self, name, field)

    def value(self, x: NDArray[np.float64], /) -> float:
        """``cost @ x + offset`` of a point x float[columns], feasible or not."""
        return float(self.cost @ self._point(x) + self.offset)

    def violation(self, x: NDArray[np.float64], tolerance: float = 0.0) -> float:
        """The largest amount by which x float[columns] breaks a bound, a row or integrality.

        0.0 when no amount exceeds ``tolerance`` (absolute, in the units of the row); inf for a NaN entry.
        """
        point = self._point(x)
        if not np.isfinite(point).all():
            return float("inf")
        body = self.rows @ point
        whole = point[self.integer]
        amounts = (
            self.lower - point,
            point - self.upper,
            self.row_lower - body,
            body - self.row_upper,
            np.abs(whole - np.round(whole)),
        )
        worst = max(float(amount.max(initial=0.0)) for amount in amounts)
        return worst if worst > tolerance else 0.0

    def extended(self, rows: csr_array, *, lower: NDArray[np.float64], upper: NDArray[np.float64]) -> Matrix:
        """With these rows below its own, which lose their names."""
        from scipy.sparse import vstack

        return replace(
            self,
            rows=vstack([self.rows, rows], format="csr"),
            row_lower=np.concatenate([self.row_lower, lower]),
            row_upper=np.concatenate([self.row_upper, upper]),
            row_names=(),
        )

    def _point(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        point = np.asarray(x, dtype=np.float64)
        if point.shape != self.cost.shape:
            raise ValueError(f"a point of this matrix has shape {self.cost.shape}; found {point.shape}")
        return point


class Canonical(NamedTuple):
    """A matrix up to the order and the names of its rows and the order of its columns.

    ``columns`` holds (name, cost, lower, upper, integer). ``rows`` holds (lower, upper, entries) and how
    often it occurs, entries being pairs (name, coefficient). ``one.rows - other.rows`` explains a difference.
    """

    offset: float
    columns: frozenset[tuple[str, float, float, float, bool]]
    rows: frozenset[tuple[tuple[float, float, frozenset[tuple[str, float]]], int]]


def canonical(matrix: Matrix, *, digits: int = 12) -> Canonical:
    """The form in which two statements of one model are equal, numbers kept to ``digits`` significant ones.

    A row and its negative are one row (`a x >= b` is `-a x <= -b`). Rows that hold for every point (no
    bounds, or no coefficients and 0 within the bounds) are left out, as Pyomo leaves them out.

    Raises
    ------
    ValueError
        The columns have no names, or two columns share one.
    """
    names = matrix.column_names
    if len(names) != matrix.cost.size or len(set(names)) != len(names):
        raise ValueError(
            f"a canonical form needs one distinct name a column; found {len(set(names))} names"
            f" for {matrix.cost.size} columns"
        )

    def shorten(values: NDArray[np.float64]) -> list[float]:
        return [float(f"{value:.{digits}g}") + 0.0 for value in values.tolist()]  # + 0.0 turns -0.0 into 0.0

    columns = zip(
        names,
        shorten(matrix.cost),
        shorten(matrix.lower),
        shorten(matrix.upper),
        matrix.integer.tolist(),
        strict=True,
    )
    starts, indices, values = (
        matrix.rows.indptr.tolist(),
        matrix.rows.indices.tolist(),
        shorten(matrix.rows.data),
    )
    rows: Counter[tuple[float, float, frozenset[tuple[str, float]]]] = Counter()
    for row, (lower, upper) in enumerate(
        zip(shorten(matrix.row_lower), shorten(matrix.row_upper), strict=True)
    ):
        entries = [(names[indices[at]], values[at]) for at in range(starts[row], starts[row + 1])]
        if (lower, upper) == (-np.inf, np.inf) or (not entries and lower <= 0.0 <= upper):
            continue
        if entries and min(entries)[1] < 0.0:
            entries = [(name, -value) for name, value in entries]
            lower, upper = 0.0 - upper, 0.0 - lower
        rows[lower, upper, frozenset(entries)] += 1
    return Canonical(shorten(np.array([matrix.offset]))[0], frozenset(columns), frozenset(rows.items()))


class NeverHolds(ValueError):
    """A constraint without variables that is false: no solver need be asked."""


def from_pyomo(model: Any, /) -> tuple[Matrix, list[Any]]:
    """Compile a linear Pyomo model, and return the Pyomo variables in the order of the columns.

    Every free variable of the model is a column, used or not, so that a point gives each a value. Fixed
    variables are constants. A two-sided constraint is one row. No active objective is the objective 0.

    Raises
    ------
    ValueError
        The model is not linear, has several objectives or one to be maximised, has a constraint without
        variables that does not hold, or a domain that is neither continuous nor integer.
    """
    from pyomo.common.errors import InfeasibleConstraintException
    from pyomo.core import Var, minimize
    from pyomo.repn.plugins.standard_form import LinearStandardFormCompiler
    from scipy.sparse import csr_array

    try:
        form = LinearStandardFormCompiler().write(model, mixed_form=True, set_sense=None)
    except InfeasibleConstraintException as error:
        raise NeverHolds(f"a constraint of the model can never hold: {error}") from error
    if len(form.objectives) > 1 or any(objective.sense != minimize for objective in form.objectives):
        found = [f"{objective.name} ({objective.sense})" for objective in form.objectives]
        raise ValueError(
            f"a model must have at most one objective, to be minimised; found {', '.join(found)}"
        )

    variables = list(form.columns)
    used = {id(variable) for variable in variables}
    for variable in model.component_data_objects(Var, active=True, descend_into=True):
        if not variable.fixed and id(variable) not in used:
            variables.append(variable)
    for variable in variables:
        if not (variable.is_continuous() or variable.is_integer()):
            raise ValueError(
                f"variable {variable.name} must be continuous or integer; found {variable.domain}"
            )
    bounds = [variable.bounds for variable in variables]
    cost = np.zeros(len(variables))
    if form.objectives:
        cost[: len(form.columns)] = form.c.toarray()[0]  # one row: dense by nature

    # The compiler states a two-sided constraint as two adjacent rows, upper bound first.
    kept: list[int] = []
    row_lower: list[float] = []
    row_upper: list[float] = []
    for at, ((constraint, side), bound) in enumerate(
        zip(form.rows, np.asarray(form.rhs).tolist(), strict=True)
    ):
        if side == -1 and kept and form.rows[kept[-1]][0] is constraint:
            row_lower[-1] = bound
            continue
        kept.append(at)
        row_lower.append(-np.inf if side == 1 else bound)
        row_upper.append(np.inf if side == -1 else bound)
    rows = form.A.tocsr()[kept]
    matrix = Matrix(
        cost=cost,
        offset=float(form.c_offset[0]) if form.objectives else 0.0,
        lower=np.array([-np.inf if lower is None else lower for lower, _ in bounds], dtype=np.float64),
        upper=np.array([np.inf if upper is None else upper for _, upper in bounds], dtype=np.float64),
        integer=np.array([variable.is_integer() for variable in variables], dtype=np.bool_),
        rows=csr_array((rows.data, rows.indices, rows.indptr), shape=(len(kept), len(variables))),
        row_lower=np.array(row_lower),
        row_upper=np.array(row_upper),
        column_names=tuple(variable.name for variable in variables),
        row_names=tuple(form.rows[at][0].name for at in kept),
    )
    return matrix, variables


def _compressed(rows: Any) -> csr_array:
    """A private copy of rows in compressed form, every entry once, in order of columns."""
    from scipy.sparse import csr_array

    copy = csr_array(rows, dtype=np.float64, copy=True)
    if copy.ndim != 2:
        raise ValueError(f"rows must have two axes [rows, columns]; found shape {copy.shape}")
    copy.sum_duplicates()
    copy.eliminate_zeros()
    return copy


def _check_bounds(low: str, high: str, lower: NDArray[np.float64], upper: NDArray[np.float64]) -> None:
    wrong = ~(lower <= upper) | (lower == np.inf) | (upper == -np.inf)
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        raise ValueError(
            f"{low} <= {high} must hold; entry {at} has {low} {lower[at]} and {high} {upper[at]}"
        )
