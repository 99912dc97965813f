"""One run of a formulation by a solver, measured: the clock stopped at claim and at proof."""

import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from benchmarks.models import question, spec
from benchmarks.questions import Question
from moeopt.bench_referee import judge
from moeopt.bench_rows import Key, Row
from moeopt.exact import Exact
from moeopt.formulation import Separable, Tabulated
from moeopt.matrix import from_pyomo
from moeopt.method import Incumbent
from moeopt.problem import Problem
from moeopt.rows import check_answer, solve_model, solve_rows
from moeopt.solvers.door import Outcome, Status
from moeopt.solvers.offered import installed
from moeopt.solvers.scaled import ScaledSession
from moeopt.statements import named_formulation
from moeopt.stop import Stop
from moeopt.summary import share

PRICES = "prices"  # no solver of rows: the library's route for formulations that list columns
GRACE = 120.0  # seconds a run may take beyond its limit: building, checking, and what a solver overruns
PYOMO_ENTRIES = 150_000  # coefficients, lazy rows included, that Pyomo states in seconds
CLOSED = ("certified-optimal", "solver-claimed")


class Overrun(Exception):
    """A run took longer than its limit and the grace."""


class Stopwatch(ScaledSession):
    """A session that notes the nodes of its searches and when the last one claimed an optimum."""

    nodes: int = 0
    claimed: float | None = None

    def solve(self, *arguments: Any, **options: Any) -> Outcome:
        """As `Session.solve`."""
        outcome = super().solve(*arguments, **options)
        self.nodes += outcome.nodes
        self.claimed = time.perf_counter() if outcome.status == Status.OPTIMAL else None
        return outcome


@dataclass(frozen=True)
class Measured:
    """How a run ended: what `found` of a row says, and why when it contradicts itself."""

    found: dict[str, Any]
    reason: str = ""


def attempt(key: Key, formulation: str, solver: str, stop: Stop, settings: Mapping[str, Any]) -> list[Row]:
    """The row of one run; skipped without solver or formulation, unsupported where either refuses the problem."""
    if reason := "" if solver == PRICES else installed(solver):
        return [key.row("skipped", reason=reason)]
    try:
        stated = _formulation(formulation, settings)
    except (ValueError, TypeError) as error:
        return [key.row("skipped", reason=str(error))]
    begun = time.perf_counter()
    asked = question(key.case, key.seed)
    if reason := stated.supports(asked.problem):
        return [key.row("unsupported", reason=reason)]
    found: dict[str, Any] = {"formulation": formulation, "solver": solver, "size": spec(key.case).size}
    found |= {"experts": getattr(asked.problem, "n_experts", None), **settings}
    try:
        with _wall((stop.seconds or 0.0) + GRACE):
            found |= _size(stated, key.case, key.seed)
            measured = _measure(stated, asked, solver, seed=key.seed, stop=stop)
    except Overrun as overrun:
        return [key.row("done", **found, status="overran", seconds=stop.seconds, message=str(overrun))]
    except ValueError as error:
        if "licence" in str(error):
            found["message"] = str(error)
            return [key.row("unsupported", reason=f"larger than the licence of {solver} found here", **found)]
        raise
    if measured.found["status"] == "interrupted":
        return [key.row("failed", reason="interrupted")]
    found |= measured.found
    if solver == "highs" and key.seed == 0 and not settings:
        found["pyomo_seconds"] = _pyomo_seconds(stated, asked.problem, found["nonzeros"])
    found["wall_seconds"] = time.perf_counter() - begun
    return [key.row("done", reason=measured.reason, **found)]


def _formulation(name: str, settings: Mapping[str, Any]) -> Any:
    plain = named_formulation(name)
    return type(plain)(**settings) if settings else plain


def _measure(stated: Any, asked: Question, solver: str, *, seed: int, stop: Stop) -> Measured:
    if solver == PRICES:
        begun = time.perf_counter()
        result = Exact(stated).solve(asked.problem, stop=stop, seed=seed)  # type: ignore[arg-type]
        return _of_result(asked, result, begun, None)
    with Stopwatch(solver) as session:
        _ = session.linear  # the worker has started and the solver is imported when this returns
        begun = time.perf_counter()
        if isinstance(asked.problem, Problem) and len(asked.problem.workload.layers) == 1:
            clock = stop.start()
            result = solve_rows(
                Exact(stated, solver=solver),
                stated,
                incumbent=Incumbent(asked.problem, clock),
                clock=clock,
                seed=seed,
                solver=solver,
                session=session,
            )
            return _of_result(asked, result, begun, session)
        answer = solve_model(stated, asked.problem, stop=stop, seed=seed, solver=solver, session=session)
        return _of_answer(asked, answer, begun, session)


