"""What adapters share: checks of numbers, growing models, what streams out of a search, duals that prove."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from threading import Event, Lock, Thread
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from moeopt.solvers.protocol import Block, Limits, Model, Outcome, Status, Watch

__all__ = [
    "FromScratch",
    "Progress",
    "constant",
    "empty",
    "ended",
    "left",
    "polled",
    "proving",
    "refuse_numbers",
    "refuse_options",
    "with_columns",
    "with_rows",
]

_LEAST, _MOST, _INFINITE = 1e-9, 1e15, 1e20  # where float solvers round entries off, or call numbers infinite
_BOUND_PERIOD = 0.05  # seconds between two bounds sent to the session
_POLL = 0.02  # seconds between two looks at a cancellation
_ZERO = 1e-7  # a dual of the wrong sign that is rounding
_TIGHT = 1e-6  # relative; how closely duals must meet the objective

Floats = NDArray[np.float64]


class Progress:
    """What a search has found, from whichever thread it calls back in; only what is better streams on."""

    def __init__(self, watch: Watch, *, gap: float) -> None:
        self._watch = watch
        self._gap = gap
        self._lock = Lock()
        self._next_time = 0.0
        self._told = -math.inf
        self.x: Floats | None = None
        self.objective = math.inf
        self.bound = -math.inf

    def point(self, x: Floats, objective: float) -> None:
        """Take note of a feasible point."""
        with self._lock:
            if objective < self.objective:
                self.x, self.objective = x, objective
                self._watch.incumbent(x, objective)

    def proved(self, bound: float) -> None:
        """Take note of a bound."""
        with self._lock:
            if math.isfinite(bound):
                self.bound = max(self.bound, bound)
            now = time.monotonic()
            if self.bound > self._told and now >= self._next_time:
                self._told, self._next_time = self.bound, now + _BOUND_PERIOD
                self._watch.bound(self.bound)

    @property
    def closed(self) -> bool:
        """Whether objective and bound are as close as asked for."""
        return math.isfinite(self.objective) and (
            self.objective - self.bound <= self._gap * abs(self.objective)
        )


@contextmanager
def polled(watch: Watch, stop: Callable[[], object]) -> Iterator[None]:
    """Call `stop` from another thread, again and again, once the session wants the solve to end."""
    over = Event()

    def look() -> None:
        while not over.wait(_POLL):
            if watch.stopped():
                stop()

    thread = Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def left(limits: Limits) -> float | None:
    """Seconds until the deadline, at least 0; None without one."""
    return None if limits.deadline is None else max(0.0, limits.deadline - time.monotonic())


def ended(limits: Limits, watch: Watch) -> Status | None:
    """Why a solve must not go on, or must not begin; None when it may."""
    if watch.stopped():
        return Status.INTERRUPTED
    return Status.TIME_LIMIT if left(limits) == 0.0 else None


def refuse_options(solver: str, options: Iterable[str], *, own: frozenset[str]) -> None:
    """ValueError when options are given that the session sets itself."""
    if taken := sorted(own & set(options)):
        raise ValueError(
            f"{solver} options {taken} are set by the session; pass seconds, gap, seed or threads"
        )


def refuse_numbers(solver: str, model: Model) -> None:
    """ValueError when a float solver would round an entry to 0 or take a number for infinity."""
    sizes = np.abs(model.rows.values)
    small = (sizes > 0.0) & (sizes < _LEAST)
    numbers = (model.cost, model.lower, model.upper, model.row_lower, model.row_upper)
    large = any((np.isfinite(array) & (np.abs(array) >= _INFINITE)).any() for array in numbers)
    if small.any() or (sizes > _MOST).any() or large:
        raise ValueError(
            f"{solver} would alter the model: entries must lie between {_LEAST:g} and {_MOST:g}, "
            f"finite costs and bounds below {_INFINITE:g}"
        )


def constant(model: Model) -> Outcome | None:
    """The outcome of a model without columns, which solvers treat as they please; None for any other."""
    if model.cost.size:
        return None
    return empty(model.row_lower, model.row_upper, offset=model.offset)


def empty(lower: Floats, upper: Floats, *, offset: float) -> Outcome:
    """The outcome of rows without columns."""
    if (lower > 0.0).any() or (upper < 0.0).any():
        return Outcome(status=Status.INFEASIBLE)
    return Outcome(
        status=Status.OPTIMAL,
        x=np.zeros(0),
        objective=offset,
        bound=offset,
        row_duals=np.zeros(lower.size),
        col_duals=np.zeros(0),
    )


def proving(model: Model, duals: Floats, *, objective: float) -> tuple[Floats, Floats] | None:
    """Row duals and reduced costs if they prove the objective of a linear model, otherwise None.

    Their Lagrangian value, the least of ``c x - y (A x - side)`` over the box, must meet the objective.
    """
    rows = np.repeat(np.arange(duals.size), np.diff(model.rows.starts))
    duals = _signed(duals, model.row_lower, model.row_upper)
    weights = model.rows.values * duals[rows]
    reduced = model.cost - np.bincount(model.rows.indices, weights=weights, minlength=model.cost.size)
    value = model.offset
    for slopes, lower, upper in (
        (duals, model.row_lower, model.row_upper),
        (_signed(reduced, model.lower, model.upper), model.lower, model.upper),
    ):
        up, down = slopes > 0.0, slopes < 0.0
        value += float(slopes[up] @ lower[up] + slopes[down] @ upper[down])
    return (duals, reduced) if abs(value - objective) <= _TIGHT * max(1.0, abs(objective)) else None


def _signed(slopes: Floats, lower: Floats, upper: Floats) -> Floats:
    """The slopes without rounding errors that would lean on an infinite side."""
    rounding = ((slopes > 0.0) & np.isinf(lower)) | ((slopes < 0.0) & np.isinf(upper))
    return np.where(rounding & (np.abs(slopes) < _ZERO), 0.0, slopes)


def with_columns(model: Model, *, cost: Floats, lower: Floats, upper: Floats, columns: Block) -> Model:
    """The model with continuous columns appended, compressed by column."""
    rows = np.concatenate(
        [np.repeat(np.arange(model.row_lower.size), np.diff(model.rows.starts)), columns.indices]
    )
    added = np.repeat(np.arange(cost.size), np.diff(columns.starts)) + model.cost.size
    order = np.argsort(rows, kind="stable")
    counts = np.bincount(rows, minlength=model.row_lower.size)
    block = Block(
        starts=np.concatenate([[0], counts.cumsum()]).astype(np.int32),
        indices=np.concatenate([model.rows.indices, added])[order].astype(np.int32),
        values=np.concatenate([model.rows.values, columns.values])[order],
    )
    return replace(
        model,
        cost=np.concatenate([model.cost, cost]),
        lower=np.concatenate([model.lower, lower]),
        upper=np.concatenate([model.upper, upper]),
        integer=np.concatenate([model.integer, np.zeros(cost.size, dtype=np.bool_)]),
        rows=block,
    )


def with_rows(model: Model, *, rows: Block, row_lower: Floats, row_upper: Floats) -> Model:
    """The model with rows appended, compressed by row."""
    block = Block(
        starts=np.concatenate([model.rows.starts, model.rows.starts[-1] + rows.starts[1:]]).astype(np.int32),
        indices=np.concatenate([model.rows.indices, rows.indices]),
        values=np.concatenate([model.rows.values, rows.values]),
    )
    return replace(
        model,
        rows=block,
        row_lower=np.concatenate([model.row_lower, row_lower]),
        row_upper=np.concatenate([model.row_upper, row_upper]),
    )


class FromScratch:
    """The half of an adapter that holds a linear model, for solvers that solve it anew each time."""

    label: ClassVar[str]

    def __init__(self) -> None:
        self._held: Model | None = None

    def solve(self, *, model: Model, start: Floats | None, limits: Limits, watch: Watch) -> Outcome:
        """Minimise a model from scratch: the adapter's own."""
        raise NotImplementedError

    def load(self, *, model: Model) -> None:
        """Hold a linear model."""
        refuse_numbers(self.label, model)
        self._held = model

    def add_columns(self, *, cost: Floats, lower: Floats, upper: Floats, columns: Block) -> None:
        """Append columns, compressed by column, to the held model."""
        self.load(model=with_columns(self._model(), cost=cost, lower=lower, upper=upper, columns=columns))

    def add_rows(self, *, rows: Block, row_lower: Floats, row_upper: Floats) -> None:
        """Append rows, compressed by row, to the held model."""
        self.load(model=with_rows(self._model(), rows=rows, row_lower=row_lower, row_upper=row_upper))

    def set_bounds(self, *, lower: Floats, upper: Floats) -> None:
        """Replace the bounds of all columns of the held model."""
        self.load(model=replace(self._model(), lower=lower, upper=upper))

    def resolve(self, *, limits: Limits, watch: Watch) -> Outcome:
        """Solve the held model from scratch."""
        return self.solve(model=self._model(), start=None, limits=limits, watch=watch)

    def _model(self) -> Model:
        if self._held is None:
            raise RuntimeError("no model is held")
        return self._held
