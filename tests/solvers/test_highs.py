"""HiGHS behind the door agrees with enumeration and with duality, and each of its statuses is told apart."""

from __future__ import annotations

import itertools
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse import csc_array, csr_array

from moeopt.matrix import Matrix, from_pyomo
from moeopt.solvers.door import Session, Status

INF = np.inf


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with Session() as session:
        yield session


def model(cost: Any, rows: Any, row_lower: Any, row_upper: Any, **changes: Any) -> Matrix:
    size = len(cost)
    fields: dict[str, Any] = {
        "lower": np.zeros(size),
        "upper": np.full(size, INF),
        "integer": np.zeros(size, dtype=bool),
    }
    rows = csr_array(np.array(rows, dtype=float).reshape(len(row_lower), size))
    return Matrix(cost=cost, rows=rows, row_lower=row_lower, row_upper=row_upper, **(fields | changes))


def random_whole(generator: np.random.Generator) -> Matrix:
    """Up to five columns of range 3 and four rows, each an equation, a range, or open at one side."""
    size, count = int(generator.integers(1, 6)), int(generator.integers(0, 5))
    lower = generator.integers(-1, 2, size).astype(float)
    rows = generator.integers(-4, 5, (count, size)).astype(float)
    middle = rows @ (lower + generator.integers(0, 3, size))
    below, above = generator.choice([0.0, 1.0, INF], count), generator.choice([0.0, 2.0, INF], count)
    shift = generator.choice([0.0, 0.0, 0.5], count)
    return Matrix(
        cost=generator.integers(-5, 6, size).astype(float),
        lower=lower,
        upper=lower + generator.integers(0, 3, size),
        integer=np.ones(size, dtype=bool),
        rows=rows,
        row_lower=middle - below + shift,
        row_upper=middle + above + shift,
        offset=float(generator.integers(-3, 4)),
    )


def enumerated(matrix: Matrix) -> float:
    """The least value of all whole points, inf when none is feasible."""
    ranges = [range(int(low), int(high) + 1) for low, high in zip(matrix.lower, matrix.upper, strict=True)]
    points = (np.array(point, dtype=float) for point in itertools.product(*ranges))
    return min((matrix.value(point) for point in points if matrix.violation(point) == 0.0), default=INF)


def test_random_models_have_the_optimum_that_enumeration_finds(session: Session) -> None:
    generator = np.random.default_rng(20)
    seen = set()
    for _ in range(150):
        matrix = random_whole(generator)
        best = enumerated(matrix)
        outcome = session.solve(matrix)
        seen.add(outcome.status)
        if best == INF:
            assert outcome.status in (Status.INFEASIBLE, Status.INFEASIBLE_OR_UNBOUNDED)
            assert outcome.x is None
        else:
            assert outcome.status == Status.OPTIMAL
            assert outcome.x is not None
            assert matrix.violation(outcome.x, 1e-7) == 0.0
            assert matrix.value(outcome.x) == pytest.approx(best, abs=1e-6)
            assert outcome.objective == pytest.approx(best, abs=1e-6)
            assert outcome.bound == pytest.approx(best, abs=1e-6)
    assert seen >= {Status.OPTIMAL, Status.INFEASIBLE}


def dual_value(matrix: Matrix, duals: NDArray[np.float64]) -> float:
    """The Lagrangian bound that row duals prove: min over the box of c x - y (A x - side)."""
    reduced = matrix.cost - matrix.rows.T @ duals
    duals, reduced = (
        np.where(np.abs(duals) < 1e-9, 0.0, duals),
        np.where(np.abs(reduced) < 1e-9, 0.0, reduced),
    )
    total = matrix.offset
    for slopes, lower, upper in (
        (duals, matrix.row_lower, matrix.row_upper),
        (reduced, matrix.lower, matrix.upper),
    ):
        up, down = slopes > 0.0, slopes < 0.0
        total += float(slopes[up] @ lower[up] + slopes[down] @ upper[down])
    return total


def test_duals_prove_the_optimum_of_a_linear_model(session: Session) -> None:
    generator = np.random.default_rng(3)
    for _ in range(40):
        matrix = random_whole(generator)
        outcome = session.solve(matrix, relax=True)
        if outcome.status != Status.OPTIMAL:
            continue
        assert outcome.row_duals is not None
        assert outcome.col_duals is not None
        assert dual_value(matrix, outcome.row_duals) == pytest.approx(outcome.objective, abs=1e-6)
        assert outcome.bound == pytest.approx(outcome.objective, abs=1e-6)
        assert outcome.col_duals == pytest.approx(matrix.cost - matrix.rows.T @ outcome.row_duals, abs=1e-7)


