"""One run of a formulation with rows: relaxation, certified bound, search by a solver, certified tree."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeopt import claims, wide
from moeopt.branching import GIANT, Tree, scale_of, sparse, without_vertices
from moeopt.certificate import Proof
from moeopt.formulation import Provable, Separable, Startable
from moeopt.judged import Best
from moeopt.multipliers import exact_bound, whole_multipliers
from moeopt.searched import search_first, searchable
from moeopt.solvers.door import Outcome, Session, WorkerDied
from moeopt.solvers.door import Status as Ending
from moeopt.statement import Statement
from moeopt.stop import Clock, is_interrupt
from moeopt.whole_model import Multipliers, WholeModel

__all__ = ["RowSearch"]

SEARCH_SHARE = 0.3  # of the time left; the rest is for a tree of our own that proves what the search claims
MOST_NUMBERS = 5_000_000  # in the tree of one certificate


@dataclass
class RowSearch:
    """One solve and what it knows so far; duals and claimed in the units of the statement.

    | field | holds |
    |---|---|
    | session, searcher | the linear solver of relaxations, and the solver that searches |
    | whole, most_nodes | the searcher takes whole columns only; linear models of the tree |
    | check | why a proof does not hold for the problem, by an independent checker |
    | digest, layer_id | of the proofs |
    """

    statement: Statement
    session: Session
    searcher: Session
    clock: Clock
    seed: int
    best: Best
    check: Callable[[Proof], str]
    digest: str
    layer_id: int = 0
    whole: bool = False
    most_nodes: int = 1 << 30
    duals: NDArray[np.float64] | None = None
    proof: Proof | None = None
    claimed: float | None = None
    closed: bool = False
    impossible: bool = False
    interrupted: bool = False
    contradiction: str = ""
    message: str = ""
    nodes: int = 0

    def run(self, openings: Iterable[Any]) -> None:
        """Everything, in order; `openings` are answers to start from, offered until the bound is reached."""
        try:
            if wide.is_wide(self.statement.matrix) or searchable(self):  # both begin from an answer
                self.descend(openings)
                openings = ()
            if search_first(self):
                return
            self.relax()
            self.prove()
            self.descend(openings)
            self.search()
            self.close()
        except (KeyboardInterrupt, SystemError) as error:
            if not is_interrupt(error):
                raise
            self.interrupted = True
        except WorkerDied as error:
            self.message = f"the solver died: {error}"

    def relax(self) -> None:
        """Solve the linear relaxation, adding broken rows until none is broken or the clock has run out."""
        if wide.relaxed(self):
            return
        self.session.load(self.statement.matrix)
        while not self.clock.expired:
            outcome = self.ask(
                lambda: self.session.resolve(
                    seconds=self._share_of_relaxation(),
                    seed=self.seed,
                    options=without_vertices(self.statement.matrix),
                    should_stop=lambda: self.clock.expired,
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
                if np.abs(whole - np.round(whole)).max(initial=0.0) < claims.CLAIM:
                    self.consider(outcome.x)
                return
            self.session.add_rows(rows=fresh.rows, row_lower=fresh.lower, row_upper=fresh.upper)

    def _share_of_relaxation(self) -> float | None:
        """Seconds: all that is left, or most of it for a method that goes on for as long as it is let."""
        left = self.clock.left
        return left if left is None or self.statement.matrix.rows.nnz <= GIANT else 0.8 * left

    def prove(self) -> None:
        """Turn the last multipliers into a bound in exact integers, and keep it if the checker agrees."""
        if self.duals is None:
            return
        formulation, problem = self.statement.formulation, self.statement.problem
        if not isinstance(formulation, Provable):
            self._prove_tree(self._root())
            return
        matrix = self.statement.complete(rows=self.duals.size)
        numbers = whole_multipliers(matrix, self.duals, unit=self.statement.unit)
        costs, offset = formulation.costs(problem)
        bound, sums = exact_bound(matrix, numbers, costs=costs, offset=offset)
        keys = self.statement.keys[: self.duals.size - self.statement.matrix.row_lower.size]
        certified = {**formulation.proof(problem, multipliers=numbers, keys=keys), **sums}
        self.keep(formulation.name, bound=bound, numbers=certified)

    def keep(self, kind: str, *, bound: int, numbers: dict[str, Any]) -> None:
        """A bound that the checker agrees to; it is told if not."""
        proof = Proof(layer_id=self.layer_id, digest=self.digest, kind=kind, bound=bound, numbers=numbers)
        if refusal := self.check(proof):
            self.message = f"the bound is not certified: {refusal}"
            return
        self.proof = proof
        self.best.raise_bound(bound)

    def _root(self) -> Multipliers:
        """Multipliers of the listed rows: any prove something, and the checker knows no others."""
        if self.duals is None:
            return sparse([])
        unit, matrix = self.statement.unit, self.statement.matrix
        duals = self.duals[: matrix.row_lower.size]
        return sparse(whole_multipliers(matrix, duals, unit=unit, scale=scale_of(unit)))

    def _prove_tree(self, root: Multipliers, *, most_nodes: int = 0) -> None:
        """A tree of so many linear models; without any, the root alone."""
        try:
            model = WholeModel.of(
                self.statement.formulation, self.statement.problem, keys=self.statement.keys
            )
        except ValueError as error:
            self.message = f"the bound is not certified: {error}"
            return
        # Multipliers of a relaxation stopped early may prove less than none at all.
        root = max(
            (root, sparse([])),
            key=lambda rows: model.dual(
                rows, scale=scale_of(self.statement.unit), lower=model.lower, upper=model.upper
            ),
        )
        statement, fixing = self.statement, None
        offer: Callable[[NDArray[np.float64]], object] = self.consider
        if most_nodes and self.best.cost is not None and not isinstance(statement.formulation, Separable):
            part = wide.narrowed(self, model, root=root, ceiling=self.best.cost)
            model, statement, fixing, offer = part
        tree = Tree(model, statement, self.session, self.clock, seed=self.seed)
        top = tree.grow(
            root,
            cost=lambda: self.best.cost,
            offer=offer,
            most_nodes=most_nodes,
            most_numbers=MOST_NUMBERS,
        )
        self.nodes += tree.nodes
        bound = tree.bound(top)
        if self.proof is None or bound > self.proof.bound:
            numbers = {"formulation": statement.formulation.name, "fixing": fixing, **tree.listed(top)}
            bound = bound if self.best.cost is None else min(bound, self.best.cost)
            self.keep("rows", bound=bound, numbers=numbers)

    def descend(self, openings: Iterable[Any]) -> None:
        """Offer starts to search from; one even when the clock has run out."""
        if self.impossible or (self._finished() and self.best.found is not None):
            return
        for answer in openings:
            self.clock.candidates += 1
            self.best.offer(answer)
            if self._finished():
                return

    def search(self) -> None:
        """Let the solver branch, adding the rows that its points break, until its last point breaks none."""
        formulation, problem = self.statement.formulation, self.statement.problem
        limit = None if self.clock.left is None else self.clock.left * SEARCH_SHARE
        begun = self.clock.elapsed
        while not (self.impossible or self.interrupted or self.contradiction or self._finished()):
            start, known = None, len(self.statement.lazy)
            if self.best.found is not None and isinstance(formulation, Startable):
                start = formulation.values(problem, self.best.found)
            matrix = self.statement.complete()
            if self.whole:
                matrix = replace(matrix, integer=np.ones_like(matrix.integer))
            left = None if limit is None else max(0.0, limit - (self.clock.elapsed - begun))
            core = wide.core_of(self, matrix)
            begin = None if start is None else core.inside(start)
            outcome = self.ask(
                lambda core=core, begin=begin, left=left: self.searcher.solve(  # type: ignore[misc]
                    core.matrix,
                    seconds=left,
                    gap=self.clock.stop.gap,
                    seed=self.seed,
                    start=begin,
                    on_incumbent=lambda x, _: self.consider(core.outside(x)),
                    should_stop=self._finished,
                )
            )
            if outcome is None:
                return
            if outcome.x is not None:
                outcome = replace(outcome, x=core.outside(outcome.x))
            self.nodes += outcome.nodes
            if outcome.bound is not None:
                self.claimed = max(outcome.bound, outcome.bound if self.claimed is None else self.claimed)
            answer = None if outcome.x is None else self.consider(outcome.x)
            if outcome.status != Ending.OPTIMAL:
                return
            if answer is not None:
                self.closed = True
                self.contradiction = claims.contradiction(self, outcome, answer=answer)
            elif len(self.statement.lazy) == known:
                self.contradiction = "the solver calls a point optimal that breaks the rows it was given"
            if self.closed:
                return

    def close(self) -> None:
        """Prove what the search claims by a tree of our own, as far as the clock allows."""
        if (
            self.impossible
            or self.interrupted
            or self.contradiction
            or self.best.cost is None
            or self._finished()
        ):
            return
        if self.proof is not None:
            self._prove_tree(self._root(), most_nodes=self.most_nodes)

    def ask(self, question: Callable[[], Outcome]) -> Outcome | None:
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

    def consider(self, x: NDArray[np.float64]) -> Any:
        """Judge a point; None when it breaks a lazy row, which is then known, or stands for no answer."""
        whole = np.where(self.statement.matrix.integer, np.round(x), x)
        if self.statement.separate(whole) is not None:
            return None
        answer = self.statement.read(whole)
        if answer is not None:
            self.clock.candidates += 1
            self.best.offer(answer)
        return answer

    def _finished(self) -> bool:
        """Whether a limit is reached, or the certified bound is as close as asked for."""
        return self.clock.expired or self.proved()

    def proved(self) -> bool:
        """Whether the certified bound is as close as asked for."""
        cost = self.best.cost
        return cost is not None and self.proof is not None and self.clock.closes(cost, self.proof.bound)

    def certified(self) -> Proof | None:
        """The proof, with the cost of the best answer; None when there is none that fits it."""
        cost = self.best.cost
        if self.proof is None or (cost is not None and self.proof.bound > cost):
            return None
        return replace(self.proof, cost=cost, optimal=cost == self.proof.bound)
