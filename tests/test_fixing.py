"""What reduced costs fix, no better point uses."""

from __future__ import annotations

from itertools import product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from moeopt.fixing import Core
from moeopt.matrix import Matrix


def model(rng: np.random.Generator) -> Matrix:
    width = 6
    rows = rng.integers(-2, 4, (3, width)).astype(float)
    return Matrix(
        cost=rng.integers(-5, 9, width).astype(float),
        lower=np.zeros(width),
        upper=rng.integers(1, 3, width).astype(float),
        integer=np.arange(width) < 5,
        rows=rows,
        row_lower=np.array([1.0, -np.inf, 2.0]),
        row_upper=np.array([np.inf, 5.0, 2.0]),
        offset=3.0,
        column_names=tuple("abcdef"),
    )


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), ceiling=st.integers(-10, 30))
def test_a_point_worth_the_ceiling_stays_whatever_the_multipliers(seed: int, ceiling: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = model(rng)
    core = Core.of(matrix, duals=rng.normal(size=rng.integers(0, 4)) * 3, ceiling=ceiling)
    for point in product(*(range(int(top) + 1) for top in matrix.upper)):
        x = np.array(point, float)
        if matrix.violation(x) or matrix.value(x) > ceiling:
            continue
        inside = core.inside(x)
        assert inside is not None
        assert core.matrix.violation(inside) == 0.0
        assert abs(core.matrix.value(inside) - matrix.value(x)) < 1e-9
        assert (core.outside(inside) == x).all()


def test_dear_columns_go_and_their_bounds_stay_in_the_rows() -> None:
    matrix = Matrix(
        cost=np.array([1.0, 9.0, -9.0]),
        lower=np.zeros(3),
        upper=np.array([3.0, 1.0, 1.0]),
        integer=np.ones(3, bool),
        rows=np.array([[1.0, 1.0, 1.0]]),
        row_lower=np.array([2.0]),
        row_upper=np.array([np.inf]),
    )
    core = Core.of(matrix, duals=np.array([1.0]), ceiling=-6.0)
    assert core.kept.tolist() == [True, False, False]
    assert core.matrix.row_lower.tolist() == [1.0]
    assert core.matrix.offset == -9.0
    assert core.outside(np.array([2.0])).tolist() == [2.0, 0.0, 1.0]
    assert core.inside(np.array([1.0, 1.0, 1.0])) is None


def test_nothing_is_fixed_without_a_finite_ceiling() -> None:
    matrix = model(np.random.default_rng(0))
    assert Core.of(matrix, duals=np.zeros(0), ceiling=np.inf).kept.all()
