"""Models with many more columns than rows: relaxations by sifting, searches over the columns that can matter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from moeopt.branching import GIANT, scale_of
from moeopt.claims import CLAIM
from moeopt.fixing import Core
from moeopt.formulation import Separable, Startable
from moeopt.matrix import Matrix
from moeopt.sifting import sift
from moeopt.statement import Statement
from moeopt.whole_model import Multipliers, WholeModel

if TYPE_CHECKING:
    from moeopt.rowsearch import RowSearch

__all__ = ["core_of", "is_wide", "narrowed", "relaxed"]

WIDE = 50_000  # columns from which relaxations are sifted
TALL = 50_000  # rows from which they are not, if they are large too


def is_wide(matrix: Matrix) -> bool:
    """Whether a relaxation has so many columns that few of them should be looked at."""
    return matrix.cost.size >= WIDE


def core_of(run: RowSearch, matrix: Matrix) -> Core:
    """The model over the columns that a better answer can use, by the multipliers of the relaxation."""
    duals = np.zeros(0) if run.duals is None else run.duals
    ceiling = np.inf if run.best.cost is None else run.best.cost / run.statement.unit
    return Core.of(matrix, duals=duals, ceiling=ceiling)


def relaxed(run: RowSearch) -> bool:
    """Whether the relaxation of a wide model was solved by sifting, from the best answer known."""
    formulation, matrix = run.statement.formulation, run.statement.matrix
    if not is_wide(matrix) or run.best.found is None or isinstance(formulation, Separable):
        return False
    if matrix.rows.nnz > GIANT and matrix.rows.shape[0] > TALL:
        return False  # parts of it are no easier
    if not isinstance(formulation, Startable):
        return False
    point = formulation.values(run.statement.problem, run.best.found)
    outcome = run.ask(lambda: sift(matrix, run.session, point=point, clock=run.clock, seed=run.seed))
    if outcome is None or outcome.row_duals is None or outcome.x is None:
        return False
    run.duals = outcome.row_duals
    if np.abs(outcome.x - np.round(outcome.x))[matrix.integer].max(initial=0.0) < CLAIM:
        run.consider(outcome.x)
    return True


def narrowed(
    run: RowSearch, model: WholeModel, *, root: Multipliers, ceiling: int
) -> tuple[WholeModel, Statement, dict[str, Any], Callable[[NDArray[np.float64]], object]]:
    """Model and statement over the columns of answers that cost less than `ceiling`, as the root multipliers prove.

    With them what a certificate says of the columns that were fixed, and where points of the narrow model go.
    """
    scale, matrix = scale_of(run.statement.unit), run.statement.matrix
    small, kept, rest = model.narrowed(root, scale=scale, ceiling=ceiling)
    body = (model.rows @ rest).astype(float)
    names = matrix.column_names
    part = replace(
        matrix,
        cost=matrix.cost[kept],
        offset=matrix.offset + float(matrix.cost @ rest),
        lower=matrix.lower[kept],
        upper=matrix.upper[kept],
        integer=matrix.integer[kept],
        rows=matrix.rows[:, np.flatnonzero(kept)],
        row_lower=matrix.row_lower - body,
        row_upper=matrix.row_upper - body,
        column_names=tuple(names[at] for at in np.flatnonzero(kept)) if names else (),
    )

    def consider(x: NDArray[np.float64]) -> object:
        point = rest.astype(float)
        point[kept] = x
        return run.consider(point)

    fixing = {"ceiling": ceiling, "rows": root[0].tolist(), "numbers": list(root[1])}
    return small, replace(run.statement, matrix=part), fixing, consider
