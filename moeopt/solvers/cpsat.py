"""CP-SAT in a worker process: the only module that imports ortools.

CP-SAT: L. Perron, F. Didier, S. Gay, The CP-SAT-LP Solver, CP 2023. It counts in whole numbers and proves its
bounds in them, so everything it is given is scaled to whole numbers first, exactly, or refused.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ortools.sat.python import cp_model

from moeopt.solvers.kit import Progress, constant, ended, left, polled, refuse_options
from moeopt.solvers.protocol import Block, Limits, Model, Outcome, Status, Watch

__all__ = ["CpSat"]

_OWN_OPTIONS = frozenset(
    {
        "max_time_in_seconds",
        "relative_gap_limit",
        "absolute_gap_limit",
        "random_seed",
        "num_workers",
        "num_search_workers",
        "catch_sigint_signal",
    }
)
_EXACT = 2**53  # beyond it a float no longer tells whole numbers apart
_RANGE = 2**62  # what a sum may reach, in the 64-bit numbers of CP-SAT
_SLACK = Fraction(1, 10**9)  # by how much a side may be missed, as with the float solvers
_FACTORS = (*(2**power for power in range(31)), *(10**power for power in range(1, 10)))

Floats = NDArray[np.float64]


class CpSat:
    """The `protocol.Adapter` of CP-SAT: models of bounded whole-number columns, no linear relaxations."""

    linear = False

    def __init__(self, *, threads: int) -> None:
        self._threads = threads

    def solve(self, *, model: Model, start: Floats | None, limits: Limits, watch: Watch) -> Outcome:
        solver = cp_model.CpSolver()
        self._configure(solver, limits)
        nothing = constant(model)
        if nothing is not None:
            return nothing
        scheme = _Scheme(model)
        if start is not None:
            scheme.hint(start)
        ending = ended(limits, watch)
        if scheme.impossible:
            return Outcome(status=Status.INFEASIBLE)
        if ending is not None:
            return Outcome(status=ending)
        seconds = left(limits)
        if seconds is not None:
            solver.parameters.max_time_in_seconds = seconds
        progress = Progress(watch, gap=limits.gap)

        def bound(value: float) -> None:
            progress.proved(scheme.worth(value))
            if progress.closed:
                solver.stop_search()

        solver.best_bound_callback = bound
        with polled(watch, solver.stop_search):
            status = solver.solve(scheme.stated, _Listener(scheme, progress))
        reason = ended(limits, watch)
        if reason is None and limits.deadline is not None:
            reason = Status.TIME_LIMIT  # it ends early when it expects its next step to end late
        return _outcome(solver, status, scheme, progress, reason)

    def load(self, *, model: Model) -> None:
        raise ValueError("CP-SAT solves no linear relaxations")

    def add_columns(self, *, cost: Floats, lower: Floats, upper: Floats, columns: Block) -> None:
        """Refused: there is no held model."""
        raise ValueError("CP-SAT solves no linear relaxations")

    def add_rows(self, *, rows: Block, row_lower: Floats, row_upper: Floats) -> None:
        """Refused: there is no held model."""
        raise ValueError("CP-SAT solves no linear relaxations")

    def set_bounds(self, *, lower: Floats, upper: Floats) -> None:
        """Refused: there is no held model."""
        raise ValueError("CP-SAT solves no linear relaxations")

    def resolve(self, *, limits: Limits, watch: Watch) -> Outcome:
        """Refused: there is no held model."""
        raise ValueError("CP-SAT solves no linear relaxations")

    def _configure(self, solver: Any, limits: Limits) -> None:
        refuse_options("CP-SAT", limits.options, own=_OWN_OPTIONS)
        settings = {
            "num_workers": self._threads,
            "random_seed": limits.seed,
            "absolute_gap_limit": 0.0,  # 1e-4 unless told; `Progress.closed` watches the gap asked for
            "relative_gap_limit": 0.0,
            "catch_sigint_signal": False,
        }
        for name, value in (settings | dict(limits.options)).items():
            try:
                setattr(solver.parameters, name, value)
            except (AttributeError, TypeError, ValueError) as error:
                raise ValueError(f"CP-SAT has no option {name!r} that takes {value!r}") from error


class _Scheme:
    """A model in whole numbers, and the way back from them."""

    def __init__(self, model: Model) -> None:
        lower, upper = _whole_bounds(model)
        self._model = model
        self.impossible = bool((lower > upper).any())
        self.stated = cp_model.CpModel()
        self.columns: list[Any] = []
        if self.impossible:
            return
        self.columns = [
            self.stated.new_int_var(low, high, "")
            for low, high in zip(lower.tolist(), upper.tolist(), strict=True)
        ]
        largest = np.maximum(np.abs(lower), np.abs(upper)).tolist()
        for row in range(model.row_lower.size):
            self._add(row, largest)
        costs, factor = _scaled(model.cost.tolist(), what="the costs")
        common = math.gcd(*costs) or 1
        self._unit = Fraction(common, factor)
        terms = [(at, cost // common) for at, cost in enumerate(costs) if cost]
        _require_range(terms, largest, what="the costs")
        self.stated.minimize(self._sum(terms))

    def hint(self, start: Floats) -> None:
        """Suggest the whole numbers among the values that are known."""
        for at in np.flatnonzero(start == np.round(start)).tolist() if self.columns else ():
            self.stated.add_hint(self.columns[at], int(start[at]))

    @property
    def offset(self) -> float:
        """The constant of the objective."""
        return self._model.offset

    def worth(self, value: float) -> float:
        """The costs that a value of the whole-number objective stands for, never rounded upwards."""
        if not math.isfinite(value):
            return value
        exact = Fraction(value) * self._unit + Fraction(self._model.offset)
        return (
            _rounded_down(exact) if abs(value) < _EXACT else math.nextafter(_rounded_down(exact), -math.inf)
        )

    def value(self, x: Floats) -> float:
        """The costs of a point."""
        return float(self._model.cost @ x + self._model.offset)

    def _sum(self, terms: list[tuple[int, int]]) -> Any:
        columns = [self.columns[at] for at, _ in terms]
        return cp_model.LinearExpr.weighted_sum(columns, [factor for _, factor in terms])

    def _add(self, row: int, largest: list[int]) -> None:
        model = self._model
        lower, upper = float(model.row_lower[row]), float(model.row_upper[row])
        if math.isinf(lower) and math.isinf(upper):
            return
        entries = slice(*(int(at) for at in model.rows.starts[row : row + 2]))
        numbers, factor = _scaled(model.rows.values[entries].tolist(), what=f"row {row}")
        terms = list(zip(model.rows.indices[entries].tolist(), numbers, strict=True))
        _require_range(terms, largest, what=f"row {row}")
        reach = sum(abs(number) * largest[at] for at, number in terms)
        low = -reach if math.isinf(lower) else math.ceil(_exact(lower, factor) * factor - _SLACK)
        high = reach if math.isinf(upper) else math.floor(_exact(upper, factor) * factor + _SLACK)
        low, high = max(low, -reach), min(high, reach)
        if low > high:
            self.impossible = True
        elif terms:
            self.stated.add_linear_constraint(self._sum(terms), low, high)


class _Listener(cp_model.CpSolverSolutionCallback):  # type: ignore[misc]
    """Streams what a search finds, and ends it when the gap asked for is closed."""

    def __init__(self, scheme: _Scheme, progress: Progress) -> None:
        super().__init__()
        self._scheme = scheme
        self._progress = progress

    def on_solution_callback(self) -> None:
        x = np.array([self.value(column) for column in self._scheme.columns], dtype=np.float64)
        self._progress.point(x, self._scheme.value(x))
        self._progress.proved(self._scheme.worth(self.best_objective_bound))
        if self._progress.closed:
            self.stop_search()


def _whole_bounds(model: Model) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Bounds of the columns as whole numbers; ValueError names the first column that CP-SAT cannot have."""
    if not model.integer.any():
        raise ValueError("CP-SAT solves no linear relaxations: every column is continuous")
    if not model.integer.all():
        at = int(np.flatnonzero(~model.integer)[0])
        raise ValueError(f"CP-SAT needs whole-number columns; column {at} is continuous")
    slack = float(_SLACK)
    lower, upper = np.ceil(model.lower - slack), np.floor(model.upper + slack)
    wide = ~(np.abs(lower) < _EXACT) | ~(np.abs(upper) < _EXACT)
    if wide.any():
        at = int(np.flatnonzero(wide)[0])
        raise ValueError(
            f"CP-SAT needs bounds below 2^53 on every column; column {at} lies between {lower[at]} and {upper[at]}"
        )
    return lower.astype(np.int64), upper.astype(np.int64)


