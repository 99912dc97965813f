"""Branch and bound on pairs of experts over the semidefinite relaxation of the cut: together, or apart.

A node is the relaxation of the root with the pairs fixed that its own ones decide, after
`moeopt.semidefinite_tree_checker`; it begins with the multipliers of its parent. The method: F. Rendl, G. Rinaldi,
A. Wiegele, Solving Max-Cut to optimality by intersecting semidefinite and polyhedral relaxations, Mathematical
Programming 121, 2010; here for equal groups, with leaves whose bounds are proved in whole numbers.
"""

import heapq
from copy import copy
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeopt.heuristics.swap import Swap
from moeopt.partition_lines import Level, Lines
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.semidefinite import Relaxation
from moeopt.semidefinite_checker import dual_value
from moeopt.semidefinite_rounding import whole_numbers_of
from moeopt.semidefinite_tree_checker import APART, OPEN, TOGETHER, Pairs, decided_pairs
from moeopt.stop import Clock

__all__ = ["PairTree"]

STEPS = 50  # between searches for cuts, and between looks at the bound
ROUNDS = 40  # of a node, at most
GAIN = 0.3  # of what is missing: a round that gains less is the last
ALONE = 1e-4  # the same, of the bound, while no partition is known
TRIED = 4  # pairs that are tried for a branching
LEAST_GAIN = 1e-6  # of such a case, relative to the bound; less counts as this much
TRIAL = 20  # steps of both cases of such a pair
KICKS = 10  # of the search near the y of a node
MOST_NUMBERS = 1 << 22  # of all leaves together


@dataclass(eq=False)
class _Node:
    """A case: its pairs; the numbers of a leaf, None where the pairs contradict each other; what they prove."""

    pairs: Pairs
    numbers: dict[str, Any] | None
    bound: int
    relaxation: Relaxation | None
    pair: tuple[int, int] | None = None
    parts: "tuple[_Node, _Node] | None" = None


