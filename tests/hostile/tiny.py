"""A tiny model: its trace, its placement, and what files of every format say of them."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from moeopt.placement import Placement
from moeopt.trace import Trace
from tests.hostile.contents import b64, npy

if TYPE_CHECKING:
    from moeopt.problem import Problem

EXPERTS, LAYERS = 4, (0, 1)
CHOSEN = np.array([[[0, 1], [2, 3]], [[2, 1], [3, 0]], [[3, 0], [0, 1]], [[1, 3], [2, 0]]], np.uint8)
TRACE = Trace(
    CHOSEN,
    EXPERTS,
    layer_ids=np.array(LAYERS, np.int32),
    families=("code", "math"),
    family=np.array([0, 1, 1, 0], np.uint8),
    request=np.array([5, 6, 6, 5], np.int32),
    position=np.array([0, 0, 1, 1], np.int32),
    phase=np.array([0, 0, 1, 1], np.uint8),
    model="tiny",
)
HOSTS = np.tile(np.array([[True, False], [False, True], [True, False], [False, True]]), (2, 1, 1))
PLACED = Placement(HOSTS, HOSTS.argmax(axis=2), 1, 2, LAYERS, "tiny")
GIVEN = {"n_experts": EXPERTS, "layer_ids": list(LAYERS), "top_k": 2}
ROUTED = np.array([[[0, 1], [2, 3]], [[1, 2], [3, 0]], [[2, 0], [1, 3]]], np.uint8)
ARRAYS: dict[str, Any] = {
    "experts": CHOSEN,
    "n_experts": EXPERTS,
    "sequence": TRACE.request,
    "position": TRACE.position,
    "phase": TRACE.phase,
    "family": TRACE.family,
    "families": np.array(TRACE.families),
    "layer_ids": TRACE.layer_ids,
    "model": "tiny",
}
LOADS = np.array([[3, 1, 2, 2], [1, 4, 2, 1]])
LOGITS = np.linspace(-1, 1, 24, dtype=np.float32).reshape(2, 3, 4)
MASK = np.ones((1, 3), np.int64)
PAIRS = {
    "model": "tiny",
    "n_layers": 2,
    "n_expert_per_layer": 4,
    "k": 2,
    "n_decode_tokens": 10,
    "layers": [
        {"layer": 3, "heat": [8, 6, 4, 2], "pairs": [[0, 1, 5, 1.04], [2, 0, 3, 0.9]]},
        {"layer": 5, "heat": [5, 5, 5, 5], "pairs": []},
    ],
}
HISTORY = {"load_history": [{"logical_expert_load": LOADS.tolist()}, {"logical_expert_load": LOADS.tolist()}]}
TABLE: list[dict[str, Any]] = [
    {
        "request": r,
        "position": p,
        "phase": "decode",
        "family": "code",
        "layer": layer,
        "experts": [layer, 2 + p],
    }
    for r in (0, 1)
    for p in (0, 1)
    for layer in LAYERS
]
BATCHES = [
    {"layer": layer, "batch_id": "a", "origin_rows": [0, 1], "topk_experts": [[0, 1], [2, 3]]}
    for layer in LAYERS
]
VLLM_ANSWER = {
    "choices": [{"routed_experts": b64(npy(ROUTED)), "family": "code"}],
    "usage": {"prompt_tokens": 2, "completion_tokens": 2},
}
SGLANG_ANSWER = {
    "meta_info": {
        "routed_experts": b64(ROUTED.astype("<i4").tobytes()),
        "prompt_tokens": 2,
        "completion_tokens": 2,
    }
}
MAP = np.array([[0, 1, 2, 3, 0, 1], [3, 2, 1, 0, 3, 2]])
STAT = {"rank": 0, "logical_count": np.arange(16, dtype=np.int32).reshape(2, 2, 4)}
PASS = {
    "forward_pass_id": 0,
    "rank": 0,
    "gatherer_key": "primary",
    "global_physical_count": np.arange(12, dtype=np.int32).reshape(2, 6),
}
SLOTS = np.full((2, 3, 8), -1, np.int32)
SLOTS[:, :, :2] = [[[0, 1], [2, 3], [4, 2]], [[0, 2], [1, 3], [5, 0]]]
TOKENS = {
    "forward_pass_id": 0,
    "rank": 0,
    "gatherer_key": "primary",
    "input_ids": np.arange(3),
    "positions": np.arange(3),
    "extend_seq_lens": np.array([3]),
    "forward_mode": 1,
    "topk_ids_of_layer": SLOTS,
}
META = {"num_experts": 4, "num_experts_per_token": 2}
COUNTS = {"100_3": [1, 2, 3, 4], "100_10": [4, 4, 1, 1]}


def dumped(*records: dict[str, Any], **more: Any) -> dict[str, Any]:
    """What SGLang dumps: its records, and the map they were made under."""
    return {"records": list(records), "last_physical_to_logical_map": MAP, **more}


@cache
def problem() -> Problem:
    """Where the trace is to be placed: two GPUs of two slots."""
    from moeopt.cluster import Cluster
    from moeopt.problem import Problem

    return Problem.from_trace(TRACE, Cluster.of(gpus=2, slots=2))
