"""What a solver claimed in a run, held against what is known: words for the outcome, and contradictions."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any

from moeopt.result import Status
from moeopt.solvers.door import Outcome

if TYPE_CHECKING:
    from moeopt.rowsearch import RowSearch

__all__ = ["CLAIM", "claimed_bound", "contradiction", "verdict"]

CLAIM = 2e-6  # relative; what a float solver's bound may be off: 1.4e-6 was seen


def verdict(run: RowSearch) -> tuple[Status, str]:
    """Status and message of a run that has ended."""
    cost, claimed = run.best.cost, claimed_bound(run)
    bound = None if run.proof is None else run.proof.bound
    if run.contradiction:
        return "disagreement", run.contradiction
    if cost is not None and run.impossible:
        return "disagreement", f"the solver calls the problem infeasible; a placement costs {cost}"
    if cost is not None and claimed is not None and cost < claimed:
        return "disagreement", f"the solver claims that nothing costs less than {claimed}; one costs {cost}"
    if cost is not None and bound is not None and cost < bound:
        return "disagreement", f"the certified bound {bound} exceeds the cost {cost}"
    if run.proved():
        return ("certified-optimal" if cost == bound else "certified-gap"), ""
    if run.impossible:
        return "infeasible-claimed", f"the solver claims that nothing is admissible; best: {run.best.reason}"
    if run.interrupted or run.clock.interrupted:
        return "interrupted", ""
    if run.closed:
        return (
            "solver-claimed",
            f"the solver claims that nothing costs less than {claimed}; certified is {bound}"
            + (f" ({run.message})" if bound is None and run.message else ""),
        )
    if cost is None:
        return "none-found", f"nothing admissible found: {run.best.reason or run.message or 'no candidate'}"
    return ("feasible" if bound is None else "certified-gap"), ""


def contradiction(run: RowSearch, outcome: Outcome, *, answer: Any) -> str:
    """How the problem judges a claimed optimum otherwise than the solver; empty when it does not."""
    problem = run.statement.problem
    if broken := problem.violation(answer):
        return f"the solver's optimum is not admissible: {broken}"
    value, cost = (outcome.objective or 0.0) * run.statement.unit, problem.cost(answer)
    if abs(value - cost) > CLAIM * max(run.statement.unit, abs(cost)):
        return f"the solver values its optimum at {value}; it costs {cost}"
    return ""


def claimed_bound(run: RowSearch) -> int | None:
    """The solver's bound as a cost, its rounding errors granted."""
    if run.claimed is None:
        return None
    claimed = run.claimed * run.statement.unit
    slack = CLAIM * max(run.statement.unit, abs(claimed))
    if run.closed and run.best.cost is not None and abs(run.best.cost - claimed) <= slack:
        return run.best.cost
    return run.statement.divisor * ceil((claimed - slack) / run.statement.divisor)
