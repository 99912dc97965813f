"""Mt-KaHyPar: multilevel partition of the expert sets as hyperedges, whose connectivity is the fan-out itself."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeopt import partitioners
from moeopt.heuristics.swap import pair_sets
from moeopt.method import Heuristic
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.stop import Clock

PRESETS = ("default", "quality", "highest-quality", "deterministic")
_started: dict[int, Any] = {}  # by threads, one at most: the library is initialised once per process


@dataclass(frozen=True)
class MtKahypar(Heuristic):
    """Hypergraph partition by Mt-KaHyPar, one copy each.

    Gottesbueren, Heuer, Maas, Sanders and Schlag, Scalable High-Quality Hypergraph Partitioning, ACM Trans. Algorithms
    20 (2024). Hyperedges are the distinct expert sets by their weight in the objective, scaled to 32 bits where it is
    larger; the connectivity sum w (lambda - 1) is the fan-out itself. With objective "cut" they are the pairs. Every
    group has its own largest size; groups that miss their size are mended by `partitioners.grouped`. Load is not
    balanced. It does not watch the clock. The same seed gives the same groups with preset "deterministic", or with one
    thread.

    | field | holds |
    |---|---|
    | preset | "default", "quality", "highest-quality" or "deterministic" |
    | threads | of the library; the first run fixes them for the process, another number is a ValueError |
    | slack | experts that a group may hold beyond its size until it is mended: room for moves of one expert |
    """

    preset: str = "quality"
    threads: int = 2
    slack: int = 0
    name = "mt-kahypar"
    summary = "Mt-KaHyPar on the expert sets as hyperedges, exact sizes"

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}, found {self.preset!r:.60}")
        if self.threads < 1:
            raise ValueError(f"threads must be at least 1, found {self.threads}")
        if self.slack < 0:
            raise ValueError(f"slack must be at least 0, found {self.slack}")

    def supports(self, problem: Problem) -> str:
        """Needs the package, single copies, one level of groups."""
        return partitioners.unsupported(problem, package="mtkahypar")

    def search(
        self, problem: Problem, *, clock: Clock, rng: np.random.Generator, start: Placement | None
    ) -> Iterator[Placement]:
        """The one placement."""
        seed = int(rng.integers(2**31))
        sets = problem.workload.layers[0]
        weights = problem.set_weights(sets)
        if problem.objective == "cut":
            sets, weights = pair_sets(sets, weights)
        used = weights > 0
        edges, costs = sets.members[used].tolist(), partitioners.whole(weights[used]).tolist()

        def partition(graph: NDArray[np.int64], sizes: NDArray[np.int64]) -> list[int]:
            import mtkahypar

            library = _library(self.threads)
            preset = getattr(mtkahypar.PresetType, self.preset.upper().replace("-", "_"))
            context = library.context_from_preset(preset)
            context.set_partitioning_parameters(len(sizes), 0.0, mtkahypar.Objective.KM1)
            context.set_individual_target_block_weights((sizes + self.slack).tolist())
            context.logging = False
            mtkahypar.set_seed(seed)
            experts = len(graph)
            hypergraph = library.create_hypergraph(context, experts, len(edges), edges, [1] * experts, costs)
            found = hypergraph.partition(context)
            return [found.block_id(expert) for expert in range(experts)]

        yield problem.partition(partitioners.grouped(problem, partition))


def _library(threads: int) -> Any:
    """The library with so many threads; ValueError where it runs with another number already."""
    import mtkahypar

    if _started and threads not in _started:
        raise ValueError(
            f"Mt-KaHyPar runs with {next(iter(_started))} threads in this process, found {threads}: "
            "start another process"
        )
    if not _started:
        _started[threads] = mtkahypar.initialize(threads, False)
    return _started[threads]
