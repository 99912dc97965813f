"""Swap search: exchange two experts while that helps, kick, repeat."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from moeopt.method import Heuristic
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.reference import equal_sizes
from moeopt.stop import Clock
from moeopt.workload import ExpertSets

BATCH = 25  # kicks between two looks at the clock


@dataclass(frozen=True)
class Swap(Heuristic):
    """Iterated local search by swaps on the exact objective, GPUs and nodes, with a compiled kernel.

    A swap exchanges two experts of different GPUs, or moves one to a free slot. Load above the tolerance costs more
    than any saving. After each local optimum a few random swaps follow; the better of before and after is kept.

    | field | holds |
    |---|---|
    | restarts | independent starts: the given placement first, then random ones |
    | kicks | kicks of each start |
    | strength | random swaps of a kick |
    """

    restarts: int = 4
    kicks: int = 200
    strength: int = 3
    name = "swap"
    summary = "swaps on the exact objective with kicks, compiled"

    def search(
        self, problem: Problem, *, clock: Clock, rng: np.random.Generator, start: Placement | None
    ) -> Iterator[Placement]:
        """The best placement after every batch of kicks."""
        sets = problem.workload.layers[0]
        weights = problem.set_weights(sets)
        if problem.objective == "cut":
            sets, weights = pair_sets(sets, weights)
        yield from self.improve(problem, sets, weights, rng=rng, start=start)

    def improve(
        self,
        problem: Problem,
        sets: ExpertSets,
        weights: NDArray[np.int64],
        *,
        rng: np.random.Generator,
        start: Placement | None,
    ) -> Iterator[Placement]:
        """Swap search on the fan-out of any weighted sets over the problem's cluster."""
        from moeopt.swaps import incidence, search_swaps

        load = problem.workload.layers[0].load.astype(float)
        cap = float("inf") if problem.load_cap is None else float(problem.load_cap)
        prices = np.array([problem.cluster.gpu_cost, problem.cluster.node_cost], float)
        levels = 2 if problem.cluster.nodes > 1 and problem.cluster.node_cost else 1
        starts, of_expert = incidence(sets)
        penalty = 1.0 + float(prices.sum()) * float(weights.sum()) / max(1.0, float(load[load > 0].min()))
        for restart in range(self.restarts):
            gpu = self._seats(problem, rng, start if restart == 0 else None)
            for first in range(0, self.kicks, BATCH):
                rounds = min(BATCH, self.kicks - first)
                best = search_swaps(
                    sets.members,
                    weights.astype(float),
                    starts,
                    of_expert,
                    load,
                    cap,
                    penalty,
                    np.stack([gpu, problem.cluster.node_of[gpu]])[:levels].astype(np.int32),
                    prices[:levels],
                    rng.integers(0, len(gpu), (rounds, 2 * self.strength)),
                    rng.permuted(np.tile(np.arange(len(gpu)), (rounds + 1, 1)), axis=1),
                )
                gpu = best.astype(np.int64)
                yield problem.partition(gpu[: problem.workload.n_experts])

    def _seats(
        self, problem: Problem, rng: np.random.Generator, start: Placement | None
    ) -> NDArray[np.int64]:
        """int64 [seats]: GPU of each expert, then of each free slot."""
        experts, slots = problem.workload.n_experts, problem.cluster.slots_of
        if start is not None and start.is_partition:
            gpu = start.primary[0].astype(np.int64)
        else:
            sizes = equal_sizes(experts, slots)
            gpu = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
        free = np.minimum(slots, experts) - np.bincount(gpu, minlength=len(slots))
        return np.concatenate([gpu, np.repeat(np.arange(len(slots)), np.maximum(free, 0))])


@dataclass(frozen=True)
class SwapCut(Swap):
    """The same search on the pairwise cut, the usual proxy for fan-out; the answer is judged by the problem."""

    name = "swap-cut"
    summary = "swaps on the pairwise cut, the usual proxy, compiled"

    def search(
        self, problem: Problem, *, clock: Clock, rng: np.random.Generator, start: Placement | None
    ) -> Iterator[Placement]:
        """The best placement by the proxy after every batch of kicks."""
        sets = problem.workload.layers[0]
        pairs, weights = pair_sets(sets, problem.set_weights(sets))
        yield from self.improve(problem, pairs, weights, rng=rng, start=start)


def pair_sets(sets: ExpertSets, weights: NDArray[np.int64]) -> tuple[ExpertSets, NDArray[np.int64]]:
    """Pairs with co-activation as sets of two: their fan-out is the cut."""
    affinity = sets.affinity(weights)
    pairs = np.array(list(combinations(range(sets.n_experts), 2)), np.int32).reshape(-1, 2)
    counts = affinity[pairs[:, 0], pairs[:, 1]]
    used = counts > 0
    return ExpertSets(pairs[used], counts[used][:, None], sets.n_experts), counts[used]
