"""Experts dealt to the GPUs in turn."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from moeopt.method import Heuristic
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.stop import Clock


@dataclass(frozen=True)
class RoundRobin(Heuristic):
    """vLLM's `--expert-placement-strategy round_robin`: expert e on GPU e mod G; full GPUs are passed over."""

    name = "round-robin"
    summary = "expert e on GPU e mod G"
    objectives = ("fan-out", "cut", "load")

    def search(
        self, problem: Problem, *, clock: Clock, rng: np.random.Generator, start: Placement | None
    ) -> Iterator[Placement]:
        """The one round-robin placement."""
        slots = np.minimum(problem.cluster.slots_of, problem.workload.n_experts)
        turn, gpu = np.divmod(np.arange(int(slots.max()) * len(slots)), len(slots))
        yield problem.partition(gpu[turn < slots[gpu]][: problem.workload.n_experts])