class PairTree:
    """Best bound first.

    | field | holds |
    |---|---|
    | cost | of the best partition known, which may break a load tolerance; None: none is known |
    | bound | the least of all leaves |
    | nodes | relaxations solved |
    """

    def __init__(
        self,
        problem: Problem,
        level: Level,
        *,
        lines: Lines,
        relaxation: Relaxation,
        numbers: dict[str, Any],
        cost: int | None,
        seed: int,
    ) -> None:
        """`relaxation`, `numbers`: of the root."""
        self.problem = replace(problem, load_tolerance=None)
        self.level, self.lines = level, lines
        self.cost, self.nodes = cost, 0
        self._rng = np.random.default_rng(seed)
        self._found: list[Placement] = []
        self._ticks = count()
        self._leaves = 1
        self._top = _Node((), numbers, self._bound(numbers), relaxation)
        self._open = [(self._top.bound, next(self._ticks), self._top)]
        self._closed: int | None = None

    @property
    def bound(self) -> int:
        known = [self._open[0][0]] if self._open else []
        return self.level.price * min(known if self._closed is None else [*known, self._closed])

    @property
    def finished(self) -> bool:
        """Whether no open case may hold a cheaper partition, or the numbers have run out."""
        size = self.level.seats * (self.level.seats - 1) // 2
        return (
            not self._open or self._pays(self.bound // self.level.price) or self._leaves * size > MOST_NUMBERS
        )

    def advance(self, clock: Clock) -> list[Placement]:
        """Solve the open case with the least bound and split it, unless it can hold nothing cheaper.

        Returns the better and better partitions found on the way, load tolerances aside.
        """
        node = heapq.heappop(self._open)[2]
        self._solve(node, clock)
        if self._pays(node.bound):
            self._close(node)
        elif clock.expired:
            self._push(node)
        else:
            self._split(node, clock)
        found, self._found = self._found, []
        return found

    def listed(self) -> list[dict[str, Any]]:
        """The tree as the checker reads it, parents first."""
        order, todo = [], [self._top]
        while todo:
            node = todo.pop()
            order.append(node)
            if node.parts is not None:
                todo += reversed(node.parts)
        place = {id(node): index for index, node in enumerate(order)}
        return [
            node.numbers or {}
            if node.parts is None or node.pair is None
            else {
                "pair": list(node.pair),
                "together": place[id(node.parts[0])],
                "apart": place[id(node.parts[1])],
            }
            for node in order
        ]

    def _cutoff(self) -> int | None:
        return None if self.cost is None else -(-self.cost // self.level.price)

    def _pays(self, bound: int) -> bool:
        cutoff = self._cutoff()
        return cutoff is not None and bound >= cutoff

    def _bound(self, numbers: dict[str, Any]) -> int:
        return self.lines.bound(numbers["dual"], scale=2 * self.level.groups * numbers["scale"])

    def _push(self, node: _Node) -> None:
        heapq.heappush(self._open, (node.bound, next(self._ticks), node))

    def _close(self, node: _Node) -> None:
        node.relaxation = None
        self._closed = node.bound if self._closed is None else min(self._closed, node.bound)

    def _solve(self, node: _Node, clock: Clock) -> None:
        """Raise the bound of a node until it pays, or as long as that is worth the time."""
        relaxation, best = node.relaxation, -np.inf
        if relaxation is None:
            return
        self.nodes += 1
        if relaxation.fixed is not None and (relaxation.fixed != OPEN).all():
            relaxation.settle()
            self._improve(node, relaxation)
            self._offer(relaxation.y, clock)
            return
        for _ in range(ROUNDS):
            self._steps(relaxation, clock, STEPS)
            value = self._value(relaxation)
            cutoff = self._cutoff()
            missing = np.inf if cutoff is None else cutoff - self.lines.divisor - value
            if missing < 0:
                self._improve(node, relaxation)
                if self._pays(node.bound):
                    return
            least = ALONE * abs(value) if cutoff is None else GAIN * max(missing, 0.0)
            if clock.expired or value - best < least:
                break
            best = max(best, value)
            relaxation.refine(rng=self._rng, larger=True)
        self._improve(node, relaxation)
        if not self._pays(node.bound):
            self._offer(relaxation.y, clock)

    def _steps(self, relaxation: Relaxation, clock: Clock, count: int) -> None:
        for _ in range(count):
            if clock.expired:
                return
            relaxation.step()
            clock.candidates += 1

    def _value(self, relaxation: Relaxation) -> float:
        """The bound of the multipliers, not rounded."""
        return self.lines.unit * (self.lines.constant - relaxation.bound()) / self.lines.denominator

    def _improve(self, node: _Node, relaxation: Relaxation) -> None:
        _, numbers = whole_numbers_of(relaxation, self.lines, level=self.level)
        if (bound := self._bound(numbers)) > node.bound:
            node.bound, node.numbers = bound, numbers

    def _split(self, node: _Node, clock: Clock) -> None:
        relaxation = node.relaxation
        if relaxation is None:
            return
        best, chosen, before = -np.inf, None, self._value(relaxation)
        cutoff = self._cutoff()
        enough = np.inf if cutoff is None else max(float(cutoff) - before, 1.0)
        for pair in self._candidates(relaxation):
            cases = (self._case(node, pair, TOGETHER), self._case(node, pair, APART))
            score = 1.0
            for case in cases:
                gain = enough if case.relaxation is None else self._trial(case.relaxation, clock) - before
                score *= min(max(gain, LEAST_GAIN * abs(before)), enough)
            if score > best:
                best, chosen = score, (pair, cases)
        if chosen is None:  # nothing is open: what it proves is all there is
            self._close(node)
            return
        node.pair, node.parts = chosen
        node.relaxation = node.numbers = None
        self._leaves += 1
        for part in node.parts:
            if part.relaxation is not None:
                self._push(part)

    def _trial(self, relaxation: Relaxation, clock: Clock) -> float:
        """The bound after a few steps."""
        self._steps(relaxation, clock, TRIAL)
        return self._value(relaxation)

    def _case(self, node: _Node, pair: tuple[int, int], value: int) -> _Node:
        """A child, with the numbers of its parent: they hold for it as well."""
        pairs = (*node.pairs, (*pair, value))
        decided = decided_pairs(self.level, pairs)
        if decided is None or node.relaxation is None or node.numbers is None:
            return _Node(pairs, None, 0, None)
        relaxation = copy(node.relaxation)
        relaxation.multipliers = relaxation.multipliers.copy()
        relaxation.fix(decided)
        upper, given = np.triu_indices(self.level.seats, 1), node.numbers
        dual, _ = dual_value(
            self.lines,
            self.level,
            scale=given["scale"],
            diagonal=np.array(given["diagonal"], np.int64),
            slack=np.array(given["slack"], np.int64),
            cuts=given["cuts"],
            forces=given["forces"],
            together=decided[upper] == TOGETHER,
        )
        numbers = {**given, "dual": dual}
        return _Node(pairs, numbers, self._bound(numbers), relaxation)

    def _candidates(self, relaxation: Relaxation) -> list[tuple[int, int]]:
        """Open pairs by how undecided y is, times how far the weight is from what the two have on average."""
        seats, weights = self.level.seats, self.lines.weights.astype(float)
        upper, mean = np.triu_indices(seats, 1), weights.mean(axis=1)
        unusual = np.abs(weights - mean - mean[:, None] + mean.mean()) + 1e-9
        score = (np.minimum(relaxation.y, 1 - relaxation.y).clip(min=1e-9) * unusual)[upper]
        free = np.ones(len(score), bool)
        if relaxation.fixed is not None:
            # One expert of each block.
            first = (relaxation.fixed == TOGETHER).argmax(axis=1) == np.arange(seats)
            free = (relaxation.fixed[upper] == OPEN) & first[upper[0]] & first[upper[1]]
        order = np.argsort(np.where(free, -score, np.inf), kind="stable")[: min(TRIED, int(free.sum()))]
        return [(int(upper[0][at]), int(upper[1][at])) for at in order]

    def _offer(self, y: NDArray[np.float64], clock: Clock) -> None:
        """Search near y; better partitions are kept and told."""
        start = self.problem.partition(self._rounded(y))
        search = Swap(restarts=1, kicks=KICKS).search(self.problem, clock=clock, rng=self._rng, start=start)
        for placement in search:
            cost = self.problem.cost(placement)
            if self.cost is None or cost < self.cost:
                self.cost = cost
                self._found.append(placement)

    def _rounded(self, y: NDArray[np.float64]) -> NDArray[np.int64]:
        """GPU of each expert: groups filled one by one with what is closest to them."""
        cluster, experts = self.problem.cluster, self.problem.workload.n_experts
        group = np.full(self.level.seats, -1)
        for g in range(self.level.groups):
            ties = np.zeros(self.level.seats)
            for _ in range(self.level.slots):
                chosen = int(np.where(group < 0, ties, -np.inf).argmax())
                group[chosen] = g
                ties = ties + y[chosen]
        gpu = group[:experts] * (cluster.gpus // self.level.groups)
        for g in range(self.level.groups):
            inside = np.flatnonzero(group[:experts] == g)
            gpu[inside] += np.arange(len(inside)) // int(cluster.slots_of[0])
        return gpu
