"""Exact methods: a formulation, the route that solves it, and the independent checker's verdict."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from moeopt.certificate import Certificate, Proof
from moeopt.method import Incumbent, Method, Resuming, check_supported, follow
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.result import Event, Result, Status
from moeopt.resuming import prices_of
from moeopt.stop import Clock, Stop, is_interrupt

if TYPE_CHECKING:
    from moeopt.set_partition import Verdict

OPENING, KICKS = 0.1, 10  # of the time at most, and kicks, for a placement where prices begin


@dataclass(frozen=True, repr=False)
class Exact(Resuming):
    """Solve a formulation to proof, or as far as the clock allows.

    | field | holds |
    |---|---|
    | formulation | see `moeopt.formulation.Formulation`; its name is the method's |
    | solver | searches the statements with rows; their relaxations stay with HiGHS |
    """

    formulation: Any
    solver: str = "highs"
    name: str = field(init=False, repr=False)
    summary: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.formulation.name)
        object.__setattr__(self, "summary", self.formulation.summary)

    def __repr__(self) -> str:
        chosen = "" if self.solver == "highs" else f", solver={self.solver!r}"
        return f"Exact(formulation={self.formulation!r}{chosen})"

    def supports(self, problem: Problem) -> str:
        """The formulation's answer."""
        return str(self.formulation.supports(problem))

    def solve(
        self,
        problem: Problem,
        *,
        stop: Stop,
        seed: int,
        start: Placement | None = None,
        earlier: Proof | None = None,
    ) -> Result:
        """Columns where the formulation prices or lists them, rows otherwise."""
        check_supported(self, problem)
        clock = stop.start()
        incumbent = Incumbent(problem, clock)
        if start is not None:
            incumbent.offer(start)
        if hasattr(self.formulation, "block_range"):
            return self._priced(incumbent, clock=clock, seed=seed, earlier=earlier)
        if hasattr(self.formulation, "columns"):
            return self._partition(incumbent, clock=clock, seed=seed, earlier=earlier)
        if hasattr(self.formulation, "tail_columns"):
            columns = self.formulation.tail_columns(problem)
            if columns is not None:
                return self._tail(columns, incumbent, clock=clock, seed=seed)
        from moeopt.rows import solve_rows

        return solve_rows(
            self,
            self.formulation,
            incumbent=incumbent,
            clock=clock,
            seed=seed,
            start=start,
            solver=self.solver,
        )

    def _partition(self, incumbent: Incumbent, *, clock: Clock, seed: int, earlier: Proof | None) -> Result:
        from moeopt.set_partition import Verdict, prove_listed

        def prove() -> Verdict:
            columns = self.formulation.columns(incumbent.problem)
            if not len(columns):
                return Verdict(impossible=True)
            known = prices_of(earlier, kind=self.name)
            return prove_listed(columns, incumbent=incumbent, clock=clock, seed=seed, earlier=known)

        return self._proved(incumbent, prove, seed=seed)

    def _priced(self, incumbent: Incumbent, *, clock: Clock, seed: int, earlier: Proof | None) -> Result:
        from moeopt.balance import lightest
        from moeopt.heuristics.swap import Swap
        from moeopt.priced_partition import prove_priced

        level = lightest(incumbent.problem)
        if incumbent.placement is None:  # prices begin at a placement: at a poor one they may never come near
            incumbent.offer(level)
            opening, rng = clock.part(OPENING), np.random.default_rng(seed)
            first = Swap(restarts=1, kicks=KICKS)
            proposals = first.search(incumbent.problem, clock=opening, rng=rng, start=level)
            if follow(proposals, incumbent.offer, clock=opening) == "interrupted":
                return conclude(self, incumbent, seed=seed, proof=None, interrupted=True)
        start = level if incumbent.placement is None else incumbent.placement
        return self._proved(
            incumbent,
            lambda: prove_priced(
                self.formulation.block_range(incumbent.problem),
                incumbent=incumbent,
                gpu_of=start.primary[0],
                earlier=prices_of(earlier, kind=self.name),
                clock=clock,
                seed=seed,
                on_bound=incumbent.raise_bound,
            ),
            seed=seed,
        )

    def _tail(self, columns: Any, incumbent: Incumbent, *, clock: Clock, seed: int) -> Result:
        from moeopt.set_partition import Verdict
        from moeopt.tail_partition import prove_tail

        def prove() -> Verdict:
            if not len(columns):
                return Verdict(impossible=True)
            return prove_tail(
                columns, incumbent=incumbent, clock=clock, seed=seed, on_bound=incumbent.raise_bound
            )

        return self._proved(incumbent, prove, seed=seed)

    def _proved(self, incumbent: Incumbent, prove: Callable[[], "Verdict"], *, seed: int) -> Result:
        """What a proof by set partitions comes to, whatever ends it."""
        from moeopt.solvers.process import WorkerDied

        try:
            verdict = prove()
        except (KeyboardInterrupt, SystemError) as error:
            if not is_interrupt(error):
                raise
            return conclude(self, incumbent, seed=seed, proof=None, interrupted=True)
        except WorkerDied as error:
            result = conclude(self, incumbent, seed=seed, proof=None)
            return replace(result, message=f"the solver died: {error}")
        if verdict.impossible or verdict.numbers is None:
            return conclude(self, incumbent, seed=seed, proof=None, impossible=verdict.impossible)
        proof = self._proof(incumbent, bound=verdict.bound, numbers=verdict.numbers)
        return conclude(self, incumbent, seed=seed, proof=proof)

    def _proof(self, incumbent: Incumbent, *, bound: int, numbers: Mapping[str, Any]) -> Proof:
        return Proof(
            layer_id=incumbent.problem.workload.layer_ids[0],
            digest=incumbent.problem.workload.digest,
            kind=self.name,
            bound=bound,
            cost=incumbent.cost,
            optimal=incumbent.cost == bound,
            numbers=numbers,
        )


