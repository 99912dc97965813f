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

import json
import os
import resource
import signal
import sys
import tempfile
import time
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

from benchmarks.fuzz_targets import TARGETS, seeds
from benchmarks.mutations import LONGEST, mended, mutated

TIMEOUT, SPACE = 5, 2 << 30  # seconds and bytes of one input
MISSING = "atheris is not installed: pip install atheris, or choose --engine builtin"


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
