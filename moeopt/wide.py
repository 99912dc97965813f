"""Models with many more columns than rows: relaxations by sifting, searches over the columns that can matter."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from moeopt.claims import CLAIM
from moeopt.fixing import Core
from moeopt.formulation import Separable
from moeopt.matrix import Matrix
from moeopt.sifting import sift

if TYPE_CHECKING:
    from moeopt.rowsearch import RowSearch

__all__ = ["core_of", "relaxed"]

WIDE = 50_000  # columns from which relaxations are sifted


def core_of(run: RowSearch, matrix: Matrix) -> Core:
    """The model over the columns that a better answer can use, by the multipliers of the relaxation."""
    duals = np.zeros(0) if run.duals is None else run.duals
    ceiling = np.inf if run.best.cost is None else run.best.cost / run.statement.unit
    return Core.of(matrix, duals=duals, ceiling=ceiling)


def relaxed(run: RowSearch) -> bool:
    """Whether the relaxation of a wide model was solved by sifting, from the best answer known."""
    formulation, matrix = run.statement.formulation, run.statement.matrix
    known = run.best.found is not None and hasattr(formulation, "values")
    if matrix.cost.size < WIDE or not known or isinstance(formulation, Separable):
        return False
    point = formulation.values(run.statement.problem, run.best.found)  # type: ignore[attr-defined]
    outcome = run.ask(lambda: sift(matrix, run.session, point=point, clock=run.clock, seed=run.seed))
    if outcome is None or outcome.row_duals is None or outcome.x is None:
        return False
    run.duals = outcome.row_duals
    if np.abs(outcome.x - np.round(outcome.x))[matrix.integer].max(initial=0.0) < CLAIM:
        run.consider(outcome.x)
    return True
