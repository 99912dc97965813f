"""Serving engines: the file that carries a placement into one, and back."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moeopt.placement import Placement

KEY = "physical_to_logical_map"
MOST_HOSTS = 1 << 30  # layers x experts x GPUs


@dataclass(frozen=True, eq=False)
class PhysicalMap:
    """What an engine's file says: the expert in each slot, before anybody knows how many GPUs share the slots.

    | field | holds |
    |---|---|
    | rows | int64 [layers, slots]: the expert in each slot, GPU by GPU; -1: free, where an engine's GPUs may differ |
    | layer_ids | absolute layer indices of the rows; None: the file does not say |
    | experts | E; None: the file does not say |
    | hidden | the rows are all hidden layers of the model, dense ones included |
    | gpus | GPUs that share the slots; None: the file does not say |
    | shared | the one row is that of all MoE layers |
    """

    rows: NDArray[np.int64]
    layer_ids: tuple[int, ...] | None = None
    experts: int | None = None
    hidden: bool = False
    gpus: int | None = None
    shared: bool = False


@dataclass(frozen=True)
class Notes:
    """What to serve with, so that an engine uses a placement's file; `<...>` is left for the reader to fill.

    | field | holds |
    |---|---|
    | source | release or proposal whose sources say so |
    | command | words of the command line |
    | environment | variables and their values |
    | config | text of a configuration file, where the engine wants one |
    | remarks | what decides whether the file is used at all |
    """

    source: str
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    config: str = ""
    remarks: tuple[str, ...] = ()


class Engine(Protocol):
    """One engine's placement file; packages add theirs as a class under the entry-point group `moeopt.engines`.

    `dump` raises ValueError with the rule that `check` names. `load(dump(p))` holds p's copies; primaries are the
    first hosting GPUs, and what the file does not carry (nodes, model, layer ids) comes from settings. `read` takes
    also what the engine runs and `dump` would not write: an expert held twice by one GPU.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    suffix: ClassVar[str]  # of the file's name: some engines go by it

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

    def notes(self, placement: Placement | None, path: str) -> Notes:
        """What to serve with when `path` holds the file of `placement`; without one its numbers are left open."""


def settled_layers(placement: Placement, *, moe_layers: int | None = None) -> str:
    """Why layers cannot be told by id, or by their order among all MoE layers; empty when they can."""
    ids = placement.layer_ids
    if min(ids) < 0 or len(set(ids)) < len(ids):
        return f"layer ids must be distinct and at least 0, found {list(ids)}"
    if moe_layers is not None and len(ids) != moe_layers:
        return (
            f"layers are told by their order among all {moe_layers} MoE layers, the placement has {len(ids)}"
        )
    return ""


def ascending(placement: Placement) -> Placement:
    """The placement with its layers in ascending order of their ids."""
    order = np.argsort(placement.layer_ids, kind="stable")
    ids = tuple(placement.layer_ids[index] for index in order)
    return replace(placement, hosts=placement.hosts[order], primary=placement.primary[order], layer_ids=ids)


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
            f"all {slots} slots must be filled (pad, or --pad, fills them with further copies)"
        )
    return ""


def padded(placement: Placement, *, loads: ArrayLike | None = None) -> Placement:
    """The placement with every free slot filled by an expert that its GPU lacks.

    With `loads` [layers, experts] one copy at a time goes to the expert with the largest load a copy, on the GPU that
    lacks it and has most free slots; without, each GPU takes its lowest experts. ValueError as `equal_slots` says.
    """
    if broken := equal_slots(placement, pad=True):
        raise ValueError(broken)
    hosts, slots = placement.hosts.copy(), int(np.max(placement.slots))
    if loads is None:
        free = slots - hosts.sum(axis=1)
        hosts |= np.cumsum(~hosts, axis=1) <= free[:, None, :]
        return replace(placement, hosts=hosts)
    given = np.asarray(loads, float)
    if given.shape != hosts.shape[:2] or not np.isfinite(given).all() or (given < 0).any():
        raise ValueError(
            f"loads must be finite numbers [layers, experts] {hosts.shape[:2]}, at least 0, found {given.shape}"
        )
    for held, load in zip(hosts, given, strict=True):
        free = slots - held.sum(axis=0)
        for _ in range(int(free.sum())):
            open_to = ~held & (free > 0)
            share = np.where(open_to.any(axis=1), load / held.sum(axis=1), -1.0)
            expert = int(share.argmax())
            gpu = int(np.where(open_to[expert], free, -1).argmax())
            held[expert, gpu] = True
            free[gpu] -= 1
    return replace(placement, hosts=hosts)


def physical_map(
    placement: Placement, *, pad: bool = False, loads: ArrayLike | None = None
) -> NDArray[np.int64]:
    """int64 [layers, gpus x slots]: the expert in each slot; GPU g owns slots g·S to g·S + S - 1, ids ascending.

    `pad` fills free slots as `padded` does. ValueError as `equal_slots` says.
    """
    if broken := equal_slots(placement, pad=pad):
        raise ValueError(broken)
    by_gpu = (padded(placement, loads=loads) if pad else placement).hosts.transpose(0, 2, 1)
    return np.argwhere(by_gpu)[:, 2].reshape(len(by_gpu), -1).astype(np.int64)


