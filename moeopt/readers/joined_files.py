"""Recordings that a manifest joins into one trace."""

import csv
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np

from moeopt.manifest import Line, columns_of, lines_of
from moeopt.supplement import Supplement
from moeopt.trace import DECODE, PREFILL, Trace


@dataclass(frozen=True)
class Joined:
    """Reader of a manifest (see `moeopt.manifest`) with the column `file`: recordings of any known format as one trace.

    Every file keeps its own requests, which are numbered anew, file by file in the order of the lines; family,
    prompt_tokens and phase of its line hold for all of them, else its own do. A `request` column must give a file of
    one request its number. Experts, layers and top-k agree in all files. Only files in the manifest's folder or below
    are read: no absolute path, no "..", no link that leads out, no manifest within a manifest.
    `limit` bounds the bytes of the files together, and those of the experts read from them; `files` their number.
    """

    limit: int = 8 * 2**30
    files: int = 65_536

    name: ClassVar[str] = "manifest"

    def accepts(self, path: Path, head: bytes) -> bool:
        if not head or path.is_dir():
            return False
        try:
            return "file" in columns_of(path)
        except (ValueError, OSError, RecursionError, csv.Error):
            return False

    def read(self, path: Path, supplement: Supplement) -> Trace:
        lines = tuple(islice(lines_of(path), self.files + 1))
        if not 0 < len(lines) <= self.files:
            raise ValueError(f"a manifest names from 1 to {self.files} files, found {len(lines)}")
        sources = [_inside(path.parent, line) for line in lines]
        if (size := sum(source.stat().st_size for source in sources)) > self.limit:
            raise ValueError(f"the files may have {self.limit} bytes together, found {size}")
        parts: list[Trace] = []
        held = 0
        for line, source in zip(lines, sources, strict=True):
            try:
                parts.append(self._part(line, source, supplement))
                held += parts[-1].experts.nbytes
                if held > self.limit:
                    raise ValueError(f"the experts of all files may take {self.limit} bytes, found {held}")
                _alike(parts[0], parts[-1])
            except ValueError as error:
                raise ValueError(f"line {line.number}: {error}") from error
        return _joined(parts, [line.request for line in lines])

    def _part(self, line: Line, source: Path, supplement: Supplement) -> Trace:
        from moeopt.recording import read_recording

        with source.open("rb") as file:
            head = file.read(64)
        if self.accepts(source, head):
            raise ValueError(f"{line.file} is a manifest itself")
        found = read_recording(source, supplement=supplement)
        if not isinstance(found, Trace):
            raise ValueError(f"{line.file} holds counts only, a manifest joins recordings of tokens")
        if line.request is not None and (requests := len(np.unique(found.request))) > 1:
            raise ValueError(f"request {line.request} is given, {line.file} holds {requests} requests")
        if line.prompt is not None:
            found = replace(found, phase=np.where(found.position < line.prompt, PREFILL, DECODE))
        if line.family is not None:
            found = replace(found, families=(line.family,), family=np.zeros(found.n_tokens, np.uint8))
        return found


def _inside(folder: Path, line: Line) -> Path:
    """The file of a line; ValueError unless it is a regular file below the folder, links followed."""
    name = line.file
    if name is None:
        raise ValueError(f"line {line.number}: file is missing")
    parts = PurePosixPath(name).parts
    if not parts or PurePosixPath(name).is_absolute() or ".." in parts or "\\" in name or "\0" in name:
        raise ValueError(
            f'line {line.number}: file must be relative to the manifest\'s folder, without "..", found {name!r:.80}'
        )
    try:
        found = (folder / name).resolve()
    except (OSError, RuntimeError) as error:  # which of the two says so depends on the release of Python
        raise ValueError(f"line {line.number}: file {name!r:.80} is a link that leads nowhere") from error
    if not found.is_relative_to(folder.resolve()):
        raise ValueError(f"line {line.number}: file {name!r:.80} is a link out of the manifest's folder")
    if not found.is_file():
        raise ValueError(f"line {line.number}: {name!r:.80} is no file")
    return found


def _alike(first: Trace, other: Trace) -> None:
    for name in ("n_experts", "top_k", "model"):
        if getattr(first, name) != getattr(other, name):
            raise ValueError(
                f"{name} is {getattr(other, name)!r}, the first file has {getattr(first, name)!r}"
            )
    if not np.array_equal(first.layer_ids, other.layer_ids):
        raise ValueError(
            f"layers are {other.layer_ids.tolist()}, the first file has {first.layer_ids.tolist()}"
        )


def _joined(parts: list[Trace], numbers: list[int | None]) -> Trace:
    families = tuple(dict.fromkeys(name for part in parts for name in part.families))
    if len(families) > 256:
        raise ValueError(f"at most 256 families, found {len(families)}")
    if None in numbers and any(number is not None for number in numbers):
        raise ValueError("request is given of some lines: of all or of none")
    taken = [number for number in numbers if number is not None]
    if len(set(taken)) != len(taken):
        twice = next(number for number in taken if taken.count(number) > 1)
        raise ValueError(f"request {twice} is given twice")
    requests, count = [], 0
    for part, number in zip(parts, numbers, strict=True):
        own, index = np.unique(part.request, return_inverse=True)
        requests.append(index + count if number is None else np.full(part.n_tokens, number))
        count += len(own)
    index_of = [np.array([families.index(name) for name in part.families]) for part in parts]
    return replace(
        parts[0],
        experts=np.concatenate([part.experts for part in parts]),
        families=families,
        family=np.concatenate([index[part.family] for index, part in zip(index_of, parts, strict=True)]),
        request=np.concatenate(requests),
        position=np.concatenate([part.position for part in parts]),
        phase=np.concatenate([part.phase for part in parts]),
    )
