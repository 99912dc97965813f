"""Gurobi in a worker process: the only module that imports gurobipy.

Proprietary. The licence that comes with the package is for models of at most 2,000 columns and 2,000 rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import gurobipy
import numpy as np
from gurobipy import GRB
from numpy.typing import NDArray

from moeopt.solvers.kit import (
    FromScratch,
    Progress,
    constant,
    ended,
    left,
    refuse_numbers,
    refuse_options,
)
from moeopt.solvers.protocol import Limits, Model, Outcome, Status, Watch

__all__ = ["Gurobi"]

_OWN_OPTIONS = frozenset(
    {"timelimit", "mipgap", "mipgapabs", "seed", "threads", "outputflag", "logtoconsole", "logfile"}
)
_NO_LICENCE = (GRB.Error.NO_LICENSE, GRB.Error.NETWORK, GRB.Error.JOB_REJECTED, GRB.Error.CLOUD)

Floats = NDArray[np.float64]


class Gurobi(FromScratch):
    """The `protocol.Adapter` of Gurobi. The held linear model is solved from scratch each time."""

    linear = True
    label: ClassVar[str] = "Gurobi"

    def __init__(self, *, threads: int) -> None:
        self._threads = threads
        self._environment: Any = None
        super().__init__()

    def solve(self, *, model: Model, start: Floats | None, limits: Limits, watch: Watch) -> Outcome:
        refuse_numbers("Gurobi", model)
        grown = self._open()
        try:
            self._configure(grown, limits)
            nothing = constant(model)
            if nothing is not None:
                return nothing
            columns, rows = _state(grown, model)
            whole = bool(model.integer.any())
            if start is not None and whole:
                for column, value in zip(columns, start.tolist(), strict=True):
                    if not math.isnan(value):
                        column.Start = value
            ending = ended(limits, watch)
            if ending is not None:
                return Outcome(status=ending)
            listener = _listener(columns, Progress(watch, gap=limits.gap), watch)
            while True:
                seconds = left(limits)
                if seconds is not None:
                    grown.setParam("TimeLimit", seconds)
                grown.optimize(listener)
                # Gurobi takes SIGINT over while it runs, ignored or not; Ctrl-C is the session's, so go on.
                if grown.Status != GRB.INTERRUPTED or watch.stopped():
                    break
            return _outcome(grown, model, columns, rows, whole=whole)
        except gurobipy.GurobiError as error:
            raise _translated(error, model) from error
        finally:
            grown.dispose()

    def _open(self) -> Any:
        """A fresh model: no option, basis or clock survives from the last solve."""
        try:
            if self._environment is None:
                self._environment = gurobipy.Env(params={"OutputFlag": 0})
            return gurobipy.Model(env=self._environment)
        except gurobipy.GurobiError as error:
            raise _translated(error, None) from error

    def _configure(self, grown: Any, limits: Limits) -> None:
        # Gurobi reads names without regard to case and underscores, and takes patterns.
        plain = {name.lower().replace("_", ""): value for name, value in limits.options.items()}
        refuse_options("Gurobi", plain, own=_OWN_OPTIONS)
        settings = {
            "Threads": self._threads,
            "Seed": min(limits.seed, GRB.MAXINT),
            "MIPGap": limits.gap,
            "MIPGapAbs": 0.0,
            # 1e-6 and 1e-5, the defaults, let x = 1e-5 open a large right-hand side for nothing.
            "FeasibilityTol": 1e-9,
            "IntFeasTol": 1e-9,
            "OptimalityTol": 1e-9,
        }
        for name, value in (settings | dict(limits.options)).items():
            try:
                if not name.replace("_", "").isalnum():
                    raise TypeError("a pattern")
                grown.setParam(name, value)
            except (gurobipy.GurobiError, TypeError) as error:
                raise ValueError(f"Gurobi has no option {name!r} that takes {value!r}: {error}") from error


def _translated(error: Any, model: Model | None) -> Exception:
    """A GurobiError as the error the protocol names."""
    if error.errno == GRB.Error.SIZE_LIMIT_EXCEEDED and model is not None:
        return ValueError(
            f"the model has {model.row_lower.size} rows and {model.cost.size} columns; the Gurobi licence "
            "found here is limited in size (the one in the package to 2000 rows and 2000 columns): install a "
            "full licence, or take another solver, such as highs"
        )
    if error.errno in _NO_LICENCE:
        return RuntimeError(f"Gurobi has no valid licence here: {error}")
    return RuntimeError(f"Gurobi failed with error {error.errno}: {error}")


def _state(grown: Any, model: Model) -> tuple[list[Any], list[list[Any]]]:
    """The columns, and for each row the constraints that state it: none, one, or two for a range."""
    columns = [
        grown.addVar(lb=lower, ub=upper, obj=cost, vtype=GRB.INTEGER if integer else GRB.CONTINUOUS)
        for lower, upper, cost, integer in zip(
            np.maximum(model.lower, -GRB.INFINITY).tolist(),
            np.minimum(model.upper, GRB.INFINITY).tolist(),
            model.cost.tolist(),
            model.integer.tolist(),
            strict=True,
        )
    ]
    grown.ObjCon = model.offset
    starts, indices, values = (
        model.rows.starts.tolist(),
        model.rows.indices.tolist(),
        model.rows.values.tolist(),
    )
    rows = []
    for row, (lower, upper) in enumerate(
        zip(model.row_lower.tolist(), model.row_upper.tolist(), strict=True)
    ):
        entries = slice(starts[row], starts[row + 1])
        body = gurobipy.LinExpr(values[entries], [columns[at] for at in indices[entries]])
        sides = [(GRB.GREATER_EQUAL, lower), (GRB.LESS_EQUAL, upper)]
        if lower == upper:
            sides = [(GRB.EQUAL, lower)]
        rows.append([grown.addLConstr(body, sense, side) for sense, side in sides if math.isfinite(side)])
    return columns, rows


def _listener(columns: list[Any], progress: Progress, watch: Watch) -> Callable[[Any, int], None]:
    def listen(grown: Any, where: int) -> None:
        if watch.stopped():
            grown.terminate()
        elif where == GRB.Callback.MIPSOL:
            x = np.array(grown.cbGetSolution(columns))
            progress.point(x, float(grown.cbGet(GRB.Callback.MIPSOL_OBJ)))
        elif where == GRB.Callback.MIP:
            bound = float(grown.cbGet(GRB.Callback.MIP_OBJBND))
            progress.proved(bound if abs(bound) < GRB.INFINITY else -math.inf)

    return listen


def _outcome(grown: Any, model: Model, columns: list[Any], rows: list[list[Any]], *, whole: bool) -> Outcome:
    status = _status(grown.Status)
    nodes = int(grown.NodeCount) if whole else 0
    if status not in (Status.OPTIMAL, Status.TIME_LIMIT, Status.INTERRUPTED):
        return Outcome(status=status, nodes=nodes)
    if not whole and status != Status.OPTIMAL:
        return Outcome(status=status)
    x = objective = bound = row_duals = col_duals = None
    if grown.SolCount:
        x, objective = np.array(grown.getAttr("X", columns)), float(grown.ObjVal)
    if whole:
        bound = float(grown.ObjBound)
    else:
        bound = objective
        row_duals = np.array([sum(part.Pi for part in parts) for parts in rows], dtype=np.float64)
        col_duals = np.array(grown.getAttr("RC", columns))
    return Outcome(
        status=status,
        x=x,
        objective=objective,
        bound=bound if bound is not None and abs(bound) < GRB.INFINITY else None,
        row_duals=row_duals,
        col_duals=col_duals,
        nodes=nodes,
    )


def _status(status: int) -> Status:
    match status:
        case GRB.OPTIMAL:
            return Status.OPTIMAL
        case GRB.TIME_LIMIT:
            return Status.TIME_LIMIT
        case GRB.INTERRUPTED:
            return Status.INTERRUPTED
        case GRB.INFEASIBLE:
            return Status.INFEASIBLE
        case GRB.UNBOUNDED:
            return Status.UNBOUNDED
        case GRB.INF_OR_UNBD:
            return Status.INFEASIBLE_OR_UNBOUNDED
        case _:
            names = {getattr(GRB.Status, name): name for name in dir(GRB.Status) if name.isupper()}
            name = names.get(status, status)
            raise RuntimeError(f"Gurobi gave no answer, or stopped at a limit this door does not set: {name}")
