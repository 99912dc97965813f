"""What checks of a solver have in common: a session, small models, and words for what they demand."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from moeopt.matrix import Matrix
from moeopt.solvers.door import Outcome, Session, Status

__all__ = [
    "INF",
    "Bench",
    "Check",
    "Checks",
    "Skip",
    "enumerated",
    "lagrangian",
    "mixed",
    "packing",
    "random_whole",
    "require",
    "whole",
]

INF = np.inf
_NEAR = 1e-6
Floats = NDArray[np.float64]


class Skip(Exception):
    """A check does not apply to a solver, for the reason given."""


class Bench:
    """One solver under test: a session kept over the checks, and answers held to what is known of them."""

    def __init__(self, solver: str, *, threads: int = 1, patience: float = 5.0) -> None:
        self.solver = solver
        self.threads = threads
        self.session = Session(solver, threads=threads, patience=patience)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.session.close()

    def least(self, matrix: Matrix, value: float, **arguments: Any) -> Outcome:
        """The outcome of a model whose optimum is `value`: claimed, reached by its point, and not exceeded."""
        return self.judge(self.session.solve(matrix, **arguments), matrix, value=value)

    def least_if_stated(self, matrix: Matrix, value: float, **arguments: Any) -> Outcome:
        """The same for models that a solver may refuse to state, which skips the check."""
        return self.judge(self.answer_if_stated(matrix, **arguments), matrix, value=value)

    def answer_if_stated(self, matrix: Matrix, **arguments: Any) -> Outcome:
        """The outcome of a model that a solver may refuse to state, which skips the check."""
        try:
            return self.session.solve(matrix, **arguments)
        except ValueError as error:
            raise Skip(f"refused: {error}") from error

    def judge(self, outcome: Outcome, matrix: Matrix, *, value: float) -> Outcome:
        """The outcome itself, if it claims the optimum `value` and its point has it."""
        x, near = outcome.x, _NEAR * max(1.0, abs(value))
        require(outcome.status == Status.OPTIMAL, f"status {outcome.status}, the optimum is {value}")
        require(x is not None and outcome.objective is not None, "an optimum without a point")
        found = matrix.value(x) if x is not None else INF
        require(abs(found - value) <= near, f"the point is worth {found}, the optimum is {value}")
        objective = outcome.objective if outcome.objective is not None else INF
        require(abs(objective - value) <= near, f"objective {objective}, the optimum is {value}")
        require(outcome.bound is not None, "an optimum without a bound")
        bound = outcome.bound if outcome.bound is not None else -INF
        require(abs(bound - value) <= near, f"bound {bound}, the optimum is {value}")
        return outcome

    def require_linear(self) -> None:
        """Skip a check of linear models where the solver answers none."""
        if not self.session.linear:
            raise Skip("the solver answers no linear models")


Check = Callable[[Bench], None]


class Checks(dict[str, Check]):
    """Checks by name; used as a decorator, it takes a function in under its name without underscores around."""

    def __call__(self, check: Check, /) -> Check:
        """Take a check in."""
        self[check.__name__.strip("_")] = check
        return check


def require(holds: bool, message: str) -> None:
    """AssertionError with the message unless it holds."""
    if not holds:
        raise AssertionError(message)


def mixed(
    cost: Sequence[float] | Floats,
    rows: Sequence[Any] | NDArray[Any] = (),
    *,
    at_least: Sequence[float] | Floats | None = None,
    at_most: Sequence[float] | Floats | None = None,
    **changes: Any,
) -> Matrix:
    """A model of continuous columns from 0 on, unless changed."""
    size = len(cost)
    count = max(len(side) for side in (rows, at_least, at_most) if side is not None)
    fields: dict[str, Any] = {
        "lower": np.zeros(size),
        "upper": np.full(size, INF),
        "integer": np.zeros(size, dtype=bool),
        "row_lower": np.full(count, -INF) if at_least is None else at_least,
        "row_upper": np.full(count, INF) if at_most is None else at_most,
    }
    block = np.array(rows, dtype=float).reshape(count, size)
    return Matrix(cost=np.array(cost, dtype=float), rows=block, **(fields | changes))


def whole(
    cost: Sequence[float] | Floats,
    rows: Sequence[Any] | NDArray[Any] = (),
    **changes: Any,
) -> Matrix:
    """A model of whole-number columns between 0 and 1, unless changed; otherwise as `mixed`."""
    size = len(cost)
    return mixed(cost, rows, **({"upper": np.ones(size), "integer": np.ones(size, dtype=bool)} | changes))


def packing(size: int = 300, count: int = 50) -> Matrix:
    """By default far beyond what a search can finish in a minute; the zero point is feasible."""
    generator = np.random.default_rng(0)
    rows = generator.integers(1, 100, (count, size)).astype(float)
    return whole(-generator.integers(1, 100, size).astype(float), rows, at_most=rows.sum(1) // 3, offset=7.0)


def random_whole(generator: np.random.Generator) -> Matrix:
    """Up to five columns of range 3 and four rows, each an equation, a range, or open at one side."""
    size, count = int(generator.integers(1, 6)), int(generator.integers(0, 5))
    lower = generator.integers(-1, 2, size).astype(float)
    rows = generator.integers(-4, 5, (count, size)).astype(float)
    middle = rows @ (lower + generator.integers(0, 3, size))
    below, above = generator.choice([0.0, 1.0, INF], count), generator.choice([0.0, 2.0, INF], count)
    shift = generator.choice([0.0, 0.0, 0.5], count)
    return whole(
        generator.integers(-5, 6, size).astype(float),
        rows,
        at_least=middle - below + shift,
        at_most=middle + above + shift,
        lower=lower,
        upper=lower + generator.integers(0, 3, size),
        offset=float(generator.integers(-3, 4)),
    )


def enumerated(matrix: Matrix) -> float:
    """The least value of all whole points, inf when none is feasible; for at most a few thousand points."""
    ranges = [range(int(low), int(high) + 1) for low, high in zip(matrix.lower, matrix.upper, strict=True)]
    points = np.array(list(itertools.product(*ranges)), dtype=float).reshape(-1, matrix.cost.size)
    body = (matrix.rows @ points.T).T
    kept = ((body >= matrix.row_lower) & (body <= matrix.row_upper)).all(axis=1)
    values = points[kept] @ matrix.cost + matrix.offset
    return float(values.min(initial=INF))


def lagrangian(matrix: Matrix, duals: Floats) -> float:
    """The bound that row duals prove for the linear model: min over the box of c x - y (A x - side)."""
    reduced = matrix.cost - matrix.rows.T @ duals
    value = matrix.offset
    for slopes, lower, upper in (
        (np.where(np.abs(duals) < 1e-9, 0.0, duals), matrix.row_lower, matrix.row_upper),
        (np.where(np.abs(reduced) < 1e-9, 0.0, reduced), matrix.lower, matrix.upper),
    ):
        up, down = slopes > 0.0, slopes < 0.0
        value += float(slopes[up] @ lower[up] + slopes[down] @ upper[down])
    return value
