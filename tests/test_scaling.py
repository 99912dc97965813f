"""Scaled models are the same models."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeopt.matrix import Matrix
from moeopt.scaling import Scale
from moeopt.solvers.protocol import Outcome, Status
from moeopt.solvers.scaled import ScaledSession


def model(seed: int, *, large: bool) -> Matrix:
    """min t with t >= two costs of 50 bits, three binaries of which two are chosen."""
    rng = np.random.default_rng(seed)
    top = 1 << (49 if large else 8)
    costs = rng.integers(1, top, (2, 3)).astype(float)
    return Matrix(
        cost=np.array([0.0, 0.0, 0.0, 1.0]),
        lower=np.zeros(4),
        upper=np.array([1.0, 1.0, 1.0, 3.0 * top]),
        integer=np.array([True, True, True, False]),
        rows=np.array([[1.0, 1.0, 1.0, 0.0], [*costs[0], -1.0], [*costs[1], -1.0]]),
        row_lower=np.array([2.0, -np.inf, -np.inf]),
        row_upper=np.array([2.0, 0.0, 0.0]),
    )


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_scaling_is_exact_both_ways(seed: int) -> None:
    matrix = model(seed, large=True)
    scale = Scale.of(matrix)
    assert not scale.plain
    scaled = scale.applied(matrix)
    assert np.abs(scaled.rows.data).max() < 4
    assert scaled.upper[3] < 1 << 17
    x = np.array([1.0, 0.0, 1.0, float(np.random.default_rng(seed).integers(1 << 49))])
    assert scaled.value(x / scale.columns) * scale.cost == matrix.value(x)
    body = (scaled.rows @ (x / scale.columns)) * scale.rows
    assert np.allclose(body, matrix.rows @ x, rtol=1e-15, atol=0)


def test_moderate_numbers_stay_as_they_are() -> None:
    assert Scale.of(model(0, large=False)).plain


def test_an_outcome_comes_back_in_the_units_of_the_model() -> None:
    scale = Scale(np.array([4.0]), np.array([1.0, 8.0]), 16.0)
    told = Outcome(
        status=Status.OPTIMAL,
        x=np.array([1.0, 2.0]),
        objective=3.0,
        bound=2.0,
        row_duals=np.array([5.0]),
        col_duals=np.array([1.0, 1.0]),
    )
    own = scale.outcome(told)
    assert (own.objective, own.bound) == (48.0, 32.0)
    assert own.x is not None
    assert own.row_duals is not None
    assert own.col_duals is not None
    assert own.x.tolist() == [1.0, 16.0]
    assert own.row_duals.tolist() == [20.0]
    assert own.col_duals.tolist() == [16.0, 2.0]
    empty = scale.outcome(Outcome(status=Status.INFEASIBLE))
    assert (empty.x, empty.objective, empty.bound, empty.row_duals) == (None, None, None, None)


@pytest.mark.parametrize("large", [True, False])
def test_a_scaled_session_solves_searches_and_relaxes(large: bool) -> None:
    matrix = model(5, large=large)
    choices = [matrix.rows[1:, :3] @ np.array(x, float) for x in ((1, 1, 0), (1, 0, 1), (0, 1, 1))]
    least = min(float(costs.max()) for costs in choices)
    heard: list[float] = []
    bounds: list[float] = []
    with ScaledSession() as session:
        start = np.array([1.0, 1.0, 0.0, float(choices[0].max())])
        outcome = session.solve(
            matrix, start=start, on_incumbent=lambda x, _: heard.append(x[3]), on_bound=bounds.append
        )
        assert outcome.objective == pytest.approx(least, rel=1e-9)
        assert all(value >= least * (1 - 1e-9) for value in heard)
        assert all(value <= least * (1 + 1e-9) for value in bounds)
        session.load(matrix)
        relaxed = session.resolve()
        assert relaxed.objective is not None
        assert relaxed.row_duals is not None
        assert relaxed.objective <= least * (1 + 1e-9)
        # The duals prove the value: sum of dual x side, and the bounds of the columns for what is left.
        reduced = matrix.cost - matrix.rows.T @ relaxed.row_duals
        proved = 2 * relaxed.row_duals[0] + np.minimum(0, reduced) @ matrix.upper
        assert proved == pytest.approx(relaxed.objective, rel=1e-6)
        rows = matrix.rows[1:2] * 1.0
        session.add_rows(rows=rows, row_lower=np.array([-np.inf]), row_upper=np.array([0.0]))
        session.set_bounds(lower=np.array([0.0, 1.0, 0.0, 0.0]), upper=matrix.upper)
        bounded = session.resolve()
        assert bounded.x is not None
        assert bounded.objective is not None
        assert bounded.x[1] == pytest.approx(1)
        assert bounded.objective >= relaxed.objective * (1 - 1e-9)
        column = matrix.rows[:, [0]].tocsc()
        more = {"cost": np.zeros(1), "lower": np.zeros(1), "upper": np.ones(1)}
        if large:
            with pytest.raises(RuntimeError, match="takes no further columns"):
                session.add_columns(**more, columns=column)