def _scaled(values: list[float], *, what: str) -> tuple[list[int], int]:
    """The values times a factor that makes them whole, and the factor.

    Powers of two first, which take a float for what it is; then powers of ten, which take it for the decimal
    number it was written as.
    """
    if all(value.is_integer() for value in values):
        return [int(value) for value in values], 1
    for factor in _FACTORS:
        numbers = [_exact(value, factor) * factor for value in values]
        if all(number.denominator == 1 for number in numbers):
            return [int(number) for number in numbers], factor
    raise ValueError(
        f"CP-SAT needs whole numbers; {what} has none after scaling by 2^{30} or 10^{9}: "
        f"{next(value for value in values if not value.is_integer())}"
    )


def _exact(value: float, factor: int) -> Fraction:
    """A float for what it is, or for a factor with a 5 in it the shortest decimal number that reads as it."""
    return Fraction(repr(value)) if factor % 5 == 0 else Fraction(value)


def _require_range(terms: list[tuple[int, int]], largest: list[int], *, what: str) -> None:
    reach = sum(abs(factor) * largest[at] for at, factor in terms)
    if reach >= _RANGE:
        raise ValueError(f"CP-SAT counts to 2^62 and no further; {what} may reach {reach}")


def _rounded_down(exact: Fraction) -> float:
    value = float(exact)
    return value if Fraction(value) <= exact else math.nextafter(value, -math.inf)