def conclude(
    method: Method,
    incumbent: Incumbent,
    *,
    seed: int,
    proof: Proof | None,
    impossible: bool = False,
    interrupted: bool = False,
) -> Result:
    """The result of an exact run: certified as far as the independent checker agrees, and no further."""
    if impossible and incumbent.placement is None:
        return _infeasible(method, incumbent, seed=seed)
    status: Status = "interrupted" if interrupted or incumbent.clock.interrupted else "feasible"
    result = incumbent.result(method, seed=seed, status=status)
    if impossible:
        return replace(
            result, status="disagreement", message="declared infeasible, yet a placement is admissible"
        )
    if proof is None:
        return result
    from moeopt.checker import check_layer
    from moeopt.relaxations.counting import stronger

    proof = stronger(incumbent.problem, proof)
    certificate = Certificate.of_layer(incumbent.problem, proof, placement=incumbent.placement)
    if refused := check_layer(incumbent.problem, proof, placement=incumbent.placement):
        return replace(result, status="disagreement", message=f"the checker refused the proof: {refused}")
    status = result.status
    if status == "feasible":
        status = "certified-optimal" if proof.optimal else "certified-gap"
    history = (*result.history, Event(incumbent.clock.elapsed, incumbent.cost, proof.bound))
    return replace(
        result,
        status=status,
        bound=proof.bound,
        certificate=certificate,
        history=history,
        seconds=incumbent.clock.elapsed,
    )


def _infeasible(method: Method, incumbent: Incumbent, *, seed: int) -> Result:
    """No placement exists; say how far a load tolerance can go down instead."""
    from moeopt.balance import lightest

    problem = incumbent.problem
    if incumbent.offer(lightest(problem)):
        result = incumbent.result(method, seed=seed, status="feasible")
        return replace(
            result, status="disagreement", message="declared infeasible, yet a placement is admissible"
        )
    result = incumbent.result(method, seed=seed, status="infeasible-claimed")
    asked = float(problem.load_tolerance or 0)
    reached = "" if result.tolerance_reached is None else f"; {result.tolerance_reached:g} can be met"
    message = f"no placement meets load tolerance {asked:g}{reached}"
    return replace(result, status="infeasible-claimed", message=message)
