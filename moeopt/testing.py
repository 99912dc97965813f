"""Holds formulations to brute force: one call is the test of your own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeopt.brute import every_partition
from moeopt.conformance import check_solver
from moeopt.formulation import Formulation, LazyRows
from moeopt.judged import Judged
from moeopt.matrix import Matrix, NeverHolds, canonical, from_pyomo
from moeopt.solvers.door import Session, Status
from moeopt.solvers.scaled import ScaledSession
from moeopt.statement import cost_unit

__all__ = ["brute_force", "check_formulation", "check_solver", "every_partition"]

_FLOAT = 1e-6  # relative error granted to a float solver


def brute_force(problem: Judged) -> tuple[int | None, Any]:
    """The least cost and an answer that has it; (None, None) when none is admissible.

    Judged by the problem's `violation` and `cost`; limits and errors are those of its `candidates`.
    """
    best: tuple[int | None, Any] = (None, None)
    for answer in problem.candidates():
        if problem.violation(answer):
            continue
        cost = problem.cost(answer)
        if best[0] is None or cost < best[0]:
            best = cost, answer
    return best


def check_formulation(
    formulation: Formulation, problems: Iterable[Judged], *, session: Session | None = None
) -> int:
    """Hold a formulation to brute force on small problems; returns how many of them it states.

    The Pyomo statement, compiled and solved, must have the least cost and read as a placement of that cost.
    A fast `matrix`, with all `lazy` rows, must be the same model up to order. Every placement must be a
    feasible point (`values`) worth its cost, and come back from it (`placement`). `costs` must be the
    matrix's own.

    Raises AssertionError with the problem's numbers where one of these fails, ValueError when every problem
    is refused by `supports`.
    """
    own = ScaledSession() if session is None else session
    stated = 0
    try:
        for problem in problems:
            if not formulation.supports(problem):
                stated += 1
                _check_one(formulation, problem, own)
    finally:
        if session is None:
            own.close()
    if not stated:
        raise ValueError(f"formulation {formulation.name} states none of the problems")
    return stated


def _check_one(formulation: Formulation, problem: Judged, session: Session) -> None:
    least, _ = brute_force(problem)
    model = formulation.build(problem)
    where = f"{formulation.name} on {_described(problem)}"
    try:
        compiled, variables = from_pyomo(model)
    except NeverHolds as error:
        _require(least is None, f"{where}: {error}, the least cost is {least}")
        return
    unit = cost_unit(float(np.abs(compiled.cost).max(initial=0.0)))
    # In units, for family weights make costs of 2^50, whose differences a float solver cannot tell apart.
    outcome = session.solve(replace(compiled, cost=compiled.cost / unit, offset=compiled.offset / unit))
    if least is None:
        _require(outcome.status == Status.INFEASIBLE, f"{where}: {outcome.status}, nothing is admissible")
    else:
        _require(outcome.status == Status.OPTIMAL, f"{where}: {outcome.status}, the least cost is {least}")
        assert outcome.x is not None and outcome.objective is not None  # noqa: PT018 - the door promises both
        value = outcome.objective * unit
        _require(_close(value, least, unit=unit), f"{where}: {value}, the least cost is {least}")
        for variable, value in zip(variables, outcome.x.tolist(), strict=True):
            variable.set_value(value, skip_validation=True)
        _check_answer(problem, formulation.read(model), least, where)
    if hasattr(formulation, "matrix"):
        _check_table(formulation, problem, compiled, unit=unit, where=where)


def _check_table(formulation: Any, problem: Judged, compiled: Matrix, *, unit: int, where: str) -> None:
    matrix: Matrix = formulation.matrix(problem)
    lazy: LazyRows | None = formulation.lazy(problem) if hasattr(formulation, "lazy") else None
    whole = matrix if lazy is None else matrix.extended(lazy.rows, lower=lazy.lower, upper=lazy.upper)
    fast, stated = canonical(whole), canonical(compiled)
    for part in ("offset", "columns", "rows"):
        found, wanted = getattr(fast, part), getattr(stated, part)
        _require(found == wanted, f"{where}: matrix and Pyomo statement differ in {part}: {found}, {wanted}")
    if hasattr(formulation, "costs"):
        costs, offset = formulation.costs(problem)
        # The exact integers may exceed 2^53; the matrix holds their nearest floats.
        same = bool((costs.astype(float) == matrix.cost).all()) and float(offset) == matrix.offset
        _require(same, f"{where}: costs are not those of the matrix")
    if not hasattr(formulation, "values"):
        return
    for answer in problem.candidates():
        x: NDArray[np.float64] = formulation.values(problem, answer)
        cost = problem.cost(answer)
        _require(whole.violation(x) == 0.0, f"{where}: {answer} breaks the matrix")
        value = whole.value(x)
        _require(_close(value, cost, unit=unit), f"{where}: {answer} has value {value}, cost {cost}")
        back = formulation.placement(problem, x)
        _require(back is not None, f"{where}: the point of {answer} stands for no placement")
        _check_answer(problem, back, cost, where)
        if lazy is not None:
            broken = len(formulation.separate(problem, x).keys)
            _require(broken == 0, f"{where}: {answer} breaks {broken} lazy rows")


def _check_answer(problem: Judged, answer: Any, cost: int, where: str) -> None:
    broken = problem.violation(answer)
    _require(not broken, f"{where}: {answer} is not admissible: {broken}")
    found = problem.cost(answer)
    _require(found == cost, f"{where}: {answer} costs {found}, wanted {cost}")


def _described(problem: Judged) -> object:
    return problem.fields() if hasattr(problem, "fields") else problem


def _close(found: float, wanted: int, *, unit: int) -> bool:
    return abs(found - wanted) <= _FLOAT * max(unit, abs(wanted))


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise AssertionError(message)
