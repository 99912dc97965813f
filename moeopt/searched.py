"""The search of a formulation's own, run as the first step of a solve with rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moeopt.formulation import Proven, Searched

if TYPE_CHECKING:
    from moeopt.rowsearch import RowSearch

__all__ = ["search_first", "searchable"]


def searchable(run: RowSearch) -> bool:
    """Whether the formulation has a search that takes the problem."""
    formulation = run.statement.formulation
    return isinstance(formulation, Searched) and not formulation.unsearchable(run.statement.problem)


def search_first(run: RowSearch) -> bool:
    """Let the formulation search, and keep what its last complete pass proves, if the checker agrees.

    Returns whether the run has ended with that.
    """
    formulation, problem = run.statement.formulation, run.statement.problem
    if not isinstance(formulation, Searched) or not searchable(run):
        return False
    last: Proven | None = None
    try:
        for found in formulation.passes(problem, best=run.best, clock=run.clock, session=run.session):
            last = found
            run.nodes += found.nodes
            cost = run.best.cost
            if cost is not None and found.bound is not None and run.clock.closes(cost, found.bound):
                break
    except KeyboardInterrupt:
        run.interrupted = True
    if last is not None and last.bound is not None:
        run.keep(last.kind, bound=last.bound, numbers=dict(last.numbers))
    run.impossible = last is not None and last.impossible
    return run.impossible or run.interrupted or run.clock.expired or run.proved()
