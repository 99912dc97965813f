"""One solve as seen from the parent: what streams in, when to cancel, when to give up, what to believe."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from moeopt.solvers.process import Process
from moeopt.solvers.protocol import Outcome, Status

if TYPE_CHECKING:
    from moeopt.matrix import Matrix

__all__ = ["POLL", "Talk", "consistent", "read_answer", "true_to", "with_start"]

POLL = 0.05  # seconds between two looks at should_stop
_GRACE = 1.0  # seconds a solver may overrun its own time limit before it is cancelled
_TOLERANCE = 1e-6  # relative; float solvers agree with themselves to about this
_CUT_SHORT = (Status.TIME_LIMIT, Status.INTERRUPTED)

Floats = NDArray[np.float64]


@dataclass(kw_only=True)
class Talk:
    """What is known of a running solve, and what the caller wants to know of it."""

    ticket: int
    deadline: float | None
    patience: float
    on_incumbent: Callable[[Floats, float], object] | None = None
    on_bound: Callable[[float], object] | None = None
    should_stop: Callable[[], bool] | None = None
    x: Floats | None = None
    objective: float | None = None
    bound: float | None = None
    cause: Status | None = None
    kill_at: float = math.inf
    keyboard: bool = False

    def listen(self, process: Process) -> tuple[str, Any] | None:
        """Follow the solve to its last frame; None when the worker did not answer a cancellation in time."""
        while True:
            try:
                self._consider(process)
                frame = process.receive(timeout=POLL)
                if frame is not None and frame[0] == self.ticket:
                    _, kind, content = frame
                    if kind in ("done", "failed"):
                        return kind, content
                    self._hear(kind, content)
                if time.monotonic() > self.kill_at:
                    return None
            except KeyboardInterrupt:
                if self.keyboard:
                    raise
                self.keyboard = True
                self._cancel(process, Status.INTERRUPTED)

    def conclude(self, ending: tuple[str, Any] | None) -> Outcome:
        """The outcome of a last frame, or without one what had streamed in; raises the worker's error."""
        if ending is None:
            status = self.cause or Status.INTERRUPTED
            return Outcome(status=status, x=self.x, objective=self.objective, bound=self.bound)
        outcome: Outcome = read_answer(*ending)
        if outcome.status not in _CUT_SHORT:
            return outcome
        if outcome.x is None:
            outcome = replace(outcome, x=self.x, objective=self.objective)
        return replace(outcome, status=self.cause or outcome.status)

    def _consider(self, process: Process) -> None:
        if self.cause is not None:
            return
        if self.should_stop is not None and self.should_stop():
            self._cancel(process, Status.INTERRUPTED)
        elif self.deadline is not None and time.monotonic() > self.deadline + _GRACE:
            self._cancel(process, Status.TIME_LIMIT)

    def _cancel(self, process: Process, cause: Status) -> None:
        if self.cause is None:
            self.cause = cause
            self.kill_at = time.monotonic() + self.patience
            process.send(self.ticket, "cancel")

    def _hear(self, kind: str, content: Any) -> None:
        if kind == "incumbent":
            self.x, self.objective = content
            if self.on_incumbent is not None:
                self.on_incumbent(*content)
        elif kind == "bound":
            self.bound = content
            if self.on_bound is not None:
                self.on_bound(content)
        else:
            raise RuntimeError(f"a worker sent a frame of unknown kind {kind!r}")


def read_answer(kind: str, content: Any) -> Any:
    """The content of a last frame, or the worker's error raised on this side, its traceback as a note."""
    if kind == "done":
        return content
    mistake, message, trace = content
    error = ValueError(message) if mistake else RuntimeError(message)
    error.add_note(f"in the solver worker: {trace}")
    raise error


def consistent(outcome: Outcome, *, gap: float) -> Outcome:
    """The outcome itself; RuntimeError when its objective and its bound contradict its status."""
    if outcome.status == Status.OPTIMAL and (outcome.x is None or outcome.objective is None):
        raise RuntimeError("the solver claims an optimum without a point")
    if outcome.objective is None or outcome.bound is None:
        return outcome
    slack = _TOLERANCE * max(1.0, abs(outcome.objective))
    above = outcome.objective - outcome.bound
    if above < -slack:
        raise RuntimeError(
            f"the solver's bound {outcome.bound} is above its own objective {outcome.objective}"
        )
    if outcome.status == Status.OPTIMAL and above > gap * abs(outcome.objective) + slack:
        raise RuntimeError(
            f"the solver claims an optimum (gap {gap}): objective {outcome.objective}, bound {outcome.bound}"
        )
    return outcome


def true_to(matrix: Matrix, outcome: Outcome, *, relax: bool) -> Outcome:
    """The outcome itself; RuntimeError when its point breaks the matrix or is not worth its objective.

    A row is measured in its largest entry or side, the objective in the sum of what its columns add.
    """
    x = outcome.x
    if x is None:
        return outcome
    if x.shape != matrix.cost.shape or not np.isfinite(x).all():
        raise RuntimeError(f"the solver's point is no finite float[{matrix.cost.size}]")
    worth, terms = matrix.value(x), float(np.abs(matrix.cost) @ np.abs(x)) + abs(matrix.offset)
    if outcome.objective is None or abs(worth - outcome.objective) > _TOLERANCE * max(1.0, terms):
        raise RuntimeError(f"the solver values its point at {outcome.objective}; it is worth {worth}")
    if matrix.violation(x, _TOLERANCE) == 0.0:
        return outcome
    unit = np.ones(matrix.row_lower.size)
    np.maximum.at(
        unit, np.repeat(np.arange(unit.size), np.diff(matrix.rows.indptr)), np.abs(matrix.rows.data)
    )
    body, whole = matrix.rows @ x, x[matrix.integer]
    for what, values, lower, upper, units in (
        ("bounds of column", x, matrix.lower, matrix.upper, np.ones(x.size)),
        ("sides of row", body, matrix.row_lower, matrix.row_upper, unit),
    ):
        allowed = _TOLERANCE * np.maximum(units, np.abs(np.where(values < lower, lower, upper)))
        broken = (lower - values > allowed) | (values - upper > allowed)
        if broken.any():
            at = int(np.flatnonzero(broken)[0])
            raise RuntimeError(
                f"the solver's point breaks the {what} {at}: {values[at]} is not between {lower[at]} and {upper[at]}"
            )
    if not relax and (np.abs(whole - np.round(whole)) > _TOLERANCE).any():
        raise RuntimeError("the solver's point has a fraction in a whole-number column")
    return outcome


def with_start(outcome: Outcome, point: Floats, *, value: float, gap: float) -> Outcome:
    """The outcome, knowing a feasible `point` worth `value`; RuntimeError when the two contradict."""
    slack = _TOLERANCE * max(1.0, abs(value))
    if outcome.status == Status.INFEASIBLE:
        raise RuntimeError(f"the solver calls a model infeasible that its start satisfies at {value}")
    if outcome.objective is not None and outcome.status == Status.OPTIMAL:
        if outcome.objective > value + gap * abs(outcome.objective) + slack:
            raise RuntimeError(f"the solver calls {outcome.objective} optimal; its start is worth {value}")
    elif outcome.status in _CUT_SHORT and (outcome.objective is None or outcome.objective > value):
        return replace(outcome, x=point, objective=value)
    return outcome
