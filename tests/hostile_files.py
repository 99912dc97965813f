"""Files that nobody should read as they are: valid ones of every format, damaged by rule, and some made with malice.

`python -m tests.hostile_files CASES` reads the cases of a JSON file one after another and prints what came of each as
a line of JSON: the worker of tests/test_hostile_files.py.
"""

from __future__ import annotations

import base64
import copy
import csv
import gc
import io
import json
import os
import resource
import signal
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from moeopt.placement import Placement
from moeopt.trace import Trace
from tests.torch_files import pickled, tensor, write_archive

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
HUGE = 10**30
Files = bytes | dict[str, bytes]  # a file, or those of a folder


@dataclass(frozen=True)
class Case:
    """A file to read; `by` names an entry of READERS, `given` its settings, `path` is in the file system's encoding."""

    name: str
    by: str
    path: str
    given: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Valid:
    """A file that is read, or a folder of files; `spare`: JSON fields that nobody reads, or whose value is free."""

    by: str
    content: Files
    given: dict[str, Any] = field(default_factory=dict)
    spare: tuple[str, ...] = ()


# --- How cases are read -----------------------------------------------------------------------------------------------


def _traffic(path: str, given: dict[str, Any]) -> None:
    from moeopt.recording import read_recording
    from moeopt.supplement import Supplement

    ids = given.get("layer_ids")
    read_recording(path, supplement=Supplement(**given | {"layer_ids": None if ids is None else tuple(ids)}))


def _addition(path: str, given: dict[str, Any]) -> None:
    from moeopt.manifest import read_manifest

    read_manifest(path).applied(TRACE)


def _running(path: str, given: dict[str, Any]) -> None:
    from moeopt.running import read_running

    read_running(path, TRACE, **given)


def _partial(path: str, given: dict[str, Any]) -> None:
    from moeopt.streamed import Streamed

    Streamed.read(path)


def _placement(path: str, given: dict[str, Any]) -> None:
    from moeopt.api import read_placement

    read_placement(path)


def _earlier(path: str, given: dict[str, Any]) -> None:
    from moeopt.resuming import known_layers

    known_layers(path, _problem())


def _instance(path: str, given: dict[str, Any]) -> None:
    from moeopt.instance import Instance

    Instance.load(path)


READERS: dict[str, Callable[[str, dict[str, Any]], None]] = {
    "traffic": _traffic,
    "addition": _addition,
    "running": _running,
    "partial": _partial,
    "placement": _placement,
    "certificate": _earlier,
    "instance": _instance,
}


# --- Valid files ------------------------------------------------------------------------------------------------------


def npy(array: np.ndarray[Any, Any], *, allow_pickle: bool = False) -> bytes:
    """A `.npy` file."""
    sink = io.BytesIO()
    np.save(sink, array, allow_pickle=allow_pickle)
    return sink.getvalue()


def npz(**arrays: Any) -> bytes:
    """A `.npz` archive; an array that is bytes is a member as it stands."""
    return zipped(
        {f"{name}.npy": a if isinstance(a, bytes) else npy(np.asarray(a)) for name, a in arrays.items()}
    )


