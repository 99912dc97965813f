"""GPUs chosen for groups of experts that are given: which group of every layer goes where."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moeopt import links
from moeopt.cluster import Cluster
from moeopt.flow import FlowProblem
from moeopt.placement import Placement

MEASURES = ("tail", "total")


@dataclass(frozen=True, eq=False)
class LabelProblem:
    """Give every group of experts of every layer a GPU of its own, so that the way to the next layer is short.

    | field | holds |
    |---|---|
    | flow | int64 [layers - 1, experts, experts]: tokens going from expert e of a layer to expert f of the next |
    | groups | int64 [layers, experts]: the group of each expert, a number below the number of GPUs |
    | cluster | GPUs, nodes, slots of a layer; a token costs gpu_cost, across nodes gpu_cost + node_cost |
    | measure | "tail": of a step between layers the dearest pair of GPUs counts; "total": all pairs count |
    | memory | experts of all layers that a GPU holds at most; None: free |
    | layer_ids | absolute layer indices; 0, 1, ... when empty |
    | model | name of the model |

    With T[l, g, h] the tokens that go from GPU g at layer l to GPU h at the next, and d the price of a pair:
    tail = sum over l of the largest T[l, g, h] d(g, h); total = sum of all T[l, g, h] d(g, h). The price stands for
    tokens / bandwidth of the source: give prices in the ratio of the times. A group may have no expert.

    Source: MoETuner, arXiv 2502.06643, second integer program, whose memory is experts x layers / GPUs, met exactly
    because nothing is left over; its groups come from the first program.
    Raises ValueError for what arithmetic alone rules out.
    """

    flow: NDArray[np.int64]
    groups: NDArray[np.int64]
    cluster: Cluster
    measure: str = "tail"
    memory: int | None = None
    layer_ids: tuple[int, ...] = ()
    model: str = ""

    def __post_init__(self) -> None:
        groups = links.whole_counts("groups", self.groups, shape=(None, None))
        layers, experts = groups.shape
        if not groups.size:
            raise ValueError(f"groups must be [layers, experts], found {list(groups.shape)}")
        flow = links.whole_counts("flow", self.flow, shape=(layers - 1, experts, experts))
        object.__setattr__(self, "flow", flow)
        object.__setattr__(self, "groups", groups)
        object.__setattr__(self, "layer_ids", links.named_layers(self.layer_ids, count=layers))
        if self.measure not in MEASURES:
            raise ValueError(f"measure must be one of {', '.join(MEASURES)}, found {self.measure!r}")
        gpus = self.cluster.gpus
        if groups.max() >= gpus:
            raise ValueError(f"groups must be numbered below the {gpus} GPUs, found group {groups.max()}")
        links.check_memory(self.memory, self.cluster, layers=layers, experts=experts)
        # The largest group needs the GPU with most slots, the next one the next: nothing else fits more.
        short = np.sort(self.sizes, axis=1) > np.sort(self.cluster.slots_of)
        for layer in np.flatnonzero(short.any(axis=1))[:1]:
            raise ValueError(
                f"layer {self.layer_ids[layer]}: groups of {np.sort(self.sizes[layer])[::-1].tolist()} experts do "
                f"not fit GPUs of {np.sort(self.cluster.slots_of)[::-1].tolist()} slots"
            )
        links.check_magnitude(flow, cluster=self.cluster)

    @classmethod
    def of(
        cls, placement: Placement, problem: FlowProblem, *, measure: str = "tail", memory: int | None = None
    ) -> Self:
        """The groups of a placement, to be sent to GPUs anew, under the flow of a problem without homes."""
        if problem.home is not None:
            raise ValueError("groups are placed by what goes from layer to layer: the flow problem has homes")
        groups = links.check_shape(
            placement, problem.cluster, layer_ids=problem.layer_ids, experts=problem.n_experts
        )
        return cls(
            problem.flow,
            groups.astype(np.int64),
            problem.cluster,
            measure,
            memory,
            problem.layer_ids,
            problem.model,
        )

    @property
    def n_layers(self) -> int:
        return int(self.groups.shape[0])

    @property
    def n_experts(self) -> int:
        return int(self.groups.shape[1])

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """int64 [layers, gpus]: experts of each group."""
        return np.asarray((self.groups[:, :, None] == np.arange(self.cluster.gpus)).sum(axis=1), np.int64)

    @cached_property
    def traffic(self) -> NDArray[np.int64]:
        """int64 [layers - 1, gpus, gpus]: tokens that go from a group to a group of the next layer."""
        return self._between(self.groups)

    def _between(self, of: NDArray[Any]) -> NDArray[np.int64]:
        total = np.zeros((self.n_layers - 1, self.cluster.gpus, self.cluster.gpus), np.int64)
        step = np.arange(self.n_layers - 1)[:, None, None]
        np.add.at(total, (step, of[:-1, :, None], of[1:, None, :]), self.flow)
        return total

    @cached_property
    def digest(self) -> str:
        """SHA-256 of everything that the cost and the rules depend on."""
        facts = (sorted(self.cluster.to_dict().items()), self.measure, self.memory, self.layer_ids)
        return links.fingerprint("moeopt-labels", facts, self.flow, self.groups)

    def labelled(self, gpu_of: ArrayLike) -> Placement:
        """The placement that sends group c of layer l to GPU `gpu_of` int [layers, gpus] at [l, c]."""
        primary = np.take_along_axis(np.asarray(gpu_of), self.groups, axis=1)
        return Placement.partition(primary, self.cluster, layer_ids=self.layer_ids, model=self.model)

    def cost(self, placement: Placement) -> int:
        """Exact tail or total, whether the groups are kept or not; ValueError for copies or another shape."""
        gpu_of = links.check_shape(placement, self.cluster, layer_ids=self.layer_ids, experts=self.n_experts)
        priced = self._between(gpu_of) * links.distances(self.cluster)
        steps = priced.max(axis=(1, 2)) if self.measure == "tail" else priced.sum(axis=(1, 2))
        return int(steps.sum())

    def violation(self, placement: Placement) -> str:
        """The first rule that the placement breaks, with its numbers; empty when it breaks none."""
        gpu_of = links.check_shape(placement, self.cluster, layer_ids=self.layer_ids, experts=self.n_experts)
        same_group = self.groups[:, :, None] == self.groups[:, None, :]
        same_gpu = gpu_of[:, :, None] == gpu_of[:, None, :]
        for layer, e, f in np.argwhere(same_group != same_gpu)[:1]:
            together = "apart" if same_group[layer, e, f] else "on one GPU"
            return (
                f"layer {self.layer_ids[layer]}: experts {e} and {f} of groups {self.groups[layer, e]} and "
                f"{self.groups[layer, f]} are {together}"
            )
        return links.overfull(placement, self.cluster, memory=self.memory)

    def candidates(self) -> Iterator[Placement]:
        """Every admissible placement, GPUs named; ValueError above 100,000 ways to label the groups."""
        ways = list(
            links.every_choice([list(itertools.permutations(range(self.cluster.gpus)))] * self.n_layers)
        )
        yield from (p for p in dict.fromkeys(map(self.labelled, ways)) if not self.violation(p))
