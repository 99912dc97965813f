"""vllm-ascend: the expert map of model runner v1."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from moeopt.engine import (
    Notes,
    PhysicalMap,
    equal_slots,
    numbers,
    of_ordinals,
    physical_map,
    settled_layers,
)
from moeopt.engine_files import document_of, experts_in, object_with, table_of
from moeopt.placement import Placement


@dataclass(frozen=True)
class VLLMAscend:
    """`{"moe_layer_count": L, "layer_list": [{"layer_id", "device_count", "device_list": [...]}]}`, JSON.

    `layer_id` counts the MoE layers from 0, a device lists its experts as `device_expert` in slot order. Every device
    holds the same number of experts, none twice: the engine stacks the lists and inverts them. It takes layers and
    devices by position, so their ids must agree with it. Further keys are ignored.

    For model runner v1 alone: v2 takes the balancing of vLLM, and static maps are announced to go in v0.25.1.
    Source: vllm-ascend 182b75ea, eplb/core/eplb_utils.py.
    """

    name: ClassVar[str] = "vllm-ascend"
    summary: ClassVar[str] = "vllm-ascend expert_map_path, JSON (model runner v1)"
    suffix: ClassVar[str] = ".json"

    def check(self, placement: Placement, *, moe_layers: int | None = None, pad: bool = False) -> str:
        """All MoE layers are there, every device and layer fills the same number of slots; settings as for `dump`."""
        return settled_layers(placement, moe_layers=moe_layers) or equal_slots(placement, pad=pad)

    def dump(
        self,
        placement: Placement,
        *,
        moe_layers: int | None = None,
        pad: bool = False,
        loads: ArrayLike | None = None,
    ) -> bytes:
        """JSON of the placement, layers numbered in ascending order of their ids.

        `moe_layers`: MoE layers of the model; a placement of fewer would be read as of the first ones. `pad` fills
        free slots as `moeopt.engine.padded` does; else they raise ValueError.
        """
        if broken := self.check(placement, moe_layers=moe_layers, pad=pad):
            raise ValueError(broken)
        rows = physical_map(placement, pad=pad, loads=loads)[np.argsort(placement.layer_ids)]
        devices = rows.reshape(len(rows), placement.gpus, -1).tolist()
        layers = [
            {
                "layer_id": layer,
                "device_count": placement.gpus,
                "device_list": [
                    {"device_id": device, "device_expert": held} for device, held in enumerate(listed)
                ],
            }
            for layer, listed in enumerate(devices)
        ]
        return (json.dumps({"moe_layer_count": len(layers), "layer_list": layers}) + "\n").encode()

    def accepts(self, content: bytes) -> bool:
        """A JSON object with the count and the list of layers."""
        return object_with(content, "moe_layer_count", "layer_list") is not None

    def read(self, content: bytes) -> PhysicalMap:
        """The map, without layer ids: those of the file are ordinals."""
        document = document_of(content)
        if not isinstance(document, dict):
            raise ValueError(f"expected a JSON object, found {type(document).__name__}")
        layers = document.get("layer_list")
        if not isinstance(layers, list) or not layers or document.get("moe_layer_count") != len(layers):
            raise ValueError(
                f"layer_list must list moe_layer_count {document.get('moe_layer_count')!r:.20} layers, "
                f"found {len(layers) if isinstance(layers, list) else layers!r:.40}"
            )
        devices = [_devices(layer, ordinal) for ordinal, layer in enumerate(layers)]
        for ordinal, listed in enumerate(devices):
            if len(listed) != len(devices[0]):
                raise ValueError(
                    f"layer {ordinal} has {len(listed)} devices, layer 0 {len(devices[0])}: all need the same"
                )
            for device, held in enumerate(listed):
                if len(held) != len(devices[0][0]):
                    raise ValueError(
                        f"layer {ordinal}: device {device} holds {len(held)} experts, "
                        f"device 0 of layer 0 {len(devices[0][0])}: all must hold as many"
                    )
        rows = table_of([[e for held in listed for e in held] for listed in devices], "device_expert")
        return PhysicalMap(rows, gpus=len(devices[0]))

    def load(
        self,
        content: bytes,
        *,
        gpus: int | None = None,
        nodes: int = 1,
        layer_ids: Sequence[int] | None = None,
        model: str = "",
    ) -> Placement:
        """The placement; `layer_ids`: absolute ids of all MoE layers, ascending (default 0, 1, ...)."""
        found = self.read(content)
        return of_ordinals(found, gpus=gpus, nodes=nodes, layer_ids=layer_ids, model=model)

    def notes(self, placement: Placement | None, path: str) -> Notes:
        """Flags of `vllm serve` with vllm-ascend; ValueError unless `path` ends in .json."""
        if not path.endswith(".json"):
            raise ValueError(
                f"vllm-ascend reads an expert map from a file that ends in .json, found {path!r}"
            )
        gpus, _, redundant, remarks = numbers(self, placement)
        return Notes(
            "vllm-ascend 182b75ea, model runner v1",
            (
                *("vllm", "serve", "<model>", "--tensor-parallel-size", gpus, "--enable-expert-parallel"),
                *("--additional-config", json.dumps({"eplb_config": {"expert_map_path": path}})),
            ),
            remarks=(
                *remarks,
                f"Tensor x data parallel size must be {gpus}; the engine counts the {redundant} redundant experts.",
                "The placement must hold all MoE layers: layer_id k is the k-th of them. An MTP layer is not of the "
                "file: 0.23.0 gives it a placement of its own, with as many slots as layer 0.",
                "Model runner v2 does not read this file; static maps are announced to go in v0.25.1.",
            ),
        )


def _devices(layer: Any, ordinal: int) -> list[list[int]]:
    """The experts of a layer's devices, slot by slot."""
    if not isinstance(layer, dict) or layer.get("layer_id") != ordinal or isinstance(layer["layer_id"], bool):
        raise ValueError(f"layer_list: at position {ordinal} layer_id must be {ordinal}, found {layer!r:.60}")
    listed = layer.get("device_list")
    if not isinstance(listed, list) or not listed or layer.get("device_count") != len(listed):
        raise ValueError(
            f"layer {ordinal}: device_list must list device_count {layer.get('device_count')!r:.20} devices"
        )
    held = []
    for position, device in enumerate(listed):
        if not isinstance(device, dict) or device.get("device_id") != position:
            raise ValueError(
                f"layer {ordinal}: at position {position} device_id must be {position}, found {device!r:.60}"
            )
        held.append(experts_in(device.get("device_expert"), f"layer {ordinal}, device {position}"))
    return held
