"""METIS: multilevel partition of the co-activation graph, then exact sizes."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moeopt import partitioners
from moeopt.method import Heuristic
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.stop import Clock


@dataclass(frozen=True)
class Metis(Heuristic):
    """Multilevel partition of the co-activation graph by METIS, one copy each.

    Karypis and Kumar, A Fast and High Quality Multilevel Scheme for Partitioning Irregular Graphs, SIAM J. Sci. Comput.
    20 (1998), by pymetis. Its objective is the pairwise cut, a proxy of fan-out; weights are scaled to 32 bits where
    they are larger. Groups that miss their exact sizes are mended by `partitioners.grouped`. Load is not balanced.
    The same seed gives the same groups.

    | field | holds |
    |---|---|
    | recursive | recursive bisection; False: k-way partition at once, worse where groups are few experts |
    """

    recursive: bool = True
    name = "metis"
    summary = "METIS on the co-activation graph, exact sizes"

    def supports(self, problem: Problem) -> str:
        """Needs the package, single copies and one level of groups."""
        return partitioners.unsupported(problem, package="pymetis")

    def search(
        self, problem: Problem, *, clock: Clock, rng: np.random.Generator, start: Placement | None
    ) -> Iterator[Placement]:
        """The one placement."""
        seed = int(rng.integers(2**31))

        def partition(graph: NDArray[np.int64], sizes: NDArray[np.int64]) -> list[int]:
            import pymetis

            starts, columns, weights = partitioners.neighbours(graph)
            found = pymetis.part_graph(
                len(sizes),
                adjacency=pymetis.CSRAdjacency(starts, columns),
                eweights=weights,
                tpwgts=(sizes / sizes.sum()).tolist(),
                recursive=self.recursive,
                options=pymetis.Options(seed=seed),
            )
            return list(found.vertex_part)

        yield problem.partition(partitioners.grouped(problem, partition))
