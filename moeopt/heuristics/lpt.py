"""Equal counts and even loads, co-activation ignored."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from moeopt.balance import balanced, lightest
from moeopt.method import Heuristic
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.stop import Clock


@dataclass(frozen=True)
class Lpt(Heuristic):
    """Heaviest expert first to the least loaded GPU with room: the packing rule of DeepSeek's EPLB without replicas.

    Where that breaks the load tolerance, swaps away from the fullest GPU follow.
    """

    name = "lpt"
    summary = "heaviest first, equal counts: EPLB's packing without replicas"
    objectives = ("fan-out", "cut", "load")

    def search(
        self, problem: Problem, *, clock: Clock, rng: np.random.Generator, start: Placement | None
    ) -> Iterator[Placement]:
        """The packed placement, then the levelled one if the first is too uneven."""
        (sets,) = problem.workload.layers
        cluster = problem.cluster
        packed = problem.partition(balanced(sets.load, cluster.slots_of, speeds=cluster.speeds_of))
        yield packed
        if problem.violation(packed):
            yield lightest(problem)
