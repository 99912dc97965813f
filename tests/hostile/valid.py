"""A small valid file of every format."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.hostile.cases import Files
from tests.hostile.contents import encoded, lines, npy, npz, tensors, torch_file
from tests.hostile.tiny import (
    ARRAYS,
    BATCHES,
    COUNTS,
    GIVEN,
    HISTORY,
    LAYERS,
    LOADS,
    LOGITS,
    MASK,
    META,
    PAIRS,
    PASS,
    PLACED,
    ROUTED,
    SGLANG_ANSWER,
    STAT,
    TABLE,
    TOKENS,
    TRACE,
    VLLM_ANSWER,
    dumped,
    problem,
)
from tests.torch_files import tensor


@dataclass(frozen=True)
class Valid:
    """A file that is read, or a folder of files; `spare`: JSON fields that nobody reads, or whose value is free."""

    by: str
    content: Files
    given: dict[str, Any] = field(default_factory=dict)
    spare: tuple[str, ...] = ()


def valid_files(folder: Path) -> dict[str, Valid]:
    """A small file of every format, by name; `folder` for what only writes to paths."""
    placement = encoded(PLACED.to_dict())
    return {
        **_traffic_files(),
        "manifest, addition": Valid("addition", b"request,family,prompt_tokens\n5,x,1\n6,y,1\n"),
        **_engine_files(),
        "partial": Valid("partial", _partial(folder)),
        "placement": Valid("placement", placement, spare=("model",)),
        "placement in use": Valid("running", placement, {"gpus": 2}, spare=("model", "slots")),
        "certificate": Valid(
            "certificate",
            encoded(_certificate()),
            spare=("seal", "numbers", "bound", "cost", "optimal", "a", "kind", "model", "slots", "placement"),
        ),
        "instance": Valid(
            "instance",
            _instance(folder),
            spare=(
                "formulation",
                "digest",
                "fields",
                "type",
                "reason",
                "offset",
                "least",
                "versions",
                "said",
            ),
        ),
    }


def _traffic_files() -> dict[str, Valid]:
    """What traffic is read from, and manifests of such files."""
    from moeopt.readers.parquet import encode
    from moeopt.workload import Workload

    workload = Workload.from_trace(TRACE)
    of_loads = {"top_k": 2, "loads": [[1, 1], [2, 0], [1, 1], [2, 0]]}
    only_loads = workload.to_dict() | {"layers": [of_loads, of_loads]}
    tokens = {"topk_weights": [[0.5, 0.5]] * 2}
    table = io.StringIO()
    written = csv.DictWriter(table, TABLE[0])
    written.writeheader()
    written.writerows([row | {"experts": "{} {}".format(*row["experts"])} for row in TABLE])
    flat = [(r, p, layer, e) for r in (0, 1) for p in (0, 1) for layer in LAYERS for e in (layer, 3)]
    columns = np.array(flat).T
    return {
        "parquet": Valid("traffic", encode(TRACE)),
        "npz": Valid("traffic", npz(**ARRAYS)),
        "routed experts": Valid("traffic", npy(ROUTED), GIVEN),
        "loads, npy": Valid("traffic", npy(LOADS), {"top_k": 2}),
        "loads, npz": Valid("traffic", npz(code=LOADS, math=LOADS)),
        "loads, pt": Valid("traffic", torch_file(tensor(LOADS))),
        "loads, JSON": Valid("traffic", encoded(LOADS.tolist())),
        "loads, history": Valid("traffic", encoded(HISTORY)),
        "router outputs": Valid("traffic", npz(router_logits=LOGITS, attention_mask=MASK), {"top_k": 2}),
        "routes, CSV": Valid("traffic", table.getvalue().encode(), {"n_experts": 4}),
        "routes, JSONL": Valid("traffic", lines(*TABLE), {"n_experts": 4}),
        "routes, npz": Valid(
            "traffic",
            npz(**dict(zip(("request", "position", "layer", "expert"), columns, strict=True)), n_experts=4),
        ),
        "moe-balance, JSONL": Valid("traffic", lines(*(batch | tokens for batch in BATCHES)), GIVEN),
        "moe-balance, npz": Valid(
            "traffic",
            npz(routed_experts=ROUTED, prompt_token_ids=np.arange(2), output_token_ids=np.arange(2)),
            GIVEN,
        ),
        "answers, vLLM": Valid("traffic", lines(VLLM_ANSWER, VLLM_ANSWER), GIVEN),
        "answers, SGLang": Valid("traffic", encoded([SGLANG_ANSWER]), GIVEN | {"hidden_layers": 2}),
        "SGLang stat": Valid("traffic", torch_file(STAT)),
        "SGLang per_pass": Valid("traffic", torch_file(dumped(PASS))),
        "SGLang per_token": Valid("traffic", torch_file(dumped(TOKENS))),
        "SGLang folder": Valid(
            "traffic",
            {"a_0.pt": torch_file(dumped(PASS)), "a_1.pt": torch_file(dumped(PASS | {"rank": 1}))},
        ),
        "TensorRT-LLM": Valid(
            "traffic",
            {
                "meta_info.json": encoded(META),
                "rank0.safetensors": tensors(**COUNTS),
                "rank1.safetensors": tensors(**COUNTS),
            },
        ),
        "pair counts": Valid("traffic", encoded(PAIRS), spare=("model",)),
        "workload": Valid(
            "traffic",
            encoded({"format": "moeopt-workload", "version": 1, "workload": workload.to_dict()}),
            spare=("model",),
        ),
        "workload of loads": Valid(
            "traffic",
            encoded({"format": "moeopt-workload", "version": 1, "workload": only_loads}),
            spare=("model",),
        ),
        "manifest, CSV": Valid(
            "traffic", {"m.csv": b"file,family,phase\na.npz,x,decode\na.npz,y,\n", "a.npz": npz(**ARRAYS)}
        ),
        "manifest, JSONL": Valid(
            "traffic", {"m.jsonl": lines({"file": "a.npz", "family": "x"}), "a.npz": npz(**ARRAYS)}
        ),
    }


def _engine_files() -> dict[str, Valid]:
    """The placement as every engine writes it."""
    from importlib.metadata import entry_points

    from moeopt import registry

    files = {
        f"engine {name}": Valid("running", registry.named_engine(name).dump(PLACED), {"gpus": 2})
        for name in sorted(entry_points(group=registry.ENGINES).names)
    }
    files["engine plain"] = Valid(
        "running", registry.named_engine("plain").dump(PLACED), {"gpus": 2}, spare=("model", "nodes", "slots")
    )
    files["engine vllm"] = Valid(
        "running", registry.named_engine("vllm").dump(PLACED), {"gpus": 2}, spare=("model", "nodes")
    )
    return files


def _certificate() -> dict[str, Any]:
    """Of bounds alone, unproved: it is read, not verified."""
    from moeopt.certificate import Certificate, Proof

    proofs = tuple(
        Proof(layer, problem().layer(index).workload.digest, "counting", 0, numbers={"a": 1})
        for index, layer in enumerate(LAYERS)
    )
    return Certificate(problem().fields(), proofs, PLACED).to_dict()


def _instance(folder: Path) -> bytes:
    """Of two columns and two rows."""
    from scipy.sparse import csr_array

    from moeopt.instance import Instance
    from moeopt.matrix import Matrix

    matrix = Matrix(
        cost=np.array([1.0, 2.0]),
        offset=0.0,
        lower=np.array([0.0, 0.0]),
        upper=np.array([1.0, 5.0]),
        integer=np.array([True, False]),
        rows=csr_array(np.array([[1.0, 1.0], [0.0, 2.0]])),
        row_lower=np.array([1.0, 0.0]),
        row_upper=np.array([1.0, np.inf]),
        column_names=("x", "y"),
    )
    one = Instance("Pairs()", {"type": "Problem", "digest": "", "fields": {}}, matrix, 1, {"reason": ""})
    one.save(folder / "instance")
    return (folder / "instance").read_bytes()


def _partial(folder: Path) -> bytes:
    """The trace, streamed."""
    from moeopt.recording import write_trace
    from moeopt.streaming import stream_workload

    write_trace(TRACE, folder / "trace.parquet")
    stream_workload(folder / "trace.parquet").write(folder / "partial")
    return (folder / "partial").read_bytes()
