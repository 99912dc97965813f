"""Checks of what happens while a solver searches: limits, stops, streams, starts, seeds."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeopt.conformance.bench import INF, Bench, Checks, enumerated, packing, require, whole
from moeopt.matrix import Matrix
from moeopt.solvers.door import Outcome, Status

__all__ = ["CHECKS"]

CHECKS = Checks()

_HARD, _MIDDLING, _EASY = packing(), packing(35, 8), packing(12, 3)
_ENOUGH = 60.0  # seconds by which even a slow machine has found a point
_SOON = 3.0  # seconds within which something streams out of a search
_PROMPT = 0.9  # seconds for which a limit may be missed; a second later the session would intervene


class _Seen:
    """What streams out of a solve; `stop` asks for its end after so many points."""

    def __init__(self, enough: int = 1) -> None:
        self.points: list[tuple[NDArray[np.float64], float]] = []
        self.bounds: list[float] = []
        self._enough = enough

    def point(self, x: NDArray[np.float64], objective: float) -> None:
        self.points.append((x, objective))

    def stop(self) -> bool:
        return len(self.points) >= self._enough

    def arguments(self) -> dict[str, Any]:
        return {"on_incumbent": self.point, "on_bound": self.bounds.append}


def _greedy(matrix: Matrix) -> NDArray[np.float64]:
    """Columns by worth, while they fit."""
    x = np.zeros(matrix.cost.size)
    for column in np.argsort(matrix.cost / matrix.rows.sum(axis=0)):
        x[column] = 1.0
        if matrix.violation(x) > 0.0:
            x[column] = 0.0
    return x


def _require_same_worker(bench: Bench, pid: int | None) -> None:
    require(
        bench.session.pid == pid and pid is not None, "the worker had to be killed: it did not end a solve"
    )


def _warm(bench: Bench) -> int | None:
    """Have the worker started and the solver imported, so that clocks measure the search; its process id."""
    bench.session.solve(_EASY)
    return bench.session.pid


def _require_sound(outcome: Outcome, matrix: Matrix) -> None:
    """A point, where there is one, is feasible and worth its objective."""
    if outcome.x is not None:
        require(matrix.violation(outcome.x, 1e-6) == 0.0, f"a point breaks the model: {outcome.objective}")
        worth, objective = matrix.value(outcome.x), outcome.objective
        require(
            objective is not None and abs(worth - objective) < 1e-4, f"a point worth {worth} is {objective}"
        )


@CHECKS
def _a_time_limit_ends_the_search(bench: Bench) -> None:
    pid, begun = _warm(bench), time.monotonic()
    outcome = bench.session.solve(_HARD, seconds=0.3)
    took = time.monotonic() - begun
    require(outcome.status == Status.TIME_LIMIT, f"status {outcome.status} after {took:.2f} s of 0.3")
    _require_same_worker(bench, pid)
    require(took < 0.3 + _PROMPT, f"it took {took:.2f} s of 0.3")
    _require_sound(outcome, _HARD)


@CHECKS
def _without_time_there_is_no_search(bench: Bench) -> None:
    pid, begun = _warm(bench), time.monotonic()
    outcome = bench.session.solve(_HARD, seconds=0.0)
    took = time.monotonic() - begun
    require(outcome.status == Status.TIME_LIMIT, f"status {outcome.status} without any time")
    _require_same_worker(bench, pid)
    require(took < _PROMPT, f"it took {took:.2f} s of 0")
    _require_sound(outcome, _HARD)


@CHECKS
def _a_time_limit_holds_for_one_solve_only(bench: Bench) -> None:
    bench.session.solve(_HARD, seconds=0.0)
    bench.least(_EASY, enumerated(_EASY), seconds=_ENOUGH)
    bench.least(_EASY, enumerated(_EASY))


@CHECKS
def _a_stop_ends_the_search_with_its_incumbent(bench: Bench) -> None:
    seen, pid = _Seen(), _warm(bench)
    outcome = bench.session.solve(_HARD, seconds=_ENOUGH, should_stop=seen.stop, **seen.arguments())
    require(outcome.status == Status.INTERRUPTED, f"status {outcome.status} of a search that was stopped")
    _require_same_worker(bench, pid)
    require(outcome.x is not None, "the incumbent is lost")
    _require_sound(outcome, _HARD)
    objective = INF if outcome.objective is None else outcome.objective
    require(objective <= seen.points[0][1] + 1e-6, f"{objective} is worse than what it had found")


@CHECKS
def _a_stop_that_is_due_ends_the_search_at_once(bench: Bench) -> None:
    pid, begun = _warm(bench), time.monotonic()
    outcome = bench.session.solve(_HARD, seconds=_ENOUGH, should_stop=lambda: True)
    took = time.monotonic() - begun
    require(outcome.status == Status.INTERRUPTED, f"status {outcome.status} of a search that was stopped")
    _require_same_worker(bench, pid)
    require(took < 3.0, f"it took {took:.2f} s")


@CHECKS
def _after_a_stop_the_session_solves_on(bench: Bench) -> None:
    bench.session.solve(_HARD, seconds=_ENOUGH, should_stop=lambda: True)
    bench.least(_EASY, enumerated(_EASY))


@CHECKS
def _an_interrupt_signal_does_not_reach_the_worker(bench: Bench) -> None:
    """Ctrl-C is the session's: it sends a cancellation, and no handler of the solver may act before."""
    pid, seen = _warm(bench), _Seen()

    def signalled() -> bool:
        if seen.points and pid is not None and not told:
            os.kill(pid, signal.SIGINT)
            told.append(time.monotonic())
        return bool(told) and time.monotonic() > told[0] + 0.3

    told: list[float] = []
    begun = time.monotonic()
    outcome = bench.session.solve(_HARD, seconds=_ENOUGH, should_stop=signalled, **seen.arguments())
    require(outcome.status == Status.INTERRUPTED, f"status {outcome.status}")
    require(
        bool(told) and begun + outcome.seconds >= told[0] + 0.3, "a signal ended the search, not the session"
    )
    _require_same_worker(bench, pid)


