"""Solves a formulation with rows: lazily separated rows, a certified bound, then a search by the solver."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from math import ceil

import numpy as np
from numpy.typing import NDArray

from moeopt.balance import lightest
from moeopt.certificate import Certificate, Proof
from moeopt.checker import check_layer
from moeopt.formulation import Formulation, Provable, Tabulated
from moeopt.heuristics.swap import Swap
from moeopt.method import Incumbent, Method
from moeopt.multipliers import exact_bound, whole_multipliers
from moeopt.placement import Placement
from moeopt.result import Event, Result, Status
from moeopt.solvers.door import Outcome, Session, WorkerDied
from moeopt.solvers.door import Status as Ending
from moeopt.statement import Statement
from moeopt.stop import Clock

__all__ = ["solve_rows"]

_OPENING = Swap(restarts=4, kicks=25)
_CLAIM = 1e-6  # relative; what a float solver's bound may be off


def solve_rows(
    method: Method,
    formulation: Formulation,
    *,
    incumbent: Incumbent,
    clock: Clock,
    seed: int,
    start: Placement | None = None,
    session: Session | None = None,
) -> Result:
    """Solve the problem of the incumbent, one layer, by a formulation with rows.

    First the linear relaxation, rows separated until none is broken: its multipliers become the certified
    bound when the formulation is `Provable`. Then the solver searches, again until no row is broken; its
    bound stays a claim. `method` is the provenance of the result. Without a session one is opened and closed.

    Raises ValueError when the formulation does not state the problem.
    """
    problem = incumbent.problem
    if len(problem.workload.layers) != 1:
        raise ValueError(f"a formulation states one layer at a time, found {len(problem.workload.layers)}")
    if reason := formulation.supports(problem):
        raise ValueError(f"formulation {formulation.name} does not fit this problem: {reason}")
    statement = Statement.of(formulation, problem)
    with ExitStack() as stack:
        door = session if session is not None else stack.enter_context(Session())
        run = _Run(statement, door, clock, seed, incumbent)
        try:
            if start is not None:
                incumbent.offer(start)
            run.relax()
            run.prove()
            run.descend()
            run.search()
        except KeyboardInterrupt:
            run.interrupted = True
        except WorkerDied as error:
            run.message = f"the solver died: {error}"
    return run.result(method)


@dataclass
class _Run:
    """One solve and what it knows so far; duals and claimed in the units of the statement."""

    statement: Statement
    session: Session
    clock: Clock
    seed: int
    best: Incumbent
    duals: NDArray[np.float64] | None = None
    proof: Proof | None = None
    claimed: float | None = None
    closed: bool = False
    impossible: bool = False
    interrupted: bool = False
    contradiction: str = ""
    message: str = ""

    def relax(self) -> None:
        """Solve the linear relaxation, adding broken rows until none is broken or the clock has run out."""
        self.session.load(self.statement.matrix)
        while not self.clock.expired:
            outcome = self._ask(
                lambda: self.session.resolve(
                    seconds=self.clock.left, seed=self.seed, should_stop=lambda: self.clock.expired
                )
            )
            if outcome is None:
                return
            if outcome.row_duals is not None:
                self.duals = outcome.row_duals
            if outcome.status != Ending.OPTIMAL or outcome.x is None:
                return
            fresh = self.statement.separate(outcome.x)
            if fresh is None:
                whole = outcome.x[self.statement.matrix.integer]
                if np.abs(whole - np.round(whole)).max(initial=0.0) < _CLAIM:
                    self._offer(outcome.x)
                return
            self.session.add_rows(rows=fresh.rows, row_lower=fresh.lower, row_upper=fresh.upper)

    def prove(self) -> None:
        """Turn the last multipliers into a bound in exact integers, and keep it if the checker agrees."""
        formulation, problem = self.statement.formulation, self.statement.problem
        if self.duals is None or not isinstance(formulation, Provable):
            return
        matrix = self.statement.complete(rows=self.duals.size)
        numbers = whole_multipliers(matrix, self.duals, unit=self.statement.unit)
        costs, offset = formulation.costs(problem)
        bound, sums = exact_bound(matrix, numbers, costs=costs, offset=offset)
        keys = self.statement.keys[: self.duals.size - self.statement.matrix.row_lower.size]
        proof = Proof(
            layer_id=problem.workload.layer_ids[0],
            digest=problem.workload.digest,
            kind=formulation.name,
            bound=bound,
            numbers={**formulation.proof(problem, multipliers=numbers, keys=keys), **sums},
        )
        if refusal := check_layer(problem, proof, placement=None):
            self.message = f"the bound is not certified: {refusal}"
            return
        self.proof = proof
        self.best.history.append(Event(self.clock.elapsed, self.best.cost, bound))

    def descend(self) -> None:
        """Offer quick local optima, so that the search starts from a placement; one even when the clock has run out."""
        if self.impossible or (self._finished() and self.best.placement is not None):
            return
        rng, problem = np.random.default_rng(self.seed), self.statement.problem
        for placement in _OPENING.search(problem, clock=self.clock, rng=rng, start=self.best.placement):
            self.clock.candidates += 1
            self.best.offer(placement)
            if self._finished():
                return

    def search(self) -> None:
        """Let the solver branch, adding the rows that its points break, until its last point breaks none."""
        formulation, problem = self.statement.formulation, self.statement.problem
        while not (self.impossible or self.interrupted or self.contradiction or self._finished()):
            start, known = None, len(self.statement.lazy)
            if isinstance(formulation, Tabulated) and self.best.placement is not None:
                start = formulation.values(problem, self.best.placement)
            outcome = self._ask(
                lambda start=start: self.session.solve(  # type: ignore[misc]
                    self.statement.complete(),
                    seconds=self.clock.left,
                    gap=self.clock.stop.gap,
                    seed=self.seed,
                    start=start,
                    on_incumbent=lambda x, _: self._offer(x),
                    should_stop=self._finished,
                )
            )
            if outcome is None:
                return
            if outcome.bound is not None:
                self.claimed = max(outcome.bound, outcome.bound if self.claimed is None else self.claimed)
            placement = None if outcome.x is None else self._offer(outcome.x)
            if outcome.status != Ending.OPTIMAL:
                return
            if placement is not None:
                self.closed = True
                self.contradiction = self._contradiction(outcome, placement)
            elif len(self.statement.lazy) == known:
                self.contradiction = "the solver calls a point optimal that breaks the rows it was given"
            if self.closed:
                return

    def _ask(self, question: Callable[[], Outcome]) -> Outcome | None:
        """What the solver answers, its ending noted; None when it contradicts itself or its start."""
        try:
            outcome = question()
        except WorkerDied:
            raise
        except RuntimeError as error:
            self.contradiction = str(error)
            return None
        match outcome.status:
            case Ending.OPTIMAL | Ending.TIME_LIMIT:
                pass
            case Ending.INTERRUPTED:
                self.interrupted = self.clock.interrupted or not self._finished()
            case Ending.INFEASIBLE | Ending.INFEASIBLE_OR_UNBOUNDED:  # every column is bounded
                self.impossible = True
            case Ending.UNBOUNDED:
                self.contradiction = "the solver calls a model unbounded whose columns are bounded"
        return outcome

    def _offer(self, x: NDArray[np.float64]) -> Placement | None:
        """Judge a point; None when it breaks a lazy row, which is then known, or stands for no placement."""
        whole = np.where(self.statement.matrix.integer, np.round(x), x)
        if self.statement.separate(whole) is not None:
            return None
        placement = self.statement.read(whole)
        if placement is not None:
            self.clock.candidates += 1
            self.best.offer(placement)
        return placement

    def _contradiction(self, outcome: Outcome, placement: Placement) -> str:
        """How the problem judges a claimed optimum otherwise than the solver; empty when it does not."""
        problem = self.statement.problem
        if broken := problem.violation(placement):
            return f"the solver's optimum is not admissible: {broken}"
        value, cost = (outcome.objective or 0.0) * self.statement.unit, problem.cost(placement)
        if abs(value - cost) > _CLAIM * max(self.statement.unit, abs(cost)):
            return f"the solver values its optimum at {value}; it costs {cost}"
        return ""

    def _finished(self) -> bool:
        """Whether a limit is reached, or the certified bound is as close as asked for."""
        return self.clock.expired or self._certified()

    def _certified(self) -> bool:
        cost = self.best.cost
        return cost is not None and self.proof is not None and self.clock.closes(cost, self.proof.bound)

    def result(self, method: Method) -> Result:
        """What was found, and what of it is proved."""
        best, problem = self.best, self.statement.problem
        if self.impossible and best.placement is None:
            best.offer(lightest(problem))  # says how close one gets, or contradicts the solver
        claimed, cost = self._claimed_bound(), best.cost
        bound = None if self.proof is None else self.proof.bound
        status, message = self._verdict(cost=cost, bound=bound, claimed=claimed)
        found = best.result(method, seed=self.seed, status=status)
        certificate = None
        if self.proof is not None and bound is not None and (cost is None or bound <= cost):
            proof = replace(self.proof, cost=cost, optimal=cost == bound)
            certificate = Certificate.of_layer(problem, proof, placement=best.placement)
        return replace(
            found,
            status=status if status in ("infeasible-claimed", "disagreement") else found.status,
            bound=None if certificate is None else bound,
            certificate=certificate,
            claimed_bound=claimed,
            message=message or self.message or found.message,
        )

    def _verdict(self, *, cost: int | None, bound: int | None, claimed: int | None) -> tuple[Status, str]:
        """Status and message."""
        if self.contradiction:
            return "disagreement", self.contradiction
        if cost is not None and self.impossible:
            return "disagreement", f"the solver calls the problem infeasible; a placement costs {cost}"
        if cost is not None and claimed is not None and cost < claimed:
            return (
                "disagreement",
                f"the solver claims that nothing costs less than {claimed}; one costs {cost}",
            )
        if cost is not None and bound is not None and cost < bound:
            return "disagreement", f"the certified bound {bound} exceeds the cost {cost}"
        if self._certified():
            return ("certified-optimal" if cost == bound else "certified-gap"), ""
        if self.impossible:
            return "infeasible-claimed", (
                f"the solver claims that no placement is admissible; best balance: {self.best.reason}"
            )
        if self.interrupted or self.clock.interrupted:
            return "interrupted", ""
        if self.closed:
            return "solver-claimed", (
                f"the solver claims that nothing costs less than {claimed}; certified is {bound}"
            )
        return ("feasible" if bound is None else "certified-gap"), ""

    def _claimed_bound(self) -> int | None:
        """The solver's bound as a cost, its rounding errors granted."""
        if self.claimed is None:
            return None
        claimed = self.claimed * self.statement.unit
        slack = _CLAIM * max(self.statement.unit, abs(claimed))
        if self.closed and self.best.cost is not None and abs(self.best.cost - claimed) <= slack:
            return self.best.cost
        return self.statement.divisor * ceil((claimed - slack) / self.statement.divisor)
