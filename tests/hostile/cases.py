"""Cases: files that a reader is to refuse, each under a name of its own."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

Files = bytes | dict[str, bytes]  # a file, or those of a folder


@dataclass(frozen=True)
class Case:
    """A file to read; `by` names an entry of READERS, `given` its settings, `path` is in the file system's encoding."""

    name: str
    by: str
    path: str
    given: dict[str, Any] = field(default_factory=dict)


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


def cases_in(text: str) -> list[Case]:
    """The cases of a JSON text."""
    return [Case(**case) for case in json.loads(text)]


def text_of(cases: list[Case]) -> str:
    """The cases as JSON."""
    return json.dumps([asdict(case) for case in cases])
