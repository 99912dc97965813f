"""The linear relaxation of a model with many more columns than rows, over the few columns that matter."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from moeopt.matrix import Matrix
from moeopt.solvers.door import Session
from moeopt.solvers.protocol import Outcome, Status
from moeopt.stop import Clock

__all__ = ["sift"]

_FIRST = 6_000  # columns of the first linear model
_BATCH = 4_000  # columns added a round
_ATTRACTIVE = 1e-9  # reduced cost below minus this times the largest cost


def sift(matrix: Matrix, session: Session, *, point: NDArray[np.float64], clock: Clock, seed: int) -> Outcome:
    """Solve the linear relaxation by sifting, starting from a feasible `point` float [columns].

    Columns wait at 0 until a round of pricing over all of them finds their reduced cost negative;
    then the most negative enter. Ends with an optimal outcome of the whole model, or with that of the last round when
    the solver did not finish it. Columns whose lower bound is not 0 enter at once.

    Source: R. E. Bixby, J. W. Gregory, I. J. Lustig, R. E. Marsten, D. F. Shanno, Very large-scale linear
    programming, Operations Research 40 (1992).
    """
    columns = matrix.rows.tocsc()
    entered = (point != 0) | (matrix.lower != 0) | ~matrix.integer
    half = min(_FIRST // 2, matrix.cost.size - 1)
    entered[np.argpartition(matrix.cost, half)[:half]] = True
    entered[np.linspace(0, matrix.cost.size - 1, half).astype(np.int64)] = True
    order = np.flatnonzero(entered)
    session.load(_part(matrix, order))
    least = -_ATTRACTIVE * max(1.0, float(np.abs(matrix.cost).max(initial=0.0)))
    while True:
        outcome = session.resolve(seconds=clock.left, seed=seed, should_stop=lambda: clock.expired)
        if outcome.status != Status.OPTIMAL or outcome.row_duals is None or outcome.x is None:
            return replace(outcome, x=None, row_duals=None, col_duals=None, bound=None)
        reduced = np.where(entered, 0.0, matrix.cost - matrix.rows.T @ outcome.row_duals)
        chosen = np.flatnonzero(reduced < least)
        if not chosen.size:
            x = np.zeros(matrix.cost.size)
            x[order] = outcome.x
            return replace(outcome, x=x, col_duals=None)
        if chosen.size > _BATCH:
            chosen = chosen[np.argpartition(reduced[chosen], _BATCH)[:_BATCH]]
        entered[chosen] = True
        order = np.append(order, chosen)
        session.add_columns(
            cost=matrix.cost[chosen],
            lower=matrix.lower[chosen],
            upper=matrix.upper[chosen],
            columns=columns[:, chosen],
        )


def _part(matrix: Matrix, order: NDArray[np.int64]) -> Matrix:
    """The model over some columns; the others are 0 as long as they are out."""
    names = matrix.column_names
    return replace(
        matrix,
        cost=matrix.cost[order],
        lower=matrix.lower[order],
        upper=matrix.upper[order],
        integer=matrix.integer[order],
        rows=matrix.rows[:, order],
        column_names=tuple(names[at] for at in order) if names else (),
    )
