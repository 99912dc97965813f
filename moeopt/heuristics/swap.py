"""Swap search: exchange two experts while that helps, kick, repeat."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from moeopt.expert_sets import ExpertSets
from moeopt.method import Heuristic
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.reference import equal_sizes
from moeopt.stop import Clock

if TYPE_CHECKING:
    from moeopt.seating import Seating


LOOK = 5  # kicks after which what they found is proposed
RANDOM = 3  # swaps of a kick that concerns all GPUs


@dataclass(frozen=True)
class Swap(Heuristic):
    """Iterated local search by swaps on the exact objective, GPUs and nodes, with a compiled kernel.

    A swap exchanges two experts of different GPUs, or moves one to a free slot; each seat takes its best one while one
    helps. Load above the tolerance costs more than any saving. A kick is three random swaps, or exchanges half
    of the seats of two random GPUs; a local optimum follows, and the better of before and after is kept.

    | field | holds |
    |---|---|
    | restarts | independent starts: the given placement first, then random ones |
    | kicks | kicks of each start |
    """

    restarts: int = 6
    kicks: int = 100
    name = "swap"
    summary = "swaps on the exact objective with kicks, compiled"

    def search(
        self, problem: Problem, *, clock: Clock, rng: np.random.Generator, start: Placement | None
    ) -> Iterator[Placement]:
        """The first local optimum of each start, then better ones."""
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
        """Swap search on the fan-out of any weighted sets over the problem's cluster.

        Proposes the first local optimum of each start, and every `LOOK` kicks what is better than all before.
        """
        from moeopt.seating import Seating

        cluster, load = problem.cluster, problem.workload.layers[0].load.astype(float)
        prices = np.array([cluster.gpu_cost, cluster.node_cost], float)
        levels = 2 if cluster.nodes > 1 and cluster.node_cost else 1
        dearest = float(prices.sum()) * float(weights.sum()) * (sets.top_k - 1)  # of all placements
        seating, least = None, float("inf")
        for restart in range(self.restarts):
            gpu = self._seats(problem, rng, start if restart == 0 else None)
            labels = np.stack([gpu, cluster.node_of[gpu]])[:levels].astype(np.int32)
            if seating is None:
                seating = Seating.of(
                    sets,
                    weights=weights.astype(float),
                    labels=labels,
                    prices=prices[:levels],
                    load=load,
                    cap=float("inf") if problem.load_caps is None else problem.load_caps.astype(float),
                    penalty=1.0 + dearest,  # of one activation
                )
            else:
                seating = seating.reseated(labels)
            cost = seating.cost + seating.descend(rng.permutation(len(gpu)))[0]
            least = min(least, cost)
            yield problem.partition(seating.labels[0, : problem.workload.n_experts])
            for done in range(1, self.kicks + 1):
                if not clock.expired:
                    cost += self._kicked(seating, rng)
                if cost < least and (done % LOOK == 0 or done == self.kicks or clock.expired):
                    least = cost
                    yield problem.partition(seating.labels[0, : problem.workload.n_experts])
                if clock.expired:
                    return

    def _kicked(self, seating: "Seating", rng: np.random.Generator) -> float:
        """Kick and descend, undone if that is worse; the change of cost."""
        seating.keep()
        kicked = seating.exchange(_mixing(seating.labels[0], rng))
        change, _ = seating.descend(rng.permutation(seating.labels.shape[1]))
        if kicked + change > 0:
            seating.restore()
            return 0.0
        return kicked + change

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


def _mixing(gpu: NDArray[np.int32], rng: np.random.Generator) -> NDArray[np.int64]:
    """int64 [swaps, 2]: as often `RANDOM` swaps of any seats as half of the seats of two GPUs; `gpu` [seats]."""
    used = np.unique(gpu)
    if len(used) < 2 or rng.random() < 0.5:
        return rng.integers(0, len(gpu), (RANDOM, 2))
    pair = [rng.permutation(np.flatnonzero(gpu == one)) for one in rng.choice(used, 2, replace=False)]
    half = (min(map(len, pair)) + 1) // 2
    return np.stack([seats[:half] for seats in pair], axis=1)


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
