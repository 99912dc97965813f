"""Manifests: tables that say of requests what their recording does not, or which files make one recording.

CSV with a header, or JSONL with an object in every line. Columns, in any case and order; others are refused, lest a
misspelt name pass for a default:

| column | holds |
|---|---|
| request | whole number: the request of the recording |
| family | task family |
| prompt_tokens | positions below it are prefill, the others decode |
| phase | prefill or decode, of all tokens of the request; not beside prompt_tokens |
| file | path of a recording, relative to the folder of the manifest |

Without `file` a manifest is an addition to a recording: `read_trace(path, manifest=...)` asks for `request` and
`family`, a line for every request of the trace and no other. With `file` it is a recording itself: see
`moeopt.readers.joined_files`.
"""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from stat import S_ISREG
from typing import Any, TextIO

import numpy as np

from moeopt.storage import PathLike
from moeopt.trace import DECODE, PREFILL, Trace

COLUMNS = ("request", "family", "prompt_tokens", "phase", "file")
MOST = 1 << 31  # above every request and position
PHASES = {"prefill": MOST, "decode": 0}  # as tokens of the prompt
LIMIT = 64 * 2**20  # bytes of a manifest
START = 1 << 16  # bytes in which a header or the first object ends


@dataclass(frozen=True)
class Line:
    """What a line says of a request, checked; None where it says nothing.

    | field | holds |
    |---|---|
    | number | of the line, from 1 |
    | request, family, file | as the columns |
    | prompt | positions below it are prefill: 0 of a request that is all decode, 2^31 of one that is all prefill |
    """

    number: int
    request: int | None = None
    family: str | None = None
    prompt: int | None = None
    file: str | None = None


@dataclass(frozen=True)
class Manifest:
    """Lines of a manifest; `source` names it in errors."""

    lines: tuple[Line, ...]
    source: str = "manifest"

    def applied(self, trace: Trace) -> Trace:
        """The trace with the families and phases of the lines; families in order of appearance.

        Raises ValueError naming the manifest, its line and the value: a request the trace does not have, one named
        twice, a family left out; and the first request of the trace without a line.
        """
        requests, row_of = np.unique(trace.request, return_inverse=True)
        ordered = self._ordered(requests.tolist())
        families = tuple(dict.fromkeys(line.family or "" for line in self.lines))
        if len(families) > 256:
            raise ValueError(f"{self.source}: at most 256 families, found {len(families)}")
        index = {name: number for number, name in enumerate(families)}
        family = np.array([index[line.family or ""] for line in ordered])[row_of]
        prompt = np.array([-1 if line.prompt is None else line.prompt for line in ordered])[row_of]
        told = np.where(trace.position < prompt, PREFILL, DECODE)
        return replace(trace, families=families, family=family, phase=np.where(prompt < 0, trace.phase, told))

    def _ordered(self, requests: list[int]) -> list[Line]:
        """The line of each request; requests ascend."""
        known = set(requests)
        line_of: dict[int, Line] = {}
        for line in self.lines:
            where = f"{self.source}: line {line.number}"
            if line.file is not None:
                raise ValueError(f"{where}: file is of manifests that are read as recordings themselves")
            if line.request is None or line.family is None:
                raise ValueError(f"{where}: {'family' if line.request is not None else 'request'} is missing")
            if line.request not in known:
                raise ValueError(
                    f"{where}: request {line.request} is not in the recording, whose {len(requests)} requests "
                    f"lie from {requests[0]} to {requests[-1]}"
                )
            if line.request in line_of:
                other = line_of[line.request].number
                raise ValueError(f"{where}: request {line.request} has line {other} already")
            line_of[line.request] = line
        if left := sorted(known - line_of.keys()):
            raise ValueError(
                f"{self.source}: {len(left)} of {len(requests)} requests have no line, the first is {left[0]}"
            )
        return [line_of[request] for request in requests]


