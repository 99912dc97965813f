"""The library's own search, whatever the problem asks: swaps, annealing with copies, few moves, worst families."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from moeopt.heuristics.anneal import Anneal
from moeopt.heuristics.migrate import Migrate
from moeopt.heuristics.mixture import Mixture, worst_mixture
from moeopt.heuristics.replicate import Replicate
from moeopt.heuristics.swap import Swap
from moeopt.method import Heuristic
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.stop import Clock

ENOUGH = 1_000  # restarts: a time limit ends the search before
FIRST = 0.5  # of the time, for the mean over families
STEPS = 60  # of which a mixture of families is made: whole weights near it


@dataclass(frozen=True)
class Search(Heuristic):
    """One door to the searches of the library; all but those within a budget of moves use the time they are given.

    | the problem has | the search is |
    |---|---|
    | single copies | `Swap`, restarts until the time is over |
    | copies to place | `Anneal`: placement, copies and dispatch together |
    | a budget of moves from an incumbent | `Migrate`, with copies `Replicate` |
    | a tail: the worst families count | `Mixture`, again and again; with copies `Anneal` on leaning mixtures |

    Load tolerance, family weights and node prices are part of the objective in each. Of several layers GPUs are
    renamed in the end, so that loads summed over layers come out even too (`moeopt.even_out`).

    | field | holds |
    |---|---|
    | rounds | mixtures of the families, where a tail counts and copies are placed |
    | step | share of the worst mixture in the second one, less in each later one |
    """

    rounds: int = 4
    step: float = 0.25
    name = "search"
    evens = True
    summary = "the library's own search: swaps, or annealing of placement, copies and dispatch; uses its time"

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ValueError(f"rounds must be at least 1, found {self.rounds}")
        if not 0 <= self.step <= 1:
            raise ValueError(f"step must lie between 0 and 1, found {self.step}")

    def supports(self, problem: Problem) -> str:
        """As the search that it chooses."""
        return self._chosen(problem, None).supports(problem)

    def search(
        self, problem: Problem, *, clock: Clock, rng: np.random.Generator, start: Placement | None
    ) -> Iterator[Placement]:
        """What the chosen search proposes."""
        if problem.risk is None or not problem.replicas or problem.max_moves is not None:
            chosen = self._chosen(problem, clock)
            yield from chosen.search(problem, clock=clock, rng=rng, start=start)
            while isinstance(chosen, Mixture) and clock.left is not None and not clock.expired:
                yield from chosen.search(problem, clock=clock, rng=rng, start=None)
            return
        masses = np.array(problem.risk.masses, float)
        mixture = masses / masses.sum()
        best: Placement | None = start
        least = float("inf")
        for lap in range(self.rounds):
            if clock.expired:
                return
            leaning = problem.mixed(np.rint(STEPS * mixture).astype(np.int64).tolist())
            part = clock.part(max(FIRST if lap == 0 else 0.0, 1.0 / (self.rounds - lap)))
            annealing = Anneal(coolings=1) if lap == 0 else Anneal(coolings=1, hot=Anneal.warm)
            for placement in annealing.search(leaning, clock=part, rng=rng, start=best):
                yield placement
                if not problem.violation(placement) and (cost := problem.cost(placement)) < least:
                    least, best = cost, placement
            if best is not None:
                step = self.step / (lap + 1)
                mixture = (1 - step) * mixture + step * worst_mixture(problem, best) / problem.risk.total

    def _chosen(self, problem: Problem, clock: Clock | None) -> Heuristic:
        if problem.max_moves is not None:
            return Replicate() if problem.replicas else Migrate()
        if problem.replicas:
            return Anneal()
        if problem.risk is not None:
            return Mixture()
        return Swap() if clock is None or clock.left is None else Swap(restarts=ENOUGH)
