"""Traffic on disk: traces and workloads read in any known format, traces written as Parquet."""

from collections.abc import Iterator, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import ClassVar, Protocol, cast

from moeopt import storage
from moeopt.storage import PathLike
from moeopt.supplement import Supplement
from moeopt.trace import Trace
from moeopt.workload import FORMAT, Workload

GROUP = "moeopt.readers"
HEAD = 64  # bytes of a file that a reader sees before it is asked to read


class Reader(Protocol):
    """One format of traffic; packages add theirs as a class under the entry-point group `moeopt.readers`.

    `read` raises ValueError saying the rule and the value found; `read_recording` adds the name of the file.
    """

    name: ClassVar[str]

    def accepts(self, path: Path, head: bytes) -> bool:
        """Whether the content is of this format; `head`: its first 64 bytes at most, nothing of a folder."""

    def read(self, path: Path, supplement: Supplement) -> Trace | Workload:
        """The whole trace; the workload where the file does not hold token by token what was chosen.

        `supplement` holds what the user says of the file. A format that says all of it itself compares the two:
        `supplement.settled(trace)`; others ask for what they need.
        """


def read_trace(
    path: PathLike,
    *,
    n_experts: int | None = None,
    layer_ids: Sequence[int] | None = None,
    top_k: int | None = None,
    model: str | None = None,
    hidden_layers: int | None = None,
    manifest: PathLike | None = None,
) -> Trace:
    """Read a trace; its format is told from the content, never from the file's name.

    `n_experts`, `layer_ids` of the MoE layers, `top_k`, `model` and the number of `hidden_layers` are for formats that
    do not say them; those that do must agree. `manifest` names a file with the family and phase of each request: see
    `moeopt.manifest`. Raises ValueError naming the file, the rule broken and the value found, whatever is wrong with
    the file.
    """
    ids = None if layer_ids is None else tuple(layer_ids)
    found = read_recording(
        path, supplement=Supplement(n_experts, ids, top_k, model, hidden_layers), manifest=manifest
    )
    if isinstance(found, Workload):
        raise ValueError(
            f"{path}: a trace holds the experts of every token, found a workload without tokens: "
            "read it with moeopt.read_workload; of the command line, place, certify, verify and profile take it"
        )
    return found


def read_workload(path: PathLike) -> Workload:
    """The workload of a trace file, or of a file of counts alone; raises ValueError as `read_trace` does."""
    found = read_recording(path)
    return found if isinstance(found, Workload) else Workload.from_trace(found)


def read_recording(
    path: PathLike,
    *,
    supplement: Supplement | None = None,
    manifest: PathLike | None = None,
    also: Sequence[str] = (),
) -> Trace | Workload:
    """What a file or a folder of files holds, told from the content; raises ValueError as `read_trace` does.

    `also` names what else the caller takes, for the message about an unknown format.
    """
    source = Path(path)
    try:
        if source.exists() and not source.is_file() and not source.is_dir():
            raise ValueError("a trace is a regular file or a folder of files, found something else")
        found = _reader(source, also).read(source, supplement or Supplement())
    except OSError as error:
        raise ValueError(f"{source}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    if manifest is None:
        return found
    from moeopt.manifest import read_manifest

    if isinstance(found, Workload):
        raise ValueError(f"{manifest}: a manifest describes requests, {source} holds counts only")
    return read_manifest(manifest).applied(found)


def write_trace(trace: Trace, path: PathLike) -> None:
    """Write `trace` as Parquet (schema: `moeopt.readers.parquet`), the whole file or nothing.

    Raises ValueError naming the file when it cannot be written.
    """
    from moeopt.readers.parquet import encode

    storage.write_bytes(path, encode(trace))


def write_recording(found: Trace | Workload, path: PathLike) -> None:
    """Write a trace as Parquet, a workload as JSON, whole or not at all; raises ValueError as `write_trace` does."""
    if isinstance(found, Trace):
        write_trace(found, path)
    else:
        storage.write_json(path, {"format": FORMAT, "version": 1, "workload": found.to_dict()})


def _reader(source: Path, also: Sequence[str]) -> Reader:
    from moeopt.problem_files import holds_problem

    head = b""
    if not source.is_dir():
        with source.open("rb") as file:
            head = file.read(HEAD)
    names = []
    for reader in _readers():
        if reader.accepts(source, head):
            return reader
        names.append(reader.name)
    names += also
    if holds_problem(source):
        raise ValueError(
            "traffic is wanted, found the document of a problem: `moeopt verify` takes it, Problem.from_dict reads its "
            "JSON, mo.read_instance a packaged one by name"
        )
    if source.is_dir():
        raise ValueError(f"a folder must be of a known format ({', '.join(names)}), found none of them")
    raise ValueError(
        f"content must be of a known format ({', '.join(names)}), found {head[:8]!r} at the start"
    )


def _readers() -> Iterator[Reader]:
    # Ours come last: a format added by others may be a special case of Parquet or of a zip archive.
    for entry in sorted(entry_points(group=GROUP), key=lambda e: (e.value.startswith("moeopt."), e.name)):
        yield cast(Reader, entry.load()())
