"""Solves formulations with rows: placements of one layer, and any other problem that judges its answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from moeopt.balance import lightest
from moeopt.certificate import Certificate, Proof
from moeopt.checker import check_layer
from moeopt.claims import claimed_bound, verdict
from moeopt.contents_checker import check_contents
from moeopt.formulation import Formulation
from moeopt.grouping import GroupingProblem
from moeopt.grouping_checker import check_grouping
from moeopt.heuristics.migrate import Migrate
from moeopt.heuristics.mixture import Mixture
from moeopt.heuristics.replicate import Replicate
from moeopt.heuristics.swap import Swap
from moeopt.judged import Judged
from moeopt.method import Heuristic, Incumbent, Method
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.relaxations.counting import stronger
from moeopt.result import Event, Result, Status
from moeopt.rows_tree_checker import check_rows
from moeopt.rowsearch import RowSearch
from moeopt.solvers.door import Session
from moeopt.solvers.scaled import ScaledSession
from moeopt.statement import Statement
from moeopt.stop import Clock, Stop

__all__ = ["Answer", "check_answer", "solve_model", "solve_rows"]


def opening_of(problem: Problem) -> Heuristic:
    """A quick search for a good start."""
    if problem.replicas:
        return Replicate(kicks=5)
    if problem.max_moves is not None:
        return Migrate()
    return Swap(restarts=4, kicks=25) if problem.risk is None else Mixture()


def solve_rows(
    method: Method,
    formulation: Formulation,
    *,
    incumbent: Incumbent,
    clock: Clock,
    seed: int,
    start: Placement | None = None,
    solver: str = "highs",
    session: Session | None = None,
) -> Result:
    """Solve the problem of the incumbent, one layer, by a formulation with rows.

    First the linear relaxation, rows separated until none is broken: its multipliers become the certified bound. Then
    the solver searches, again until no row is broken; its bound stays a claim. Then, where every row is listed, a
    branch and bound of our own turns the claim into a certificate as far as the clock allows. `method` is the
    provenance of the result. Without a session one is opened and closed.

    Raises ValueError when the formulation does not state the problem.
    """
    problem = incumbent.problem
    if len(problem.workload.layers) != 1:
        raise ValueError(f"a formulation states one layer at a time, found {len(problem.workload.layers)}")
    if start is not None:
        incumbent.offer(start)

    def openings() -> Iterator[Placement]:
        rng = np.random.default_rng(seed)
        opening = opening_of(problem)
        if opening.supports(problem):
            yield lightest(problem)
        else:
            yield from opening.search(problem, clock=clock, rng=rng, start=incumbent.placement)

    with ExitStack() as stack:
        run = _prepare(stack, formulation, problem, solver=solver, session=session, clock=clock, seed=seed)
        run.best, run.digest = incumbent, problem.workload.digest
        run.layer_id = problem.workload.layer_ids[0]
        run.check = partial(check_layer, problem, placement=None)
        run.run(openings())
    return _result(run, method, incumbent)


def _result(run: RowSearch, method: Method, best: Incumbent) -> Result:
    """What was found, and what of it is proved."""
    problem = best.problem
    if run.impossible and best.placement is None:
        best.offer(lightest(problem))  # says how close one gets, or contradicts the solver
    status, message = verdict(run)
    found = best.result(method, seed=run.seed, status=status)
    proof = run.certified()
    certificate = None
    if proof is not None:
        proof = replace(stronger(problem, proof), dispatch=best.dispatch)
        certificate = Certificate.of_layer(problem, proof, placement=best.placement)
        if proof.optimal and found.status == "certified-gap":
            found = replace(found, status="certified-optimal")
    return replace(
        found,
        status=status if status in ("infeasible-claimed", "disagreement") else found.status,
        bound=None if proof is None else proof.bound,
        certificate=certificate,
        claimed_bound=claimed_bound(run),
        message=message or run.message or found.message,
    )


@dataclass(frozen=True)
class Answer:
    """Outcome of `solve_model`; the words of `status` are those of `moeopt.result.Result`.

    | field | holds |
    |---|---|
    | answer, cost | the best admissible answer and its exact cost by the problem, or None |
    | bound, proof | no admissible answer costs less: `check_answer` agrees; or None |
    | claimed_bound | a solver's unverified bound, or None |
    | nodes | of all searches |
    """

    status: Status
    answer: Any
    cost: int | None
    bound: int | None
    proof: Proof | None
    claimed_bound: int | None
    seconds: float
    formulation: str
    solver: str
    seed: int
    nodes: int = 0
    history: tuple[Event, ...] = ()
    message: str = ""


def solve_model(
    formulation: Formulation,
    problem: Judged,
    *,
    stop: Stop | None = None,
    seed: int = 0,
    start: Any = None,
    solver: str = "highs",
    session: Session | None = None,
    most_nodes: int | None = None,
) -> Answer:
    """Solve any problem that judges its answers, by any formulation of it (default: at most 60 seconds).

    The same steps as `solve_rows`; `most_nodes` limits the linear models of the certified tree. Raises ValueError
    when the formulation does not state the problem.
    """
    clock = (stop or Stop()).start()
    best = _Best(problem, clock)
    if start is not None:
        best.offer(start)
    with ExitStack() as stack:
        run = _prepare(stack, formulation, problem, solver=solver, session=session, clock=clock, seed=seed)
        run.best, run.digest = best, problem.digest
        run.most_nodes = run.most_nodes if most_nodes is None else most_nodes
        run.check = partial(check_answer, problem)
        run.run(())
    status, message = verdict(run)
    proof = run.certified()
    return Answer(
        status=status,
        answer=best.found,
        cost=best.cost,
        bound=None if proof is None else proof.bound,
        proof=proof,
        claimed_bound=claimed_bound(run),
        seconds=clock.elapsed,
        formulation=repr(formulation),
        solver=solver,
        seed=seed,
        nodes=run.nodes,
        history=tuple(best.history),
        message=message or run.message,
    )


def check_answer(problem: Judged, proof: Proof) -> str:
    """Why a proof of `solve_model` does not hold; empty when it does."""
    if proof.kind == "grouping" and isinstance(problem, GroupingProblem):
        return check_grouping(problem, proof)
    if proof.kind == "contents" and isinstance(problem, Problem):
        return check_contents(problem, proof)
    return check_rows(problem, proof)


@dataclass
class _Best:
    """The cheapest admissible answer of a problem."""

    problem: Judged
    clock: Clock
    found: Any = None
    cost: int | None = None
    bound: int | None = None
    reason: str = ""
    history: list[Event] = field(default_factory=list)

    def offer(self, answer: Any, /) -> bool:
        self.reason = self.problem.violation(answer)
        if self.reason:
            return False
        cost = self.problem.cost(answer)
        if self.cost is not None and cost >= self.cost:
            return False
        self.found, self.cost = answer, cost
        self.history.append(Event(self.clock.elapsed, cost, self.bound))
        return True

    def raise_bound(self, bound: int) -> None:
        if self.bound is None or bound > self.bound:
            self.bound = bound
            self.history.append(Event(self.clock.elapsed, self.cost, bound))


def _prepare(
    stack: ExitStack,
    formulation: Formulation,
    problem: Any,
    *,
    solver: str,
    session: Session | None,
    clock: Clock,
    seed: int,
) -> RowSearch:
    """A run with its sessions; relaxations stay with HiGHS, whichever solver searches."""
    if reason := formulation.supports(problem):
        raise ValueError(f"formulation {formulation.name} does not fit this problem: {reason}")
    statement = Statement.of(formulation, problem)
    searcher = session if session is not None else stack.enter_context(ScaledSession(solver))
    whole = not getattr(searcher, "linear", True)
    own = not whole and (session is not None or solver == "highs")
    linear = searcher if own else stack.enter_context(ScaledSession())
    return RowSearch(
        statement,
        linear,
        searcher,
        clock,
        seed,
        best=_Best(problem, clock),
        check=str,
        digest="",
        whole=whole,
    )
