"""Spectral clusters of the pooled co-activation graph: task-aware grouping without the tasks."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moeopt.balance import levelled
from moeopt.family_graphs import NORMALISERS, POOLINGS, FamilyGraphs
from moeopt.method import Heuristic
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.reference import equal_sizes
from moeopt.spectral_partition import spectral_groups
from moeopt.stop import Clock


@dataclass(frozen=True)
class Spectral(Heuristic):
    """Spectral partition of the mean of the families' co-activation graphs, with repair to exact sizes.

    The ablation of arXiv 2606.01007 that isolates the tasks: its equation 8 at alpha = 0. Groups are as equal as the
    slots allow; one copy each. Where that breaks the load tolerance, swaps away from the fullest GPU follow, which are
    not part of the source.

    | field | holds |
    |---|---|
    | normaliser | of `FamilyGraphs`; "frequency" as published, "uniform" its ablation without co-activation |
    | pooling | "families", each counts the same, as published, or "objective": as their tokens do in the objective |
    | jitter | added to the diagonal of the graph, whose largest weight is 1; the source says "small" |
    | seeds | seedings of k-means, the tightest clusters of which are taken; the source gives none |
    | unit_rows | whether rows of eigenvectors are scaled to length 1 before; the source names no such step |
    """

    normaliser: str = "frequency"
    pooling: str = "families"
    jitter: float = 1e-6
    seeds: int = 10
    unit_rows: bool = False
    name = "spectral"
    summary = "spectral clusters of the co-activation graph, exact sizes"

    def __post_init__(self) -> None:
        for name, allowed in (("normaliser", NORMALISERS), ("pooling", POOLINGS)):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name} must be one of {', '.join(allowed)}, found {getattr(self, name)!r:.60}"
                )
        if not 0 <= self.jitter < float("inf"):
            raise ValueError(f"jitter must be finite and not negative, found {self.jitter}")
        if self.seeds < 1:
            raise ValueError(f"seeds must be at least 1, found {self.seeds}")

    def supports(self, problem: Problem) -> str:
        """Needs the expert sets of the tokens: pair counts have no usage by family."""
        return "" if problem.workload.complete else "needs expert sets, the workload has pair counts only"

    def search(
        self, problem: Problem, *, clock: Clock, rng: np.random.Generator, start: Placement | None
    ) -> Iterator[Placement]:
        """The one placement, then the levelled one if the first is too uneven."""
        graphs = FamilyGraphs.of(problem, normaliser=self.normaliser, pooling=self.pooling)
        gpu_of = self._grouped(problem, graphs, rng)
        proposal = problem.partition(gpu_of)
        yield proposal
        if problem.load_caps is not None and problem.violation(proposal):
            (sets,), cluster = problem.workload.layers, problem.cluster
            yield problem.partition(
                levelled(sets.load, gpu_of, slots=cluster.slots_of, speeds=cluster.speeds_of)
            )

    def _grouped(self, problem: Problem, graphs: FamilyGraphs, rng: np.random.Generator) -> NDArray[np.int64]:
        """int64 [experts]: GPU of each."""
        return self._partition(problem, graphs.pooled, rng)

    def _partition(
        self, problem: Problem, graph: NDArray[np.float64], rng: np.random.Generator
    ) -> NDArray[np.int64]:
        return spectral_groups(
            graph,
            sizes=equal_sizes(problem.workload.n_experts, problem.cluster.slots_of),
            rng=rng,
            jitter=self.jitter,
            seeds=self.seeds,
            unit_rows=self.unit_rows,
        )
