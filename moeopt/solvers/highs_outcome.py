"""What an instance of HiGHS says after a run, in the words of the protocol."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeopt.solvers.protocol import Outcome, Status

__all__ = ["Unanswered", "linear_outcome", "status_of", "whole_outcome"]

Floats = NDArray[np.float64]

_FEASIBLE = 2  # kSolutionStatusFeasible
_VALID = 1  # kBasisValidityValid


class Unanswered(RuntimeError):
    """HiGHS ended without a word about the model."""


def status_of(status: Any) -> Status:
    """The word of the protocol for a status of HiGHS; RuntimeError for one that is no answer."""
    name = getattr(status, "name", status)
    match name:
        case "kOptimal":
            return Status.OPTIMAL
        case "kTimeLimit":
            return Status.TIME_LIMIT
        case "kInterrupt" | "kHighsInterrupt":
            return Status.INTERRUPTED
        case "kInfeasible":
            return Status.INFEASIBLE
        case "kUnbounded":
            return Status.UNBOUNDED
        case "kUnboundedOrInfeasible":
            return Status.INFEASIBLE_OR_UNBOUNDED
        case (
            "kNotset"
            | "kLoadError"
            | "kModelError"
            | "kPresolveError"
            | "kSolveError"
            | "kPostsolveError"
            | "kModelEmpty"  # a model without columns never gets here
            | "kUnknown"
            | "kMemoryLimit"
        ):
            raise Unanswered(f"HiGHS gave no answer: status {name}")
        case "kObjectiveBound" | "kObjectiveTarget" | "kIterationLimit" | "kSolutionLimit":
            raise RuntimeError(f"HiGHS stopped at a limit this door does not set: status {name}")
        case _:
            raise RuntimeError(f"HiGHS gave a status this library does not know: {status}")


def whole_outcome(highs: Any, status: Status) -> Outcome:
    """Of a mixed-integer model: point, bound and nodes."""
    info = highs.getInfo()
    x, objective = _point(highs, status, info)
    bounded = status in (Status.OPTIMAL, Status.TIME_LIMIT, Status.INTERRUPTED) and math.isfinite(
        info.mip_dual_bound
    )
    return Outcome(
        status=status,
        x=x,
        objective=objective,
        bound=info.mip_dual_bound if bounded else None,
        nodes=max(0, info.mip_node_count),
    )


def linear_outcome(highs: Any, status: Status) -> Outcome:
    """Of a linear model: point, multipliers, and the bound that these prove."""
    info = highs.getInfo()
    # A first-order method stops at its tolerance, which may leave its point infeasible: a limit like any other. It has
    # multipliers at any time; they are no bound before somebody checks them.
    first_order = highs.getOptionValue("solver")[1] == "pdlp"
    if first_order and status == Status.OPTIMAL and info.primal_solution_status != _FEASIBLE:
        status = Status.TIME_LIMIT
    x, objective = _point(highs, status, info)
    solution = highs.getSolution()
    bound = row_duals = col_duals = None
    ended = status in (Status.OPTIMAL, Status.TIME_LIMIT, Status.INTERRUPTED)
    if ended and solution.dual_valid and first_order:
        row_duals, col_duals = np.array(solution.row_dual), np.array(solution.col_dual)
    elif ended and solution.dual_valid and info.dual_solution_status == _FEASIBLE:
        row_duals, col_duals = np.array(solution.row_dual), np.array(solution.col_dual)
        # At a dual feasible basis the primal value, feasible or not, is the dual value: a bound before the
        # end too. (mip_dual_bound is 0 for linear models, a stand-in.)
        if status == Status.OPTIMAL or int(info.basis_validity) == _VALID:
            bound = float(info.objective_function_value)
    return Outcome(
        status=status, x=x, objective=objective, bound=bound, row_duals=row_duals, col_duals=col_duals
    )


def _point(highs: Any, status: Status, info: Any) -> tuple[Floats | None, float | None]:
    solution = highs.getSolution()
    feasible = solution.value_valid and info.primal_solution_status == _FEASIBLE
    if status == Status.OPTIMAL and not feasible:
        raise Unanswered("HiGHS claims an optimum and holds no feasible point")
    if not feasible or status not in (Status.OPTIMAL, Status.TIME_LIMIT, Status.INTERRUPTED):
        return None, None
    return np.array(solution.col_value), float(info.objective_function_value)