def _outcome(solver: Any, status: Any, scheme: _Scheme, progress: Progress, reason: Status | None) -> Outcome:
    match status:
        case cp_model.INFEASIBLE:
            return Outcome(status=Status.INFEASIBLE)
        case cp_model.MODEL_INVALID:
            raise RuntimeError(f"CP-SAT refused the model: {scheme.stated.validate()}")
        case cp_model.OPTIMAL | cp_model.FEASIBLE | cp_model.UNKNOWN:
            pass
        case _:
            raise RuntimeError(f"CP-SAT gave a status this library does not know: {status}")
    x = objective = bound = None
    if status != cp_model.UNKNOWN:
        x = np.array([solver.value(column) for column in scheme.columns], dtype=np.float64)
        objective = scheme.value(x)
        progress.point(x, objective)
        progress.proved(scheme.worth(solver.best_objective_bound))
    if math.isfinite(progress.bound):
        bound = progress.bound
        # Next to a large constant the last digits of both are rounded.
        noise = abs(scheme.offset) * 2.0**-48
        beyond = objective is not None and (status == cp_model.OPTIMAL or bound > objective)
        if objective is not None and beyond and abs(bound - objective) <= noise:
            bound = objective
    ending = Status.OPTIMAL
    if status != cp_model.OPTIMAL and not progress.closed:
        if reason is None:
            raise RuntimeError("CP-SAT stopped at a limit this door does not set")
        ending = reason
    return Outcome(status=ending, x=x, objective=objective, bound=bound, nodes=int(solver.num_branches))
