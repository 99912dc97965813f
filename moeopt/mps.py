"""Models as free MPS files, which every solver reads: numbers without loss, the constant of the objective included."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeopt.formulation import Formulation, Separable, Tabulated
from moeopt.matrix import Matrix, from_pyomo

__all__ = ["free_mps", "full_matrix"]

OBJECTIVE = "cost"  # name of its row
EXACT = float(1 << 53)


def full_matrix(formulation: Formulation, problem: Any) -> Matrix:
    """The standard form with every row that is else found on demand, costs in the units of `problem.cost`.

    ValueError when the formulation does not state the problem, or a cost is beyond what a float holds exactly.
    """
    if reason := formulation.supports(problem):
        raise ValueError(f"formulation {formulation.name} does not state this problem: {reason}")
    if isinstance(formulation, Tabulated):
        matrix = formulation.matrix(problem)
    else:
        matrix, _ = from_pyomo(formulation.build(problem))
    if (largest := np.abs(matrix.cost).max(initial=abs(matrix.offset))) >= EXACT:
        raise ValueError(f"costs must lie below 2^53 to be written exactly, found {largest:g}")
    if not isinstance(formulation, Separable):
        return matrix
    lazy = formulation.lazy(problem)
    return matrix.extended(lazy.rows, lower=lazy.lower, upper=lazy.upper)


def free_mps(matrix: Matrix, *, name: str) -> bytes:
    """The matrix as a free MPS file named `name`.

    The constant of the objective is the negative right side of its row, as MPS has it. Bounds of whole columns are
    stated, for readers differ in their defaults. A row with two sides is one side and a range, exact where their
    difference is. Rows without a side are left out. ValueError for a name that holds a blank, or that two columns or
    two rows share.
    """
    columns = _names("column", matrix.column_names, count=matrix.cost.size)
    rows = _names("row", matrix.row_names, count=matrix.row_lower.size)
    if OBJECTIVE in rows:
        raise ValueError(f"a row is named {OBJECTIVE!r}, which is the name of the objective")
    if not name or len(name.split()) != 1:
        raise ValueError(f"the name of a model is one word, found {name!r}")
    lower, upper = matrix.row_lower, matrix.row_upper
    stated = np.isfinite(lower) | np.isfinite(upper)
    sense = np.where(lower == upper, "E", np.where(np.isfinite(lower), "G", "L"))
    kept = np.flatnonzero(stated).tolist()
    lines = [f"NAME {name}", "ROWS", f" N {OBJECTIVE}"]
    lines += [f" {sense[row]} {rows[row]}" for row in kept]
    lines += ["COLUMNS", *_columns(matrix, columns, rows, stated)]
    sides = np.where(np.isfinite(lower), lower, upper)
    lines.append("RHS")
    if matrix.offset:
        lines.append(f" RHS {OBJECTIVE} {_number(-matrix.offset)}")
    lines += [f" RHS {rows[row]} {_number(sides[row])}" for row in kept if sides[row]]
    ranged = np.flatnonzero(np.isfinite(lower) & np.isfinite(upper) & (lower < upper)).tolist()
    if ranged:
        lines += ["RANGES", *(f" RANGE {rows[row]} {_number(upper[row] - lower[row])}" for row in ranged)]
    lines += ["BOUNDS", *_bounds(matrix, columns), "ENDATA", ""]
    return "\n".join(lines).encode()


def _columns(
    matrix: Matrix, columns: Sequence[str], rows: Sequence[str], stated: NDArray[np.bool_]
) -> list[str]:
    """Entries column by column, whole columns between markers."""
    by_column = matrix.rows.tocsc()
    starts, places = by_column.indptr.tolist(), by_column.indices.tolist()
    values, which = np.unique(by_column.data, return_inverse=True)
    texts = [_number(value) for value in values.tolist()]
    entries, known = which.tolist(), stated.tolist()
    costs, integer = matrix.cost.tolist(), matrix.integer.tolist()
    lines: list[str] = []
    inside = False
    for at, column in enumerate(columns):
        if integer[at] != inside:
            inside = integer[at]
            lines.append(f" MARKER 'MARKER' '{'INTORG' if inside else 'INTEND'}'")
        mine = [entry for entry in range(starts[at], starts[at + 1]) if known[places[entry]]]
        if costs[at] or not mine:  # a column without an entry is named all the same
            lines.append(f" {column} {OBJECTIVE} {_number(costs[at])}")
        lines += [f" {column} {rows[places[entry]]} {texts[entries[entry]]}" for entry in mine]
    if inside:
        lines.append(" MARKER 'MARKER' 'INTEND'")
    return lines


def _bounds(matrix: Matrix, columns: Sequence[str]) -> list[str]:
    """What differs from 0 <= x < inf, and all of whole columns."""
    lines = []
    for column, low, high, integer in zip(
        columns, matrix.lower.tolist(), matrix.upper.tolist(), matrix.integer.tolist(), strict=True
    ):
        if low == high:
            lines.append(f" FX BND {column} {_number(low)}")
        elif integer and (low, high) == (0.0, 1.0):
            lines.append(f" BV BND {column}")
        elif (low, high) == (-np.inf, np.inf):
            lines.append(f" FR BND {column}")
        else:
            if low == -np.inf:
                lines.append(f" MI BND {column}")
            elif low or integer:
                lines.append(f" LO BND {column} {_number(low)}")
            if high != np.inf:
                lines.append(f" UP BND {column} {_number(high)}")
            elif integer:
                lines.append(f" PL BND {column}")
    return lines


def _names(what: str, given: Sequence[str], *, count: int) -> Sequence[str]:
    names = given or [f"{what[0]}{at}" for at in range(count)]
    if wrong := [one for one in names if len(one.split()) != 1]:
        raise ValueError(f"names of an MPS file are single words, found {what} {wrong[0]!r}")
    if len(set(names)) != count:
        raise ValueError(f"names of an MPS file are distinct, found {len(set(names))} for {count} {what}s")
    return names


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) <= EXACT else repr(float(value))
