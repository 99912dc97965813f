"""Checks of wrong requests, and of what a session is worth after an error."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial
from typing import Any

from moeopt.conformance.bench import INF, Bench, Checks, mixed, packing, require, whole
from moeopt.solvers.door import Status, WorkerDied

__all__ = ["CHECKS"]

CHECKS = Checks()

_TINY = whole([-1.0, -2.0], [[1.0, 1.0]], at_most=[1.0])  # -2 at (0, 1)
# How solvers name what a session sets; a solver knows one of them at most, and refuses the others as unknown.
_OF_THE_SESSION: tuple[dict[str, bool | int | float | str], ...] = (
    {"time_limit": 1.0},
    {"max_time_in_seconds": 1.0},
    {"limits/time": 1.0},
    {"TimeLimit": 1.0},
    {"threads": 1},
    {"num_workers": 1},
    {"Threads": 1},
)


def _refused(ask: Callable[[], object], what: str) -> None:
    try:
        ask()
    except ValueError as error:
        require(bool(str(error)), f"{what}: refused without a word")
    else:
        raise AssertionError(f"{what}: taken")


@CHECKS
def _unknown_options_are_refused(bench: Bench) -> None:
    _refused(lambda: bench.session.solve(_TINY, options={"no_such_option": 1}), "an option nobody has")
    bench.least(_TINY, -2.0)


@CHECKS
def _options_that_the_session_sets_are_refused(bench: Bench) -> None:
    for options in _OF_THE_SESSION:
        _refused(partial(bench.session.solve, _TINY, options=options), f"option {options}")


@CHECKS
def _after_a_refusal_the_same_worker_solves_on(bench: Bench) -> None:
    bench.least(_TINY, -2.0)
    pid = bench.session.pid
    _refused(lambda: bench.session.solve(_TINY, options={"no_such_option": 1}), "an option nobody has")
    bench.least(_TINY, -2.0)
    require(bench.session.pid == pid, "the worker died of a refusal")


@CHECKS
def _numbers_that_are_none_are_refused(bench: Bench) -> None:
    nan = float("nan")
    fields: tuple[dict[str, Any], ...] = ({"offset": nan}, {"lower": [nan]}, {"upper": [nan]})
    for changes in fields:
        _refused(partial(whole, [-1.0], [[1.0]], at_most=[1.0], **changes), f"model with {changes}")
    wrong: tuple[dict[str, Any], ...] = ({"seconds": nan}, {"gap": INF}, {"seed": -1}, {"start": {0: INF}})
    for arguments in wrong:
        _refused(partial(bench.session.solve, _TINY, **arguments), f"arguments {arguments}")
    bench.least(_TINY, -2.0)


@CHECKS
def _entries_too_small_for_floats_are_refused_or_kept(bench: Bench) -> None:
    tiny = mixed([1.0, 1.0], [[1e-12, 1.0]], at_least=[1.0], integer=[True, True], upper=[9e12, 0.0])
    try:
        outcome = bench.session.solve(tiny)
    except ValueError:
        return
    require(outcome.status == Status.OPTIMAL, f"status {outcome.status}: an entry of 1e-12 was dropped")


@CHECKS
def _numbers_beyond_the_infinity_of_solvers_are_refused_or_kept(bench: Bench) -> None:
    far = whole([1.0], [[1.0]], at_least=[1e25], upper=[1e26])
    try:
        outcome = bench.session.solve(far)
    except ValueError:
        return
    worth = -INF if outcome.x is None else far.value(outcome.x)
    require(worth >= 0.9e25, f"status {outcome.status}, point worth {worth}: a bound of 1e25 was dropped")


@CHECKS
def _a_killed_worker_is_named_and_replaced(bench: Bench) -> None:
    bench.least(_TINY, -2.0)
    pid = bench.session.pid

    def assassinate() -> bool:
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
        return False

    try:
        bench.session.solve(packing(), seconds=30.0, should_stop=assassinate)
    except WorkerDied as error:
        require("SIGKILL" in str(error), f"the death is not told: {error}")
    else:
        raise AssertionError("a killed worker has answered")
    bench.least(_TINY, -2.0)
    require(bench.session.pid not in (None, pid), "no other worker was started")


@CHECKS
def _a_killed_worker_loses_its_held_model(bench: Bench) -> None:
    bench.require_linear()
    bench.session.load(mixed([2.0, 3.0], [[1.0, 1.0]], at_least=[4.0]))
    bench.session.close()
    try:
        bench.session.resolve()
    except RuntimeError as error:
        require("no model is held" in str(error), f"the loss is not told: {error}")
    else:
        raise AssertionError("a model is solved that was lost")
    bench.session.load(mixed([2.0, 3.0], [[1.0, 1.0]], at_least=[4.0]))
    found = bench.session.resolve().objective
    require(found is not None and abs(found - 8.0) < 1e-6, f"objective {found} of the new model, not 8")


@CHECKS
def _a_closed_session_opens_again(bench: Bench) -> None:
    bench.session.close()
    require(bench.session.pid is None, "a closed session has a worker")
    bench.least(_TINY, -2.0)


@CHECKS
def _what_is_found_is_the_callers_own(bench: Bench) -> None:
    """Points and later points must not share memory."""
    first = bench.least(_TINY, -2.0)
    kept = None if first.x is None else first.x.tolist()
    bench.least(whole([-2.0, -1.0], [[1.0, 1.0]], at_most=[1.0]), -2.0)
    require((None if first.x is None else first.x.tolist()) == kept, "a point has changed after the fact")
