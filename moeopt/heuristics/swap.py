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

    restarts: int = 3
    kicks: int = 100
    strength: int = 3
    name = "swap"
    summary = "swaps on the exact objective with kicks, compiled"

    def search(
        self, problem: Problem, *, clock: Clock, rng: np.random.Generator, start: Placement | None
    ) -> Iterator[Placement]:
        """The first local optimum of each start, then every better one."""
        sets = problem.workload.layers[0]
        weights = problem.set_weights(sets)
        if problem.objective == "cut":
            sets, weights = pair_sets(sets, weights)
        yield from self.improve(problem, sets, weights=weights, clock=clock, rng=rng, start=start)

    def improve(
        self,
        problem: Problem,
        sets: ExpertSets,
        *,
        weights: NDArray[np.int64],
        clock: Clock,
        rng: np.random.Generator,
        start: Placement | None,
    ) -> Iterator[Placement]:
        """Swap search on the fan-out of any weighted sets over the problem's cluster."""
        from moeopt.seating import Seating

        cluster, load = problem.cluster, problem.workload.layers[0].load.astype(float)
        prices = np.array([cluster.gpu_cost, cluster.node_cost], float)
        levels = 2 if cluster.nodes > 1 and cluster.node_cost else 1
        dearest = float(prices.sum()) * float(weights.sum()) * (sets.top_k - 1)  # of all placements
        for restart in range(self.restarts):
            gpu = self._seats(problem, rng, start if restart == 0 else None)
            seating = Seating.of(
                sets,
                weights=weights.astype(float),
                labels=np.stack([gpu, cluster.node_of[gpu]])[:levels].astype(np.int32),
                prices=prices[:levels],
                load=load,
                cap=float("inf") if problem.load_caps is None else problem.load_caps.astype(float),
                penalty=1.0 + dearest,  # of one activation
            )
            seating.descend(rng.permutation(len(gpu)))
            yield problem.partition(seating.labels[0, : problem.workload.n_experts])
            for _ in range(self.kicks):
                if clock.expired:
                    return
                kick = rng.integers(0, len(gpu), (self.strength, 2))
                kicked = seating.exchange(kick)
                change, made = seating.descend(rng.permutation(len(gpu)))
                if kicked + change > 0:
                    seating.exchange(np.concatenate([kick, made])[::-1])
                elif kicked + change < 0:
                    yield problem.partition(seating.labels[0, : problem.workload.n_experts])

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
        """The same by the proxy."""
        sets = problem.workload.layers[0]
        pairs, weights = pair_sets(sets, problem.set_weights(sets))
        yield from self.improve(problem, pairs, weights=weights, clock=clock, rng=rng, start=start)


def pair_sets(sets: ExpertSets, weights: NDArray[np.int64]) -> tuple[ExpertSets, NDArray[np.int64]]:
    """Pairs with co-activation as sets of two: their fan-out is the cut."""
    affinity = sets.affinity(weights)
    pairs = np.array(list(combinations(range(sets.n_experts), 2)), np.int32).reshape(-1, 2)
    counts = affinity[pairs[:, 0], pairs[:, 1]]
    used = counts > 0
    return ExpertSets(pairs[used], counts[used][:, None], sets.n_experts), counts[used]