def test_the_sign_of_a_dual_is_that_of_the_lagrangian(session: Session) -> None:
    least = session.solve(model([2.0, 3.0], [[1.0, 1.0]], [4.0], [INF]))
    assert (least.objective, least.bound) == (8.0, 8.0)
    assert least.row_duals == pytest.approx([2.0])
    assert least.col_duals == pytest.approx([0.0, 1.0])
    most = session.solve(model([-2.0, -1.0], [[1.0, 1.0]], [-INF], [4.0]))
    assert most.row_duals == pytest.approx([-2.0])
    assert most.col_duals == pytest.approx([0.0, 1.0])


WHOLE = {"integer": np.ones(2, dtype=bool)}
BOX = {"upper": np.ones(2)}


@pytest.mark.parametrize(
    ("matrix", "statuses"),
    [
        (model([1.0, 1.0], [[1.0, 1.0]], [3.0], [INF], **BOX), {"infeasible"}),
        (model([1.0, 1.0], [[2.0, 2.0]], [1.0], [1.0], **BOX, **WHOLE), {"infeasible"}),
        (model([-1.0, 0.0], [[1.0, -1.0]], [-INF], [1.0]), {"unbounded"}),
        (model([-1.0, 0.0], [[1.0, -1.0]], [-INF], [1.0], **WHOLE), {"unbounded", "infeasible-or-unbounded"}),
        (model([-1.0, 0.0], [], [], []), {"unbounded"}),
    ],
)
def test_models_without_optimum_say_so_and_claim_no_numbers(
    session: Session, matrix: Matrix, statuses: set[str]
) -> None:
    outcome = session.solve(matrix)
    assert outcome.status in statuses
    assert (outcome.x, outcome.objective, outcome.bound, outcome.row_duals) == (None, None, None, None)


@pytest.mark.parametrize("relax", [False, True])
def test_empty_models_have_the_value_of_their_offset(session: Session, relax: bool) -> None:
    nothing = session.solve(model([], [], [], [], offset=3.0), relax=relax)
    assert (nothing.status, nothing.objective, nothing.bound) == ("optimal", 3.0, 3.0)
    assert nothing.x is not None
    assert nothing.x.shape == (0,)
    assert session.solve(model([], [], [-1.0], [1.0]), relax=relax).status == "optimal"
    assert session.solve(model([], [], [1.0], [2.0]), relax=relax).status == "infeasible"
    free = session.solve(model([1.0, -1.0], [], [], [], **BOX, **WHOLE, offset=3.0), relax=relax)
    assert (free.status, free.objective, free.bound) == ("optimal", 2.0, 2.0)
    assert free.x is not None
    assert free.x.tolist() == [0.0, 1.0]


def test_a_pyomo_model_gets_its_values_back(session: Session) -> None:
    import pyomo.environ as pyo

    stated = pyo.ConcreteModel()
    stated.x = pyo.Var(range(3), domain=pyo.Binary)
    stated.two = pyo.Constraint(expr=sum(stated.x[i] for i in range(3)) == 2)
    stated.goal = pyo.Objective(expr=sum((i + 1) * stated.x[i] for i in range(3)))
    matrix, variables = from_pyomo(stated)
    outcome = session.solve(matrix)
    assert outcome.x is not None
    for variable, value in zip(variables, outcome.x, strict=True):
        variable.set_value(round(value))
    assert pyo.value(stated.goal) == outcome.objective == 3.0


def test_added_columns_and_rows_equal_a_solve_from_scratch(session: Session) -> None:
    generator = np.random.default_rng(8)
    size, count = 30, 12
    rows = np.abs(generator.integers(-3, 4, (count, size))).astype(float)
    whole = model(
        generator.integers(1, 9, size).astype(float),
        rows,
        rows.sum(1) * 0.3,
        np.full(count, INF),
        upper=np.ones(size),
    )
    columns, kept = 20, 8
    session.load(
        model(
            whole.cost[:columns],
            rows[:kept, :columns],
            whole.row_lower[:kept],
            whole.row_upper[:kept],
            upper=np.ones(columns),
        )
    )
    first = session.resolve()
    assert first.status == "optimal"
    session.add_columns(
        cost=whole.cost[columns:],
        lower=whole.lower[columns:],
        upper=whole.upper[columns:],
        columns=csc_array(rows[:kept, columns:]),
    )
    second = session.resolve()
    assert second.objective is not None
    assert first.objective is not None
    assert second.objective <= first.objective + 1e-9
    session.solve(model([1.0], [[1.0]], [1.0], [INF]))  # another solve leaves the held model alone
    session.add_rows(
        rows=csr_array(rows[kept:]), row_lower=whole.row_lower[kept:], row_upper=whole.row_upper[kept:]
    )
    third = session.resolve()
    scratch = session.solve(whole)
    assert third.objective == pytest.approx(scratch.objective)
    assert third.x is not None
    assert whole.violation(third.x, 1e-7) == 0.0
    assert third.row_duals is not None
    assert dual_value(whole, third.row_duals) == pytest.approx(scratch.objective)


