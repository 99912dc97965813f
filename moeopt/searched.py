"""The search of a formulation's own, run as the first step of a solve with rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moeopt.formulation import Proven, Searched
from moeopt.solvers.door import WorkerDied
from moeopt.stop import is_interrupt

if TYPE_CHECKING:
    from moeopt.rowsearch import RowSearch

__all__ = ["search_first", "searchable"]


def searchable(run: RowSearch) -> bool:
    """Whether the formulation has a search that takes the problem."""
    formulation = run.statement.formulation
    return isinstance(formulation, Searched) and not formulation.unsearchable(run.statement.problem)


def search_first(run: RowSearch) -> bool:
    """Let the formulation search, and keep the best that its passes prove, if the checker agrees.

    Returns whether the run has ended with that.
    """
    formulation, problem = run.statement.formulation, run.statement.problem
    if not isinstance(formulation, Searched) or not searchable(run):
        return False
    most: Proven | None = None
    try:
        for found in formulation.passes(problem, best=run.best, clock=run.clock, session=run.session):
            run.nodes += found.nodes
            run.impossible = found.impossible
            if found.bound is not None and (most is None or most.bound is None or found.bound > most.bound):
                most = found
            cost = run.best.cost
            if cost is not None and found.bound is not None and run.clock.closes(cost, found.bound):
                break
    except (KeyboardInterrupt, SystemError) as error:
        if not is_interrupt(error):
            raise
        run.interrupted = True
    except WorkerDied:
        raise
    except (
        RuntimeError
    ) as error:  # of a solver, or of a placement that the problem judges otherwise than the search
        run.contradiction = str(error)
    if most is not None and most.bound is not None:
        run.keep(most.kind, bound=most.bound, numbers=dict(most.numbers))
    ended = run.impossible or run.interrupted or run.clock.expired or run.proved()
    return ended or bool(run.contradiction)
