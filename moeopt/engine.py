"""Serving engines: the file that carries a placement into one, and back."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from moeopt.placement import Placement

KEY = "physical_to_logical_map"


@dataclass(frozen=True, eq=False)
class PhysicalMap:
    """What an engine's file says: the expert in each slot, before anybody knows how many GPUs share the slots.

    | field | holds |
    |---|---|
    | rows | int64 [layers, slots]: the expert in each slot, GPU by GPU |
    | layer_ids | absolute layer indices of the rows; None: the file does not say |
    | experts | E; None: the file does not say |
    | hidden | the rows are all hidden layers of the model, dense ones included |
    """

    rows: NDArray[np.int64]
    layer_ids: tuple[int, ...] | None = None
    experts: int | None = None
    hidden: bool = False


class Engine(Protocol):
    """One engine's placement file; packages add theirs as a class under the entry-point group `moeopt.engines`.

    `dump` raises ValueError with the rule that `check` names. `load(dump(p))` holds p's copies; primaries are the
    first hosting GPUs, and what the file does not carry (nodes, model, layer ids) comes from settings. `read` takes
    also what the engine runs and `dump` would not write: an expert held twice by one GPU.
    """

    name: ClassVar[str]
    summary: ClassVar[str]

    # Properties, since every engine has settings of its own and a method with other settings would not conform.
    @property
    def check(self) -> Callable[..., str]:
        """(placement, **settings): which rule of the engine is broken, with the numbers; empty when none is."""

    @property
    def dump(self) -> Callable[..., bytes]:
        """(placement, **settings): content of the file."""

    @property
    def load(self) -> Callable[..., Placement]:
        """(content, **settings): the placement in such a file; ValueError names the rule and the value found."""

    def accepts(self, content: bytes) -> bool:
        """Whether the content has the form of this engine's file, right or wrong in its numbers."""

    def read(self, content: bytes) -> PhysicalMap:
        """The map in such a file; ValueError names the rule and the value found."""


def equal_slots(placement: Placement, *, pad: bool = False) -> str:
    """Why the copies do not fill equally many slots on every GPU and layer; empty when they do.

    With `pad` free slots are allowed, as long as `physical_map` can fill them.
    """
    slots = placement.slots
    if not isinstance(slots, int):
        return f"every GPU must have the same number of slots, found {', '.join(map(str, slots))}"
    held = placement.hosts.sum(axis=1)
    for layer, gpu in np.argwhere(held > slots)[:1]:
        return f"layer {placement.layer_ids[layer]}: GPU {gpu} holds {held[layer, gpu]} experts, slots are {slots}"
    if pad and slots > placement.n_experts:
        return f"{slots} slots cannot be filled with distinct experts, there are {placement.n_experts}"
    for layer, gpu in np.argwhere(held < slots)[: 0 if pad else 1]:
        return (
            f"layer {placement.layer_ids[layer]}: GPU {gpu} holds {held[layer, gpu]} experts, "
            f"all {slots} slots must be filled (pad=True fills them with further copies)"
        )
    return ""


def physical_map(placement: Placement, *, pad: bool = False) -> NDArray[np.int64]:
    """int64 [layers, gpus x slots]: the expert in each slot; GPU g owns slots g·S to g·S + S - 1, ids ascending.

    `pad` fills free slots with the lowest experts that the GPU does not hold. ValueError as `equal_slots` says.
    """
    if broken := equal_slots(placement, pad=pad):
        raise ValueError(broken)
    slots = int(placement.slots if isinstance(placement.slots, int) else 0)
    by_gpu = placement.hosts.transpose(0, 2, 1)
    # Held experts first, then the others, both ascending; what fits is the GPU's.
    chosen = np.argsort(~by_gpu, axis=2, kind="stable")[:, :, :slots]
    return np.sort(chosen, axis=2).reshape(len(by_gpu), -1).astype(np.int64)


def placement_of(
    rows: NDArray[Any],
    *,
    experts: int,
    gpus: int,
    nodes: int,
    layer_ids: tuple[int, ...],
    model: str,
    once: bool = True,
) -> Placement:
    """The placement of a physical map [layers, slots]; ValueError names layer, slot or expert that breaks a rule.

    An expert twice on one GPU is such a rule; without `once` it counts as one copy, and leaves a slot free.
    """
    if rows.ndim != 2 or rows.dtype.kind not in "iu" or 0 in rows.shape:
        raise ValueError(
            f"the physical map must be integers [layers, slots], found {rows.dtype} {rows.shape}"
        )
    if gpus < 1 or rows.shape[1] % gpus:
        raise ValueError(f"slots must be divisible by gpus, found {rows.shape[1]} slots on {gpus} GPUs")
    if len(layer_ids) != len(rows):
        raise ValueError(f"{len(layer_ids)} layer ids for {len(rows)} layers")
    for layer, slot in np.argwhere((rows < 0) | (rows >= experts))[:1]:
        raise ValueError(
            f"layer {layer_ids[layer]}, slot {slot}: expert {rows[layer, slot]} out of range 0..{experts - 1}"
        )
    slots = rows.shape[1] // gpus
    for layer, gpu, expert in repeated(rows, gpus=gpus)[: 1 if once else 0]:
        raise ValueError(f"layer {layer_ids[layer]}: GPU {gpu} holds expert {expert} twice, once is allowed")
    by_gpu = rows.reshape(len(rows), gpus, slots)
    hosts = np.zeros((len(rows), experts, gpus), bool)
    layer, gpu, _ = np.indices(by_gpu.shape)
    hosts[layer, by_gpu, gpu] = True
    return Placement(hosts, hosts.argmax(axis=2), nodes, slots, layer_ids, model)


def repeated(rows: NDArray[Any], *, gpus: int) -> NDArray[np.int64]:
    """int64 [duplicates, 3]: (layer, GPU, expert) of every slot whose expert the GPU holds already.

    `rows` [layers, slots] with slots divisible by `gpus`.
    """
    ordered = np.sort(rows.reshape(len(rows), gpus, -1), axis=2)
    at = np.argwhere(ordered[..., 1:] == ordered[..., :-1])
    return np.column_stack([at[:, :2], ordered[tuple(at.T)]]).astype(np.int64)


def table_of(rows: Any) -> NDArray[np.int64]:
    """A physical map out of JSON, lists of one length; ValueError names layer and slot that are none."""
    if not isinstance(rows, list) or not rows or not all(isinstance(row, list) and row for row in rows):
        raise ValueError(f"{KEY} must be a list of lists, found {rows!r:.60}")
    for layer, row in enumerate(rows):
        if len(row) != len(rows[0]):
            raise ValueError(f"all layers need {len(rows[0])} slots as layer 0, layer {layer} has {len(row)}")
        for slot, expert in enumerate(row):
            if isinstance(expert, bool) or not isinstance(expert, int) or not 0 <= expert < 1 << 20:
                raise ValueError(
                    f"layer {layer}, slot {slot}: an expert is a whole number, found {expert!r:.40}"
                )
    return np.array(rows, np.int64)
