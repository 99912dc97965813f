"""Checks of statuses, optima and points: models of every shape with known answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from moeopt.conformance.bench import INF, Bench, Checks, Skip, enumerated, random_whole, require, whole
from moeopt.matrix import Matrix
from moeopt.solvers.door import Status

__all__ = ["CHECKS"]

CHECKS = Checks()

_NOTHING = (Status.INFEASIBLE, Status.INFEASIBLE_OR_UNBOUNDED)
_ENDLESS = (Status.UNBOUNDED, Status.INFEASIBLE_OR_UNBOUNDED)
_PICK = whole([-5.0, -3.0, -3.0, -7.0], [[2.0, 3.0, 1.0, 4.0]], at_most=[6.0])  # best: columns 0 and 3


def _impossible(bench: Bench, matrix: Matrix) -> None:
    outcome = bench.session.solve(matrix)
    require(outcome.status in _NOTHING, f"status {outcome.status} of a model without points")
    require(
        outcome.x is None and outcome.objective is None, f"a point worth {outcome.objective} where none is"
    )


@CHECKS
def _the_optimum_of_a_small_model_is_found(bench: Bench) -> None:
    outcome = bench.least(_PICK, -12.0)
    found = [] if outcome.x is None else np.round(outcome.x).tolist()
    require(found == [1.0, 0.0, 0.0, 1.0], f"the only best point is [1, 0, 0, 1]; found {found}")


@CHECKS
def _random_models_have_the_optimum_that_enumeration_finds(bench: Bench) -> None:
    generator = np.random.default_rng(20)
    for number in range(60):
        matrix = random_whole(generator)
        best = enumerated(matrix)
        if best == INF:
            _impossible(bench, matrix)
            continue
        outcome = bench.session.solve(matrix)
        require(outcome.status == Status.OPTIMAL, f"model {number}: {outcome.status}, the optimum is {best}")
        bench.judge(outcome, matrix, value=best)


@CHECKS
def _rows_that_exclude_each_other_are_infeasible(bench: Bench) -> None:
    _impossible(bench, whole([1.0, 1.0], [[1.0, 1.0], [1.0, 1.0]], at_least=[2.0, -INF], at_most=[INF, 1.0]))


@CHECKS
def _a_model_that_only_fractions_satisfy_is_infeasible(bench: Bench) -> None:
    _impossible(bench, whole([1.0, 1.0], [[2.0, 2.0]], at_least=[1.0], at_most=[1.0]))


@CHECKS
def _a_model_without_a_best_point_is_called_unbounded(bench: Bench) -> None:
    free = whole([-1.0, 0.0], [[1.0, -1.0]], at_most=[1.0], upper=[INF, INF])
    outcome = bench.answer_if_stated(free)
    require(outcome.status in _ENDLESS, f"status {outcome.status} of an unbounded model")
    require(outcome.bound is None, f"bound {outcome.bound} of an unbounded model")


@CHECKS
def _the_offset_is_part_of_objective_and_bound(bench: Bench) -> None:
    bench.least(replace(_PICK, offset=1000.0), 988.0)
    bench.least(replace(_PICK, offset=-0.5), -12.5)


@CHECKS
def _the_bound_is_not_above_the_optimum(bench: Bench) -> None:
    generator = np.random.default_rng(5)
    for _ in range(20):
        matrix = random_whole(generator)
        best = enumerated(matrix)
        outcome = bench.session.solve(matrix)
        if best < INF and outcome.bound is not None:
            above = outcome.bound - best
            require(above <= 1e-6 * max(1.0, abs(best)), f"bound {outcome.bound} is above the optimum {best}")


@CHECKS
def _the_point_meets_every_bound_and_row_and_is_whole(bench: Bench) -> None:
    outcome = bench.session.solve(_PICK)
    violation = INF if outcome.x is None else _PICK.violation(outcome.x, 1e-6)
    require(violation == 0.0, f"the point breaks the model by {violation}")


@CHECKS
def _the_objective_is_the_value_of_the_point(bench: Bench) -> None:
    outcome = bench.session.solve(_PICK)
    worth = INF if outcome.x is None else _PICK.value(outcome.x)
    objective = INF if outcome.objective is None else outcome.objective
    require(abs(worth - objective) <= 1e-6, f"objective {objective}; the point is worth {worth}")


@CHECKS
def _equations_hold(bench: Bench) -> None:
    bench.least(
        whole([1.0, 2.0, 4.0], [[1.0, 1.0, 1.0], [0.0, 1.0, -1.0]], at_least=[2.0, 0.0], at_most=[2.0, 0.0]),
        6.0,
    )


@CHECKS
def _both_sides_of_a_range_hold(bench: Bench) -> None:
    rows, lower, upper = [[1.0, 1.0, 1.0, 1.0]], [2.0], [3.0]
    bench.least(whole([1.0, 1.0, 1.0, 1.0], rows, at_least=lower, at_most=upper), 2.0)
    bench.least(whole([-1.0, -1.0, -1.0, -1.0], rows, at_least=lower, at_most=upper), -3.0)


@CHECKS
def _rows_without_sides_bind_nothing(bench: Bench) -> None:
    bench.least(whole([-1.0, -1.0], [[1.0, 1.0]]), -2.0)


@CHECKS
def _negative_lower_bounds_are_kept(bench: Bench) -> None:
    bench.least(whole([1.0, 1.0], [[1.0, 1.0]], at_least=[-6.0], lower=[-4.0, -5.0], upper=[-1.0, 5.0]), -6.0)


@CHECKS
def _fixed_columns_keep_their_value(bench: Bench) -> None:
    bench.least(whole([-1.0, -1.0], [[1.0, 1.0]], at_most=[9.0], lower=[3.0, 0.0], upper=[3.0, 2.0]), -5.0)


@CHECKS
def _empty_rows_around_zero_bind_nothing(bench: Bench) -> None:
    bench.least(whole([-1.0], [[0.0], [0.0]], at_least=[-1.0, 0.0], at_most=[1.0, 0.0]), -1.0)


@CHECKS
def _empty_rows_away_from_zero_are_infeasible(bench: Bench) -> None:
    _impossible(bench, whole([-1.0], [[0.0]], at_least=[1.0], at_most=[2.0]))


@CHECKS
def _entries_stated_twice_are_added_up(bench: Bench) -> None:
    from scipy.sparse import coo_array

    twice = coo_array((np.array([1.0, 2.0, 3.0]), ([0, 0, 0], [0, 0, 1])), shape=(1, 2))
    matrix = whole([-1.0, -1.0], [[0.0, 0.0]], at_most=[9.0], upper=[9.0, 9.0])
    bench.least(replace(matrix, rows=twice), -3.0)


@CHECKS
def _a_model_without_columns_is_worth_its_offset(bench: Bench) -> None:
    bench.least(whole([], offset=3.0), 3.0)
    bench.least(whole([], [], at_least=[-1.0], at_most=[1.0], offset=-3.0), -3.0)


@CHECKS
def _a_model_without_columns_can_be_infeasible(bench: Bench) -> None:
    _impossible(bench, whole([], [], at_least=[1.0], at_most=[2.0]))


@CHECKS
def _a_model_without_rows_takes_the_better_bounds(bench: Bench) -> None:
    bench.least(whole([1.0, -1.0, 2.0], lower=[-2.0, 0.0, 1.0], upper=[0.0, 3.0, 4.0]), -3.0)


@CHECKS
def _whole_numbers_are_more_than_zero_and_one(bench: Bench) -> None:
    bench.least(whole([-3.0, -2.0], [[3.0, 2.0]], at_most=[37.0], upper=[5.0, 100.0]), -37.0)


@CHECKS
def _large_entries_keep_every_digit(bench: Bench) -> None:
    sizes = [2.0**20 + 1.0, 2.0**20 + 3.0, 2.0**19 + 1.0, 2.0**19 + 2.0]
    three = sum(sorted(sizes)[:3])
    bench.least(whole(-np.ones(4), [sizes], at_most=[three]), -3.0)
    bench.least(whole(-np.ones(4), [sizes], at_most=[three - 1.0]), -2.0)


@CHECKS
def _a_large_entry_opens_nothing_for_free(bench: Bench) -> None:
    # Within 1e-6 of 0 the second column would do: 2^20 times 1e-6 is more than 1.
    bench.least(whole([0.0, 1.0], [[1.0, -(2.0**20)]], at_most=[0.0], lower=[1.0, 0.0]), 1.0)


@CHECKS
def _costs_divided_by_a_power_of_two_keep_every_digit(bench: Bench) -> None:
    for best in range(3):
        cost = -1000.0 - 2.0**-10 * (np.arange(3) == best)
        outcome = bench.least(whole(cost, [[1.0, 1.0, 1.0]], at_most=[1.0]), -1000.0 - 2.0**-10)
        found = -1 if outcome.x is None else int(np.argmax(outcome.x))
        require(found == best, f"column {found} is taken, column {best} is better by 2^-10 of 1000")


@CHECKS
def _without_costs_any_point_is_worth_zero(bench: Bench) -> None:
    bench.least(whole([0.0, 0.0, 0.0], [[1.0, 1.0, 1.0]], at_least=[2.0], at_most=[2.0]), 0.0)


@CHECKS
def _the_order_of_rows_and_columns_does_not_matter(bench: Bench) -> None:
    generator = np.random.default_rng(11)
    rows = generator.integers(1, 30, (6, 12)).astype(float)
    matrix = whole(-generator.integers(1, 30, 12).astype(float), rows, at_most=rows.sum(1) // 3)
    best = enumerated(matrix)
    for _ in range(4):
        down, across = generator.permutation(6), generator.permutation(12)
        bench.least(
            replace(
                matrix,
                cost=matrix.cost[across],
                rows=rows[down][:, across],
                row_upper=matrix.row_upper[down],
            ),
            best,
        )


@CHECKS
def _two_threads_have_the_same_optimum(bench: Bench) -> None:
    with Bench(bench.solver, threads=2) as pair:
        pair.least(_PICK, -12.0)


@CHECKS
def _a_solver_of_bounded_models_says_what_it_cannot_state(bench: Bench) -> None:
    endless = whole([1.0, 1.0], [[1.0, 1.0]], at_least=[3.0], upper=[INF, INF])
    try:
        outcome = bench.session.solve(endless)
    except ValueError as error:
        require("column" in str(error), f"the refusal names no column: {error}")
        raise Skip(f"refused: {error}") from error
    bench.judge(outcome, endless, value=3.0)