def zipped(members: dict[str, bytes], *, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip archive."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return sink.getvalue()


def header(shape: str, descr: str = "'<i8'", *, content: bytes = bytes(16), version: int = 1) -> bytes:
    """A `.npy` content that declares shape and type, as text of Python."""
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + len(text).to_bytes(2 * version, "little") + text + content


def torch_file(content: Any) -> bytes:
    """What `torch.save` writes."""
    return archived(*pickled(content))


def archived(program: bytes, storages: dict[str, bytes] | None = None, **changes: Any) -> bytes:
    """A torch archive of any pickle."""
    sink = io.BytesIO()
    write_archive(sink, program, storages or {}, **changes)  # type: ignore[arg-type]
    return sink.getvalue()


def tensors(**counts: Any) -> bytes:
    """A file of safetensors, of int64."""
    about: dict[str, Any] = {}
    content = b""
    for name, count in counts.items():
        array = np.array(count, np.int64)
        begin, content = len(content), content + array.tobytes()
        about[name] = {"dtype": "I64", "shape": list(array.shape), "data_offsets": [begin, len(content)]}
    return framed(about, content)


def framed(about: Any, content: bytes = b"", *, length: int | None = None) -> bytes:
    """A file of safetensors with any header."""
    text = about if isinstance(about, bytes) else json.dumps(about).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + content


def encoded(document: Any) -> bytes:
    return json.dumps(document).encode()


def lines(*documents: Any) -> bytes:
    return b"".join(encoded(document) + b"\n" for document in documents)


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


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
    return {"records": list(records), "last_physical_to_logical_map": MAP, **more}


@cache
def _problem() -> Any:
    from moeopt.cluster import Cluster
    from moeopt.problem import Problem

    return Problem.from_trace(TRACE, Cluster.of(gpus=2, slots=2))


def _certificate() -> dict[str, Any]:
    """Of bounds alone, unproved: it is read, not verified."""
    from moeopt.certificate import Certificate, Proof

    problem = _problem()
    proofs = tuple(
        Proof(layer, problem.layer(index).workload.digest, "counting", 0, numbers={"a": 1})
        for index, layer in enumerate(LAYERS)
    )
    return Certificate(problem.fields(), proofs, PLACED).to_dict()


def _kept(folder: Path) -> bytes:
    """An instance of a problem."""
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


def _partial_file(folder: Path) -> bytes:
    from moeopt.recording import write_trace
    from moeopt.streaming import stream_workload

    write_trace(TRACE, folder / "trace.parquet")
    stream_workload(folder / "trace.parquet").write(folder / "partial")
    return (folder / "partial").read_bytes()


def valid_files(folder: Path) -> dict[str, Valid]:
    """A small file of every format, by name; `folder` for what only writes to paths."""
    from importlib.metadata import entry_points

    from moeopt import registry
    from moeopt.readers.parquet import encode
    from moeopt.workload import Workload

    parquet = encode(TRACE)
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
    engine_files = {
        f"engine {name}": Valid("running", registry.named_engine(name).dump(PLACED), {"gpus": 2})
        for name in sorted(entry_points(group=registry.ENGINES).names)
    }
    engine_files["engine plain"] = Valid(
        "running", registry.named_engine("plain").dump(PLACED), {"gpus": 2}, spare=("model", "nodes", "slots")
    )
    engine_files["engine vllm"] = Valid(
        "running", registry.named_engine("vllm").dump(PLACED), {"gpus": 2}, spare=("model", "nodes")
    )
    placement = PLACED.to_dict()
    return {
        "parquet": Valid("traffic", parquet),
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
        "manifest, addition": Valid("addition", b"request,family,prompt_tokens\n5,x,1\n6,y,1\n"),
        **engine_files,
        "partial": Valid("partial", _partial_file(folder)),
        "placement": Valid("placement", encoded(placement), spare=("model",)),
        "placement in use": Valid("running", encoded(placement), {"gpus": 2}, spare=("model", "slots")),
        "certificate": Valid(
            "certificate",
            encoded(_certificate()),
            spare=("seal", "numbers", "bound", "cost", "optimal", "a", "kind", "model", "slots", "placement"),
        ),
        "instance": Valid(
            "instance",
            _kept(folder),
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


# --- Damage by rule ---------------------------------------------------------------------------------------------------

WRONG: dict[type, tuple[Any, ...]] = {
    str: (None, 7),
    bool: (None, 2),
    int: (-1, 0.5, HUGE, "x", True),
    float: ("x", None),
    list: ({}, "x", [[[]]], [-7]),
    dict: ([], None),
    type(None): (),
}
CUTS = (
    "empty",
    "cut at 1/4",
    "cut at 2/4",
    "cut at 3/4",
    "zeros from the middle on",
    "0xff from the middle on",
)


def _damaged(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Damage that needs no knowledge of the format."""
    middle = len(content) // 2
    yield "empty", b""
    for part in (1, 2, 3):
        yield f"cut at {part}/4", content[: len(content) * part // 4]
    yield "zeros from the middle on", content[:middle] + bytes(len(content) - middle)
    yield "0xff from the middle on", content[:middle] + b"\xff" * (len(content) - middle)
    if b"\0" not in content:
        text = content.decode()
        yield "in UTF-16", text.encode("utf-16")
        yield "in Latin-1", text.replace("x", "\xe9").replace(":", ":\xe9", 1).encode("latin-1")
        yield "a NUL byte in the middle", content[:middle] + b"\0" + content[middle:]
        if content.startswith((b"{", b"[")):
            yield "behind a BOM in UTF-16", b"\xfe\xff" + content
            yield "twice on one line", content.strip() + content.strip()


def _places(document: Any, depth: int = 0) -> Iterator[tuple[Any, ...]]:
    """Paths to the values of a document, of a list's to the first."""
    if isinstance(document, dict) and depth < 6:
        inner: list[tuple[Any, Any]] = [*document.items()]
    else:
        inner = [(0, document[0])] if isinstance(document, list) and document and depth < 6 else []
    for key, value in inner:
        yield (key,)
        yield from ((key, *rest) for rest in _places(value, depth + 1))


def _changed(document: Any, place: tuple[Any, ...], change: Callable[[Any, Any], None]) -> Any:
    """A copy with the container of a value changed."""
    copied = copy.deepcopy(document)
    container = copied
    for key in place[:-1]:
        container = container[key]
    change(container, place[-1])
    return copied


def _set(value: Any) -> Callable[[Any, Any], None]:
    def change(container: Any, key: Any) -> None:
        container[key] = value

    return change


def _unset(container: Any, key: Any) -> None:
    del container[key]


def _documents(document: Any, spare: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """The document with one value after another missing or wrong."""
    for place in _places(document):
        if set(place) & set(spare):
            continue
        where = "/".join(map(str, place))
        value = document
        for key in place:
            value = value[key]
        if isinstance(place[-1], str):
            yield f"{where} missing", _changed(document, place, _unset)
        for wrong in WRONG[type(value)]:
            yield f"{where} = {wrong!r:.20}", _changed(document, place, _set(wrong))


def _arrays(name: str, arrays: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The arrays with one after another missing or wrong."""
    for key, value in arrays.items():
        array = np.asarray(value)
        others = {other: held for other, held in arrays.items() if other != key}
        yield f"{key} missing", others
        yield f"{key} pickled", others | {key: npy(np.array([None, {}]), allow_pickle=True)}
        yield f"{key} of more axes", others | {key: array[None, None, None]}
        yield f"{key} as records", others | {key: np.zeros(array.shape, [("a", "i4"), ("b", "f4")])}
        yield f"{key} as dates", others | {key: np.zeros(array.shape, "M8[s]")}
        yield f"{key} complex", others | {key: np.zeros(array.shape, complex)}
        yield f"{key} with a lying header", others | {key: header("(1000000, 1000000)")}
        yield f"{key} without its end", others | {key: npy(array)[:-1]}
        if array.dtype.kind in "iuf":
            floats = np.full(array.shape, np.nan, np.float32)
            yield f"{key} of NaN", others | {key: floats}
            yield f"{key} infinite", others | {key: np.full(array.shape, np.inf)}
            if array.dtype.kind != "f":
                yield f"{key} negative", others | {key: np.full(array.shape, -7)}
                yield f"{key} of 2^40", others | {key: np.full(array.shape, 1 << 40)}


ARRAYS_OF: dict[str, dict[str, Any]] = {
    "npz": ARRAYS,
    "loads, npz": {"code": LOADS, "math": LOADS},
    "router outputs": {"router_logits": LOGITS, "attention_mask": MASK},
    "moe-balance, npz": {"routed_experts": ROUTED, "prompt_token_ids": np.arange(2)},
}
TORCH: dict[str, dict[str, Any]] = {
    "SGLang stat": STAT,
    "SGLang per_pass": dumped(PASS),
    "SGLang per_token": dumped(TOKENS),
}
FINE = {  # what is still a valid file of some kind, or damage to what nobody reads
    "npz": ("n_experts of more axes",),
    "loads, npz": ("missing", "of 2^40"),
    "loads, JSON": ("in Latin-1",),  # which has no other letters
    "router outputs": ("attention_mask missing",),
    "routes, JSONL": ("cut at",),  # behind a line
    "moe-balance, JSONL": ("origin_rows/0 = -1", "origin_rows/0 = 0.5"),
    "moe-balance, npz": tuple(
        f"prompt_token_ids {how}"
        for how in ("missing", "of more axes", "of NaN", "infinite", "negative", "of 2^40")
    ),
    "answers, vLLM": ("cut at 2/4", "usage missing", "usage = ", "tokens missing"),
    "answers, SGLang": ("tokens missing",),
    "SGLang stat": ("rank missing", "rank = "),
    "SGLang per_pass": ("gatherer_key missing",),
    "SGLang per_token": ("gatherer_key missing",),
    "SGLang folder": ("a_0.pt missing", "a_1.pt missing"),
    "TensorRT-LLM": ("rank1.safetensors missing",),
    "engine vllm-proposed-map": ("in Latin-1",),
    "certificate": ("= True", "family_weights missing", "load_tolerance missing", "0/layer = "),
    "workload": ("layer_ids/0 = -1",),  # ids of layers are numbers that ascend, no more
    "workload of loads": ("layer_ids/0 = -1",),
    "placement": ("slots = ", "layer_ids/0 = "),  # stated, not judged
    "instance": ("lower/0 = None", "upper/0 = None"),
}


class Folder:
    """Where cases are written, each under a name of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cases: list[Case] = []

    def add(self, name: str, by: str, content: Files, given: dict[str, Any] | None = None) -> Path:
        """Write a case; the path of its file, of a manifest that of the table."""
        path = self.path / f"{len(self.cases):04}"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.mkdir()
            for file, held in content.items():
                (path / file).write_bytes(held)
            if first := [file for file in content if file.startswith("m.")]:
                path = path / first[0]
        self.at(name, by, path, given)
        return path

    def at(self, name: str, by: str, path: Path, given: dict[str, Any] | None = None) -> None:
        """A case of what is there already."""
        self.cases.append(Case(name, by, str(path), given or {}))


def malformed(path: Path) -> list[Case]:
    """The valid files, damaged; written to a folder."""
    folder = Folder(path)
    scratch = path / "scratch"
    scratch.mkdir()
    for name, valid in valid_files(scratch).items():
        for how, content in _all_damage(name, valid):
            if not any(fine in how for fine in FINE.get(name, ())):
                folder.add(f"{name}: {how}", valid.by, content, valid.given)
    return folder.cases


def _all_damage(name: str, valid: Valid) -> Iterator[tuple[str, Files]]:
    if isinstance(valid.content, dict):
        for file, content in valid.content.items():
            for how, damaged in _damaged(content) if file.startswith("m") else [*_damaged(content)][:4]:
                yield f"{file} {how}", valid.content | {file: damaged}
            yield f"{file} missing", {other: c for other, c in valid.content.items() if other != file}
        return
    yield from _damaged(valid.content)
    if name in ARRAYS_OF:
        for how, arrays in _arrays(name, ARRAYS_OF[name]):
            yield how, npz(**arrays)
    if name in TORCH:
        for how, document in _torch_documents(TORCH[name]):
            yield how, torch_file(document)
    if valid.content.startswith((b"{", b"[")):
        try:
            document = json.loads(valid.content)
        except ValueError:
            first, rest = valid.content.split(b"\n", 1)
            for how, changed in _documents(json.loads(first), valid.spare):
                yield how, encoded(changed) + b"\n" + rest
        else:
            for how, changed in _documents(document, valid.spare):
                yield how, encoded(changed)


def _torch_documents(document: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The content with one field after another missing or wrong."""
    for place in _places(document):
        where = "/".join(map(str, place))
        if isinstance(place[-1], str):
            yield f"{where} missing", _changed(document, place, _unset)
        for wrong in (None, "x", -1, np.full((2, 3), -7), np.zeros((2, 2, 2, 2), np.float32)):
            yield f"{where} = {str(wrong)[:12]!r}", _changed(document, place, _set(wrong))


# --- Malice -----------------------------------------------------------------------------------------------------------

MANY, DEEP, BULK = 10_000, 1_000_000, 700 << 20
STEP = 1 << 20


def _zeros(size: int, kind: int = -zlib.MAX_WBITS) -> bytes:
    """So many zeros, a multiple of 1 MiB, deflated without unpacking them here: one flushed block repeats."""
    packer = zlib.compressobj(9, zlib.DEFLATED, kind)
    first = packer.compress(bytes(STEP)) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(STEP)) + packer.flush(zlib.Z_FULL_FLUSH)
    return first + block * (size // STEP - 1) + packer.flush()


def bomb(members: dict[str, bytes], *, size: int = BULK, told: int | None = None) -> bytes:
    """A zip archive whose members, each a beginning given here, go on with zeros; `told`: the size that it declares."""
    sink, listed = io.BytesIO(), b""
    for name, start in members.items():
        packed = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        data = packed.compress(start) + packed.flush(zlib.Z_FULL_FLUSH) + _zeros(size)
        check = 0  # which is wrong: to see it, somebody must unpack everything
        sizes = [len(data), len(start) + size if told is None else told]
        fields = b"".join(number.to_bytes(4, "little") for number in (check, *sizes))
        about = b"\x14\0\0\0\x08\0" + bytes(4) + fields + len(name).to_bytes(2, "little") + b"\0\0"
        where = sink.tell().to_bytes(4, "little")
        sink.write(b"PK\3\4" + about + name.encode() + data)
        listed += b"PK\1\2\x14\0" + about + bytes(10) + where + name.encode()
    count = len(members).to_bytes(2, "little")
    ends = len(listed).to_bytes(4, "little") + sink.tell().to_bytes(4, "little")
    return sink.getvalue() + listed + b"PK\5\6" + bytes(4) + count * 2 + ends + bytes(2)


def _vast(shape: tuple[int, ...], descr: str, start: bytes = b"") -> bytes:
    """The start of a `.npy` content whose array goes on with zeros."""
    return header(repr(shape), f"'{descr}'", content=start)


def _parquet(columns: dict[str, Any], **about: Any) -> bytes:
    """A table as Parquet with the metadata of a trace."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    document = {
        "format": "moeopt-trace",
        "version": 1,
        "model": "",
        "n_experts": 4,
        "families": ["all"],
        "layer_ids": [int(name[6:]) for name in columns if name.startswith("layer_")],
    } | about.pop("document", {})
    table = pa.table(columns).replace_schema_metadata({"moeopt": about.pop("text", json.dumps(document))})
    sink = io.BytesIO()
    pq.write_table(table, sink, **{"compression": "zstd", "write_statistics": False} | about)
    return sink.getvalue()


def _vast_lists(rows: int, k: int, columns: int, **options: Any) -> bytes:
    """Lists of zeros, which take no room in the file and much in memory."""
    import pyarrow as pa

    values = pa.array(np.zeros(rows * k, np.int64))
    lists = pa.ListArray.from_arrays(pa.array(np.arange(rows + 1, dtype=np.int32) * k), values)
    return _parquet({f"layer_{layer}": lists for layer in range(columns)}, **options)


def pickles(canary: str) -> dict[str, bytes]:
    """Pickles that would create a file, or take room, where they are believed."""
    touch = f"touch {canary}".encode()
    text = b"X" + len(touch).to_bytes(4, "little") + touch
    python = f"open({canary!r}, 'w')".encode()
    code = b"X" + len(python).to_bytes(4, "little") + python
    key = b"X\x0d\0\0\0logical_count"
    start = b"\x80\x02}" + key  # a dict that seems to be of SGLang
    laughs = (
        start
        + b"]q\0"
        + b"".join(
            b"](" + b"h" + bytes([i]) + (b"h" + bytes([i])) * 9 + b"eq" + bytes([i + 1]) for i in range(12)
        )
        + b"s."
    )
    return {
        "os.system": start + b"cos\nsystem\n" + text + b"\x85Rs.",
        "posix.system": start + b"cposix\nsystem\n" + text + b"\x85Rs.",
        "eval": start + b"cbuiltins\neval\n" + code + b"\x85Rs.",
        "exec by the stack": b"\x80\x04}" + key + b"\x8c\x08builtins\x8c\x04exec\x93" + code + b"\x85Rs.",
        "a call within a call": start
        + b"cbuiltins\ngetattr\ncbuiltins\n__import__\nX\x02\0\0\0os\x85RX\x06\0\0\0system\x86R"
        + text
        + b"\x85Rs.",
        "an instance": start + b"(" + text + b"ios\nsystem\ns.",
        "an object": start + b"(cos\nsystem\n" + text + b"os.",
        "a new object with a state": start + b"ccollections\nOrderedDict\n)\x81}b" + b"s.",
        "a tensor whose storage is a call": start
        + b"ctorch._utils\n_rebuild_tensor_v2\n(cos\nsystem\n"
        + text
        + b"\x85RK\0))tRs.",
        "ten to the twelfth": laughs,
        "tuples in tuples": start + b")" + b"\x85" * DEEP + b"s.",
        "lists in lists": start + b"]" * DEEP + b"a" * (DEEP - 1) + b"s.",
        "a memo of many": start
        + b"]"
        + b"".join(b"r" + i.to_bytes(4, "little") for i in range(DEEP))
        + b"s.",
        "2^40 bytes": b"\x80\x05}" + key + b"\x96" + (1 << 40).to_bytes(8, "little") + b"s.",
        "text of 4 GiB": start + b"X\xff\xff\xff\xffas.",
        "a number of 2^31 digits": start + b"\x8b\xff\xff\xff\x7fs.",
    }


class _Reduced:
    """An object whose pickle runs a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


def _of_code(folder: Folder, canary: str) -> None:
    """Files that run code where somebody believes them."""
    for name, program in pickles(canary).items():
        folder.add(f"torch archive: {name}", "traffic", archived(program))
    plain = pickles(canary)["os.system"]
    folder.add("a plain pickle", "traffic", plain)
    folder.add("a pickle of protocol 0", "traffic", f"cos\nsystem\n(S'touch {canary}'\ntR.".encode())
    folder.add("a pickle as a placement", "placement", plain)
    folder.add("a pickle in use", "running", plain, {"gpus": 2})
    objects = npy(np.array([_Reduced(f"touch {canary}")], object), allow_pickle=True)
    folder.add("npy: an object that runs a command", "traffic", objects, GIVEN)
    folder.add("npy: in use", "running", objects, {"gpus": 2})
    folder.add("npz: an object that runs a command", "traffic", npz(**ARRAYS | {"experts": objects}))
    folder.add("routes: an object that runs a command", "traffic", npz(layer=objects, expert=objects))
    folder.add("logits: an object that runs a command", "traffic", npz(router_logits=objects), GIVEN)
    folder.add("partial: an object that runs a command", "partial", npz(header=objects))
    folder.add(
        "eplb: an object that runs a command", "running", npz(physical_to_logical_map=objects), {"gpus": 2}
    )
    call = f"__import__('os').system('touch {canary}')"
    for name, by in (("routed experts", "traffic"), ("omniplacement", "running")):
        folder.add(f"{name}: a header that is a call", by, header(call), {})
        folder.add(f"{name}: a type that is a call", by, header("(2, 2, 2)", call), {})
    answer = {"choices": [{"routed_experts": b64(objects)}]}
    folder.add("an answer with a pickled array", "traffic", encoded(answer), GIVEN)
    tagged = f'num_slots: 2\ninitial_global_assignments: !!python/object/apply:os.system ["touch {canary}"]\n'
    folder.add("YAML: a tag that runs a command", "running", tagged.encode(), {"gpus": 2})


def _bombs(folder: Folder) -> None:
    """Small files that unpack to much more than memory should give them."""
    rows = BULK // 4
    experts = _vast((rows, 2, 2), "|u1")
    others = {f"{name}.npy": npy(np.asarray(value)) for name, value in ARRAYS.items() if name != "experts"}

    def with_others(content: bytes) -> bytes:
        sink = io.BytesIO(content)
        with zipfile.ZipFile(sink, "a") as archive:
            for name, held in others.items():
                archive.writestr(name, held)
        return sink.getvalue()

    zeros = bomb({"experts.npy": experts})
    folder.add("npz: a trace of 700 MiB of zeros", "traffic", with_others(zeros))
    folder.add(
        "npz: 700 MiB behind a small header", "traffic", with_others(bomb({"experts.npy": npy(CHOSEN)}))
    )
    folder.add(
        "npz: 700 MiB told as 100 bytes", "traffic", with_others(bomb({"experts.npy": experts}, told=100))
    )
    folder.add(
        "npz: 700 MiB of header", "traffic", with_others(bomb({"experts.npy": header("(", version=2)}))
    )
    matrix = _vast((2, BULK // 16), "<i8")
    folder.add("loads: 700 MiB of zeros", "traffic", bomb({"code.npy": matrix}))
    folder.add(
        "loads: 40 times 20 MiB of zeros",
        "traffic",
        bomb({f"f{i}.npy": _vast((2, (20 << 20) // 16), "<i8") for i in range(40)}, size=20 << 20),
    )
    folder.add(
        "logits: 700 MiB of zeros",
        "traffic",
        bomb({"router_logits.npy": _vast((2, BULK // 32, 4), "<f4")}),
        GIVEN,
    )
    column = _vast((BULK // 8,), "<i8")
    folder.add(
        "routes: columns of 700 MiB of zeros", "traffic", bomb({"layer.npy": column, "expert.npy": column})
    )
    folder.add(
        "moe-balance: 700 MiB of zeros",
        "traffic",
        bomb({"routed_experts.npy": _vast((BULK // 4, 2, 2), "|u1")}),
        GIVEN,
    )
    folder.add(
        "eplb: 700 MiB of zeros", "running", bomb({"physical_to_logical_map.npy": matrix}), {"gpus": 2}
    )
    folder.add("partial: 700 MiB of header", "partial", bomb({"header.npy": _vast((BULK,), "|u1")}))
    folder.add(
        "torch archive: 700 MiB deflated",
        "traffic",
        bomb({"a/data.pkl": b"\x80\x02}X\x0d\0\0\0logical_count"}),
    )
    folder.add(
        "npz: bzip2",
        "traffic",
        zipped({"experts.npy": npy(np.zeros((1 << 22, 2, 2)))}, method=zipfile.ZIP_BZIP2),
    )
    folder.add(
        "npz: 50,000 members",
        "traffic",
        zipped({f"{i}": b"" for i in range(50_000)}, method=zipfile.ZIP_STORED),
    )
    folder.add("parquet: pages of zeros", "traffic", _vast_lists(4096, 1000, 4, use_dictionary=False))
    folder.add("parquet: a dictionary of one value for 10^7", "traffic", _vast_lists(4096, 1000, 4))
    folder.add("parquet: one list of 10^7", "traffic", _vast_lists(1, 2 * 10**7, 1))
    folder.add(
        "parquet: metadata of many brackets", "traffic", _parquet({"layer_0": [[0, 1]]}, text="[" * DEEP)
    )
    families = {"families": [str(i) for i in range(DEEP)]}
    folder.add("parquet: 10^6 families", "traffic", _parquet({"layer_0": [[0, 1]]}, document=families))
    folder.add(
        "parquet: 10^4 columns",
        "traffic",
        _parquet({f"layer_{i}": [[0, 1]] for i in range(MANY)}, document={"layer_ids": [1]}),
    )
    good = _parquet({"layer_0": [[0, 1]] * 9})
    size = int.from_bytes(good[-8:-4], "little")
    for told in (0, size - 1, len(good), (1 << 32) - 1):
        folder.add(
            f"parquet: a footer of {told} bytes", "traffic", good[:-8] + told.to_bytes(4, "little") + b"PAR1"
        )


def _arrays_that_lie(folder: Folder) -> None:
    shapes = {
        "2^60 elements": f"({1 << 60},)",
        "2^60 x 2^60 elements": f"({1 << 60}, {1 << 60})",
        "nothing times 2^60": f"(0, {1 << 60}, 2)",
        "10^5000 elements": f"({'9' * 5000},)",
        "a negative axis": "(-1, 2, 2)",
        "10^4 axes": "(" + "1, " * MANY + ")",
        "many brackets": "(" * 30_000 + ")" * 30_000,
        "a long sum": "(" + "1+" * 30_000 + "1,)",
        "a long power": "(9**9**9**9,)",
    }
    for name, shape in shapes.items():
        version = 2 if len(shape) > 60_000 else 1
        content = header(shape, "'|u1'", version=version)
        folder.add(f"npy: {name}", "traffic", content, GIVEN)
        folder.add(f"npy in use: {name}", "running", content, {"gpus": 2})
    for descr in ("'<U1000000000'", "'|V2000000000'", "'<U0'", "'" + "i4," * 9999 + "i4'", "[('a', '|O')]"):
        folder.add(f"npy: of type {descr:.15}", "traffic", header("(1, 2, 2)", descr), GIVEN)
    magic = b"\x93NUMPY\x02\0"
    folder.add("npy: a header of 4 GiB", "traffic", magic + b"\xff\xff\xff\xff{", GIVEN)
    folder.add("npy in use: a header of 4 GiB", "running", magic + b"\xff\xff\xff\xff{", {"gpus": 2})
    folder.add("npy: version 255", "traffic", b"\x93NUMPY\xff\xff" + bytes(64), GIVEN)


def _texts(folder: Folder) -> None:
    """JSON, CSV and YAML that are long, deep or wide."""
    openings = {
        "pair counts": ("traffic", b'{"layers": 1, "heat": 1, "pairs": '),
        "workload": ("traffic", b'{"format": "moeopt-workload", "version": 1, "workload": '),
        "loads": ("traffic", b"[[1, "),
        "history": ("traffic", b'{"load_history": 1, "logical_expert_load": '),
        "answers": ("traffic", b'{"routed_experts": '),
        "routes": ("traffic", b'{"layer": 1, "expert": 1, "request": '),
        "moe-balance": ("traffic", b'{"batch_id": 1, "topk_experts": '),
        "manifest": ("traffic", b'{"file": '),
        "addition": ("addition", b'{"request": '),
        "document": ("running", b'{"format": '),
        "map": ("running", b'{"physical_to_logical_map": '),
        "plan": ("running", b'{"moeopt_vllm_plan": '),
        "placement": ("placement", b"{"),
        "certificate": ("certificate", b'{"format": 1, "x": '),
        "instance": ("instance", b'{"format": 1, "x": '),
    }
    for name, (by, opening) in openings.items():
        given = {"gpus": 2} if by == "running" else {}
        folder.add(f"{name}: 10^6 brackets", by, opening + b"[" * DEEP, given)
        folder.add(f"{name}: 10^6 objects in one another", by, opening + b'{"a":' * DEEP, given)
        folder.add(f"{name}: a number of 5 x 10^6 digits", by, opening + b"9" * (5 * DEEP) + b"}", given)
        folder.add(f"{name}: a text of 8 MiB", by, opening + b'"' + b"a" * (8 << 20) + b'"}', given)
    folder.add(
        "answers: base64 of 8 MiB",
        "traffic",
        encoded({"choices": [{"routed_experts": "A" * (8 << 20)}]}),
        GIVEN,
    )
    lying = b64(header(f"({1 << 40}, 2, 2)", "'|u1'"))
    folder.add(
        "answers: base64 of 2^40 tokens", "traffic", encoded({"choices": [{"routed_experts": lying}]}), GIVEN
    )
    for keys in (1, 2):
        same = b'{"physical_to_logical_map": [[0]], ' + b'"a": 1, ' * DEEP + b'"b": 2}'
        folder.add(f"map: 10^6 equal keys, {keys}", "running", same, {"gpus": keys})
    folder.add(
        "routes, CSV: a field of 50 MB",
        "traffic",
        b"request,position,layer,expert\n" + b"1" * 50_000_000,
        GIVEN,
    )
    folder.add(
        "routes, CSV: a quoted field of 10 MB", "traffic", b'layer,expert\n"' + b"1\n" * 5_000_000, GIVEN
    )
    folder.add(
        "routes, CSV: 10^6 columns", "traffic", b"layer,expert," + b"a," * DEEP + b"b\n" + b"1," * DEEP, GIVEN
    )
    folder.add(
        "routes, CSV: 10^5 expert columns",
        "traffic",
        b"layer,position," + b",".join(b"e%d" % i for i in range(99_999)) + b"\n",
        GIVEN,
    )
    folder.add(
        "routes, CSV: 3 x 10^6 empty lines", "traffic", b"layer,position,expert\n" + b"\n" * 3 * DEEP, GIVEN
    )
    folder.add("manifest, CSV: a field of 50 MB", "traffic", b"file,family\nx," + b"a" * 50_000_000)
    folder.add("manifest, CSV: 10^6 columns", "traffic", b"file," + b"family," * DEEP + b"\n")
    folder.add("manifest, CSV: 10^6 files", "traffic", b"file\n" + b"a\n" * DEEP)
    folder.add("addition: 250,000 requests", "addition", b"request,family\n" + b"5,x\n" * (DEEP // 4))
    head = b"num_slots: 2\ninitial_global_assignments:\n"
    aliases = b"a0: &a0 [x, x]\n" + b"".join(
        b"a%d: &a%d [%s]\n" % (i + 1, i + 1, b", ".join([b"*a%d" % i] * 9)) for i in range(20)
    )
    yaml = {
        "aliases of 9^20": aliases + head + b"  0: *a20\n",
        "aliases in the layers": head + b"  0: &a [0, 1]\n  1: *a\n",
        "10^6 brackets": head + b"  0: " + b"[" * DEEP,
        "10^6 spaces": head + b" " * DEEP + b"0: [0, 1]x",
        "10^6 dashes": head + b"  0:\n" + b"  - 0\n" * DEEP + b"  - x\n",
        "10^6 empty lines": head + b"\n" * DEEP + b"x",
        "250,000 layers": head + b"".join(b"  %d: [0]\n" % i for i in range(DEEP // 4)),
        "10^6 comments": head + b"# x\n" * DEEP + b"x",
        "spaces and lines in turn": head + b"  \n" * DEEP + b"  0: [0, 1",
    }
    for name, content in yaml.items():
        folder.add(f"YAML: {name}", "running", content, {"gpus": 2})


def _tensors(folder: Folder) -> None:
    """Statistics of TensorRT-LLM whose tensors lie."""
    one = {"dtype": "I64", "shape": [4], "data_offsets": [0, 32]}
    many = b'{"1_0": 1' + b', "1_1": 1' * DEEP + b"}"
    lies: dict[str, bytes] = {
        "a header of 2^63 bytes": framed(b"{}", length=1 << 63),
        "a header of 2^40 bytes": framed(b"{}", length=1 << 40),
        "a header of 10^6 brackets": framed(b'{"a":' + b"[" * DEEP),
        "10^6 equal names": framed(many),
        "10^5 tensors at one place": framed({f"1_{i}": one for i in range(100_000)}, bytes(32)),
        "tensors that overlap": framed({"1_0": one, "1_1": one | {"data_offsets": [16, 48]}}, bytes(48)),
        "tensors with a gap": framed({"1_0": one, "1_1": one | {"data_offsets": [40, 72]}}, bytes(72)),
        "an end of 2^63": framed({"1_0": one | {"data_offsets": [0, 1 << 63]}}, bytes(32)),
        "a negative begin": framed({"1_0": one | {"data_offsets": [-32, 0]}}, bytes(32)),
        "an end before its begin": framed({"1_0": one | {"data_offsets": [32, 0]}}, bytes(32)),
        "a shape of 2^60": framed({"1_0": one | {"shape": [1 << 60]}}, bytes(32)),
        "a shape of nothing times 2^45": framed(
            {"1_0": one | {"shape": [0, 1 << 45], "data_offsets": [0, 0]}}
        ),
        "a shape of 33 axes": framed({"1_0": one | {"shape": [1] * 32 + [4]}}, bytes(32)),
        "objects": framed({"1_0": one | {"dtype": "O"}}, bytes(32)),
        "a name of 10^6 letters": framed({"1" * DEEP: one}, bytes(32)),
        "a layer of ten digits": framed({"1_" + "9" * 5000: one}, bytes(32)),
    }
    for name, content in lies.items():
        folder.add(
            f"safetensors: {name}", "traffic", {"meta_info.json": encoded(META), "rank0.safetensors": content}
        )
    meta = {"num_experts": 65_536, "num_experts_per_token": 2, "ep_size": 65_536}
    folder.add(
        "TensorRT-LLM: 65536 ranks told",
        "traffic",
        {"meta_info.json": encoded(meta), "rank0.safetensors": tensors(**COUNTS)},
    )
    deep = {"meta_info.json": b"[" * DEEP, "rank0.safetensors": tensors(**COUNTS)}
    folder.add("TensorRT-LLM: 10^6 brackets", "traffic", deep)


def _file_system(folder: Folder) -> None:
    """Names and things that are no files."""
    secret = folder.path / "secret.npz"
    secret.write_bytes(npz(**ARRAYS))
    for number, name in enumerate(
        (
            "../secret.npz",
            str(secret),
            "a/../../secret.npz",
            "..",
            ".",
            "/dev/zero",
            "a.npz",
            "link",
            "m.csv",
            "fifo",
            "",
            "a\0b",
            "\\\\x\\y",
            "x" * 5000,
            "loop",
        )
    ):
        table = folder.add(
            f"manifest: file {name[:20]!r}", "traffic", {"m.csv": b"file\n" + name.encode() + b"\n"}
        )
        if number == 6:
            (table.parent / "a.npz").mkdir()
        (table.parent / "link").symlink_to(secret)
        (table.parent / "loop").symlink_to(table.parent / "loop")
        os.mkfifo(table.parent / "fifo")
    pipe, loop = folder.path / "pipe", folder.path / "loop"
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    crowd, linked = folder.path / "crowd", folder.path / "linked"
    crowd.mkdir()
    linked.mkdir()
    for number in range(MANY):
        (crowd / f"rank{number}.pt").touch()
    (linked / "a.pt").symlink_to(secret)
    ranks = folder.path / "ranks"
    ranks.mkdir()
    (ranks / "meta_info.json").symlink_to(secret)
    (ranks / "rank0.safetensors").symlink_to("/dev/zero")
    strange = Path(os.fsdecode(os.fsencode(str(folder.path)) + b"/\xff\xfe"))
    strange.write_bytes(b"{")
    odd = folder.path / "two\nlines\x1b[31m"
    odd.write_bytes(b"{")
    places = {
        "a FIFO": pipe,
        "a device": Path("/dev/zero"),
        "a device of random bytes": Path("/dev/urandom"),
        "a device of nothing": Path("/dev/null"),
        "a link to itself": loop,
        "a folder of 10^4 files": crowd,
        "a folder of links": linked,
        "a folder of links to devices": ranks,
        "a file that is not there": folder.path / "none",
        "a file below a file": secret / "a",
        "a name of 5000 letters": folder.path / ("x" * 5000),
        "a name that is no text": strange,
    }
    for name, path in places.items():
        for by in ("traffic", "addition", "running", "partial", "placement", "certificate", "instance"):
            folder.at(f"{by}: {name}", by, path, {"gpus": 2} if by == "running" else {})


def hostile(path: Path, canary: str) -> list[Case]:
    """Files made with malice; `canary` is the path that their code would create."""
    folder = Folder(path)
    for make in (_bombs, _arrays_that_lie, _texts, _tensors, _file_system):
        make(folder)
    _of_code(folder, canary)
    return folder.cases


# --- The worker -------------------------------------------------------------------------------------------------------

MOST_SPACE = 3 << 30  # bytes of address space: above it an allocation fails, instead of the machine
STUCK = 10  # seconds after which a reader that waits for something is ended


def _measured(case: Case) -> dict[str, Any]:
    """What comes of reading a case: type and text of the error, CPU seconds, growth of the memory in use, bytes."""
    gc.collect(1)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _status("VmRSS")
    begun = time.process_time()
    kind, message = "", ""
    try:
        READERS[case.by](case.path, case.given)
    except BaseException as error:
        kind, message = type(error).__name__, str(error)
    seconds = time.process_time() - begun
    return {
        "name": case.name,
        "kind": kind,
        "message": message[:4000].encode("utf-8", "surrogateescape").decode("utf-8", "replace"),
        "length": len(message) - len(case.path),
        "lines": message.count("\n") + 1,
        "named": message.startswith(case.path),
        "seconds": seconds,
        "grown": _status("VmHWM") - before,
    }


def _status(name: str) -> int:
    """A size of this process, bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(name)


def _work(cases: list[Case]) -> None:
    """Warm up on a valid file, so that no case pays for imports; then every case, a line each."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_SPACE, MOST_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    import pyarrow.csv
    import pyarrow.json
    import pyarrow.parquet  # noqa: F401

    _problem()
    for case in cases:
        signal.alarm(STUCK)
        print(json.dumps(_measured(case)), flush=True)


def cases_in(text: str) -> list[Case]:
    """The cases of a JSON text."""
    return [Case(**case) for case in json.loads(text)]


def text_of(cases: list[Case]) -> str:
    """The cases as JSON."""
    return json.dumps([asdict(case) for case in cases])


if __name__ == "__main__":
    _work(cases_in(Path(sys.argv[1]).read_text()))
