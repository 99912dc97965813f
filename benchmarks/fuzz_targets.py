"""What is fuzzed: the readers, and the valid files that inputs grow out of.

Nothing here imports moeopt before a reader is asked for: atheris follows only what it sees imported.
"""

import io
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

LIMIT = 1 << 26  # bytes that a reader may unpack
Read = Callable[[Path], object]


@dataclass(frozen=True)
class Target:
    """A reader and the valid files it starts from, by their names in tests/hostile/valid.py."""

    reader: Callable[[], Read]
    seeds: tuple[str, ...]
    archive: bool = False


def _traffic(module: str, name: str, **given: Any) -> Callable[[], Read]:
    """A reader of `moeopt.readers`, asked whether it accepts the file and to read it in any case."""

    def made() -> Read:
        from moeopt.supplement import Supplement

        reader = getattr(import_module(f"moeopt.readers.{module}"), name)(limit=LIMIT)
        supplement = Supplement(**given)

        def read(path: Path) -> None:
            with path.open("rb") as file:
                reader.accepts(path, file.read(64))
            reader.read(path, supplement)

        return read

    return made


def _engine(name: str) -> Callable[[], Read]:
    """An engine's map."""

    def made() -> Read:
        from moeopt import registry

        engine = registry.named_engine(name)

        def read(path: Path) -> None:
            content = path.read_bytes()
            engine.accepts(content)
            engine.read(content)

        return read

    return made


def _torch() -> Read:
    from moeopt.torch_archive import opening, read_archive

    def read(path: Path) -> None:
        opening(path)
        read_archive(path, limit=LIMIT)

    return read


def _safetensors() -> Read:
    from moeopt.safetensors import read_tensors

    return lambda path: read_tensors(path, limit=LIMIT)


def _partial() -> Read:
    from moeopt.partials import read_streamed

    return read_streamed


def _manifest() -> Read:
    from moeopt.manifest import read_manifest

    return read_manifest


GIVEN: dict[str, Any] = {"n_experts": 4, "layer_ids": (0, 1), "top_k": 2}
TARGETS = {
    "parquet": Target(_traffic("parquet", "Parquet"), ("parquet", "parquet, plain")),
    "npz": Target(_traffic("npz", "Npz"), ("npz",), archive=True),
    "npy": Target(_traffic("routed_experts", "RoutedExperts", **GIVEN), ("routed experts",)),
    "loads": Target(_traffic("loads", "Loads"), ("loads, npy", "loads, npz", "loads, pt"), archive=True),
    "torch": Target(_torch, ("SGLang stat", "SGLang per_pass", "SGLang per_token"), archive=True),
    "sglang": Target(
        _traffic("sglang_recorder", "SGLangRecorder"),
        ("SGLang stat", "SGLang per_pass", "SGLang per_token"),
        archive=True,
    ),
    "logits": Target(_traffic("router_outputs", "RouterOutputs", top_k=2), ("router outputs",), archive=True),
    "columns": Target(_traffic("route_table", "RouteTable", n_experts=4), ("routes, npz",), archive=True),
    "moe-balance": Target(
        _traffic("moe_balance", "MoeBalance", **GIVEN), ("moe-balance, npz",), archive=True
    ),
    "safetensors": Target(_safetensors, ("TensorRT-LLM",)),
    "partial": Target(_partial, ("partial",), archive=True),
    "eplb": Target(_engine("eplb"), ("engine eplb",), archive=True),
    "omniplacement": Target(_engine("omniplacement"), ("engine omniplacement",)),
    "routes": Target(_traffic("route_table", "RouteTable", n_experts=4), ("routes, CSV", "routes, JSONL")),
    "answers": Target(_traffic("routed_answers", "RoutedAnswers", **GIVEN), ("answers, vLLM",)),
    "yaml": Target(_engine("tensorrt-llm"), ("engine tensorrt-llm",)),
    "map": Target(_engine("sglang"), ("engine sglang",)),
    "manifest": Target(_manifest, ("manifest, addition",)),
}


def seeds(target: str) -> list[bytes]:
    """The valid files that a target starts from."""
    from tests.hostile.tiny import TRACE
    from tests.hostile.valid import valid_files

    with tempfile.TemporaryDirectory() as folder:
        valid = valid_files(Path(folder))
    found = []
    for name in TARGETS[target].seeds:
        content = _plain_parquet(TRACE) if name == "parquet, plain" else valid[name].content
        if isinstance(content, dict):
            content = content[max(content)]
        found.append(_stored(content) if TARGETS[target].archive and content.startswith(b"PK") else content)
    return found


def _plain_parquet(trace: Any) -> bytes:
    """A trace without compression and checksums, so that changes get into pages."""
    import pyarrow.parquet as pq

    from moeopt.readers.parquet import encode

    sink = io.BytesIO()
    pq.write_table(pq.read_table(io.BytesIO(encode(trace))), sink, compression="none")
    return sink.getvalue()


def _stored(content: bytes) -> bytes:
    """The archive with its members as they are."""
    sink = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(sink, "w") as new:
        for name in old.namelist():
            new.writestr(zipfile.ZipInfo(name), old.read(name))
    return sink.getvalue()
