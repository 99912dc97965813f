"""vLLM: a plan for the plug-in `moeopt.vllm_plugin`, since vLLM itself reads no placement file."""

import json
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
    physical_map,
    placement_of,
    settled_layers,
)
from moeopt.engine_files import distinct_layers, document_of, object_with, only_keys, table_of, whole
from moeopt.placement import Placement

MOST_REDUNDANT = 1023  # MAX_EXPERT_REDUNDANCY of eplb_state.py
MARK, VARIABLE = "moeopt_vllm_plan", "MOEOPT_VLLM_PLAN"
KEYS = (MARK, "model", "nodes", "gpus", "experts", "layer_ids", "rows")


@dataclass(frozen=True)
class VLLM:
    """`{"moeopt_vllm_plan": 1, "model", "nodes", "gpus", "experts", "layer_ids", "rows": [MoE layers][slots]}`, JSON.

    vLLM 0.33 has no option for a placement: `moeopt.vllm_plugin` puts a balancing policy in the place of the default,
    which returns these rows whenever vLLM rebalances. Rows are all MoE layers in ascending order. Source: vllm 0.33.0,
    distributed/eplb/policy/abstract.py and eplb_state.py.
    """

    name: ClassVar[str] = "vllm"
    summary: ClassVar[str] = "vLLM 0.33 by the plug-in of moeopt, JSON"
    suffix: ClassVar[str] = ".json"

    def check(self, placement: Placement, *, moe_layers: int | None = None, pad: bool = False) -> str:
        """All MoE layers, equally many slots on GPUs and layers, no more redundant ones than vLLM has room for."""
        if broken := settled_layers(placement, moe_layers=moe_layers) or equal_slots(placement, pad=pad):
            return broken
        redundant = placement.gpus * int(np.max(placement.slots)) - placement.n_experts
        return (
            f"vLLM takes {MOST_REDUNDANT} redundant experts, found {redundant}"
            if redundant > MOST_REDUNDANT
            else ""
        )

    def dump(
        self,
        placement: Placement,
        *,
        moe_layers: int | None = None,
        pad: bool = False,
        loads: ArrayLike | None = None,
    ) -> bytes:
        """JSON of the placement, layers in ascending order of their ids.

        `moe_layers`: MoE layers of the model. `pad` fills free slots as `moeopt.engine.padded` does; else they raise
        ValueError.
        """
        if broken := self.check(placement, moe_layers=moe_layers, pad=pad):
            raise ValueError(broken)
        order = np.argsort(placement.layer_ids)
        rows = physical_map(placement, pad=pad, loads=loads)[order]
        ids = [placement.layer_ids[index] for index in order]
        values = (
            1,
            placement.model,
            placement.nodes,
            placement.gpus,
            placement.n_experts,
            ids,
            rows.tolist(),
        )
        return (json.dumps(dict(zip(KEYS, values, strict=True))) + "\n").encode()

    def accepts(self, content: bytes) -> bool:
        """A JSON object with the mark of a plan."""
        return object_with(content, MARK) is not None

    def read(self, content: bytes) -> PhysicalMap:
        """The map with its layer ids, GPUs and experts."""
        placement = self.load(content)
        return PhysicalMap(
            physical_map(placement), placement.layer_ids, placement.n_experts, gpus=placement.gpus
        )

    def load(
        self, content: bytes, *, gpus: int | None = None, nodes: int | None = None, model: str | None = None
    ) -> Placement:
        """The placement; `gpus` must be the file's where given, `nodes` and `model` replace the file's."""
        document = only_keys(document_of(content), KEYS)
        whole(document[MARK], f"version {MARK}", least=1, most=1)
        if not isinstance(document["model"], str):
            raise ValueError(f"model must be text, found {document['model']!r:.40}")
        rows = table_of(document["rows"], "rows")
        ids = distinct_layers(document["layer_ids"], len(rows))
        if list(ids) != sorted(ids):
            raise ValueError(f"layer_ids must ascend, since vLLM tells layers by order, found {list(ids)}")
        return placement_of(
            rows,
            experts=whole(document["experts"], "experts", least=1),
            gpus=agreed("gpus", gpus, found=whole(document["gpus"], "gpus", least=1)),
            nodes=whole(document["nodes"], "nodes", least=1) if nodes is None else nodes,
            layer_ids=ids,
            model=document["model"] if model is None else model,
        )

    def notes(self, placement: Placement | None, path: str) -> Notes:
        """Flags of `vllm serve` and the variable that the plug-in reads."""
        gpus, _, redundant, remarks = numbers(self, placement)
        config = f'{{"num_redundant_experts": {redundant}, "policy": "default"}}'
        return Notes(
            "vllm 0.33.0",
            (
                *("vllm", "serve", "<model>", "--tensor-parallel-size", gpus, "--enable-expert-parallel"),
                *("--enable-eplb", "--eplb-config", config),
            ),
            {VARIABLE: path},
            remarks=(
                *remarks,
                f"Tensor x data parallel size must be {gpus}; moeopt must be installed where vLLM runs, on every node.",
                "Where VLLM_PLUGINS is set it must name moeopt; without the variable above the plug-in does nothing.",
                "The plan holds from the first rebalancing on, a quarter of step_interval (3000) steps after the "
                "start; later ones move nothing.",
                "A plan that does not fit stops the server as it profiles itself, before it serves.",
                "A drafter with MoE layers of its own is balanced by the same policy, which refuses its layers.",
                "ROCm: keep use_async true; without it vLLM leaves out a plan that evens loads by less than 5 %.",
            ),
        )
