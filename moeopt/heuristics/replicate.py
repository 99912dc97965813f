"""Copies where they save most: a partition, greedy copies, then exchanges, all judged at the guarded dispatch."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from moeopt.heuristics.swap import Swap
from moeopt.method import Heuristic
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.reference import equal_sizes
from moeopt.replication import Copies, best_addition, changes, disjoint
from moeopt.stop import Clock

BATCH = 4  # changes tried together at first


@dataclass(frozen=True)
class Replicate(Heuristic):
    """Greedy copies and exchanges on the fan-out, with GPU prices from the guarded dispatch under a load tolerance.

    A partition by `Swap`, the tolerance left out, gets copies one by one where the cheapest cover, at the prices of
    the guarded dispatch, saves most. Then copies are added, moved, replaced and exchanged while that helps; meeting
    the tolerance comes before cost.

    | field | holds |
    |---|---|
    | kicks | kicks of the partition search |
    | patience | changes judged in vain, one after the other, before the search ends |
    """

    kicks: int = 50
    patience: int = 30
    name = "replicate"
    summary = "copies where they save most, then exchanges, guarded dispatch, compiled"

    def supports(self, problem: Problem) -> str:
        """Fan-out only; tables of 2^k entries."""
        if problem.objective != "fan-out":
            return f"objective must be fan-out, found {problem.objective}"
        if problem.load_tolerance is not None and not isinstance(problem.cluster.speeds, int):
            return f"a load tolerance needs GPUs of equal speed, speeds are {problem.cluster.speeds}"
        return (
            ""
            if problem.workload.top_k <= 16
            else f"top-k must be at most 16, found {problem.workload.top_k}"
        )

    def search(
        self, problem: Problem, *, clock: Clock, rng: np.random.Generator, start: Placement | None
    ) -> Iterator[Placement]:
        """The greedy placement, then every better one on the way."""
        free = replace(problem, load_tolerance=None)
        if start is None or free.violation(start):
            start = self._partition(free, clock, rng)
        copies = Copies.of(problem, start.hosts[0])
        while (addition := best_addition(problem, copies)) is not None and not clock.expired:
            copies = Copies.of(problem, copies.after([addition]))
        if not copies.missing:
            yield copies.placement(problem)
        vain, batch, seen = 0, BATCH, {copies.hosts.tobytes()}
        while vain < self.patience and not clock.expired:
            better = None
            candidates = changes(problem, copies)
            while better is None and vain < self.patience and len(candidates) and not clock.expired:
                chosen = disjoint(candidates, gpus=problem.cluster.gpus, most=batch)
                hosts = copies.after(candidates[chosen])
                if batch == 1:
                    candidates = np.delete(candidates, chosen, axis=0)
                if hosts.tobytes() not in seen:
                    seen.add(hosts.tobytes())
                    found = Copies.of(problem, hosts)
                    better = found if found.rank < copies.rank else None
                    vain += 1
                batch = batch * 2 if better else max(1, batch // 2)
            if better is None:
                break
            copies, vain = better, 0
            if not copies.missing:
                yield copies.placement(problem)
        if copies.missing:
            yield copies.placement(problem)

    def _partition(self, free: Problem, clock: Clock, rng: np.random.Generator) -> Placement:
        slots = np.minimum(free.cluster.slots_of, free.workload.n_experts)
        # Slots that the copies will take are kept free, evenly.
        room = equal_sizes(int(slots.sum()) - free.replicas, slots)
        single = replace(free, replicas=0, cluster=replace(free.cluster, slots=tuple(room.tolist())))
        found = []
        for placement in Swap(restarts=1, kicks=self.kicks).search(single, clock=clock, rng=rng, start=None):
            found.append(placement)
            if clock.expired:
                break
        return replace(min(found, key=single.cost), slots=free.cluster.slots)
