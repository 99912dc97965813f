"""Checks of linear models: relaxations, duals, and the held model that grows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from moeopt.conformance.bench import (
    INF,
    Bench,
    Checks,
    Skip,
    lagrangian,
    mixed,
    packing,
    random_whole,
    require,
    whole,
)
from moeopt.matrix import Matrix
from moeopt.solvers.door import Outcome, Status

__all__ = ["CHECKS"]

CHECKS = Checks()

_LEAST = mixed([2.0, 3.0], [[1.0, 1.0]], at_least=[4.0])  # 8 at (4, 0)
_MOST = mixed([-2.0, -1.0], [[1.0, 1.0]], at_most=[4.0])  # -8 at (4, 0)


def _duals(outcome: Outcome) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if outcome.row_duals is None or outcome.col_duals is None:
        raise Skip("the solver gives no duals")
    return outcome.row_duals, outcome.col_duals


def _relaxed(bench: Bench) -> list[tuple[Matrix, Outcome]]:
    """Random linear models that have an optimum, and what the solver says of them."""
    bench.require_linear()
    generator = np.random.default_rng(3)
    found = []
    for _ in range(25):
        matrix = random_whole(generator)
        outcome = bench.session.solve(matrix, relax=True)
        if outcome.status == Status.OPTIMAL:
            found.append((matrix, outcome))
    require(len(found) >= 12, f"only {len(found)} of 25 linear models have an optimum")
    return found


def _covering() -> Matrix:
    generator = np.random.default_rng(8)
    rows = generator.integers(0, 4, (12, 30)).astype(float)
    return mixed(
        generator.integers(1, 9, 30).astype(float), rows, at_least=rows.sum(1) * 0.25, upper=np.ones(30)
    )


@CHECKS
def _a_relaxation_leaves_integrality_out(bench: Bench) -> None:
    bench.require_linear()
    matrix = whole([1.0, 1.0], [[2.0, 2.0]], at_least=[1.0])
    bench.least(matrix, 1.0)
    bench.least(matrix, 0.5, relax=True)


@CHECKS
def _a_solver_without_linear_models_refuses_them(bench: Bench) -> None:
    if bench.session.linear:
        raise Skip("the solver answers linear models")
    for ask in (lambda: bench.session.solve(_LEAST), lambda: bench.session.load(_LEAST)):
        try:
            ask()
        except ValueError as error:
            require("linear" in str(error), f"the refusal does not speak of linear models: {error}")
        else:
            raise AssertionError("a linear model is taken by a solver that says it takes none")


@CHECKS
def _linear_models_without_points_are_infeasible(bench: Bench) -> None:
    bench.require_linear()
    outcome = bench.session.solve(mixed([1.0, 1.0], [[1.0, 1.0]], at_least=[3.0], upper=[1.0, 1.0]))
    require(outcome.status in (Status.INFEASIBLE, Status.INFEASIBLE_OR_UNBOUNDED), f"status {outcome.status}")
    require(outcome.x is None and outcome.bound is None, f"numbers of nothing: {outcome}")


@CHECKS
def _linear_models_without_a_best_point_are_unbounded(bench: Bench) -> None:
    bench.require_linear()
    outcome = bench.session.solve(mixed([-1.0, 0.0], [[1.0, -1.0]], at_most=[1.0]))
    require(outcome.status in (Status.UNBOUNDED, Status.INFEASIBLE_OR_UNBOUNDED), f"status {outcome.status}")
    require(outcome.bound is None, f"bound {outcome.bound} of an unbounded model")


@CHECKS
def _columns_without_bounds_may_be_negative(bench: Bench) -> None:
    bench.require_linear()
    bench.least(mixed([1.0], [[1.0]], at_least=[-7.5], lower=[-INF]), -7.5)


@CHECKS
def _the_sign_of_a_row_dual_is_that_of_the_lagrangian(bench: Bench) -> None:
    bench.require_linear()
    for matrix, value, wanted in ((_LEAST, 8.0, 2.0), (_MOST, -8.0, -2.0)):
        duals, _ = _duals(bench.least(matrix, value))
        require(bool(np.allclose(duals, [wanted], atol=1e-6)), f"row dual {duals}, wanted {wanted}")


@CHECKS
def _row_duals_prove_the_optimum(bench: Bench) -> None:
    for matrix, outcome in _relaxed(bench):
        proved = lagrangian(matrix, _duals(outcome)[0])
        objective = INF if outcome.objective is None else outcome.objective
        require(
            abs(proved - objective) <= 1e-6 * max(1.0, abs(objective)),
            f"the duals prove {proved}, the objective is {objective}",
        )


@CHECKS
def _reduced_costs_are_what_the_row_duals_leave(bench: Bench) -> None:
    for matrix, outcome in _relaxed(bench):
        duals, reduced = _duals(outcome)
        wanted = matrix.cost - matrix.rows.T @ duals
        require(bool(np.allclose(reduced, wanted, atol=1e-6)), f"reduced costs {reduced}, wanted {wanted}")


@CHECKS
def _the_bound_of_a_linear_model_is_its_optimum(bench: Bench) -> None:
    for _, outcome in _relaxed(bench):
        bound, objective = outcome.bound, outcome.objective
        require(bound is not None and objective is not None, f"numbers are missing: {outcome}")
        if bound is not None and objective is not None:
            require(
                abs(bound - objective) <= 1e-6 * max(1.0, abs(objective)),
                f"bound {bound}, objective {objective}",
            )


@CHECKS
def _a_held_model_is_solved_like_any_other(bench: Bench) -> None:
    bench.require_linear()
    bench.session.load(whole([1.0, 1.0], [[2.0, 2.0]], at_least=[1.0], offset=4.0))
    outcome = bench.session.resolve()
    require(outcome.status == Status.OPTIMAL, f"status {outcome.status}")
    require(
        outcome.objective is not None and abs(outcome.objective - 4.5) < 1e-6,
        f"objective {outcome.objective}, the relaxation is worth 4.5",
    )


@CHECKS
def _added_columns_and_rows_equal_a_solve_from_scratch(bench: Bench) -> None:
    from scipy.sparse import csc_array, csr_array

    bench.require_linear()
    all_of_it = _covering()
    rows = all_of_it.rows.toarray()
    session, columns, kept = bench.session, 20, 8
    part = replace(
        all_of_it,
        cost=all_of_it.cost[:columns],
        lower=all_of_it.lower[:columns],
        upper=all_of_it.upper[:columns],
        integer=all_of_it.integer[:columns],
        rows=rows[:kept, :columns],
        row_lower=all_of_it.row_lower[:kept],
        row_upper=all_of_it.row_upper[:kept],
    )
    wide = replace(
        all_of_it,
        rows=rows[:kept],
        row_lower=all_of_it.row_lower[:kept],
        row_upper=all_of_it.row_upper[:kept],
    )
    session.load(part)
    found = [session.resolve()]
    session.add_columns(
        cost=all_of_it.cost[columns:],
        lower=all_of_it.lower[columns:],
        upper=all_of_it.upper[columns:],
        columns=csc_array(rows[:kept, columns:]),
    )
    found.append(session.resolve())
    session.add_rows(
        rows=csr_array(rows[kept:]),
        row_lower=all_of_it.row_lower[kept:],
        row_upper=all_of_it.row_upper[kept:],
    )
    found.append(session.resolve())
    for outcome, matrix in zip(found, (part, wide, all_of_it), strict=True):
        scratch = session.solve(matrix)
        require(scratch.objective is not None, f"status {scratch.status} of a covering model")
        bench.judge(outcome, matrix, value=scratch.objective if scratch.objective is not None else INF)
        violation = INF if outcome.x is None else matrix.violation(outcome.x, 1e-6)
        require(violation == 0.0, f"the point of the held model breaks it by {violation}")


@CHECKS
def _columns_can_be_added_to_a_model_that_has_none(bench: Bench) -> None:
    from scipy.sparse import csc_array

    bench.require_linear()
    bench.session.load(mixed([], [], at_least=[2.0], offset=1.0))
    first = bench.session.resolve()
    require(first.status == Status.INFEASIBLE, f"status {first.status} of a row without entries from 2 on")
    bench.session.add_columns(
        cost=np.array([3.0]), lower=np.zeros(1), upper=np.full(1, INF), columns=csc_array(np.ones((1, 1)))
    )
    second = bench.session.resolve()
    require(
        second.objective is not None and abs(second.objective - 7.0) < 1e-6,
        f"objective {second.objective}, the optimum is 7",
    )


@CHECKS
def _a_solve_leaves_the_held_model_alone(bench: Bench) -> None:
    bench.require_linear()
    bench.session.load(_LEAST)
    bench.least(_MOST, -8.0)
    outcome = bench.session.resolve()
    require(
        outcome.objective is not None and abs(outcome.objective - 8.0) < 1e-6,
        f"objective {outcome.objective} of the held model, its optimum is 8",
    )


@CHECKS
def _bounds_of_a_held_model_can_be_replaced(bench: Bench) -> None:
    bench.require_linear()
    bench.session.load(_LEAST)
    for upper, value in (([1.0, INF], 11.0), ([INF, INF], 8.0)):
        bench.session.set_bounds(lower=np.zeros(2), upper=np.array(upper))
        bench.judge(bench.session.resolve(), _LEAST, value=value)


@CHECKS
def _a_held_model_gets_its_time_anew(bench: Bench) -> None:
    bench.require_linear()
    bench.session.load(packing())
    first = bench.session.resolve(seconds=0.0)
    require(first.status == Status.TIME_LIMIT, f"status {first.status} without any time")
    for _ in range(2):
        later = bench.session.resolve(seconds=60.0)
        require(later.status == Status.OPTIMAL, f"status {later.status} with a minute")
