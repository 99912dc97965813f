"""Placement files that open proposals would let vLLM read: no release does.

| proposal | option | here |
|---|---|---|
| vllm#49572 | `eplb_config.initial_expert_map_path` | VLLMProposedMap |
| vllm#53022 | `eplb_config.expert_map_path`, DeepSeek-V4 | VLLMProposedMap, the same content |
| vllm#34811 | `--expert-placement-file` | VLLMProposedRanks |

Left out: #14544, a torch file, closed; #41141, a recording of loads and no placement; #26176, a recorded window.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from moeopt.engine import (
    Notes,
    PhysicalMap,
    agreed,
    equal_slots,
    numbers,
    of_ordinals,
    physical_map,
    settled_layers,
)
from moeopt.engine_files import document_of, experts_in, list_of, object_with, only_keys, table_of
from moeopt.placement import Placement

RANKS = "expert_to_ep_rank"


@dataclass(frozen=True)
class VLLMProposedMap:
    """`[MoE layers][slots]`, the expert in each slot, GPU by GPU; or one row `[slots]` for all layers, JSON.

    Content of vllm#49572 and #53022, both open. Lists of lists are also a form of `moeopt.engines.eplb.Eplb`, which is
    asked first when a file is told by its content.
    """

    name: ClassVar[str] = "vllm-proposed-map"
    summary: ClassVar[str] = "PROPOSAL vllm#49572, #53022: initial expert map, JSON"
    suffix: ClassVar[str] = ".json"

    def check(self, placement: Placement, *, moe_layers: int | None = None, pad: bool = False) -> str:
        """All MoE layers are there, every GPU and layer fills the same number of slots; settings as for `dump`."""
        return settled_layers(placement, moe_layers=moe_layers) or equal_slots(placement, pad=pad)

    def dump(
        self,
        placement: Placement,
        *,
        moe_layers: int | None = None,
        pad: bool = False,
        loads: ArrayLike | None = None,
    ) -> bytes:
        """JSON of the placement, a row for each layer in ascending order of their ids.

        `moe_layers`: MoE layers of the model. `pad` fills free slots as `moeopt.engine.padded` does; else they raise
        ValueError.
        """
        if broken := self.check(placement, moe_layers=moe_layers, pad=pad):
            raise ValueError(broken)
        rows = physical_map(placement, pad=pad, loads=loads)[np.argsort(placement.layer_ids)]
        return (json.dumps(rows.tolist()) + "\n").encode()

    def accepts(self, content: bytes) -> bool:
        """A JSON list of numbers, or of lists."""
        rows = list_of(content)
        return rows is not None and len(rows) > 0 and isinstance(rows[0], int | list)

    def read(self, content: bytes) -> PhysicalMap:
        """The map, without layer ids; of a row for all layers that row alone."""
        document = document_of(content)
        if not isinstance(document, list) or not document:
            raise ValueError(f"expected a list of slots or of layers, found {document!r:.40}")
        shared = isinstance(document[0], int)
        return PhysicalMap(table_of([document] if shared else document, "the map"), shared=shared)

    def load(
        self,
        content: bytes,
        *,
        gpus: int,
        nodes: int = 1,
        layer_ids: Sequence[int] | None = None,
        model: str = "",
    ) -> Placement:
        """The placement; one row is that of all `layer_ids` (default: one id a row, 0, 1, ...)."""
        found = self.read(content)
        if layer_ids is not None and found.shared:
            found = PhysicalMap(np.tile(found.rows, (len(layer_ids), 1)))
        return of_ordinals(found, gpus=gpus, nodes=nodes, layer_ids=layer_ids, model=model)

    def notes(self, placement: Placement | None, path: str) -> Notes:
        """Flags as the proposals describe them."""
        gpus, _, redundant, remarks = numbers(self, placement)
        config = f'{{"num_redundant_experts": {redundant}, "initial_expert_map_path": {json.dumps(path)}}}'
        return Notes(
            "vllm#49572 and #53022: proposals, in no release",
            (
                *("vllm", "serve", "<model>", "--tensor-parallel-size", gpus, "--enable-expert-parallel"),
                *("--enable-eplb", "--eplb-config", config),
            ),
            remarks=(
                *remarks,
                "A build with vllm#49572 is needed; of vllm#53022 (DeepSeek-V4) the key is expert_map_path.",
                "vLLM 0.33 as released: see engine vllm, the plug-in.",
            ),
        )


@dataclass(frozen=True)
class VLLMProposedRanks:
    """`{"expert_to_ep_rank": [GPU of each expert]}`, JSON: one partition for all layers, no replicas.

    Content of vllm#34811 (asked for in #34297), open. Local slots ascend with the expert.
    """

    name: ClassVar[str] = "vllm-proposed-ranks"
    summary: ClassVar[str] = "PROPOSAL vllm#34811: expert placement file, JSON"
    suffix: ClassVar[str] = ".json"

    def check(self, placement: Placement, *, pad: bool = False) -> str:
        """One copy of each expert, the same on all layers, equally many on every GPU; `pad` would add copies."""
        hosts = placement.hosts
        for layer, expert in np.argwhere(hosts.sum(axis=2) > 1)[:1]:
            return (
                f"layer {placement.layer_ids[layer]}: expert {expert} has {hosts[layer, expert].sum()} copies, "
                f"the file can say one"
            )
        for layer in np.flatnonzero((hosts != hosts[0]).any(axis=(1, 2)))[:1]:
            ids = placement.layer_ids
            return f"the file has one map for all layers: layer {ids[layer]} differs from layer {ids[0]}"
        held = hosts[0].sum(axis=0)
        if held.min() < held.max():
            return f"every GPU must hold as many experts, found {held.min()} to {held.max()}"
        return settled_layers(placement)

    def dump(self, placement: Placement, *, pad: bool = False, loads: ArrayLike | None = None) -> bytes:
        """JSON of the placement; nothing is padded, since no expert can have a second copy."""
        if broken := self.check(placement):
            raise ValueError(broken)
        return (json.dumps({RANKS: placement.primary[0].tolist()}) + "\n").encode()

    def accepts(self, content: bytes) -> bool:
        """A JSON object with this one key."""
        document = object_with(content, RANKS)
        return document is not None and len(document) == 1

    def read(self, content: bytes) -> PhysicalMap:
        """The map of one layer, which is that of all."""
        ranks = experts_in(only_keys(document_of(content), (RANKS,))[RANKS], RANKS)
        if not ranks or max(ranks) >= len(ranks):
            raise ValueError(
                f"{RANKS}: {len(ranks)} experts fill at most as many ranks, found {max(ranks, default=0)}"
            )
        held = np.bincount(ranks)
        if held.min() < held.max():
            raise ValueError(
                f"{RANKS}: every rank must hold as many experts, found {held.min()} to {held.max()}"
            )
        rows = np.argsort(ranks, kind="stable")[None].astype(np.int64)
        return PhysicalMap(rows, experts=len(ranks), gpus=len(held), shared=True)

    def load(
        self,
        content: bytes,
        *,
        gpus: int | None = None,
        nodes: int = 1,
        layer_ids: Sequence[int] = (0,),
        model: str = "",
    ) -> Placement:
        """The placement, the same on all `layer_ids`."""
        found = self.read(content)
        agreed("gpus", gpus, found=found.gpus or 0)
        tiled = PhysicalMap(np.tile(found.rows, (len(layer_ids), 1)), experts=found.experts, gpus=found.gpus)
        return of_ordinals(tiled, gpus=gpus, nodes=nodes, layer_ids=layer_ids, model=model)

    def notes(self, placement: Placement | None, path: str) -> Notes:
        """Flags as the proposal describes them."""
        if placement is not None and (broken := self.check(placement)):
            raise ValueError(broken)
        gpus = "<GPUs>" if placement is None else str(placement.gpus)
        return Notes(
            "vllm#34811: a proposal, in no release",
            (
                *("vllm", "serve", "<model>", "--tensor-parallel-size", gpus, "--enable-expert-parallel"),
                *("--expert-placement-strategy", "custom", "--expert-placement-file", path),
            ),
            remarks=(
                "A build with vllm#34811 is needed; it excludes --enable-eplb.",
                "vLLM 0.33 as released: see engine vllm, the plug-in.",
            ),
        )