def read_manifest(path: PathLike) -> Manifest:
    """The manifest in a file of at most 64 MiB; ValueError names the file, the line, the rule and the value found."""
    source = Path(path)
    try:
        return Manifest(tuple(lines_of(source)), str(source))
    except OSError as error:
        raise ValueError(f"{source}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def columns_of(path: Path) -> tuple[str, ...]:
    """Names in the header, or of the first object, in lower case; ValueError for what is no table."""
    with path.open("rb") as file:
        start = file.read(START)
    line = start.decode("utf-8-sig", errors="strict" if len(start) < START else "ignore").lstrip()
    line = line.partition("\n")[0]
    if line.startswith("{"):
        document = json.loads(line)
        return tuple(str(name).lower() for name in document)
    return tuple(name.strip().lower() for name in next(csv.reader([line]), []))


def lines_of(path: Path) -> Iterator[Line]:
    """Lines of a manifest one by one; ValueError names the line."""
    about = path.stat()
    if not S_ISREG(about.st_mode):  # a pipe would be waited for, a device never ends
        raise ValueError("a manifest is a regular file, found something else")
    if (size := about.st_size) > LIMIT:
        raise ValueError(f"a manifest may have {LIMIT} bytes, found {size}")
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            first = file.read(1)
            while first.isspace():
                first = file.read(1)
            file.seek(0)
            if not first:
                raise ValueError("a manifest has lines, found none")
            rows = _objects(file) if first == "{" else _rows(file)
            for number, row in rows:
                yield _checked(number, row)
        except UnicodeDecodeError as error:
            raise ValueError(f"a manifest is text in UTF-8: {error.reason} at byte {error.start}") from error


def _rows(file: TextIO) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.reader(file, strict=True)
    try:
        header = next(row for row in reader if row)
        names = _known([name.strip() for name in header])
        for row in reader:
            if row and len(row) != len(names):
                raise ValueError(f"line {reader.line_num}: {len(names)} columns are named, found {len(row)}")
            if row:
                cells = (cell.strip() or None for cell in row)
                yield reader.line_num, dict(zip(names, cells, strict=True))
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from error


def _objects(file: TextIO) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            document = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"line {number}: not JSON: {error}") from error
        if not isinstance(document, dict):
            raise ValueError(f"line {number}: a line must be an object, found {line.strip()!r:.60}")
        try:
            names = _known(list(document))
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
        yield number, dict(zip(names, document.values(), strict=True))


def _known(names: list[str]) -> list[str]:
    found = [name.lower() for name in names]
    for name in found:
        if name not in COLUMNS:
            raise ValueError(f"column {name!r:.60} is none of {', '.join(COLUMNS)}")
        if found.count(name) > 1:
            raise ValueError(f"column {name!r} must be there once, found {found.count(name)}")
    return found


def _checked(number: int, row: dict[str, Any]) -> Line:
    try:
        prompt = _whole(row, "prompt_tokens")
        if (phase := _text(row, "phase")) is not None:
            if prompt is not None:
                raise ValueError(f"phase {phase!r} and prompt_tokens {prompt} exclude each other")
            if phase.lower() not in PHASES:
                raise ValueError(f"phase must be prefill or decode, found {phase!r:.40}")
            prompt = PHASES[phase.lower()]
        return Line(number, _whole(row, "request"), _text(row, "family"), prompt, _text(row, "file"))
    except ValueError as error:
        raise ValueError(f"line {number}: {error}") from error


def _whole(row: dict[str, Any], name: str) -> int | None:
    found = row.get(name)
    if isinstance(found, str) and found.isascii() and found.isdecimal() and len(found) <= 10:
        found = int(found)
    if found is None or (isinstance(found, int) and not isinstance(found, bool) and 0 <= found < MOST):
        return found
    raise ValueError(f"{name} must be a whole number below 2^31, found {found!r:.40}")


def _text(row: dict[str, Any], name: str) -> str | None:
    found = row.get(name)
    if found is not None and not isinstance(found, str):
        raise ValueError(f"{name} must be text, found {found!r:.40}")
    return found or None
