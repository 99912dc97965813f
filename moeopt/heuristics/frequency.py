"""Experts grouped by how often they are chosen, co-activation ignored."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moeopt.method import Heuristic
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.reference import equal_sizes
from moeopt.stop import Clock

ORDERS = ("runs", "snake")


@dataclass(frozen=True)
class Frequency(Heuristic):
    """Experts in order of frequency, most often chosen first: runs of them, or dealt to and fro.

    | field | holds |
    |---|---|
    | order | "runs": as many as a GPU takes to the first GPU, the next ones to the second; "snake": dealt, to and fro |

    Source: the baseline "Freq." of arXiv 2606.01007 (TACG), section B.5 and table 1, a "canonical statistical
    placement" without an algorithm. Runs are our reading: they alone explain its load, 0.49 to 1.8 above the mean on
    the fullest GPU, and that it saves fan-out at all. The snake is the other usual meaning, even loads. The tolerance
    of the problem is not known to either.
    """

    order: str = "runs"
    name = "frequency"
    summary = "experts of like frequency share a GPU: the baseline Freq. of TACG"
    objectives = ("fan-out", "cut", "load")

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise ValueError(f"order must be one of {', '.join(ORDERS)}, found {self.order!r}")

    def supports(self, problem: Problem) -> str:
        """One copy of each expert."""
        return f"places single copies, replicas are {problem.replicas}" if problem.replicas else ""

    def search(
        self, problem: Problem, *, clock: Clock, rng: np.random.Generator, start: Placement | None
    ) -> Iterator[Placement]:
        """The one placement."""
        (sets,) = problem.workload.layers
        sizes = equal_sizes(sets.n_experts, problem.cluster.slots_of)
        gpus = np.repeat(np.arange(len(sizes)), sizes) if self.order == "runs" else _to_and_fro(sizes)
        gpu_of = np.empty(sets.n_experts, np.int64)
        gpu_of[np.argsort(-sets.load, kind="stable")] = gpus
        yield problem.partition(gpu_of)


def _to_and_fro(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64 [experts]: GPUs upwards, then downwards, those that are full left out."""
    rows = [np.flatnonzero(sizes > lap)[:: -1 if lap % 2 else 1] for lap in range(int(sizes.max()))]
    return np.concatenate(rows)
