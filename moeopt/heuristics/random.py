"""A placement drawn at random: the yardstick of the certified share."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from moeopt.method import Heuristic
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.reference import equal_sizes
from moeopt.stop import Clock


@dataclass(frozen=True)
class Random(Heuristic):
    """One uniformly random partition into groups as equal as the slots allow."""

    name = "random"
    summary = "one uniformly random equal partition"
    objectives = ("fan-out", "cut", "load")

    def search(
        self, problem: Problem, *, clock: Clock, rng: np.random.Generator, start: Placement | None
    ) -> Iterator[Placement]:
        """One draw: the best of many would be a search."""
        sizes = equal_sizes(problem.workload.n_experts, problem.cluster.slots_of)
        yield problem.partition(rng.permutation(np.repeat(np.arange(len(sizes)), sizes)))
