"""Sifting solves the relaxation of the whole model."""

from __future__ import annotations

import numpy as np
import pytest

from moeopt import sifting
from moeopt.matrix import Matrix
from moeopt.solvers.protocol import Status
from moeopt.solvers.scaled import ScaledSession
from moeopt.stop import Stop


def cover(seed: int, *, least: float = 0.0) -> tuple[Matrix, np.ndarray]:
    """Eight things covered by pairs and triples, and a point that covers them."""
    rng = np.random.default_rng(seed)
    sets = [rng.choice(8, rng.integers(2, 4), replace=False) for _ in range(150)]
    sets[:4] = [np.array([0, 1]), np.array([2, 3]), np.array([4, 5]), np.array([6, 7])]
    rows = np.zeros((8, 151))
    for column, members in enumerate(sets):
        rows[members, column] = 1
    rows[0, 150] = 1
    point = np.zeros(151)
    point[:4] = 1
    lower = np.zeros(151)
    lower[150], point[150] = least, least
    matrix = Matrix(
        cost=np.append(rng.integers(1, 30, 150), 2).astype(float),
        lower=lower,
        upper=np.ones(151),
        integer=np.ones(151, bool),
        rows=rows,
        row_lower=np.ones(8),
        row_upper=np.full(8, 1.0 + least),
        column_names=tuple(f"z[{at}]" for at in range(151)),
    )
    return matrix, point


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("least", [0.0, 1.0])
def test_the_value_is_that_of_the_whole_relaxation(
    monkeypatch: pytest.MonkeyPatch, seed: int, least: float
) -> None:
    monkeypatch.setattr(sifting, "_FIRST", 8)
    monkeypatch.setattr(sifting, "_BATCH", 3)
    matrix, point = cover(seed, least=least)
    assert matrix.violation(point) == 0.0
    with ScaledSession() as session:
        whole = session.solve(matrix, relax=True)
        outcome = sifting.sift(matrix, session, point=point, clock=Stop(seconds=None).start(), seed=0)
    assert outcome.status == Status.OPTIMAL
    assert outcome.objective == pytest.approx(whole.objective)
    assert outcome.x is not None
    assert outcome.row_duals is not None
    assert matrix.value(outcome.x) == pytest.approx(whole.objective)
    reduced = matrix.cost - matrix.rows.T @ outcome.row_duals
    sides = np.where(outcome.row_duals > 0, matrix.row_lower, matrix.row_upper)
    proved = outcome.row_duals @ sides + np.where(reduced > 0, matrix.lower, matrix.upper) @ reduced
    assert proved == pytest.approx(whole.objective)


def test_an_expired_clock_leaves_nothing_claimed() -> None:
    matrix, point = cover(0)
    clock = Stop(seconds=1e-9).start()
    with ScaledSession() as session:
        outcome = sifting.sift(matrix, session, point=point, clock=clock, seed=0)
    assert outcome.status != Status.OPTIMAL
    assert (outcome.x, outcome.row_duals, outcome.bound) == (None, None, None)
