"""HiGHS in a worker process: the only module that imports highspy.

Q. Huangfu, J. A. J. Hall, Parallelizing the dual revised simplex method, Math. Prog. Comp. 10 (2018)."""

from __future__ import annotations

import math
import time
from typing import Any

import highspy
import numpy as np
from highspy import HighsStatus
from numpy.typing import NDArray

from moeopt.solvers.highs_outcome import Unanswered, linear_outcome, status_of, whole_outcome
from moeopt.solvers.kit import empty, refuse_options
from moeopt.solvers.protocol import Block, Limits, Model, Outcome, Status, Watch

__all__ = ["Highs"]

Floats = NDArray[np.float64]

_LARGE = 20_000  # entries of a model whose first linear solve is left to an interior point
_BOUND_PERIOD = 0.05  # seconds between two bounds sent to the session
_OWN_OPTIONS = frozenset(
    {"time_limit", "mip_rel_gap", "mip_abs_gap", "random_seed", "threads", "output_flag"}
)


class Highs:
    """The `protocol.Adapter` of HiGHS."""

    linear = True

    def __init__(self, *, threads: int) -> None:
        # HiGHS sizes its pool of threads once a process: a later change gives status kNotset and no solve.
        self._threads = threads
        self._loaded: Any = None
        self._fresh = self._large = False

    def solve(self, *, model: Model, start: Floats | None, limits: Limits, watch: Watch) -> Outcome:
        highs = _open(model)  # a fresh instance: no option, basis or clock survives from the last solve
        self._large = model.rows.values.size > _LARGE
        self._configure(highs, limits)
        whole = bool(model.integer.any())
        if start is not None and whole:
            _hint(highs, start)
        try:
            outcome = self._run(highs, limits, watch, whole=whole)
        except Unanswered:  # kSolveError, seen with presolve
            return self._again(model, limits, watch, whole=whole, presolve="off")
        if whole and outcome.status in (Status.INFEASIBLE, Status.INFEASIBLE_OR_UNBOUNDED):
            # Presolve of 1.15.1 calls some 0/1 models infeasible that have points (HiGHS issue 3296 is one more).
            return self._again(model, limits, watch, whole=True, presolve="off")
        if whole and limits.gap == 0.0 and _open_ended(outcome):
            # Seen after restarts.
            return self._again(model, limits, watch, whole=True, mip_allow_restart=False)
        return outcome

    def _again(self, model: Model, limits: Limits, watch: Watch, *, whole: bool, **settings: Any) -> Outcome:
        """Once more from the beginning, with other settings."""
        highs = _open(model)
        self._configure(highs, limits)
        for name, value in settings.items():
            highs.setOptionValue(name, value)
        return self._run(highs, limits, watch, whole=whole)

    def load(self, *, model: Model) -> None:
        self._loaded = _open(model)
        self._fresh = model.rows.values.size > _LARGE

    def add_columns(self, *, cost: Floats, lower: Floats, upper: Floats, columns: Block) -> None:
        """Append columns, compressed by column, to the held model."""
        status = self._loaded.addCols(
            cost.size,
            cost,
            lower,
            upper,
            columns.values.size,
            columns.starts[:-1],
            columns.indices,
            columns.values,
        )
        _require_ok(status, "columns")

    def add_rows(self, *, rows: Block, row_lower: Floats, row_upper: Floats) -> None:
        """Append rows, compressed by row, to the held model."""
        status = self._loaded.addRows(
            row_lower.size,
            row_lower,
            row_upper,
            rows.values.size,
            rows.starts[:-1],
            rows.indices,
            rows.values,
        )
        _require_ok(status, "rows")

    def set_bounds(self, *, lower: Floats, upper: Floats) -> None:
        """Replace the bounds of all columns of the held model; its basis stays."""
        every = np.arange(lower.size, dtype=np.int32)
        _require_ok(self._loaded.changeColsBounds(lower.size, every, lower, upper), "bounds")

    def resolve(self, *, limits: Limits, watch: Watch) -> Outcome:
        """Solve the held model from its last basis; a large one at first by an interior point, then crossover."""
        self._large = False
        self._configure(self._loaded, limits)
        if self._fresh and "solver" not in limits.options:
            self._loaded.setOptionValue("solver", "ipm")
        try:
            outcome = self._run(self._loaded, limits, watch, whole=False)
            doubtful = self._fresh and outcome.status in (Status.INFEASIBLE, Status.INFEASIBLE_OR_UNBOUNDED)
        except Unanswered:  # kUnknown, seen from the basis of another model
            doubtful = True
        if doubtful:
            self._loaded.clearSolver()  # the interior point was seen to be wrong where simplex finds an optimum
            self._configure(self._loaded, limits)
            outcome = self._run(self._loaded, limits, watch, whole=False)
        self._fresh = False
        return outcome

    def _configure(self, highs: Any, limits: Limits) -> None:
        refuse_options("HiGHS", limits.options, own=_OWN_OPTIONS)
        highs.resetOptions()
        settings: dict[str, bool | int | float | str] = {
            "output_flag": False,
            "threads": self._threads,
            "random_seed": limits.seed,
            "mip_rel_gap": limits.gap,
            "mip_abs_gap": 0.0,
            # 1e-6, the default, lets x = 1e-6 open a large right-hand side for nothing; below the 1e-7 of its linear
            # solver, HiGHS drops whole points unseen and calls the rest optimal.
            "mip_feasibility_tolerance": 1e-7,
        }
        if self._large:
            settings["mip_lp_solver"] = "ipm"  # degenerate roots
        for name, value in (settings | dict(limits.options)).items():
            if highs.setOptionValue(name, value) != HighsStatus.kOk:
                raise ValueError(f"HiGHS has no option {name!r} that takes {value!r}")

    def _run(self, highs: Any, limits: Limits, watch: Watch, *, whole: bool) -> Outcome:
        if highs.getNumCol() == 0:
            lp = highs.getLp()
            return empty(np.array(lp.row_lower_), np.array(lp.row_upper_), offset=float(lp.offset_))
        if limits.deadline is not None:
            left = max(0.0, limits.deadline - time.monotonic())
            # Linear models are timed by the life of the instance, mixed-integer ones by the run.
            highs.setOptionValue("time_limit", left if whole else left + highs.getRunTime())
        _subscribe(highs, watch)
        try:
            ran = highs.run()
        finally:
            highs.clearCallbacks()
        status = status_of(highs.getModelStatus())
        if ran == HighsStatus.kError:
            raise RuntimeError(f"HiGHS failed in run() while claiming status {status}")
        return whole_outcome(highs, status) if whole else linear_outcome(highs, status)