@CHECKS
def _points_stream_while_the_search_runs(bench: Bench) -> None:
    seen = _Seen()
    bench.session.solve(_HARD, seconds=_SOON, should_stop=seen.stop, **seen.arguments())
    require(bool(seen.points), "no point has come in")


@CHECKS
def _streamed_points_are_feasible_and_improve(bench: Bench) -> None:
    seen = _Seen(enough=3)
    bench.session.solve(_HARD, seconds=1.5, should_stop=seen.stop, **seen.arguments())
    for x, objective in seen.points:
        violation = _HARD.violation(x, 1e-6)
        require(violation == 0.0, f"a streamed point breaks the model by {violation}")
        require(
            abs(_HARD.value(x) - objective) < 1e-4, f"{objective} streamed for a point of {_HARD.value(x)}"
        )
    values = [objective for _, objective in seen.points]
    require(values == sorted(set(values), reverse=True), f"streamed values do not improve: {values}")


@CHECKS
def _bounds_stream_while_the_search_runs(bench: Bench) -> None:
    seen = _Seen()
    bench.session.solve(_HARD, seconds=_SOON, should_stop=lambda: bool(seen.bounds), **seen.arguments())
    require(bool(seen.bounds), "no bound has come in")


@CHECKS
def _streamed_bounds_rise_and_stay_below_the_optimum(bench: Bench) -> None:
    seen = _Seen()
    outcome = bench.session.solve(_MIDDLING, seconds=_ENOUGH, **seen.arguments())
    require(outcome.status == Status.OPTIMAL and outcome.objective is not None, f"status {outcome.status}")
    best = INF if outcome.objective is None else outcome.objective
    require(seen.bounds == sorted(seen.bounds), f"streamed bounds do not rise: {seen.bounds}")
    top = max(seen.bounds, default=-INF)
    require(top <= best + 1e-6 * abs(best), f"bound {top} was streamed, the optimum is {best}")


@CHECKS
def _streamed_points_are_never_better_than_the_end(bench: Bench) -> None:
    seen = _Seen()
    outcome = bench.session.solve(_MIDDLING, seconds=_ENOUGH, **seen.arguments())
    best = INF if outcome.objective is None else outcome.objective
    low = min((objective for _, objective in seen.points), default=INF)
    require(best <= low + 1e-6 * abs(best), f"it ended with {best} after it had {low}")


