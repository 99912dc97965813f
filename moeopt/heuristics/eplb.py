"""DeepSeek's EPLB: copies for the heaviest experts, then equal counts and even loads."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from moeopt.eplb_packing import Packing
from moeopt.method import Heuristic
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.stop import Clock


@dataclass(frozen=True)
class Eplb(Heuristic):
    """Expert-parallelism load balancer: `problem.replicas` copies by load, packed heaviest first on GPUs.

    A copy goes, one after the other, to the expert of largest load over copies. Each copy, heaviest first, is packed
    on the GPU of least load that is not full; GPUs hold equal counts. With several nodes, where the counts divide,
    groups of consecutive experts are packed on nodes first, and each node does the rest for its own experts; with one
    group a node, no replicas and one node each, node contents are the linear ones.

    | field | holds |
    |---|---|
    | groups | groups of experts kept on one node, those of the router if it has any; None: one for each node |

    groups = 1 is what engines pass for routers without groups: the global mode, whatever the nodes.

    Duplicates: the balancer may put two copies of an expert on one GPU, or make more copies than there are GPUs. Such
    a copy changes places with one of another GPU, or is dropped where that cannot be (`Packing.mended`);
    `moeopt.eplb_packing.duplicates_of` returns the packing before that and the number of duplicates.

    Source: deepseek-ai/EPLB, as described for DeepSeek-V3 (arXiv 2412.19437, section 3.4). Loads are recorded traffic;
    GPU speeds and the tolerance of the problem are not known to it.
    """

    groups: int | None = None
    name = "eplb"
    summary = "DeepSeek's load balancer: copies of heavy experts, equal counts, even loads"
    objectives = ("fan-out", "cut", "load")

    def __post_init__(self) -> None:
        if self.groups is not None and self.groups < 1:
            raise ValueError(f"groups must be at least 1, found {self.groups}")

    def supports(self, problem: Problem) -> str:
        """Copies can be judged for top-k up to 16, but for the load."""
        if problem.replicas and problem.workload.top_k > 16 and problem.objective != "load":
            return f"top-k must be at most 16 with replicas, found {problem.workload.top_k}"
        return ""

    def search(
        self, problem: Problem, *, clock: Clock, rng: np.random.Generator, start: Placement | None
    ) -> Iterator[Placement]:
        """The one placement."""
        hosts = Packing.of(problem, groups=self.groups).mended().hosts(problem)
        workload, cluster = problem.workload, problem.cluster
        yield Placement(
            hosts[None],
            hosts.argmax(axis=1)[None],
            cluster.nodes,
            cluster.slots,
            workload.layer_ids,
            workload.model,
        )
