"""GPUs, nodes and the slots they offer to the experts of one layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from moeopt import storage

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

    Costs are whole numbers so that every objective is an exact integer; scale both for other ratios.
    """

    nodes: int = 1
    gpus_per_node: int = 8
    slots: int | tuple[int, ...] = 1
    gpu_cost: int = 1
    node_cost: int = 0

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
        if isinstance(self.slots, int | np.integer):
            _at_least("slots", self.slots, 1)
            object.__setattr__(self, "slots", int(self.slots))
        elif not isinstance(self.slots, Sequence | np.ndarray):
            raise ValueError(f"slots must be one whole number or one for each GPU, found {self.slots!r}")
        else:
            slots = tuple(self.slots)
            if len(slots) != self.gpus:
                raise ValueError(f"slots must be one number or {self.gpus} numbers, found {len(slots)}")
            for gpu, value in enumerate(slots):
                _at_least(f"slots of GPU {gpu}", value, 0)
            # Equal slots have one spelling, so that equal clusters compare equal.
            slots = tuple(int(value) for value in slots)
            object.__setattr__(self, "slots", slots[0] if len(set(slots)) == 1 and slots[0] > 0 else slots)

    @classmethod
    def of(cls, *, gpus: int, nodes: int = 1, slots: int, gpu_cost: int = 1, node_cost: int = 0) -> Self:
        """From the total number of GPUs."""
        _at_least("gpus", gpus, 1)
        _at_least("nodes", nodes, 1)
        if gpus % nodes:
            raise ValueError(f"gpus must be divisible by nodes, found {gpus} GPUs on {nodes} nodes")
        return cls(nodes, gpus // nodes, slots, gpu_cost, node_cost)

    @property
    def gpus(self) -> int:
        return self.nodes * self.gpus_per_node

    @cached_property
    def slots_of(self) -> NDArray[np.int64]:
        """int64 [gpus]."""
        return np.broadcast_to(np.asarray(self.slots, np.int64), (self.gpus,)).copy()

    @cached_property
    def node_of(self) -> NDArray[np.int64]:
        """int64 [gpus]."""
        return np.arange(self.gpus) // self.gpus_per_node

    @property
    def equal(self) -> bool:
        """Whether all GPUs offer the same slots."""
        return isinstance(self.slots, int)

    def to_dict(self) -> dict[str, Any]:
        """The fields, JSON-ready."""
        slots = self.slots if isinstance(self.slots, int) else list(self.slots)
        return {
            "nodes": self.nodes,
            "gpus_per_node": self.gpus_per_node,
            "slots": slots,
            "gpu_cost": self.gpu_cost,
            "node_cost": self.node_cost,
        }

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> Self:
        """Inverse of `to_dict`."""
        slots = storage.field(document, "slots", kind=(int, list))
        numbers = {
            name: storage.field(document, name, kind=int)
            for name in ("nodes", "gpus_per_node", "gpu_cost", "node_cost")
        }
        return cls(slots=slots if isinstance(slots, int) else tuple(slots), **numbers)


def _at_least(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ValueError(f"{name} must be a whole number, found {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, found {value}")
    if value > MOST:
        raise ValueError(f"{name} must be at most {MOST}, found {value}")
