"""Every solver that is installed passes the checks; every check finds a fault; every adapter says what it cannot do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache

import pytest

from moeopt.conformance import CHECKS, Bench, run_check
from moeopt.solvers.door import installed
from moeopt.testing import check_solver

SOLVERS = ("highs", "cpsat", "scip", "gurobi")
LINEAR = ("highs", "scip", "gurobi")
FAULTS = {
    "the_optimum_of_a_small_model_is_found": "Worst",
    "random_models_have_the_optimum_that_enumeration_finds": "ForgetsLastRow",
    "rows_that_exclude_each_other_are_infeasible": "NeverInfeasible",
    "a_model_that_only_fractions_satisfy_is_infeasible": "Fractional",
    "a_model_without_a_best_point_is_called_unbounded": "EndlessIsInfeasible",
    "the_offset_is_part_of_objective_and_bound": "NoOffset",
    "the_bound_is_not_above_the_optimum": "HighBound",
    "the_point_meets_every_bound_and_row_and_is_whole": "Stray",
    "the_objective_is_the_value_of_the_point": "WrongObjective",
    "equations_hold": "EquationsOpen",
    "both_sides_of_a_range_hold": "OneSided",
    "rows_without_sides_bind_nothing": "FreeRowsBind",
    "negative_lower_bounds_are_kept": "NonNegative",
    "fixed_columns_keep_their_value": "Unfixed",
    "empty_rows_around_zero_bind_nothing": "EmptyRowsFail",
    "empty_rows_away_from_zero_are_infeasible": "DropsEmptyRows",
    "entries_stated_twice_are_added_up": "Halved",
    "a_model_without_columns_is_worth_its_offset": "NoOffset",
    "a_model_without_columns_can_be_infeasible": "NeverInfeasible",
    "a_model_without_rows_takes_the_better_bounds": "Worst",
    "whole_numbers_are_more_than_zero_and_one": "Binary",
    "large_entries_keep_every_digit": "Rounded",
    "a_large_entry_opens_nothing_for_free": "ScaledSlack",
    "costs_divided_by_a_power_of_two_keep_every_digit": "RoundedCosts",
    "without_costs_any_point_is_worth_zero": "WrongObjective",
    "the_order_of_rows_and_columns_does_not_matter": "ForgetsLastRow",
    "two_threads_have_the_same_optimum": "Crowd",
    "continuous_columns_may_take_fractions": "AllWhole",
    "a_continuous_column_beside_a_whole_one_is_not_skipped": "AllWhole",
    "ten_switches_beside_ten_amounts_stay_off": "Worst",
    "small_placements_have_the_optimum_of_enumeration": "ForbidsFirst",
    "a_solver_of_bounded_models_says_what_it_cannot_state": "Refuses",
    "a_relaxation_leaves_integrality_out": "KeepsIntegers",
    "a_solver_without_linear_models_refuses_them": "Pretender",
    "linear_models_without_points_are_infeasible": "NeverInfeasible",
    "linear_models_without_a_best_point_are_unbounded": "EndlessIsInfeasible",
    "columns_without_bounds_may_be_negative": "NonNegative",
    "the_sign_of_a_row_dual_is_that_of_the_lagrangian": "FlippedDuals",
    "row_duals_prove_the_optimum": "ZeroDuals",
    "reduced_costs_are_what_the_row_duals_leave": "ZeroReduced",
    "the_bound_of_a_linear_model_is_its_optimum": "LowBound",
    "a_held_model_is_solved_like_any_other": "NoOffset",
    "added_columns_and_rows_equal_a_solve_from_scratch": "LosesRows",
    "columns_can_be_added_to_a_model_that_has_none": "LosesColumns",
    "a_solve_leaves_the_held_model_alone": "SolveReplaces",
    "bounds_of_a_held_model_can_be_replaced": "KeepsBounds",
    "a_held_model_gets_its_time_anew": "StickyDeadline",
    "a_time_limit_ends_the_search": "Deaf",
    "without_time_there_is_no_search": "Deaf",
    "a_time_limit_holds_for_one_solve_only": "StickyDeadline",
    "a_stop_ends_the_search_with_its_incumbent": "Deaf",
    "a_stop_that_is_due_ends_the_search_at_once": "Deaf",
    "after_a_stop_the_session_solves_on": "StickyStop",
    "an_interrupt_signal_does_not_reach_the_worker": "Signalled",
    "points_stream_while_the_search_runs": "Silent",
    "streamed_points_are_feasible_and_improve": "Boastful",
    "bounds_stream_while_the_search_runs": "Silent",
    "streamed_bounds_rise_and_stay_below_the_optimum": "Boastful",
    "streamed_points_are_never_better_than_the_end": "Boastful",
    "a_gap_ends_the_search_early_and_is_kept": "NeverOptimal",
    "without_a_gap_the_last_unit_counts": "WideGap",
    "a_complete_start_is_never_made_worse": "RefusesStart",
    "a_complete_start_reaches_the_search": "ForgetsStart",
    "a_partial_start_is_taken": "RefusesStart",
    "an_infeasible_start_is_not_trusted": "TrustsStart",
    "a_start_that_says_nothing_does_no_harm": "TrustsStart",
    "the_optimum_as_start_is_the_optimum": "RefusesStart",
    "the_same_seed_gives_the_same_answer": "Fickle",
    "another_seed_has_the_same_optimum": "SeedShy",
    "unknown_options_are_refused": "SwallowsOptions",
    "options_that_the_session_sets_are_refused": "SwallowsOptions",
    "after_a_refusal_the_same_worker_solves_on": "DiesOfRefusal",
    "numbers_that_are_none_are_refused": "Worst",
    "entries_too_small_for_floats_are_refused_or_kept": "DropsSmall",
    "numbers_beyond_the_infinity_of_solvers_are_refused_or_kept": "DropsLarge",
    "a_killed_worker_is_named_and_replaced": "Worst",
    "a_killed_worker_loses_its_held_model": "WrongObjective",
    "a_closed_session_opens_again": "Worst",
    "what_is_found_is_the_callers_own": "Worst",
}


def need(solver: str) -> None:
    """Skip a test whose solver is not installed."""
    if reason := installed(solver):
        pytest.skip(reason)


@pytest.mark.parametrize("solver", [*SOLVERS, "tests.solvers.broken:Honest"])
def test_a_solver_passes_every_check_that_applies(solver: str) -> None:
    need(solver)
    report = check_solver(solver)
    assert {*report.ran, *report.skipped} == CHECKS.keys()
    assert len(report.ran) + len(report.skipped) == len(CHECKS)
    if solver == "cpsat":
        assert len(report.ran) >= 55
        words = ("no linear", "continuous", "bounds below 2^53")
        assert all(any(word in reason for word in words) for reason in report.skipped.values())
    else:
        assert list(report.skipped) == ["a_solver_without_linear_models_refuses_them"]


@pytest.fixture(scope="module")
def bench_of() -> Iterator[Callable[[str], Bench]]:
    """One worker a fault, kept over its checks; the next one starts while the checks of the last run."""
    order = list(dict.fromkeys(FAULTS.values()))
    with ExitStack() as stack:

        @cache
        def opened(fault: str) -> Bench:
            return stack.enter_context(Bench(f"tests.solvers.broken:{fault}", patience=0.3))

        def asked(fault: str) -> Bench:
            bench = opened(fault)
            for following in order[order.index(fault) + 1 :][:1]:
                opened(following)
            return bench

        yield asked


def test_every_check_has_a_fault_that_it_finds() -> None:
    assert FAULTS.keys() == CHECKS.keys()
    assert len(CHECKS) >= 40


@pytest.mark.parametrize(("check", "fault"), FAULTS.items())
def test_a_check_finds_its_fault(check: str, fault: str, bench_of: Callable[[str], Bench]) -> None:
    bench = bench_of(fault)
    assert isinstance(bench.session.linear, bool)  # the adapter is there: no failure below is its absence
    with pytest.raises(AssertionError) as raised:
        run_check(check, bench)
    assert f"tests.solvers.broken:{fault}: {check.replace('_', ' ')}: " in str(raised.value)
    if fault not in ("Signalled", "DiesOfRefusal"):
        assert "WorkerDied" not in str(raised.value)


def test_checks_can_be_chosen_by_name() -> None:
    report = check_solver("highs", only=["equations_hold", "a_solver_without_linear_models_refuses_them"])
    assert report.ran == ("equations_hold",)
    assert report.skipped == {
        "a_solver_without_linear_models_refuses_them": "the solver answers linear models"
    }
    with pytest.raises(ValueError, match="no check 'nothing'; known are the_optimum"):
        check_solver("highs", only=["nothing"])
    with pytest.raises(ValueError, match="no solver is named 'hihgs'"):
        check_solver("hihgs")
