"""Worst families by search: swaps on mixtures of the families, the mixture leaning towards the worst."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moeopt.heuristics.swap import Swap, pair_sets
from moeopt.method import Heuristic
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.stop import Clock


@dataclass(frozen=True)
class Mixture(Heuristic):
    """Rounds of swap search, each on one weighting of the families; for problems with a tail.

    The first weighting is the mean over the families. After each round it moves towards the mixture that is worst
    for the placement just found, by `step` in the first round and less in each later one (subgradient steps).

    | field | holds |
    |---|---|
    | rounds | weightings tried |
    | kicks | kicks of each swap search |
    | step | share of the worst mixture in the second weighting |
    """

    rounds: int = 12
    kicks: int = 20
    step: float = 0.5
    name = "mixture"
    summary = "swap search on mixtures of the families that lean towards the worst; for a tail"

    def supports(self, problem: Problem) -> str:
        """Needs a tail; places one copy of each expert and counts no moves."""
        if problem.risk is None:
            return "leads the mean towards the worst families: the problem has no tail"
        if problem.replicas:
            return f"moves single copies, replicas are {problem.replicas}"
        return "" if problem.max_moves is None else f"counts no moves, max_moves is {problem.max_moves}"

    def search(
        self, problem: Problem, *, clock: Clock, rng: np.random.Generator, start: Placement | None
    ) -> Iterator[Placement]:
        """Every placement that a swap search of a round proposes."""
        if problem.risk is None:
            return
        sets, units = problem.workload.layers[0], problem.family_units
        masses = np.array(problem.risk.masses, float)
        total = problem.risk.total
        mixture = masses * total / masses.sum()
        best: tuple[int, Placement] | None = None
        for lap in range(self.rounds):
            weights = np.rint(sets.counts @ (mixture * units)).astype(np.int64)
            chosen, weighing = (sets, weights) if problem.objective != "cut" else pair_sets(sets, weights)
            found: tuple[int, Placement] | None = None
            swaps = Swap(restarts=1, kicks=self.kicks).improve(
                problem,
                chosen,
                weights=weighing,
                clock=clock,
                rng=rng,
                start=start if lap == 0 or best is None else best[1],
            )
            for placement in swaps:
                yield placement
                if not problem.violation(placement):
                    found = min(found, (problem.cost(placement), placement), key=_cost)
            if clock.expired:
                return
            if found is not None:
                best = min(best, found, key=_cost)
                step = self.step / (lap + 1)
                mixture = (1 - step) * mixture + step * worst_mixture(problem, found[1])


def worst_mixture(problem: Problem, placement: Placement) -> NDArray[np.float64]:
    """float [families], whose sum is the tail's total: the mixture that is worst for a placement, each at its dispatch.

    Raises ValueError where the problem has no tail.
    """
    if problem.risk is None:
        raise ValueError("the problem has no tail")
    one = np.eye(len(problem.risk.masses), dtype=np.int64).tolist()
    costs = [problem.mixed(part).cost(placement) for part in one]
    return np.array(problem.risk.mixture(costs), float)


def _cost(found: tuple[int, Placement] | None) -> float:
    return float("inf") if found is None else found[0]
