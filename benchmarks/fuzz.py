"""Fuzzing of the readers: `python -m benchmarks.fuzz TARGET --runs N`. Any content ends in an answer or a ValueError.

| target | reads |
|---|---|
| parquet, npz, npy, loads, torch, sglang, logits, columns, moe-balance | binary files |
| safetensors, partial, eplb, omniplacement | binary files |
| routes, answers, yaml, map, manifest | text |

Inputs grow out of a small valid file of the format, and out of those in `--corpus`, where libFuzzer keeps what reaches
new code. Members of archives are mutated with their checksums mended in every other run, else no change would get past
them. An input that ends in anything but a ValueError, takes 5 seconds or 2 GiB is a crash: it is kept, and exit code 1.
The engine is atheris (PyPI, Apache-2.0), which follows the branches of moeopt; `--engine builtin` mutates at random.
"""

import io
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

LIMIT = 1 << 26  # bytes that a reader may unpack
LONGEST = 1 << 15  # bytes of an input
TIMEOUT, SPACE = 5, 2 << 30  # seconds and bytes of one input
MISSING = "atheris is not installed: pip install atheris, or choose --engine builtin"
INTERESTING = (
    0,
    1,
    127,
    128,
    255,
    256,
    32_767,
    65_535,
    1 << 31,
    (1 << 32) - 1,
    1 << 46,
    (1 << 63) - 1,
    (1 << 64) - 1,
)
Read = Callable[[Path], object]


@dataclass(frozen=True)
class Target:
    """A reader and the valid files it starts from, by their names in tests/hostile_files.py."""

    reader: Callable[[], Read]
    seeds: tuple[str, ...]
    archive: bool = False


