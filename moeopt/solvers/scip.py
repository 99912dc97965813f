"""SCIP in a worker process: the only module that imports pyscipopt.

SCIP: S. Bolusani et al., The SCIP Optimization Suite 9.0 (2024). PySCIPOpt: S. Maher et al. (2016).
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pyscipopt import SCIP_EVENTTYPE, SCIP_PARAMSETTING, Eventhdlr
from pyscipopt import Model as Scheme
from pyscipopt.scip import Expr, ExprCons, Term

from moeopt.solvers.kit import (
    FromScratch,
    Progress,
    constant,
    ended,
    left,
    polled,
    proving,
    refuse_numbers,
    refuse_options,
)
from moeopt.solvers.protocol import Limits, Model, Outcome, Status, Watch

__all__ = ["Scip"]

_OWN_OPTIONS = frozenset(
    {
        "limits/time",
        "limits/gap",
        "limits/absgap",
        "randomization/randomseedshift",
        "lp/threads",
        "misc/catchctrlc",
    }
)
_SETTINGS = {
    "display/verblevel": 0,
    "misc/catchctrlc": False,
    # 1e-6, the default, lets x = 1e-6 open a large right-hand side for nothing.
    "numerics/feastol": 1e-9,
    "numerics/dualfeastol": 1e-9,
    # PySCIPOpt 6.3.0 with symmetry handling called a wrong point optimal on 2 of 1,400 tiny placement models.
    "misc/usesymmetry": 0,
}

Floats = NDArray[np.float64]


class Scip(FromScratch):
    """The `protocol.Adapter` of SCIP. The search runs in one thread whatever `threads` says.

    The held linear model is solved from scratch each time.
    """

    linear = True
    label: ClassVar[str] = "SCIP"

    def __init__(self, *, threads: int) -> None:
        self._threads = threads
        super().__init__()

    def solve(self, *, model: Model, start: Floats | None, limits: Limits, watch: Watch) -> Outcome:
        refuse_numbers("SCIP", model)
        scheme = Scheme()
        self._configure(scheme, limits)
        nothing = constant(model)
        if nothing is not None:
            return nothing
        columns, rows = _state(scheme, model)
        whole = bool(model.integer.any())
        if start is not None and whole:
            _hint(scheme, columns, start)
        if not whole:  # presolve would take the rows away that the duals belong to
            for switch_off in (scheme.setPresolve, scheme.setHeuristics, scheme.setSeparating):
                switch_off(SCIP_PARAMSETTING.OFF)
            scheme.disablePropagation()
        ending = ended(limits, watch)
        if ending is not None:
            return Outcome(status=ending)
        seconds = left(limits)
        if seconds is not None:
            scheme.setParam("limits/time", seconds)
        progress = Progress(watch, gap=limits.gap)
        if whole:
            scheme.includeEventhdlr(_Listener(columns, progress), "listener", "tells the session")
        with polled(watch, scheme.interruptSolve):
            scheme.optimizeNogil()  # without Python's lock: the session's cancellation must get through
        return _outcome(scheme, model, columns, rows, progress if whole else None, watch)

    def _configure(self, scheme: Any, limits: Limits) -> None:
        refuse_options("SCIP", limits.options, own=_OWN_OPTIONS)
        settings = _SETTINGS | {
            "randomization/randomseedshift": limits.seed,
            "lp/threads": min(self._threads, 64),
        }
        for name, value in (settings | dict(limits.options)).items():
            try:
                scheme.setParam(name, value)
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"SCIP has no option {name!r} that takes {value!r}") from error


class _Listener(Eventhdlr):  # type: ignore[misc]
    """Streams what a search finds, and ends it when the gap asked for is closed."""

    _HEARD = (SCIP_EVENTTYPE.BESTSOLFOUND, SCIP_EVENTTYPE.NODESOLVED, SCIP_EVENTTYPE.LPSOLVED)

    def __init__(self, columns: list[Any], progress: Progress) -> None:
        self._columns = columns
        self._progress = progress

    def eventinit(self) -> None:
        for kind in self._HEARD:
            self.model.catchEvent(kind, self)

    def eventexit(self) -> None:
        for kind in self._HEARD:
            self.model.dropEvent(kind, self)

    def eventexec(self, event: Any) -> None:
        scheme, progress = self.model, self._progress
        if event.getType() == SCIP_EVENTTYPE.BESTSOLFOUND:
            best = scheme.getBestSol()
            progress.point(_values(scheme, best, self._columns), scheme.getSolObjVal(best))
        progress.proved(_finite(scheme.getDualbound(), scheme))
        if progress.closed:
            scheme.interruptSolve()


def _state(scheme: Any, model: Model) -> tuple[list[Any], list[Any]]:
    """The columns, and the rows: None where a row has no bounds or no entries, which SCIP cannot state."""

    def side(value: float) -> float | None:
        return value if math.isfinite(value) else None

    columns = [
        scheme.addVar(lb=side(lower), ub=side(upper), obj=cost, vtype="I" if integer else "C")
        for lower, upper, cost, integer in zip(
            model.lower.tolist(),
            model.upper.tolist(),
            model.cost.tolist(),
            model.integer.tolist(),
            strict=True,
        )
    ]
    scheme.addObjoffset(model.offset)
    terms = [Term(column) for column in columns]
    starts, indices, values = (
        model.rows.starts.tolist(),
        model.rows.indices.tolist(),
        model.rows.values.tolist(),
    )
    rows: list[Any] = []
    for row, (lower, upper) in enumerate(
        zip(model.row_lower.tolist(), model.row_upper.tolist(), strict=True)
    ):
        entries = range(starts[row], starts[row + 1])
        if not (math.isfinite(lower) or math.isfinite(upper)) or (not entries and lower <= 0.0 <= upper):
            rows.append(None)
            continue
        if not entries:  # 0 is outside its bounds: a column that cannot be says the same
            entries, lower, upper = range(0), 1.0, 1.0
            never = scheme.addVar(lb=0.0, ub=0.0, obj=0.0, vtype="C")
            body = Expr({Term(never): 1.0})
        else:
            body = Expr({terms[indices[at]]: values[at] for at in entries})
        rows.append(scheme.addCons(ExprCons(body, lhs=side(lower), rhs=side(upper))))
    return columns, rows


def _hint(scheme: Any, columns: list[Any], start: Floats) -> None:
    """Hand a complete point over for checking, or a part (nan elsewhere) for completion."""
    known = np.flatnonzero(~np.isnan(start)).tolist()
    if not known:
        return
    solution = scheme.createSol() if len(known) == len(columns) else scheme.createPartialSol()
    for at in known:
        scheme.setSolVal(solution, columns[at], float(start[at]))
    scheme.addSol(solution, free=True)


def _outcome(
    scheme: Any, model: Model, columns: list[Any], rows: list[Any], progress: Progress | None, watch: Watch
) -> Outcome:
    status = _status(scheme.getStatus(), closed=progress is not None and progress.closed, watch=watch)
    nodes = 0 if progress is None else int(scheme.getNTotalNodes())
    if status not in (Status.OPTIMAL, Status.TIME_LIMIT, Status.INTERRUPTED):
        return Outcome(status=status, nodes=nodes)
    x = objective = None
    if scheme.getNSols():
        best = scheme.getBestSol()
        x, objective = _values(scheme, best, columns), float(scheme.getSolObjVal(best))
    if progress is None and status != Status.OPTIMAL:
        return Outcome(status=status)
    dual = _finite(scheme.getDualbound(), scheme)
    bound = dual if math.isfinite(dual) else None
    row_duals = col_duals = None
    if progress is None and objective is not None:
        found = _duals(scheme, rows)
        proof = None if found is None else proving(model, found, objective=objective)
        if proof is not None:
            row_duals, col_duals = proof
    return Outcome(
        status=status,
        x=x,
        objective=objective,
        bound=bound,
        row_duals=row_duals,
        col_duals=col_duals,
        nodes=nodes,
    )


def _duals(scheme: Any, rows: list[Any]) -> Floats | None:
    """What SCIP holds as duals of the rows; None where it holds none, as for a row that became a bound."""
    try:
        return np.array([0.0 if row is None else scheme.getDualsolLinear(row) for row in rows])
    except Warning:
        return None


def _values(scheme: Any, solution: Any, columns: list[Any]) -> Floats:
    return np.array([scheme.getSolVal(solution, column) for column in columns])


def _finite(value: float, scheme: Any) -> float:
    return value if abs(value) < scheme.infinity() else math.copysign(math.inf, value)


def _status(status: str, *, closed: bool, watch: Watch) -> Status:
    match status:
        case "optimal":
            return Status.OPTIMAL
        case "timelimit":
            return Status.TIME_LIMIT
        case "infeasible":
            return Status.INFEASIBLE
        case "unbounded":
            return Status.UNBOUNDED
        case "inforunbd":
            return Status.INFEASIBLE_OR_UNBOUNDED
        case "userinterrupt" if closed:
            return Status.OPTIMAL
        case "userinterrupt" if watch.stopped():
            return Status.INTERRUPTED
        case _:
            raise RuntimeError(f"SCIP gave no answer, or stopped at a limit this door does not set: {status}")
