"""Traffic on disk: traces and workloads read in any known format, traces written as Parquet."""

from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import ClassVar, Protocol, cast

from moeopt import storage
from moeopt.storage import PathLike
from moeopt.trace import Trace
from moeopt.workload import Workload

GROUP = "moeopt.readers"
HEAD = 64  # bytes of a file that a reader sees before it is asked to read


class Reader(Protocol):
    """One format of traffic; packages add theirs as a class under the entry-point group `moeopt.readers`.

    `read` raises ValueError saying the rule and the value found; `read_recording` adds the name of the file.
    """

    name: ClassVar[str]

    def accepts(self, path: Path, head: bytes) -> bool:
        """Whether the content is of this format; `head` holds the first 64 bytes, all of a shorter file."""

    def read(self, path: Path) -> Trace | Workload:
        """The whole trace; the workload where the file does not hold token by token what was chosen."""


def read_trace(path: PathLike) -> Trace:
    """Read a trace; its format is told from the content, never from the file's name.

    Raises ValueError naming the file, the rule broken and the value found, whatever is wrong with the file.
    """
    found = read_recording(path)
    if isinstance(found, Workload):
        raise ValueError(
            f"{path}: a trace holds the experts of every token, found a workload without tokens: "
            "read it with moeopt.read_workload; of the command line, place and verify take it"
        )
    return found


def read_workload(path: PathLike) -> Workload:
    """The workload of a trace file, or of a file of counts alone; raises ValueError as `read_trace` does."""
    found = read_recording(path)
    return found if isinstance(found, Workload) else Workload.from_trace(found)


def read_recording(path: PathLike) -> Trace | Workload:
    """What a file holds, told from its content; raises ValueError as `read_trace` does."""
    source = Path(path)
    if source.is_dir():
        raise ValueError(f"{source}: a trace is a file, found a folder")
    if source.exists() and not source.is_file():
        raise ValueError(f"{source}: a trace is a regular file, found something else")
    try:
        return _reader(source).read(source)
    except OSError as error:
        raise ValueError(f"{source}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def write_trace(trace: Trace, path: PathLike) -> None:
    """Write `trace` as Parquet (schema: `moeopt.readers.parquet`), the whole file or nothing.

    Raises ValueError naming the file when it cannot be written.
    """
    from moeopt.readers.parquet import encode

    storage.write_bytes(path, encode(trace))


def _reader(source: Path) -> Reader:
    with source.open("rb") as file:
        head = file.read(HEAD)
    names = []
    for reader in _readers():
        if reader.accepts(source, head):
            return reader
        names.append(reader.name)
    raise ValueError(
        f"content must be of a known format ({', '.join(names)}), found {head[:8]!r} at the start"
    )


def _readers() -> Iterator[Reader]:
    # Ours come last: a format added by others may be a special case of Parquet or of a zip archive.
    for entry in sorted(entry_points(group=GROUP), key=lambda e: (e.value.startswith("moeopt."), e.name)):
        yield cast(Reader, entry.load()())