@dataclass(frozen=True)
class Row:
    """What came of a run; `crash` is the file of the input that ended it, or empty."""

    target: str
    engine: str
    runs: int
    seconds: float
    seed: int
    crash: str = ""
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, with runs per second."""
        return {**asdict(self), "per_second": round(self.runs / max(self.seconds, 1e-9), 1)}


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
    from tests.hostile_files import TRACE, valid_files

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


def mended(content: bytes) -> bytes:
    """An archive whose list of members holds the checksums of what they store; other content as it is."""
    found = bytearray(content)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            at = archive.start_dir
            for info in archive.infolist():
                if content[at : at + 4] != b"PK\1\2":
                    break
                lengths = [int.from_bytes(content[at + i : at + i + 2], "little") for i in (28, 30, 32)]
                begin = (
                    info.header_offset
                    + 30
                    + sum(
                        int.from_bytes(content[info.header_offset + i : info.header_offset + i + 2], "little")
                        for i in (26, 28)
                    )
                )
                if info.compress_type == zipfile.ZIP_STORED:
                    check = zlib.crc32(content[begin : begin + info.compress_size])
                    found[at + 16 : at + 20] = check.to_bytes(4, "little")
                at += 46 + sum(lengths)
    except (zipfile.BadZipFile, RuntimeError, ValueError, LookupError, OverflowError, OSError):
        return content  # what is wrong with it, the reader is to say
    return bytes(found)


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """The content with one to six changes: bits, bytes, numbers, blocks moved, doubled or left out, the end cut off."""
    found = bytearray(content)
    draw = random.Random(int(rng.integers(1 << 63)))
    for _ in range(draw.randint(1, 6)):
        at = draw.randrange(len(found) + 1)
        size = min(draw.choice((1, 1, 2, 4, 8, 16, 64)), len(found) - at)
        match draw.randrange(8):
            case 0 if at < len(found):
                found[at] ^= 1 << draw.randrange(8)
            case 1 if at < len(found):
                found[at] = draw.randrange(256)
            case 2:
                wide = draw.choice((1, 2, 4, 8))
                number = draw.choice(INTERESTING) & ((1 << (8 * wide)) - 1)
                found[at : at + wide] = number.to_bytes(wide, draw.choice(("little", "big")))
            case 3:
                del found[at : at + size]
            case 4:
                found[at:at] = found[at : at + size]
            case 5:
                to = draw.randrange(len(found) + 1)
                found[to : to + size] = found[at : at + size]
            case 6:
                found[at:at] = draw.randbytes(draw.choice((1, 2, 8)))
            case 7 if draw.random() < 0.2:
                del found[at:]
    return bytes(found[:LONGEST])


@cache
def _scratch() -> Path:
    """Memory if there is a file system of it, else where temporary files go."""
    memory = Path("/dev/shm")
    return memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())


def _tried(target: str, path: Path) -> Callable[[bytes], None]:
    """A function that writes a content to `path` and reads it; it raises what is no ValueError."""
    read, archive = TARGETS[target].reader(), TARGETS[target].archive

    def tried(content: bytes) -> None:
        if archive and zlib.crc32(content) & 1:
            content = mended(content)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(handle, content)
        finally:
            os.close(handle)
        with suppress(ValueError):
            read(path)

    return tried


def _followed(target: str, path: Path, count: Any, *, options: list[str]) -> None:
    """The child of atheris; libFuzzer ends the process."""
    atheris = import_module("atheris")
    with atheris.instrument_imports(include=["moeopt"]):
        tried = _tried(target, path)
        tried(b"")  # what readers import when they read

    def one(content: bytes) -> None:
        count.value += 1
        tried(content)

    atheris.Setup([sys.argv[0], *options], one)
    atheris.Fuzz()


def _drawn(
    target: str, path: Path, count: Any, *, runs: int, seconds: float, seed: int, corpus: Path
) -> None:
    """The child of the built-in engine."""
    resource.setrlimit(resource.RLIMIT_AS, (SPACE, SPACE))
    starts = [file.read_bytes() for file in sorted(corpus.iterdir())]
    rng = np.random.default_rng(seed)
    tried = _tried(target, path)
    ends = time.monotonic() + seconds
    while count.value < runs and time.monotonic() < ends:
        content = mutated(starts[int(rng.integers(len(starts)))], rng)
        count.value += 1
        signal.alarm(TIMEOUT)
        tried(content)
        signal.alarm(0)


def fuzz(
    target: str,
    *,
    runs: int,
    seconds: float = 86_400,
    engine: str = "atheris",
    corpus: Path | None = None,
    seed: int = 0,
) -> Row:
    """Run a target in a process of its own; ValueError for an unknown target or engine, and where atheris is missing.

    `corpus`: folder of inputs to start from besides the valid files, where new ones and crashes are kept.
    """
    if target not in TARGETS:
        raise ValueError(f"no target is named {target!r}; known are {', '.join(TARGETS)}")
    if engine not in ("atheris", "builtin"):
        raise ValueError(f"the engine must be atheris or builtin, found {engine!r}")
    if engine == "atheris" and find_spec("atheris") is None:
        raise ValueError(MISSING)
    with tempfile.TemporaryDirectory(dir=_scratch()) as scratch:
        kept = Path(scratch) / "corpus" if corpus is None else corpus
        kept.mkdir(parents=True, exist_ok=True)
        for number, content in enumerate(seeds(target)):
            (kept / f"valid-{number}").write_bytes(content)
        path = Path(scratch) / "input"
        context = get_context("spawn")
        count = context.Value("q", 0, lock=False)
        if engine == "atheris":
            options = [
                *(
                    f"-runs={runs}",
                    f"-max_total_time={int(seconds)}",
                    f"-seed={seed + 1}",
                    f"-max_len={LONGEST}",
                ),
                *(f"-timeout={TIMEOUT}", f"-rss_limit_mb={SPACE >> 20}", f"-artifact_prefix={scratch}/"),
                *("-verbosity=0", str(kept)),
            ]
            child = context.Process(target=_followed, args=(target, path, count), kwargs={"options": options})
        else:
            given = {"runs": runs, "seconds": seconds, "seed": seed, "corpus": kept}
            child = context.Process(target=_drawn, args=(target, path, count), kwargs=given)
        begun = time.monotonic()
        child.start()
        child.join()
        spent = time.monotonic() - begun
        if child.exitcode == 0:
            return Row(target, engine, count.value, round(spent, 1), seed)
        crash = _crash(target, path, corpus)
        return Row(
            target, engine, count.value, round(spent, 1), seed, str(crash), f"exit code {child.exitcode}"
        )


def _crash(target: str, path: Path, corpus: Path | None) -> Path:
    """The input that ended a run, where it stays: with the corpus, or in the working folder."""
    content = path.read_bytes() if path.exists() else b""
    crash = (corpus or Path()) / f"crash-{target}-{zlib.crc32(content):08x}"
    crash.write_bytes(content)
    return crash


def replayed(target: str, crash: Path) -> None:
    """Read one kept input again, in this process; it raises what it raises."""
    TARGETS[target].reader()(crash)


def _chosen(target: str) -> Iterator[str]:
    yield from TARGETS if target == "all" else (target,)


def command(
    target: Annotated[str, typer.Argument(help=f"all, or one of {', '.join(TARGETS)}")],
    runs: Annotated[int, typer.Option(min=1, help="Inputs of each target.")] = 10_000,
    seconds: Annotated[float, typer.Option(min=0, help="Time of each target at most.")] = 86_400,
    corpus: Annotated[Path | None, typer.Option(help="Folder of inputs, a folder a target below it.")] = None,
    engine: Annotated[str, typer.Option(help="atheris or builtin.")] = "atheris",
    seed: Annotated[int, typer.Option(min=0, help="Of the mutations.")] = 0,
) -> None:
    """Fuzz a reader; a row of JSON a target; exit code 1 when an input crashed it, 2 for bad words."""
    crashed = False
    try:
        for name in _chosen(target):
            folder = None if corpus is None else corpus / name
            row = fuzz(name, runs=runs, seconds=seconds, engine=engine, corpus=folder, seed=seed)
            typer.echo(json.dumps(row.to_dict()))
            crashed |= bool(row.crash)
    except ValueError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error
    raise typer.Exit(1 if crashed else 0)


if __name__ == "__main__":
    typer.run(command)