def placement_of(
    rows: NDArray[Any],
    *,
    experts: int,
    gpus: int,
    nodes: int,
    layer_ids: tuple[int, ...],
    model: str,
    once: bool = True,
    free: bool = False,
) -> Placement:
    """The placement of a physical map [layers, slots]; ValueError names layer, slot or expert that breaks a rule.

    An expert twice on one GPU is such a rule; without `once` it counts as one copy, and leaves a slot free. With
    `free`, or without `once`, slots of -1 are free.
    """
    if rows.ndim != 2 or rows.dtype.kind not in "iu" or 0 in rows.shape:
        raise ValueError(
            f"the physical map must be integers [layers, slots], found {rows.dtype} {rows.shape}"
        )
    if gpus < 1 or rows.shape[1] % gpus:
        raise ValueError(f"slots must be divisible by gpus, found {rows.shape[1]} slots on {gpus} GPUs")
    if len(layer_ids) != len(rows):
        raise ValueError(f"{len(layer_ids)} layer ids for {len(rows)} layers")
    least = -1 if free or not once else 0
    for layer, slot in np.argwhere((rows < least) | (rows >= experts))[:1]:
        raise ValueError(
            f"layer {layer_ids[layer]}, slot {slot}: expert {rows[layer, slot]} out of range 0..{experts - 1}"
        )
    if experts > rows.shape[1]:  # before anything of that size is allocated
        absent = np.setdiff1d(np.arange(rows.shape[1] + 1), rows[0])[0]
        raise ValueError(f"layer {layer_ids[0]}: expert {absent} is on no GPU")
    if len(rows) * experts * gpus > MOST_HOSTS:
        raise ValueError(
            f"layers x experts x GPUs must be at most {MOST_HOSTS}, found {len(rows)} x {experts} x {gpus}"
        )
    slots = rows.shape[1] // gpus
    for layer, gpu, expert in repeated(rows, gpus=gpus)[: 1 if once else 0]:
        raise ValueError(f"layer {layer_ids[layer]}: GPU {gpu} holds expert {expert} twice, once is allowed")
    by_gpu = rows.reshape(len(rows), gpus, slots)
    hosts = np.zeros((len(rows), experts, gpus), bool)
    layer, gpu, _ = np.indices(by_gpu.shape)
    held = by_gpu >= 0
    hosts[layer[held], by_gpu[held], gpu[held]] = True
    return Placement(hosts, hosts.argmax(axis=2), nodes, slots, layer_ids, model)


def repeated(rows: NDArray[Any], *, gpus: int) -> NDArray[np.int64]:
    """int64 [duplicates, 3]: (layer, GPU, expert) of every slot whose expert the GPU holds already.

    `rows` [layers, slots] with slots divisible by `gpus`; -1 is no expert.
    """
    ordered = np.sort(rows.reshape(len(rows), gpus, -1), axis=2)
    at = np.argwhere((ordered[..., 1:] == ordered[..., :-1]) & (ordered[..., 1:] >= 0))
    return np.column_stack([at[:, :2], ordered[tuple(at.T)]]).astype(np.int64)


def of_ordinals(
    found: PhysicalMap, *, gpus: int | None, nodes: int, layer_ids: Sequence[int] | None, model: str
) -> Placement:
    """The placement of a map that numbers MoE layers, its GPUs stated in the file or by `gpus`."""
    count = gpus if found.gpus is None else agreed("gpus", gpus, found=found.gpus)
    if count is None:
        raise ValueError(
            f"the file does not say which of its {found.rows.shape[1]} slots share a GPU: gpus is needed"
        )
    experts = int(found.rows.max()) + 1 if found.experts is None else found.experts
    ids = tuple(range(len(found.rows)) if layer_ids is None else layer_ids)
    if list(ids) != sorted(set(ids)):
        raise ValueError(f"layer ids must ascend, found {list(ids)}")
    return placement_of(
        found.rows, experts=experts, gpus=count, nodes=nodes, layer_ids=ids, model=model, free=True
    )


def agreed(name: str, asked: int | None, *, found: int) -> int:
    """The number that a file states; ValueError when another was asked for."""
    if asked is not None and asked != found:
        raise ValueError(f"{name} are {found} in the file, asked for were {asked}")
    return found


def numbers(engine: Engine, placement: Placement | None) -> tuple[str, str, str, tuple[str, ...]]:
    """(GPUs, slots of a layer, redundant ones, remarks) of a placement that the engine takes, or what stands for them.

    ValueError with the rule that the engine finds broken.
    """
    if placement is None:
        return "<GPUs>", "<slots>", "<slots - experts>", ()
    remarks: tuple[str, ...] = ()
    if broken := engine.check(placement):
        if engine.check(placement, pad=True):
            raise ValueError(broken)
        remarks = ("Free slots: export with pad, or --pad.",)
    slots = placement.gpus * int(np.max(placement.slots))
    return str(placement.gpus), str(slots), str(slots - placement.n_experts), remarks
