"""No engine's file: the experts of every GPU, for scripts and for engines that nobody has written an exporter for."""

import json
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from moeopt.engine import Notes, PhysicalMap, agreed, equal_slots, padded, placement_of, settled_layers
from moeopt.engine_files import MOST_SLOTS, document_of, experts_in, object_with, only_keys, whole
from moeopt.placement import Placement

KEYS = ("model", "nodes", "gpus", "slots", "experts", "layers")


@dataclass(frozen=True)
class Plain:
    """`{"model", "nodes", "gpus", "slots", "experts", "layers": {"3": [[experts of GPU 0], ...], ...}}`, JSON.

    Layers by absolute id; GPUs may hold different numbers of experts, as long as every expert is somewhere and none
    twice on one GPU. Against the placement document of `moeopt place` it lacks the primary copies alone.
    """

    name: ClassVar[str] = "plain"
    summary: ClassVar[str] = "experts of every GPU by layer, for no engine, JSON"
    suffix: ClassVar[str] = ".json"

    def check(self, placement: Placement, *, pad: bool = False) -> str:
        """Layer ids are absolute; any numbers of experts are fine."""
        return settled_layers(placement) or (equal_slots(placement, pad=True) if pad else "")

    def dump(self, placement: Placement, *, pad: bool = False, loads: ArrayLike | None = None) -> bytes:
        """JSON of the placement. Free slots stay free, unless `pad` fills them as `moeopt.engine.padded`."""
        if broken := self.check(placement, pad=pad):
            raise ValueError(broken)
        written = padded(placement, loads=loads) if pad else placement
        layers = {
            str(layer): [np.flatnonzero(gpu).tolist() for gpu in hosts.T]
            for layer, hosts in zip(written.layer_ids, written.hosts, strict=True)
        }
        document = {
            "model": placement.model,
            "nodes": placement.nodes,
            "gpus": placement.gpus,
            "slots": placement.slots if isinstance(placement.slots, int) else list(placement.slots),
            "experts": placement.n_experts,
            "layers": layers,
        }
        return (json.dumps(document) + "\n").encode()

    def accepts(self, content: bytes) -> bool:
        """A JSON object with exactly these keys."""
        document = object_with(content, *KEYS)
        return document is not None and len(document) == len(KEYS)

    def read(self, content: bytes) -> PhysicalMap:
        """The map; -1 in the slots that a GPU has less than the fullest one."""
        return _map(only_keys(document_of(content), KEYS))

    def load(
        self, content: bytes, *, gpus: int | None = None, nodes: int | None = None, model: str | None = None
    ) -> Placement:
        """The placement; `gpus` must be the file's where given, `nodes` and `model` replace the file's."""
        document = only_keys(document_of(content), KEYS)
        found = _map(document)
        if not isinstance(document["model"], str):
            raise ValueError(f"model must be text, found {document['model']!r:.40}")
        count = agreed("gpus", gpus, found=found.gpus or 0)
        placement = placement_of(
            found.rows,
            experts=found.experts or 0,
            gpus=count,
            nodes=whole(document["nodes"], "nodes", least=1) if nodes is None else nodes,
            layer_ids=found.layer_ids or (),
            model=document["model"] if model is None else model,
            free=True,
        )
        return replace(placement, slots=_slots(document["slots"], count))

    def notes(self, placement: Placement | None, path: str) -> Notes:
        """Nothing serves with it."""
        return Notes(
            "moeopt",
            remarks=(f"No engine loads {path}: it is for scripts, and `moeopt` reads it back as a plan.",),
        )


def _map(document: dict[str, Any]) -> PhysicalMap:
    layers, gpus = document["layers"], whole(document["gpus"], "gpus", least=1)
    experts = whole(document["experts"], "experts", least=1)
    if not isinstance(layers, dict) or not layers:
        raise ValueError(f"layers must be an object from layer ids to GPUs, found {layers!r:.40}")
    for name, listed in layers.items():
        if not (name.isascii() and name.isdigit() and len(name) < 10 and name == str(int(name))):
            raise ValueError(f"a layer must be a whole number, found {name!r:.40}")
        if not isinstance(listed, list) or len(listed) != gpus:
            raise ValueError(f"layer {name} must list {gpus} GPUs, found {listed!r:.40}")
        for gpu, held in enumerate(listed):
            experts_in(held, f"layer {name}, GPU {gpu}")
    most = max(1, *(len(held) for listed in layers.values() for held in listed))
    if len(layers) * gpus * most > MOST_SLOTS:
        raise ValueError(
            f"{len(layers)} layers of {gpus} GPUs with up to {most} experts: more than {MOST_SLOTS} slots"
        )
    rows = np.full((len(layers), gpus * most), -1, np.int64)
    for row, listed in zip(rows, layers.values(), strict=True):
        for gpu, held in enumerate(listed):
            row[gpu * most : gpu * most + len(held)] = held
    return PhysicalMap(rows, tuple(map(int, layers)), experts, gpus=gpus)


def _slots(value: Any, gpus: int) -> int | tuple[int, ...]:
    """Slots of a GPU, or of each."""
    if not isinstance(value, list):
        return whole(value, "slots")
    if len(value) != gpus:
        raise ValueError(f"slots must be one number or {gpus}, found {len(value)}")
    return tuple(whole(number, "slots") for number in value)
