"""Methods: anything that solves the problem of one layer. Heuristics propose; the library judges."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import ClassVar

import numpy as np

from moeopt.certificate import Proof
from moeopt.dispatch import Dispatch, Plan
from moeopt.news import News, tell
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.result import Event, Result, Status
from moeopt.rules import served_loads
from moeopt.stop import Clock, Stop, is_interrupt
from moeopt.tolerance import rounded_up


class Method(ABC):
    """Settings are the fields of a frozen dataclass; `repr` is the provenance.

    `evens`: GPUs may be renamed after all layers are solved, so that loads summed over layers come out even.
    `objectives`: what it may be asked to lower.
    """

    name: str
    summary: str
    evens: ClassVar[bool] = False
    objectives: ClassVar[tuple[str, ...]] = ("fan-out", "cut")

    def supports(self, problem: Problem) -> str:
        """Why this method cannot treat `problem`; empty when it can."""
        return ""

    @abstractmethod
    def solve(self, problem: Problem, *, stop: Stop, seed: int, start: Placement | None = None) -> Result:
        """Solve a problem of one layer. Same seed, candidates and no time limit: same answer."""


class Resuming(Method):
    """A method that goes on from the proof of an earlier run."""

    @abstractmethod
    def solve(
        self,
        problem: Problem,
        *,
        stop: Stop,
        seed: int,
        start: Placement | None = None,
        earlier: Proof | None = None,
    ) -> Result:
        """As `Method.solve`; `earlier` is a proof about the same problem, of any kind, not checked again."""


@dataclass(frozen=True)
class Heuristic(Method):
    """A method that proposes placements; clock, judging, history and best-so-far are kept here."""

    @abstractmethod
    def search(
        self, problem: Problem, *, clock: Clock, rng: np.random.Generator, start: Placement | None
    ) -> Iterator[Placement]:
        """Propose placements of the one layer, in any order; ends by itself or is ended by the clock."""

    def solve(self, problem: Problem, *, stop: Stop, seed: int, start: Placement | None = None) -> Result:
        """Keep the cheapest admissible proposal."""
        check_supported(self, problem)
        clock = stop.start()
        best = Incumbent(problem, clock)
        if start is not None:
            best.offer(start)
        proposals = self.search(problem, clock=clock, rng=np.random.default_rng(seed), start=start)
        status = follow(proposals, best.offer, clock=clock)
        return best.result(self, seed=seed, status=status)


def follow(proposals: Iterator[Placement], offer: Callable[[Placement], object], *, clock: Clock) -> Status:
    """Follow proposals, each a candidate of the clock, until they or the clock end, or the user interrupts."""
    interrupted = False
    try:
        for placement in proposals:
            clock.candidates += 1
            offer(placement)
            if clock.expired:
                break
    except (KeyboardInterrupt, SystemError) as error:
        if not is_interrupt(error):
            raise
        interrupted = True
    return "interrupted" if interrupted or clock.interrupted else "feasible"


class Incumbent:
    """Best admissible placement so far, judged by the problem alone, and the bound that a proof claims."""

    def __init__(self, problem: Problem, clock: Clock) -> None:
        self.problem = problem
        self.clock = clock
        self.placement: Placement | None = None
        self.dispatch: Dispatch | None = None
        self.cost: int | None = None
        self.bound: int | None = None
        self.history: list[Event] = []
        self.reason = ""
        self._lightest: float | None = None
        if problem.incumbent is not None:
            self.offer(problem.incumbent)

    @property
    def found(self) -> Placement | Plan | None:
        """The placement; with the dispatch it came with, where it came with one."""
        if self.placement is None or self.dispatch is None:
            return self.placement
        return Plan(self.placement, (self.dispatch,))

    def offer(self, candidate: Placement | Plan, /) -> bool:
        """Judge a candidate, a placement by the problem's own dispatch; True when it is the cheapest admissible one."""
        placement = candidate.placement if isinstance(candidate, Plan) else candidate
        if placement.slots != self.problem.cluster.slots:
            placement = replace(placement, slots=self.problem.cluster.slots)  # it answers this problem now
        given = candidate.dispatches if isinstance(candidate, Plan) else None
        judged: Placement | Plan = placement
        if given is not None:
            judged = Plan(placement, given)
        elif self.problem.objective == "fan-out":  # the cut is of the placement alone
            judged = self.problem.plan(placement)
        self.reason = self.problem.violation(judged)
        if self.reason:
            self._note_load(judged)
            return False
        cost = self.problem.cost(judged)
        if self.cost is not None and cost >= self.cost:
            return False
        self.placement, self.cost = placement, cost
        self.dispatch = None if given is None else given[0]
        self._note()
        return True

    def raise_bound(self, bound: int) -> None:
        """A bound that a proof under way has reached; the checker has not seen it yet."""
        if self.bound is None or bound > self.bound:
            self.bound = bound if self.cost is None else min(bound, self.cost)
            self._note()

    def _note(self) -> None:
        now, (layer_id,) = self.clock.elapsed, self.problem.workload.layer_ids
        self.history.append(Event(now, self.cost, self.bound))
        tell(News(layer_id, now, self.cost, self.bound))

    def _note_load(self, judged: Placement | Plan) -> None:
        problem = self.problem
        if problem.load_caps is None or replace(problem, load_tolerance=None).violation(judged):
            return
        loads, speeds = served_loads(problem, judged)[0], problem.cluster.speeds_of
        shares = (Fraction(int(load), int(speed)) for load, speed in zip(loads, speeds, strict=True))
        reached = rounded_up(max(shares) * int(speeds.sum()) / problem.load_total - 1)
        self._lightest = reached if self._lightest is None else min(self._lightest, reached)

    def result(self, method: Method, *, seed: int, status: Status) -> Result:
        """What is known, without a bound; "none-found" when no candidate was admissible."""
        found = self.placement is not None
        return Result(
            status=status if found or status == "interrupted" else "none-found",
            placement=self.placement,
            cost=self.cost,
            bound=None,
            certificate=None,
            seconds=self.clock.elapsed,
            method=repr(method),
            seed=seed,
            history=tuple(self.history),
            layer_id=self.problem.workload.layer_ids[0],
            message="" if found else f"no admissible placement found: {self.reason or 'none was proposed'}",
            tolerance_reached=None if found else self._lightest,
        )


def check_supported(method: Method, problem: Problem) -> None:
    """ValueError when the method does not treat the problem."""
    if len(problem.workload.layers) != 1:
        raise ValueError(f"a method solves one layer at a time, found {len(problem.workload.layers)}")
    if problem.total_replicas is not None:
        raise ValueError(
            "a method knows no budget over all layers, found total_replicas: use moeopt.allocate"
        )
    if reason := refusal(method, problem):
        raise ValueError(f"method {method.name} does not treat this problem: {reason}")


def refusal(method: Method, problem: Problem) -> str:
    """Why the method cannot treat `problem`, its objective or anything else; empty when it can."""
    if problem.objective not in method.objectives:
        return f"lowers {' or '.join(method.objectives)}, the objective is {problem.objective}"
    return method.supports(problem)


Progress = Callable[[Result], None]