def test_columns_can_be_added_to_a_model_that_has_none(session: Session) -> None:
    session.load(model([], [], [2.0], [INF], offset=1.0))
    assert session.resolve().status == "infeasible"
    session.add_columns(
        cost=np.array([3.0]), lower=np.zeros(1), upper=np.full(1, INF), columns=csc_array(np.ones((1, 1)))
    )
    assert session.resolve().objective == pytest.approx(7.0)


def test_held_models_refuse_blocks_of_another_shape(session: Session) -> None:
    session.load(model([1.0], [[1.0]], [1.0], [INF]))
    with pytest.raises(ValueError, match="the 1 rows of the held model; found 2"):
        session.add_columns(
            cost=np.ones(1), lower=np.zeros(1), upper=np.ones(1), columns=csc_array(np.ones((2, 1)))
        )
    with pytest.raises(ValueError, match="the 1 columns of the held model; found 2"):
        session.add_rows(rows=csr_array(np.ones((1, 2))), row_lower=np.zeros(1), row_upper=np.ones(1))
    with pytest.raises(ValueError, match=r"row_lower must be float\[1\]"):
        session.add_rows(rows=csr_array(np.ones((1, 1))), row_lower=np.zeros(2), row_upper=np.ones(1))
    assert session.resolve().objective == 1.0


def test_options_are_checked(session: Session) -> None:
    tiny = model([1.0], [[1.0]], [1.0], [INF])
    with pytest.raises(ValueError, match="no option 'mip_rel_gapp'"):
        session.solve(tiny, options={"mip_rel_gapp": 0.1})
    with pytest.raises(ValueError, match=r"no option 'presolve' that takes 3"):
        session.solve(tiny, options={"presolve": 3})
    with pytest.raises(ValueError, match=r"\['time_limit'\] are set by the session"):
        session.solve(tiny, options={"time_limit": 3.0})
    assert session.solve(tiny, options={"presolve": "off"}).objective == 1.0


def test_numbers_that_highs_would_alter_are_refused(session: Session) -> None:
    with pytest.raises(ValueError, match="refused or altered the model"):
        session.solve(model([1.0, 1.0], [[1e-12, 1.0]], [1.0], [INF]))


def test_a_block_that_highs_would_alter_costs_the_held_model(session: Session) -> None:
    session.load(model([1.0], [[1.0]], [1.0], [INF]))
    with pytest.raises(ValueError, match="refused or altered the rows"):
        session.add_rows(rows=csr_array([[1e-12]]), row_lower=np.zeros(1), row_upper=np.ones(1))
    with pytest.raises(RuntimeError, match="no model is held"):
        session.resolve()


def test_limits_this_door_does_not_set_raise(session: Session) -> None:
    generator = np.random.default_rng(1)
    rows = generator.integers(1, 99, (10, 40)).astype(float)
    hard = model(
        -generator.integers(1, 99, 40).astype(float),
        rows,
        np.full(10, -INF),
        rows.sum(1) // 3,
        upper=np.ones(40),
        integer=np.ones(40, dtype=bool),
    )
    with pytest.raises(RuntimeError, match="kSolutionLimit"):
        session.solve(hard, options={"mip_max_improving_sols": 1})
    with pytest.raises(RuntimeError, match="kIterationLimit"):
        session.solve(hard, relax=True, options={"simplex_iteration_limit": 0, "presolve": "off"})


def test_every_status_of_highs_is_answered_or_refused_by_name() -> None:
    # highspy stays out of this process: it cannot share one with other solvers.
    script = """
        from highspy import HighsModelStatus
        from moeopt.solvers.highs_outcome import status_of
        answered = set()
        for name, status in HighsModelStatus.__members__.items():
            try:
                answered.add(status_of(status).value)
            except RuntimeError as error:
                assert name in str(error) and "does not know" not in str(error), name
        assert len(answered) == 6, answered
        try:
            status_of("kNovel")
        except RuntimeError as error:
            assert "kNovel" in str(error)
        else:
            raise SystemExit("an unknown status passed")
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True)


def test_a_first_order_method_has_multipliers_and_claims_no_bound(session: Session) -> None:
    matrix = model([-3.0, -2.0, -1.0], [[2, 1, 1], [1, 3, 2]], [-INF, -INF], [10, 15])
    options: dict[str, str | float] = {"solver": "pdlp", "presolve": "off", "pdlp_optimality_tolerance": 1e-4}
    outcome = session.solve(matrix, relax=True, options=options)
    exact = session.solve(matrix, relax=True)
    assert outcome.bound is None
    assert outcome.row_duals is not None
    assert exact.row_duals is not None
    assert outcome.row_duals == pytest.approx(exact.row_duals, abs=0.05)
