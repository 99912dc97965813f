"""Loads and pair counts of every layer as one JSON object: what recorders keep where no tokens may leave."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from moeopt import storage
from moeopt.pair_counts import PairCounts
from moeopt.supplement import Supplement
from moeopt.workload import Workload

FIELDS = ("layers", "heat", "pairs")
START = 1 << 20  # bytes in which the fields of the first layer begin


@dataclass(frozen=True)
class Coactivation:
    """Reader of JSON files as https://github.com/doramirdor/mbolt writes them.

    | field | holds |
    |---|---|
    | model | name |
    | n_decode_tokens, k | tokens, and experts that each chooses in a layer |
    | n_layers, n_expert_per_layer | what `layers` and `heat` must count |
    | layers | objects, by ascending `layer`, the absolute index of the layer |
    | heat, of a layer | tokens of each expert |
    | pairs, of a layer | [i, j, tokens that chose both, lift]; the lift follows from the rest and is not read |

    Other fields are ignored. Rare pairs are usually left out of such a file: see `PairCounts` for what a cut is then.
    `limit` bounds the size of the file in bytes; larger ones are refused.
    """

    limit: int = 2**30

    name: ClassVar[str] = "coactivation"

    def accepts(self, path: Path, head: bytes) -> bool:
        if not head.lstrip().startswith(b"{"):
            return False
        with path.open("rb") as file:
            start = file.read(START)
        return all(storage.has_field(start, name) for name in FIELDS)

    def read(self, path: Path, supplement: Supplement) -> Workload:
        if (size := path.stat().st_size) > self.limit:
            raise ValueError(f"a file of pair counts may have {self.limit} bytes, found {size}")
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"not JSON: {error}") from error
        tokens, top_k = (_count(document, name) for name in ("n_decode_tokens", "k"))
        experts = _count(document, "n_expert_per_layer")
        layers = storage.field(document, "layers", kind=list)
        if len(layers) != (promised := _count(document, "n_layers")):
            raise ValueError(f"n_layers promises {promised} layers, found {len(layers)}")
        for layer in layers:
            if not isinstance(layer, dict):
                raise ValueError(f"a layer must be an object, found {layer!r:.60}")
        ids = [storage.field(layer, "layer", kind=int) for layer in layers]
        if ids != sorted(set(ids)) or ids[0] < 0:
            raise ValueError(f"layers must ascend from 0 on, found {ids}")
        counted = []
        for layer_id, layer in zip(ids, layers, strict=True):
            try:
                counted.append(_pair_counts(layer, experts=experts, top_k=top_k))
            except ValueError as error:
                raise ValueError(f"layer {layer_id}: {error}") from error
        every = np.array([tokens])
        every.setflags(write=False)
        model = storage.field(document, "model", kind=str)
        return supplement.settled(Workload(tuple(counted), tuple(ids), ("all",), every, model))


def _count(document: dict[str, Any], name: str) -> int:
    found = storage.field(document, name, kind=int)
    if not 0 < found < 1 << 46:
        raise ValueError(f"{name} must be at least 1 and below 2^46, found {found:.6g}")
    return int(found)


def _pair_counts(layer: dict[str, Any], *, experts: int, top_k: int) -> PairCounts:
    rows = storage.field(layer, "pairs", kind=list)
    for row in rows:
        if not isinstance(row, list) or len(row) != 4:
            raise ValueError(f"a pair must be [i, j, count, lift], found {row!r:.60}")
    known = storage.whole_numbers({"pairs": [row[:3] for row in rows]}, "pairs").reshape(-1, 3)
    load = storage.whole_numbers({"heat": storage.field(layer, "heat", kind=list)}, "heat")
    if load.shape != (experts,):
        raise ValueError(f"heat must be of {experts} experts, found shape {load.shape}")
    return PairCounts(known[:, 2:], experts, pairs=known[:, :2], load=load, top_k=top_k)
