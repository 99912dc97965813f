"""The load of the GPUs of one layer: experts placed so that none works much longer than the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import lcm
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from moeopt import links
from moeopt.cluster import Cluster
from moeopt.placement import Placement
from moeopt.workload import Workload

MEASURES = ("maximum", "deviation")


@dataclass(frozen=True, eq=False)
class LoadProblem:
    """Place the experts of one layer, one copy each, for even loads; co-activation does not count.

    | field | holds |
    |---|---|
    | load | int64 [experts]: activations |
    | cluster | GPUs and their slots; prices do not matter here |
    | speeds | activations that each GPU serves in a unit of time, whole numbers; None: all alike |
    | measure | "maximum" or "deviation" |
    | layer_id | absolute layer index |
    | model | name of the model |

    With load(g) the activations on GPU g, speeds v[g], their sum V and least common multiple M, and all activations T:
    maximum is max_g M load(g) / v[g], the time of the slowest GPU, which EPLB approximates; deviation is
    sum_g |M V load(g) / v[g] - M T|, the distance of all GPUs from the time T / V at which all would finish together.
    Both are whole numbers; with speeds None they are max_g load(g) and sum_g |G load(g) - T|.

    Source of deviation: S. Go, D. Mahajan, MoETuner, arXiv 2502.06643, first model; slots are added here, and its rule
    that no GPU is empty is left out. EPLB: https://github.com/deepseek-ai/EPLB.
    Raises ValueError for what arithmetic alone rules out.
    """

    load: NDArray[np.int64]
    cluster: Cluster
    speeds: Sequence[int] | None = None
    measure: str = "maximum"
    layer_id: int = 0
    model: str = ""

    def __post_init__(self) -> None:
        load = links.whole_counts("load", self.load, shape=(None,))
        if not load.size:
            raise ValueError("load must have at least one expert, found none")
        object.__setattr__(self, "load", load)
        if self.measure not in MEASURES:
            raise ValueError(f"measure must be one of {', '.join(MEASURES)}, found {self.measure!r}")
        slots = int(np.minimum(self.cluster.slots_of, len(load)).sum())
        if slots < len(load):
            raise ValueError(
                f"too few slots: {self.cluster.gpus} GPUs offer {slots} slots a layer for {len(load)} experts"
            )
        if self.speeds is not None:
            speeds = links.whole_counts("speeds", self.speeds, shape=(self.cluster.gpus,))
            if speeds.min() < 1:
                raise ValueError(f"speeds must be at least 1, found {int(speeds.min())}")
            object.__setattr__(self, "speeds", tuple(speeds.tolist()))
        # Bounds the deviation, the larger of the two.
        most = (
            int(load.sum(dtype=object)) * lcm(*self.speed_of.tolist()) * int(self.speed_of.sum(dtype=object))
        )
        if 2 * most * self.cluster.gpus >= links.MOST_COST:
            raise ValueError(
                f"objective too large for exact 64-bit arithmetic: {most} in scaled activations, "
                f"speeds {sorted(set(self.speed_of.tolist()))}"
            )

    @classmethod
    def from_workload(
        cls,
        workload: Workload,
        cluster: Cluster,
        *,
        speeds: Sequence[int] | None = None,
        measure: str = "maximum",
    ) -> Self:
        """The loads of a workload of one layer, all families alike; ValueError for several layers."""
        if len(workload.layers) != 1:
            raise ValueError(
                f"loads are balanced layer by layer, found {len(workload.layers)} layers: use workload.layer(index)"
            )
        load = workload.layers[0].load
        return cls(load, cluster, speeds, measure, workload.layer_ids[0], workload.model)

    @property
    def n_experts(self) -> int:
        return len(self.load)

    @cached_property
    def speed_of(self) -> NDArray[np.int64]:
        """int64 [gpus]."""
        return np.ones(self.cluster.gpus, np.int64) if self.speeds is None else np.array(self.speeds)

    @cached_property
    def pace(self) -> NDArray[np.int64]:
        """int64 [gpus]: scaled time of one activation, M / v[g], times V for the deviation."""
        scale = lcm(*self.speed_of.tolist())
        return scale // self.speed_of * (1 if self.measure == "maximum" else int(self.speed_of.sum()))

    @property
    def common_time(self) -> int:
        """M T: the scaled time at which all GPUs would finish together, as the deviation counts it."""
        return lcm(*self.speed_of.tolist()) * int(self.load.sum())

    @cached_property
    def digest(self) -> str:
        facts = (self.cluster.slots_of.tolist(), self.speed_of.tolist(), self.measure, self.layer_id)
        return links.fingerprint("moeopt-loads", facts, self.load)

    def gpu_loads(self, placement: Placement) -> NDArray[np.int64]:
        """int64 [gpus]: activations of each GPU."""
        gpu_of = links.check_shape(
            placement, self.cluster, layer_ids=(self.layer_id,), experts=self.n_experts
        )[0]
        carried = np.zeros(self.cluster.gpus, np.int64)
        np.add.at(carried, gpu_of, self.load)
        return carried

    def cost(self, answer: Placement, /) -> int:
        times = self.pace * self.gpu_loads(answer)
        return int(times.max() if self.measure == "maximum" else np.abs(times - self.common_time).sum())

    def violation(self, answer: Placement, /) -> str:
        self.gpu_loads(answer)  # raises where the shape is wrong
        return links.overfull(answer, self.cluster)

    def partition(self, gpu_of: Sequence[int] | NDArray[np.integer[Any]]) -> Placement:
        """The placement of `gpu_of` int [experts]."""
        row = np.asarray(gpu_of)[None]
        return Placement.partition(row, self.cluster, layer_ids=(self.layer_id,), model=self.model)

    def candidates(self) -> Iterator[Placement]:
        for gpu_of in links.every_seating(self.cluster.slots_of, experts=self.n_experts):
            yield self.partition(gpu_of)

    @cached_property
    def least(self) -> int:
        """No placement costs less than this, by arithmetic alone.

        For the maximum, the largest of the time of all activations at all speeds and, on GPUs of the highest speed,
        for every j the less of two cases: two of the j heaviest experts share a GPU; or they are on j GPUs, which
        together also hold the lightest experts that the slots of the other GPUs cannot take. For the deviation 0.
        """
        if self.measure == "deviation":
            return 0
        experts, gpus = self.n_experts, self.cluster.gpus
        light = np.sort(self.load)
        slots = np.sort(np.minimum(self.cluster.slots_of, experts))[::-1]
        heaviest = 0
        for j in range(1, min(experts, gpus + 1) + 1):
            cases = []
            if j > 1:
                cases.append(int(light[-j] + light[1 - j]))
            if j <= gpus:
                others = max(0, experts - int(slots[: gpus - j].sum()) - j)
                cases.append(-(-int(light[-j:].sum() + light[:others].sum()) // j))
            heaviest = max(heaviest, min(cases))
        mean = -(-self.common_time // int(self.speed_of.sum()))
        return max(mean, heaviest * int(self.pace.min()))
