"""Bounds of any size of GPU from the semidefinite relaxation, as proofs in whole numbers."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeopt.certificate import Proof
from moeopt.partition_lines import UNITS, Level, Lines, partition_levels
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.semidefinite import Relaxation
from moeopt.semidefinite_checker import ALPHABET
from moeopt.semidefinite_rounding import whole_numbers_of
from moeopt.semidefinite_tree import PairTree
from moeopt.stop import Clock

__all__ = ["Ascent", "semidefinite_proof", "whole_numbers_of"]

ROUND = 50  # steps between proofs, and between searches for cuts
PLAIN = 2  # rounds without cuts, then as many with triangles alone
STEPS = 5  # between two references of the fan-out
FIRST = 20  # references of the first round; twice as many in each further one
MOST = 320
FIXED = 100  # steps with the lines of a proof, before and after a search for cuts
REFERENCES = 24  # of a proof
FORGET = 0.3  # references before this share of all are forgotten
GAIN = 3e-6  # of the cost: less a round counts as none
PATIENCE = 4  # rounds without gain
MOST_SEATS = 200  # of a tree


def semidefinite_proof(
    problem: Problem,
    *,
    clock: Clock,
    seed: int,
    cost: int | None,
    start: Placement | None = None,
    on_bound: Callable[[int], None] | None = None,
    on_placement: Callable[[Placement], object] | None = None,
) -> Proof | None:
    """The best bound that the clock allows, proved, for one layer without copies on GPUs with equal slots.

    Cut or fan-out, GPUs and nodes; a load tolerance and an incumbent are ignored, which leaves the bound valid. A step
    counts as a candidate of the clock. `cost` is that of the placement the proof goes with, `start` one that
    the lines of the fan-out begin near; `on_bound` hears every better bound. None for other problems. What is left of a
    cut with one level is closed by branching (`moeopt.semidefinite_tree`); `on_placement` hears of cheaper placements
    that this finds, and the cost of the proof is then theirs.
    """
    try:
        levels = partition_levels(problem)
    except ValueError:
        return None
    ascents = [Ascent(problem, level, seed=seed, start=start) for level in levels]
    bound = -1
    while True:
        for ascent in ascents:
            if ascent.numbers is None or not (ascent.finished or clock.expired):
                ascent.advance(clock)
        total = sum(ascent.level.price * ascent.bound for ascent in ascents)
        if total > bound:
            bound = total
            if on_bound is not None:
                on_bound(bound)
        closed = cost is not None and (bound >= cost or clock.closes(cost, bound))
        if closed or clock.expired or all(ascent.finished for ascent in ascents):
            break
    numbers: dict[str, Any] = {"levels": [ascent.numbers for ascent in ascents]}
    tree = None if closed or clock.expired or len(ascents) > 1 else ascents[0].tree(cost, seed=seed)
    if tree is not None:
        while not (tree.finished or clock.expired):
            for placement in tree.advance(clock):
                if on_placement is not None and not problem.violation(placement):
                    on_placement(placement)
                    cost = problem.cost(placement) if cost is None else min(cost, problem.cost(placement))
            if tree.bound > bound:
                bound = tree.bound
                if on_bound is not None:
                    on_bound(bound)
            if cost is not None and clock.closes(cost, bound):
                break
        listed = tree.listed()
        numbers = {"levels" if len(listed) == 1 else "tree": listed}
    return Proof(
        layer_id=problem.workload.layer_ids[0],
        digest=problem.workload.digest,
        kind="semidefinite",
        bound=bound,
        cost=cost,
        optimal=cost == bound,
        numbers=numbers,
    )


class Ascent:
    """Rising bounds of one level: `bound` on the further groups of all tokens, and the `numbers` that prove it.

    The lines of the fan-out follow the mean of the relaxation's y, and their weights a mean over the past, both ever
    more slowly: the multipliers of a convex function of y, found as averages of its slopes. A proof fixes the lines of
    a few references, evenly chosen from the later past.
    """

    def __init__(self, problem: Problem, level: Level, *, seed: int, start: Placement | None) -> None:
        self.problem, self.level = problem, level
        self.bound = 0
        self.numbers: dict[str, Any] | None = None
        self.finished = False
        self._relaxation = Relaxation(level.groups, level.slots)
        self._rng = np.random.default_rng(seed)
        self._best, self._idle, self._rounds = -np.inf, 0, 0
        self._pace = 0.0  # seconds of a step
        if problem.objective == "fan-out" and start is not None and start.is_partition:
            group = start.primary[0].astype(np.int64) // (start.gpus // level.groups)
            together = (group[:, None] == group).astype(float)
            known = self._relaxation.y[: len(group), : len(group)]
            known += 0.5 * (together - known)
        self._cut = Lines.of(problem, level, references=[]) if problem.objective == "cut" else None
        self._past: list[NDArray[np.int8]] = []
        self._mean = self._relaxation.y
        self._weights = np.zeros_like(self._mean)

    def tree(self, cost: int | None, *, seed: int) -> PairTree | None:
        """Branch and bound from here; None for the fan-out, whose lines would have to change, and for many seats."""
        if self._cut is None or self.numbers is None or self.level.seats > MOST_SEATS:
            return None
        return PairTree(
            self.problem,
            self.level,
            lines=self._cut,
            relaxation=self._relaxation,
            numbers=self.numbers,
            cost=cost,
            seed=seed,
        )

    def advance(self, clock: Clock) -> None:
        """A round of steps, at least one, and the proof of where they lead."""
        relaxation, texts = self._relaxation, list[str]()
        if self._cut is not None:
            lines = self._cut
            relaxation.aim(lines.weights.astype(float))
            self._steps(relaxation, clock, count=ROUND)
        else:
            self._roam(clock)
            relaxation = deepcopy(relaxation)  # of fixed lines y is another
            references = self._references()
            lines = Lines.of(self.problem, self.level, references=references)
            texts = [_text(reference) for reference in references]
            relaxation.aim(lines.weights.astype(float))
            self._steps(relaxation, clock, count=FIXED)
            relaxation.refine(rng=self._rng, larger=True)
            self._steps(relaxation, clock, count=FIXED)
        dual, numbers = whole_numbers_of(relaxation, lines, level=self.level)
        self._rounds += 1
        scale = 2 * self.level.groups * numbers["scale"]
        value = lines.unit * dual / (scale * lines.denominator)
        if self.numbers is None or lines.bound(dual, scale=scale) > self.bound:
            self.bound, self.numbers = lines.bound(dual, scale=scale), {**numbers, "references": texts}
        self._idle = 0 if value - self._best > GAIN * abs(value) else self._idle + 1
        self._best = max(self._best, value)
        self.finished = self._idle >= PATIENCE
        if self._cut is not None and self._rounds >= PLAIN and not self.finished:
            self._relaxation.refine(rng=self._rng, larger=self._rounds >= 2 * PLAIN)

    def _references(self) -> list[NDArray[np.int64]]:
        """Those of a proof, evenly from the later past."""
        recent = self._past[int(FORGET * len(self._past)) :]
        chosen = np.unique(np.linspace(0, len(recent) - 1, REFERENCES).round().astype(int))
        return [recent[index].astype(np.int64) for index in chosen]

    def _roam(self, clock: Clock) -> None:
        """Let the lines of the fan-out follow y."""
        relaxation = self._relaxation
        for count in range(min(MOST, FIRST << self._rounds)):
            if self._past and self._hurried(clock):
                return
            share = 0.2 / (1 + 0.05 * len(self._past))
            self._mean = self._mean + share * (relaxation.y - self._mean)
            reference = np.clip(np.rint(UNITS * self._mean), 0, UNITS - 1).astype(np.int8)
            lines = Lines.of(self.problem, self.level, references=[reference.astype(np.int64)])
            weights = lines.weights / lines.denominator
            self._weights = self._weights + (share if self._past else 1.0) * (weights - self._weights)
            self._past.append(reference)
            relaxation.aim(self._weights)
            self._steps(relaxation, clock, count=STEPS, steady=False)
            if self._rounds and count % (ROUND // STEPS) == 0:
                relaxation.refine(rng=self._rng, larger=self._rounds > 1)

    def _hurried(self, clock: Clock) -> bool:
        """Whether no more is left than the steps of a proof need."""
        left, limit = clock.left, clock.stop.candidates
        short = limit is not None and limit - clock.candidates <= 2 * FIXED
        return short or clock.expired or (left is not None and left <= 2 * FIXED * self._pace)

    def _steps(self, relaxation: Relaxation, clock: Clock, *, count: int, steady: bool = True) -> None:
        begun = clock.elapsed
        for step in range(count):
            if step and clock.expired:
                return
            relaxation.step(steady=steady)
            clock.candidates += 1
        self._pace = (clock.elapsed - begun) / count


def _text(reference: NDArray[np.int64]) -> str:
    """A digit for each pair i < j."""
    return "".join(ALPHABET[value] for value in reference[np.triu_indices(len(reference), 1)].tolist())
