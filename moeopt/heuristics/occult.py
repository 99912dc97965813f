"""Equal groups with as many collaborating pairs inside as greedy growth and exchanges reach."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from moeopt.affinity_groups import exchanged, grown
from moeopt.method import Heuristic
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.reference import equal_sizes
from moeopt.stop import Clock


@dataclass(frozen=True)
class Occult(Heuristic):
    """Equal groups of experts that maximise intra-collaboration, the pairs of experts of a token that share a GPU.

    The groups grow one after the other, opened by the free pair that collaborates most; then the swap that adds most
    intra-collaboration is made while one adds any. That is the pairwise cut, minimised; fan-out judges the answer.

    Source: S. Luo et al., Occult: Optimizing collaborative communications across experts for accelerated parallel MoE
    training and inference, ICML 2025, arXiv 2505.13345: the collaboration matrix, equal groups and the objective.
    Growth, seeds and exchanges are our reading. Its collaboration pruning changes what tokens choose and is no
    placement: left out. Nodes and the tolerance of the problem are not known to it.
    """

    name = "occult"
    summary = "most collaborating pairs inside equal groups: Occult, without pruning"

    def supports(self, problem: Problem) -> str:
        """One copy of each expert."""
        return f"places single copies, replicas are {problem.replicas}" if problem.replicas else ""

    def search(
        self, problem: Problem, *, clock: Clock, rng: np.random.Generator, start: Placement | None
    ) -> Iterator[Placement]:
        """The one placement."""
        (sets,) = problem.workload.layers
        sizes = equal_sizes(sets.n_experts, problem.cluster.slots_of)
        collaboration = sets.affinity(problem.set_weights(sets))
        yield problem.partition(exchanged(collaboration, grown(collaboration, sizes, pairs=True)))
