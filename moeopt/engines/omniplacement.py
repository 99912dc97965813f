"""OmniPlacement: the pattern of omni-infer."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from moeopt.engine import Notes, PhysicalMap, ascending, equal_slots, of_ordinals, padded, settled_layers
from moeopt.engine_files import ARRAY, MOST_SLOTS, array_of, shape_of
from moeopt.placement import Placement


@dataclass(frozen=True)
class OmniPlacement:
    """int32 [GPUs, MoE layers, experts], 1 where the GPU holds the expert: an `.npy` array, read by shape alone.

    GPUs and layers may hold different numbers of experts; local slots ascend with the expert; two copies on one GPU
    cannot be said. Source: omni-infer, omni/accelerators/placement/omni_placement/expert_mapping.py.
    """

    name: ClassVar[str] = "omniplacement"
    summary: ClassVar[str] = "OmniPlacement pattern_path, .npy"
    suffix: ClassVar[str] = ".npy"

    def check(self, placement: Placement, *, moe_layers: int | None = None, pad: bool = False) -> str:
        """All MoE layers are there; settings as for `dump`."""
        broken = settled_layers(placement, moe_layers=moe_layers)
        return broken or (equal_slots(placement, pad=True) if pad else "")

    def dump(
        self,
        placement: Placement,
        *,
        moe_layers: int | None = None,
        pad: bool = False,
        loads: ArrayLike | None = None,
    ) -> bytes:
        """The array, layers in ascending order of their ids.

        `moe_layers`: MoE layers of the model. Free slots stay free, unless `pad` fills them as `moeopt.engine.padded`.
        """
        if broken := self.check(placement, moe_layers=moe_layers, pad=pad):
            raise ValueError(broken)
        ordered = ascending(padded(placement, loads=loads) if pad else placement)
        file = io.BytesIO()
        np.save(file, np.ascontiguousarray(ordered.hosts.transpose(2, 0, 1), np.int32))
        return file.getvalue()

    def accepts(self, content: bytes) -> bool:
        """An array of three axes."""
        return content.startswith(ARRAY) and len(shape_of(content) or ()) == 3

    def read(self, content: bytes) -> PhysicalMap:
        """The map, without layer ids; -1 in the slots that a GPU has less than the fullest one."""
        pattern = array_of(content, "pattern", kinds="iub")
        if pattern.ndim != 3 or not pattern.size:
            raise ValueError(f"the pattern must be [GPUs, MoE layers, experts], found shape {pattern.shape}")
        for gpu, layer, expert in np.argwhere((pattern < 0) | (pattern > 1))[:1]:
            raise ValueError(
                f"GPU {gpu}, layer {layer}, expert {expert}: 0 or 1, found {pattern[gpu, layer, expert]}"
            )
        held = pattern.transpose(1, 0, 2).astype(bool)
        most = max(int(held.sum(axis=2).max()), 1)
        if held.shape[0] * held.shape[1] * most > MOST_SLOTS:
            raise ValueError(f"the pattern has more than {MOST_SLOTS} slots")
        chosen = np.argsort(~held, axis=2, kind="stable")[:, :, :most]
        rows = np.where(np.take_along_axis(held, chosen, axis=2), chosen, -1)
        return PhysicalMap(rows.reshape(len(held), -1), experts=held.shape[2], gpus=held.shape[1])

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
        return of_ordinals(self.read(content), gpus=gpus, nodes=nodes, layer_ids=layer_ids, model=model)

    def notes(self, placement: Placement | None, path: str) -> Notes:
        """The configuration of omni-infer that names the pattern."""
        if placement is not None and (broken := self.check(placement)):
            raise ValueError(broken)
        gpus = "<GPUs>" if placement is None else placement.gpus
        layers = "<MoE layers>" if placement is None else len(placement.layer_ids)
        copies = "<most copies of an expert>" if placement is None else int(placement.hosts.sum(axis=2).max())
        return Notes(
            "omni-infer, omni_placement",
            config=(
                f"# config.yaml, named by omni_placement_config_path beside use_omni_placement: true\n"
                f"pattern_path: {path}\nmax_moe_layer_num: {layers}\n"
                f"max_redundant_per_expert: {copies}\nenable_dynamic: False\n"
            ),
            remarks=(
                f"World size must be {gpus}: the shape of the array is compared with world size, layers and experts.",
                "The placement must hold all MoE layers: they are told by order.",
            ),
        )
