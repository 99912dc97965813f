"""A matrix is checked once, judges points, and equals another statement of the same model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csc_array, csr_array, random_array

from moeopt.matrix import Matrix, canonical, from_pyomo

FIELDS: dict[str, Any] = {
    "cost": np.array([1.0, -2.0, 0.5]),
    "lower": np.zeros(3),
    "upper": np.array([1.0, 1.0, np.inf]),
    "integer": np.array([True, True, False]),
    "rows": np.array([[1.0, 1.0, 0.0], [0.0, 3.0, -1.0]]),
    "row_lower": np.array([1.0, -np.inf]),
    "row_upper": np.array([1.0, 2.0]),
    "offset": 10.0,
    "column_names": ("a", "b", "c"),
    "row_names": ("one", "two"),
}


def matrix(**changes: Any) -> Matrix:
    return Matrix(**(FIELDS | changes))


def test_a_point_has_a_value_and_a_violation() -> None:
    model = matrix()
    assert model.value(np.array([0.0, 1.0, 1.0])) == 8.5
    assert model.violation(np.array([0.0, 1.0, 1.0])) == 0.0
    assert model.violation(np.array([0.0, 1.0, 0.0])) == 1.0  # row two: 3 > 2
    assert model.violation(np.array([0.5, 0.5, 0.0])) == 0.5  # not whole
    assert model.violation(np.array([1.0, 0.0, -0.25])) == 0.25  # below its bound
    assert model.violation(np.array([1.0, 1e-7, 1.0])) == pytest.approx(1e-7)
    assert model.violation(np.array([1.0, 1e-7, 1.0]), 1e-6) == 0.0
    assert model.violation(np.array([0.0, 1.0, np.nan])) == np.inf


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cost": np.zeros(2)}, r"cost must have shape \(3,\)"),
        ({"cost": np.array([0.0, np.nan, 0.0])}, "cost must be finite; found nan"),
        ({"lower": np.array([0.0, 2.0, 0.0])}, r"entry 1 has lower 2\.0 and upper 1\.0"),
        ({"lower": np.array([0.0, np.nan, 0.0])}, "entry 1 has lower nan"),
        ({"lower": np.array([0.0, 0.0, np.inf])}, "entry 2 has lower inf"),
        ({"row_lower": np.array([1.0, 3.0])}, r"entry 1 has row_lower 3\.0 and row_upper 2\.0"),
        ({"row_upper": np.zeros(3)}, r"row_upper must have shape \(2,\)"),
        ({"integer": np.array([1, 1, 0])}, r"integer must be bool\[3\]"),
        ({"rows": np.array([[1.0, np.inf, 0.0], [0.0, 3.0, -1.0]])}, "rows must be finite"),
        ({"rows": np.zeros(3)}, "rows must have two axes"),
        ({"offset": float("nan")}, "offset must be finite"),
        ({"column_names": ("a",)}, "column_names must be empty or hold 3 names; found 1"),
    ],
)
def test_a_matrix_that_makes_no_sense_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        matrix(**changes)


def test_a_point_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(3,\); found \(2,\)"):
        matrix().value(np.zeros(2))


def test_a_matrix_is_its_own_read_only_copy() -> None:
    cost = np.array([1.0, -2.0, 0.5])
    model = matrix(cost=cost)
    cost[0] = 99.0
    assert model.cost[0] == 1.0
    for array in (
        model.cost,
        model.lower,
        model.integer,
        model.row_upper,
        model.rows.data,
        model.rows.indices,
    ):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 7


def test_duplicate_entries_are_summed_and_zeros_dropped() -> None:
    rows = csr_array(
        (np.array([1.0, 2.0, 0.0, 5.0]), np.array([1, 1, 0, 2]), np.array([0, 3, 4])), shape=(2, 3)
    )
    model = matrix(rows=rows)
    assert model.rows.nnz == 2
    assert model.rows.toarray().tolist() == [[0.0, 3.0, 0.0], [0.0, 0.0, 5.0]]
    assert rows.nnz == 4  # the caller's own stays as it was


def test_a_large_sparse_matrix_is_not_densified() -> None:
    count = 100_000  # dense: 80 GB
    rows = random_array((count, count), density=2.0 / count, format="csc", rng=np.random.default_rng(0))
    model = Matrix(
        cost=np.zeros(count),
        lower=np.zeros(count),
        upper=np.ones(count),
        integer=np.ones(count, dtype=bool),
        rows=rows,
        row_lower=np.full(count, -np.inf),
        row_upper=np.full(count, 1e3),
    )
    assert model.violation(np.ones(count)) == 0.0


@given(st.randoms(use_true_random=False))
def test_the_canonical_form_ignores_order_and_the_sign_of_a_row(random: Any) -> None:
    model = matrix()
    columns, rows = random.sample(range(3), 3), random.sample(range(2), 2)
    signs = np.array([random.choice([-1.0, 1.0]) for _ in rows])
    lower, upper = model.row_lower[rows] * signs, model.row_upper[rows] * signs
    other = Matrix(
        cost=model.cost[columns],
        lower=model.lower[columns],
        upper=model.upper[columns],
        integer=model.integer[columns],
        rows=csc_array(model.rows.toarray()[rows][:, columns] * signs[:, None]),
        row_lower=np.minimum(lower, upper),
        row_upper=np.maximum(lower, upper),
        offset=model.offset,
        column_names=tuple(model.column_names[column] for column in columns),
    )
    assert canonical(other) == canonical(model)
    assert hash(canonical(other)) == hash(canonical(model))


@pytest.mark.parametrize(
    "changes",
    [
        {"offset": 9.0},
        {"cost": np.array([1.0, -2.0, 0.25])},
        {"upper": np.array([1.0, 1.0, 5.0])},
        {"integer": np.array([True, True, True])},
        {"rows": np.array([[1.0, 1.0, 0.0], [0.0, 3.0, -2.0]])},
        {"row_upper": np.array([1.0, 3.0])},
        {"column_names": ("a", "b", "d")},
    ],
)
def test_the_canonical_form_tells_models_apart(changes: dict[str, Any]) -> None:
    assert canonical(matrix(**changes)) != canonical(matrix())


def test_a_repeated_row_counts() -> None:
    rows, lower, upper = (
        FIELDS["rows"][[0, 1, 1]],
        FIELDS["row_lower"][[0, 1, 1]],
        FIELDS["row_upper"][[0, 1, 1]],
    )
    twice = matrix(rows=rows, row_lower=lower, row_upper=upper, row_names=())
    assert canonical(twice) != canonical(matrix())


def test_rows_that_always_hold_are_left_out_of_the_canonical_form() -> None:
    more = matrix(
        rows=np.vstack([FIELDS["rows"], np.zeros(3), np.ones(3)]),
        row_lower=np.append(FIELDS["row_lower"], [-1.0, -np.inf]),
        row_upper=np.append(FIELDS["row_upper"], [0.0, np.inf]),
        row_names=(),
    )
    assert canonical(more) == canonical(matrix())


@pytest.mark.parametrize("names", [(), ("a", "b", "a")])
def test_a_canonical_form_needs_distinct_names(names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="one distinct name a column"):
        canonical(matrix(column_names=names))


def pyomo_model() -> Any:
    import pyomo.environ as pyo

    model = pyo.ConcreteModel()
    model.a = pyo.Var(domain=pyo.Binary)
    model.b = pyo.Var(domain=pyo.Integers, bounds=(-3, None))
    model.c = pyo.Var([1, 2], domain=pyo.NonNegativeReals)
    model.unused = pyo.Var(domain=pyo.Binary)
    model.fixed = pyo.Var(bounds=(0, 9))
    model.fixed.fix(4)
    model.range = pyo.Constraint(expr=pyo.inequality(1, model.a + 2 * model.b + model.fixed, 7))
    model.least = pyo.Constraint(expr=model.c[1] >= model.b + 1)
    model.same = pyo.Constraint(expr=model.c[1] + model.c[2] == 5)
    model.holds = pyo.Constraint(expr=model.fixed <= 5)
    model.goal = pyo.Objective(expr=model.a + 3 * model.c[2] + 2 * model.fixed)
    return model


def test_a_pyomo_model_is_compiled_to_what_it_says() -> None:
    model = pyomo_model()
    found, variables = from_pyomo(model)
    assert found.column_names == tuple(variable.name for variable in variables)
    assert sorted(found.row_names) == ["least", "range", "same"]
    expected = Matrix(
        cost=np.array([1.0, 0.0, 0.0, 3.0, 0.0]),
        lower=np.array([0.0, -3.0, 0.0, 0.0, 0.0]),
        upper=np.array([1.0, np.inf, np.inf, np.inf, 1.0]),
        integer=np.array([True, True, False, False, True]),
        rows=np.array([[1.0, 2.0, 0.0, 0.0, 0.0], [0.0, -1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0, 0.0]]),
        row_lower=np.array([-3.0, 1.0, 5.0]),
        row_upper=np.array([3.0, np.inf, 5.0]),
        offset=8.0,
        column_names=("a", "b", "c[1]", "c[2]", "unused"),
    )
    assert canonical(found) == canonical(expected)


def test_a_model_without_objective_costs_nothing() -> None:
    model = pyomo_model()
    model.goal.deactivate()
    found, _ = from_pyomo(model)
    assert not found.cost.any()
    assert found.offset == 0.0


def test_pyomo_models_that_are_no_linear_minimisation_are_refused() -> None:
    import pyomo.environ as pyo

    model = pyomo_model()
    model.more = pyo.Objective(expr=model.a)
    with pytest.raises(ValueError, match=r"at most one objective.*goal.*more"):
        from_pyomo(model)
    model.goal.deactivate()
    model.more.sense = pyo.maximize
    with pytest.raises(ValueError, match=r"to be minimised; found more \(maximize\)"):
        from_pyomo(model)
    model.more.sense = pyo.minimize
    model.square = pyo.Constraint(expr=model.b**2 <= 4)
    with pytest.raises(ValueError, match=r"square.*nonlinear"):
        from_pyomo(model)
    model.square.deactivate()
    model.never = pyo.Constraint(expr=model.fixed >= 5)
    with pytest.raises(ValueError, match=r"can never hold.*never"):
        from_pyomo(model)
    model.never.deactivate()
    model.steps = pyo.Var(domain=pyo.RangeSet(0, 10, 2))
    with pytest.raises(ValueError, match="steps must be continuous or integer"):
        from_pyomo(model)