def _of_result(asked: Question, result: Any, begun: float, session: Stopwatch | None) -> Measured:
    """Of a placement: judged and verified against the trace."""
    problem, trace = asked.problem, asked.trace
    if not isinstance(problem, Problem) or trace is None:
        raise TypeError("a placement is judged by its problem and its trace")
    verdict = judge(problem, result, recorded=trace)
    share_of = None
    if verdict.bound is not None and not problem.replicas and problem.risk is None:
        share_of = share(problem, result)
    found = {
        "status": verdict.status,
        "cost": verdict.cost,
        "bound": verdict.bound,
        "certified_share": share_of,
        "verify_seconds": verdict.verify_seconds,
    }
    return Measured(found | _common(result, verdict.bound, begun, session), verdict.reason)


def _of_answer(asked: Question, answer: Any, begun: float, session: Stopwatch) -> Measured:
    """Of any other problem: judged once more, the proof verified once more."""
    problem, status, reason, seconds = asked.problem, answer.status, "", None
    if answer.answer is not None:
        reason = problem.violation(answer.answer)
        if not reason and (cost := problem.cost(answer.answer)) != answer.cost:
            reason = f"costs {cost}, the answer says {answer.cost}"
    if reason:
        status = "disagreement"
    elif answer.proof is not None:
        checked = time.perf_counter()
        reason = check_answer(problem, answer.proof)
        seconds = time.perf_counter() - checked
        status = "rejected" if reason else status
    found = {
        "status": status,
        "cost": answer.cost,
        "bound": answer.bound,
        "certified_share": None,
        "verify_seconds": seconds,
    }
    return Measured(found | _common(answer, answer.bound, begun, session), reason)


def _common(run: Any, bound: int | None, begun: float, session: Stopwatch | None) -> dict[str, Any]:
    """Bounds, gap and clocks, which placements and other answers have alike.

    `solved_seconds`: until an optimum was claimed by the solver or certified, whichever was first; None without.
    """
    solved = None
    if run.status in CLOSED:
        claimed = None if session is None else session.claimed
        solved = run.seconds if claimed is None else min(run.seconds, claimed - begun)
    cost = run.cost
    return {
        "claimed_bound": run.claimed_bound,
        "gap": None if cost is None or bound is None else (cost - bound) / cost if cost else 0.0,
        "seconds": run.seconds,
        "solved_seconds": solved,
        "nodes": None if session is None else session.nodes,
        "message": run.message,
    }


@cache
def _size(stated: Any, name: str, seed: int) -> dict[str, Any]:
    """Rows, columns, coefficients of the model without lazy rows; seconds of its fast builder, the second time."""
    problem = question(name, seed).problem
    if not isinstance(stated, Tabulated):
        matrix, seconds = from_pyomo(stated.build(problem))[0], None
    else:
        matrix = stated.matrix(problem)  # imports and compiles
        begun = time.perf_counter()
        matrix = stated.matrix(problem)
        seconds = time.perf_counter() - begun
    rows, columns = matrix.rows.shape
    return {
        "rows": rows,
        "columns": columns,
        "nonzeros": int(matrix.rows.nnz),
        "lazy": isinstance(stated, Separable),
        "build_seconds": seconds,
    }


def _pyomo_seconds(stated: Any, problem: Any, entries: int) -> float | None:
    """Seconds to state and compile the Pyomo model with every row; None where that would take too long."""
    if isinstance(stated, Separable):
        entries += int(stated.lazy(problem).rows.nnz)
    if entries > PYOMO_ENTRIES:
        return None
    _load_pyomo()
    begun = time.perf_counter()
    from_pyomo(stated.build(problem))
    return time.perf_counter() - begun


@cache
def _load_pyomo() -> None:
    """Import and first use, once a process, which are no part of any model's time."""
    import pyomo.environ as pyo

    model = pyo.ConcreteModel()
    model.x = pyo.Var(bounds=(0, 1))
    model.cost = pyo.Objective(expr=model.x)
    from_pyomo(model)


@contextmanager
def _wall(seconds: float) -> Iterator[None]:
    """Overrun in this thread after so many seconds of wall time; only where the system and the thread allow it."""

    def ring(number: int, frame: object) -> None:
        raise Overrun(f"stopped after {seconds:g} s of wall time")

    try:
        before = signal.signal(signal.SIGALRM, ring)
    except (AttributeError, ValueError):  # no such signal, or not the main thread
        yield
        return
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