def _open_ended(outcome: Outcome) -> bool:
    """Whether an optimum is claimed above the bound that comes with it."""
    value, bound = outcome.objective or 0.0, -math.inf if outcome.bound is None else outcome.bound
    return outcome.status == Status.OPTIMAL and value - bound > 1e-6 * max(1.0, abs(value))


def _open(model: Model) -> Any:
    highs = highspy.Highs()
    highs.setOptionValue("output_flag", False)
    status = highs.passModel(
        model.cost.size,
        model.row_lower.size,
        model.rows.values.size,
        int(highspy.MatrixFormat.kRowwise),
        int(highspy.ObjSense.kMinimize),
        model.offset,
        model.cost,
        model.lower,
        model.upper,
        model.row_lower,
        model.row_upper,
        model.rows.starts,
        model.rows.indices,
        model.rows.values,
        model.integer.astype(np.int32),  # 1 is kInteger
    )
    _require_ok(status, "model")
    return highs


def _require_ok(status: Any, what: str) -> None:
    # A warning means that HiGHS changed the numbers, such as dropping entries below 1e-9: another model.
    if status != HighsStatus.kOk:
        raise ValueError(
            f"HiGHS refused or altered the {what} ({status.name}): entries must lie between 1e-9 and 1e15, "
            "finite costs and bounds below 1e20"
        )


def _hint(highs: Any, start: Floats) -> None:
    """Hand a complete point over for checking, or a part (nan elsewhere) for completion."""
    known = np.flatnonzero(~np.isnan(start)).astype(np.int32)
    if known.size == start.size:
        solution = highspy.HighsSolution()
        solution.col_value = start
        status = highs.setSolution(solution)
    elif known.size:
        status = highs.setSolution(known.size, known, start[known])
    else:
        return
    if status == HighsStatus.kError:
        raise ValueError(f"HiGHS refused a start of {known.size} values")


def _subscribe(highs: Any, watch: Watch) -> None:
    best, next_time = -math.inf, 0.0

    def check(event: Any) -> None:
        if watch.stopped():
            event.interrupt()

    def check_and_tell(event: Any) -> None:
        nonlocal best, next_time
        check(event)
        bound = event.data_out.mip_dual_bound
        now = time.monotonic()
        if math.isfinite(bound) and bound > best and now >= next_time:
            best, next_time = bound, now + _BOUND_PERIOD
            watch.bound(bound)

    def tell(event: Any) -> None:
        watch.incumbent(np.array(event.data_out.mip_solution), event.data_out.objective_function_value)

    highs.cbSimplexInterrupt += check
    highs.cbIpmInterrupt += check
    highs.cbMipInterrupt += check_and_tell  # the logging callback is silent when output is off
    highs.cbMipImprovingSolution += tell
