"""TACG: spectral clusters of a co-activation graph whose edges inside a task family count more."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moeopt.family_graphs import FamilyGraphs
from moeopt.heuristics.spectral import Spectral
from moeopt.problem import Problem
from moeopt.reference import equal_sizes


@dataclass(frozen=True)
class Tacg(Spectral):
    """Task-aware grouping of experts, arXiv 2606.01007, TACG: the primary copies alone.

    Every expert prefers families (`FamilyGraphs.preferences`, P [experts, families]). The pooled graph A, scaled to a
    largest weight of 1, becomes (1 - alpha) A + alpha (P P^T) o A, equation 8, o edge by edge; it is partitioned like
    that of `Spectral`. Layers are independent. Families hold blocks of consecutive GPUs, as equal as possible; groups
    of the same size are matched to the GPUs so that the preferences on them for their families sum highest. The source
    reserves GPUs for families and does not say how groups reach them; without a node cost the matching costs nothing.

    A single family, as of a trace that names none, or preferences that are all equal leave the graph of `Spectral`.
    One copy each; what follows where the load tolerance is broken is as there.

    | field | holds |
    |---|---|
    | normaliser, pooling, jitter, seeds, unit_rows | as of `Spectral`; score: "frequency" 2 z(du), "uniform" z(du) |
    | alpha | share of the family kernel, 0 to 1 |
    | tau | scale of the softmax over the families, above 0; the source gives none |
    """

    alpha: float = 0.25
    tau: float = 1.0
    name = "tacg"
    summary = "task-aware spectral clusters (TACG), exact sizes"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha must lie between 0 and 1, found {self.alpha}")
        if not 0 < self.tau < float("inf"):
            raise ValueError(f"tau must be finite and above 0, found {self.tau}")

    def _grouped(self, problem: Problem, graphs: FamilyGraphs, rng: np.random.Generator) -> NDArray[np.int64]:
        """int64 [experts]: GPU of each, groups matched to families."""
        preferences = graphs.preferences(tau=self.tau)
        # Term by term, not a matrix product: equal preferences make equal products to the last bit.
        kernel = sum(share[:, None] * share for share in preferences)
        gate = 1 - self.alpha + self.alpha * kernel
        group_of = self._partition(problem, graphs.pooled * (gate / gate.max()), rng)
        return _matched(group_of, problem, preferences)


def _matched(
    group_of: NDArray[np.int64], problem: Problem, preferences: NDArray[np.float64]
) -> NDArray[np.int64]:
    """int64 [experts]: the groups on GPUs of their size, preferences for the GPUs' families summing highest."""
    from scipy.optimize import linear_sum_assignment

    sizes = equal_sizes(len(group_of), problem.cluster.slots_of)
    gpus = len(sizes)
    mass = np.stack([np.bincount(group_of, weights=share, minlength=gpus) for share in preferences], axis=1)
    family_of = np.arange(gpus) * len(preferences) // gpus
    worth = np.where(sizes[:, None] == sizes, mass[:, family_of], -np.inf)
    gpu_of: NDArray[np.int64] = linear_sum_assignment(worth, maximize=True)[1]
    return gpu_of[group_of]