@CHECKS
def _a_gap_ends_the_search_early_and_is_kept(bench: Bench) -> None:
    outcome = bench.session.solve(_HARD, gap=0.5, seconds=20.0)
    require(outcome.status == Status.OPTIMAL, f"status {outcome.status} with a gap of 0.5")
    objective, bound = outcome.objective, outcome.bound
    require(objective is not None and bound is not None, "numbers are missing")
    if objective is not None and bound is not None:
        require(
            0.0 < objective - bound <= 0.5 * abs(objective),
            f"objective {objective}, bound {bound}: not within a gap of 0.5, or closed",
        )


@CHECKS
def _without_a_gap_the_last_unit_counts(bench: Bench) -> None:
    """A relative gap of 1e-4, the habit of solvers, or an absolute one would end too early."""
    generator = np.random.default_rng(4)
    cost = -(100_000.0 + generator.integers(0, 9, 14).astype(np.float64))
    rows = generator.integers(10, 30, (3, 14)).astype(float)
    matrix = whole(cost, rows, at_most=rows.sum(1) // 2)
    bench.least(matrix, enumerated(matrix))
    small = replace(matrix, cost=cost * 2.0**-20)
    outcome = bench.session.solve(small)
    worth = INF if outcome.x is None else matrix.value(np.round(outcome.x))
    best = enumerated(matrix)
    require(worth == best, f"costs times 2^-20: the point is worth {worth} before, the optimum is {best}")


@CHECKS
def _a_complete_start_is_never_made_worse(bench: Bench) -> None:
    start = _greedy(_HARD)
    value = _HARD.value(start)
    outcome = bench.session.solve(_HARD, start=start, seconds=0.3)
    require(outcome.x is not None, "the start is lost")
    found = INF if outcome.x is None else _HARD.value(outcome.x)
    require(found <= value + 1e-6, f"{found} is worse than the start, worth {value}")


@CHECKS
def _a_complete_start_reaches_the_search(bench: Bench) -> None:
    start = _greedy(_HARD)
    seen = _Seen()
    bench.session.solve(
        _HARD, start=start, seconds=_ENOUGH, should_stop=lambda: bool(seen.points), **seen.arguments()
    )
    value, first = _HARD.value(start), seen.points[0][1] if seen.points else INF
    require(first <= value + 1e-6, f"the first point is worth {first}, the start was worth {value}")


@CHECKS
def _a_partial_start_is_taken(bench: Bench) -> None:
    start = {at: float(value) for at, value in enumerate(_greedy(_EASY)) if at % 3}
    bench.least(_EASY, enumerated(_EASY), start=start)


@CHECKS
def _an_infeasible_start_is_not_trusted(bench: Bench) -> None:
    bench.least(_EASY, enumerated(_EASY), start=np.ones(12))


@CHECKS
def _a_start_that_says_nothing_does_no_harm(bench: Bench) -> None:
    bench.least(_EASY, enumerated(_EASY), start=np.full(12, np.nan))


@CHECKS
def _the_optimum_as_start_is_the_optimum(bench: Bench) -> None:
    first = bench.least(_EASY, enumerated(_EASY))
    bench.least(_EASY, enumerated(_EASY), start=None if first.x is None else np.round(first.x))


@CHECKS
def _the_same_seed_gives_the_same_answer(bench: Bench) -> None:
    first = bench.session.solve(_MIDDLING, seed=3)
    bench.session.solve(_EASY, seed=1)
    second = bench.session.solve(_MIDDLING, seed=3)
    require(first.x is not None and second.x is not None, "no points")
    if first.x is not None and second.x is not None:
        require(first.x.tobytes() == second.x.tobytes(), "two points from one seed")
    require(first.nodes == second.nodes, f"{first.nodes} and {second.nodes} nodes from one seed")


@CHECKS
def _another_seed_has_the_same_optimum(bench: Bench) -> None:
    for seed in (0, 1, 2**31 - 1):
        bench.least(_EASY, enumerated(_EASY), seed=seed)
