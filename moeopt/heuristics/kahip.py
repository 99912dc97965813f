"""KaHIP: multilevel partition of the co-activation graph, then exact sizes."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moeopt import partitioners
from moeopt.method import Heuristic
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.stop import Clock

MODES = ("fast", "eco", "strong")  # numbered 0, 1, 2 by the library

MOST = 1 << 21  # sum of the weights: KaHIP keeps a bucket for each possible gain


@dataclass(frozen=True)
class Kahip(Heuristic):
    """Multilevel partition of the co-activation graph by KaHIP's kaffpa, one copy each.

    Sanders and Schulz, Think Locally, Act Globally: Highly Balanced Graph Partitioning, SEA 2013. Its objective is the
    pairwise cut, a proxy of fan-out; weights are scaled to 32 bits where they are larger. It knows equal groups only,
    imbalance 0; groups that miss their exact sizes are mended by `partitioners.grouped`. Load is not balanced. The
    same seed gives the same groups.

    | field | holds |
    |---|---|
    | mode | "fast", "eco" or "strong" |
    """

    mode: str = "strong"
    name = "kahip"
    summary = "KaHIP on the co-activation graph, exact sizes"

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}, found {self.mode!r:.60}")

    def supports(self, problem: Problem) -> str:
        """Needs the package, single copies and one level of groups."""
        return partitioners.unsupported(problem, package="kahip")

    def search(
        self, problem: Problem, *, clock: Clock, rng: np.random.Generator, start: Placement | None
    ) -> Iterator[Placement]:
        """The one placement."""
        seed = int(rng.integers(2**31))

        def partition(graph: NDArray[np.int64], sizes: NDArray[np.int64]) -> list[int]:
            import kahip

            starts, columns, weights = partitioners.neighbours(graph, most=MOST)
            quiet, imbalance, mode = True, 0.0, MODES.index(self.mode)
            ones = [1] * len(graph)
            _, found = kahip.kaffpa(ones, starts, weights, columns, len(sizes), imbalance, quiet, seed, mode)
            return list(found)

        yield problem.partition(partitioners.grouped(problem, partition))
