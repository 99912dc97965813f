"""Which GPUs hold which experts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moeopt import storage
from moeopt.cluster import Cluster

FORMAT = "moeopt-placement"


@dataclass(frozen=True, eq=False)
class Placement:
    """Copies of every expert of every layer; a partition is the case of one copy each.

    | field | holds |
    |---|---|
    | hosts | bool [layers, experts, gpus]: the GPU holds a copy |
    | primary | int32 [layers, experts]: one of the hosting GPUs |
    | nodes, slots | shape of the cluster it was made for |
    | layer_ids | absolute layer indices |
    | model | name of the model |

    Equal and hashable by value. Slots are stated, not enforced: `Problem.violation` judges.
    """

    hosts: NDArray[np.bool_]
    primary: NDArray[np.int32]
    nodes: int
    slots: int | tuple[int, ...]
    layer_ids: tuple[int, ...]
    model: str = ""

    def __post_init__(self) -> None:
        hosts = np.array(self.hosts, bool)
        primary = np.array(self.primary, np.int32)
        if hosts.ndim != 3 or primary.shape != hosts.shape[:2] or len(self.layer_ids) != len(hosts):
            raise ValueError(
                f"hosts [layers, experts, gpus], primary [layers, experts] and layer_ids [layers] do not fit: "
                f"{hosts.shape}, {primary.shape}, {len(self.layer_ids)}"
            )
        layers, experts, gpus = hosts.shape
        if 0 in hosts.shape:
            raise ValueError(f"a placement needs layers, experts and GPUs, found {layers}, {experts}, {gpus}")
        if self.nodes < 1 or gpus % self.nodes:
            raise ValueError(f"gpus must be divisible by nodes, found {gpus} GPUs on {self.nodes} nodes")
        if not hosts.any(axis=2).all():
            layer, expert = np.argwhere(~hosts.any(axis=2))[0]
            raise ValueError(f"layer {self.layer_ids[layer]}: expert {expert} is on no GPU")
        inside = (primary >= 0) & (primary < gpus)
        held = inside & np.take_along_axis(hosts, np.where(inside, primary, 0)[..., None], axis=2)[..., 0]
        if not held.all():
            layer, expert = np.argwhere(~held)[0]
            raise ValueError(
                f"layer {self.layer_ids[layer]}: expert {expert} has primary GPU {primary[layer, expert]}, "
                f"which does not hold it"
            )
        for name, value in (("hosts", hosts), ("primary", primary)):
            value.setflags(write=False)
            object.__setattr__(self, name, value)
        object.__setattr__(self, "layer_ids", tuple(int(layer) for layer in self.layer_ids))

    @classmethod
    def partition(
        cls, gpu_of: ArrayLike, cluster: Cluster, *, layer_ids: Sequence[int], model: str = ""
    ) -> Self:
        """One copy of each expert: `gpu_of` int [layers, experts]."""
        primary = np.asarray(gpu_of)
        if primary.ndim != 2 or primary.size == 0 or primary.min() < 0 or primary.max() >= cluster.gpus:
            raise ValueError(f"gpu_of must be [layers, experts] with GPUs 0..{cluster.gpus - 1}")
        hosts = primary[..., None] == np.arange(cluster.gpus)
        return cls(hosts, primary, cluster.nodes, cluster.slots, tuple(layer_ids), model)

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Placements of single layers, stacked in the order given."""
        first = parts[0]
        return cls(
            np.concatenate([part.hosts for part in parts]),
            np.concatenate([part.primary for part in parts]),
            first.nodes,
            first.slots,
            tuple(layer for part in parts for layer in part.layer_ids),
            first.model,
        )

    def layer(self, index: int) -> Self:
        """One layer, by position."""
        chosen = slice(index, index + 1)
        return type(self)(
            self.hosts[chosen],
            self.primary[chosen],
            self.nodes,
            self.slots,
            self.layer_ids[chosen],
            self.model,
        )

    @property
    def n_experts(self) -> int:
        return int(self.hosts.shape[1])

    @property
    def gpus(self) -> int:
        return int(self.hosts.shape[2])

    @property
    def is_partition(self) -> bool:
        """Whether no expert has a second copy."""
        return bool((self.hosts.sum(axis=2) == 1).all())

    def _key(self) -> tuple[object, ...]:
        arrays = (self.hosts.tobytes(), self.primary.tobytes())
        return (self.hosts.shape, self.nodes, self.slots, self.layer_ids, self.model, *arrays)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Placement) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def to_dict(self) -> dict[str, Any]:
        """The documented JSON form, version 1."""
        return {
            "format": FORMAT,
            "version": 1,
            "model": self.model,
            "n_experts": self.n_experts,
            "gpus": self.gpus,
            "nodes": self.nodes,
            "slots": self.slots if isinstance(self.slots, int) else list(self.slots),
            "layer_ids": list(self.layer_ids),
            "hosts": [[np.flatnonzero(gpu).tolist() for gpu in layer.T] for layer in self.hosts],
            "primary": self.primary.tolist(),
        }

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> Self:
        """Inverse of `to_dict`; ValueError names the rule and the value."""
        storage.expect(document, kind=FORMAT)
        experts, gpus, nodes = (
            storage.field(document, name, kind=int) for name in ("n_experts", "gpus", "nodes")
        )
        slots = storage.field(document, "slots", kind=(int, list))
        ids = storage.field(document, "layer_ids", kind=list)
        lists = storage.field(document, "hosts", kind=list)
        if experts < 1 or gpus < 1 or len(lists) != len(ids) or experts * gpus * len(ids) > 1 << 30:
            raise ValueError(
                f"hosts must list {len(ids)} layers of {gpus} GPUs and {experts} experts, found {len(lists)} layers"
            )
        if not all(isinstance(layer, int) and not isinstance(layer, bool) for layer in ids):
            raise ValueError(f"layer_ids must be whole numbers, found {ids!r:.80}")
        listed = sum(
            len(held)
            for layer in lists
            if isinstance(layer, list)
            for held in layer
            if isinstance(held, list)
        )
        if experts > listed and experts * gpus * len(ids) > 1 << 24:  # before so much is allocated
            raise ValueError(
                f"hosts must list all {experts} experts, found {listed} ids in {len(ids)} layers"
            )
        hosts = np.zeros((len(ids), experts, gpus), bool)
        for index, layer in enumerate(lists):
            if not isinstance(layer, list) or len(layer) != gpus:
                raise ValueError(f"hosts of layer {ids[index]} must list {gpus} GPUs")
            for gpu, held in enumerate(layer):
                hosts[index, _expert_ids(held, experts, f"layer {ids[index]}, GPU {gpu}"), gpu] = True
        primary = storage.whole_numbers(document, "primary", dtype=np.int32)
        if isinstance(slots, list) and any(type(value) is not int for value in slots):
            raise ValueError(f"slots must be whole numbers, found {slots!r:.80}")
        model = storage.field(document, "model", kind=str)
        return cls(
            hosts, primary, nodes, slots if isinstance(slots, int) else tuple(slots), tuple(ids), model
        )


def _expert_ids(held: object, experts: int, where: str) -> list[int]:
    if not isinstance(held, list) or not all(isinstance(e, int) and not isinstance(e, bool) for e in held):
        raise ValueError(f"{where}: experts must be a list of whole numbers, found {held!r:.60}")
    for expert in held:
        if not 0 <= expert < experts:
            raise ValueError(f"{where}: expert {expert} out of range 0..{experts - 1}")
    if len(set(held)) != len(held):
        raise ValueError(f"{where}: an expert is listed twice: {held}")
    return held
