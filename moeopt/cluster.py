"""GPUs, nodes and the slots they offer to the experts of one layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from moeopt import storage

if TYPE_CHECKING:
    from moeopt.architectures import Architecture

MOST = 1 << 31  # of every number here
MOST_GPUS = 65_536


@dataclass(frozen=True)
class Cluster:
    """Where experts can live.

    | field | holds |
    |---|---|
    | nodes | N |
    | gpus_per_node | GPUs of one node; GPU g belongs to node g // gpus_per_node |
    | slots | experts of one layer that a GPU can hold: one number, or one per GPU |
    | gpu_cost | cost of each further GPU a token touches, a whole number |
    | node_cost | cost of each further node a token touches, a whole number |
    | speeds | relative speed of each GPU, whole numbers: shares of the load that a tolerance allows |

    Costs are whole numbers so that every objective is an exact integer; scale both for other ratios.
    """

    nodes: int = 1
    gpus_per_node: int = 8
    slots: int | tuple[int, ...] = 1
    gpu_cost: int = 1
    node_cost: int = 0
    speeds: int | tuple[int, ...] = 1

    def __post_init__(self) -> None:
        for name, least in (("nodes", 1), ("gpus_per_node", 1), ("gpu_cost", 0), ("node_cost", 0)):
            _at_least(name, getattr(self, name), least)
            object.__setattr__(self, name, int(getattr(self, name)))
        if self.gpu_cost + self.node_cost == 0:
            raise ValueError("gpu_cost and node_cost are both 0: every placement would cost nothing")
        if self.gpu_cost + self.node_cost > 1_000:
            raise ValueError(
                f"gpu_cost + node_cost must be at most 1000, found {self.gpu_cost + self.node_cost}"
            )
        if self.gpus > MOST_GPUS:
            raise ValueError(f"nodes x gpus_per_node must be at most {MOST_GPUS}, found {self.gpus}")
        object.__setattr__(self, "slots", self._of_gpus("slots", self.slots, 0))
        speeds = self._of_gpus("speeds", self.speeds, 1)
        object.__setattr__(self, "speeds", 1 if isinstance(speeds, int) else speeds)

    def _of_gpus(self, name: str, value: object, least: int) -> int | tuple[int, ...]:
        """One positive number, or one a GPU; equal numbers have one spelling, so that equal clusters are equal."""
        if isinstance(value, int | np.integer):
            _at_least(name, value, 1)
            return int(value)
        if not isinstance(value, Sequence | np.ndarray):
            raise ValueError(f"{name} must be one whole number or one for each GPU, found {value!r}")
        numbers = tuple(value)
        if len(numbers) != self.gpus:
            raise ValueError(f"{name} must be one number or {self.gpus} numbers, found {len(numbers)}")
        for gpu, number in enumerate(numbers):
            _at_least(f"{name} of GPU {gpu}", number, least)
        numbers = tuple(int(number) for number in numbers)
        return numbers[0] if len(set(numbers)) == 1 and numbers[0] > 0 else numbers

    @classmethod
    def of(
        cls,
        *,
        gpus: int,
        nodes: int = 1,
        slots: int,
        gpu_cost: int = 1,
        node_cost: int = 0,
        speeds: int | tuple[int, ...] = 1,
    ) -> Self:
        """From the total number of GPUs."""
        _at_least("gpus", gpus, 1)
        _at_least("nodes", nodes, 1)
        if gpus % nodes:
            raise ValueError(f"gpus must be divisible by nodes, found {gpus} GPUs on {nodes} nodes")
        return cls(nodes, gpus // nodes, slots, gpu_cost, node_cost, speeds)

    @classmethod
    def from_memory(
        cls,
        model: "str | Architecture",
        *,
        gpus: int,
        nodes: int = 1,
        gpu_cost: int = 1,
        node_cost: int = 0,
        **memory: Any,
    ) -> Self:
        """With the slots that memory leaves; `model` and `memory` as for `moeopt.memory.Capacity.of`, which explains.

        Cluster.from_memory("deepseek-v3", gpus=32, nodes=4, gpu_memory_gib=80, kv_cache_gib=20, precision="fp8")
        """
        from moeopt.memory import Capacity

        slots = Capacity.of(model, gpus=gpus, **memory).slots
        return cls.of(gpus=gpus, nodes=nodes, slots=slots, gpu_cost=gpu_cost, node_cost=node_cost)

    @property
    def gpus(self) -> int:
        return self.nodes * self.gpus_per_node

    @cached_property
    def slots_of(self) -> NDArray[np.int64]:
        """int64 [gpus]."""
        return np.broadcast_to(np.asarray(self.slots, np.int64), (self.gpus,)).copy()

    @property
    def further_gpu(self) -> int:
        """What one more GPU costs a token, its node included where every GPU is a node of its own."""
        alone = self.nodes > 1 and self.gpus_per_node == 1
        return self.gpu_cost + (self.node_cost if alone else 0)

    @cached_property
    def node_of(self) -> NDArray[np.int64]:
        """int64 [gpus]."""
        return np.arange(self.gpus) // self.gpus_per_node

    @cached_property
    def speeds_of(self) -> NDArray[np.int64]:
        """int64 [gpus]."""
        return np.broadcast_to(np.asarray(self.speeds, np.int64), (self.gpus,)).copy()

    @property
    def equal(self) -> bool:
        """Whether all GPUs offer the same slots and run at the same speed."""
        return isinstance(self.slots, int) and isinstance(self.speeds, int)

    def to_dict(self) -> dict[str, Any]:
        """The fields, JSON-ready."""
        slots = self.slots if isinstance(self.slots, int) else list(self.slots)
        document = {
            "nodes": self.nodes,
            "gpus_per_node": self.gpus_per_node,
            "slots": slots,
            "gpu_cost": self.gpu_cost,
            "node_cost": self.node_cost,
        }
        return document if isinstance(self.speeds, int) else {**document, "speeds": list(self.speeds)}

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> Self:
        """Inverse of `to_dict`."""
        slots = storage.field(document, "slots", kind=(int, list))
        numbers = {
            name: storage.field(document, name, kind=int)
            for name in ("nodes", "gpus_per_node", "gpu_cost", "node_cost")
        }
        speeds = tuple(storage.field(document, "speeds", kind=list)) if "speeds" in document else 1
        return cls(slots=slots if isinstance(slots, int) else tuple(slots), speeds=speeds, **numbers)


def _at_least(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ValueError(f"{name} must be a whole number, found {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, found {value}")
    if value > MOST:
        raise ValueError(f"{name} must be at most {MOST}, found {value}")
