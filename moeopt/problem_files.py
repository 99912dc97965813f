"""Problems on disk: the JSON document of `Problem.to_dict`, told from its content."""

from __future__ import annotations

import json
import re
from pathlib import Path

from moeopt import storage
from moeopt.problem import FORMAT, Problem

__all__ = ["holds_problem", "read_problem"]

HEAD = 64  # bytes that tell a document that names its format first
BOM = b"\xef\xbb\xbf"  # which some editors write before UTF-8


def holds_problem(path: storage.PathLike) -> bool:
    """Whether a regular file is the document of a problem, or begins as one does; False where nothing can be read."""
    source = Path(path)
    try:
        if not source.is_file():
            return False
        size = source.stat().st_size
        with source.open("rb") as file:
            head = file.read(HEAD).removeprefix(BOM).lstrip()
            if re.match(rb'\{\s*"format"\s*:\s*"%b"' % FORMAT.encode(), head):
                return True
            while not head and (more := file.read(HEAD)):
                head = more.lstrip()
            if not head.startswith(b"{") or size > storage.LIMIT:
                return False
            content = head + file.read()
    except OSError:
        return False
    if b'"%b"' % FORMAT.encode() not in content:  # others are not parsed twice
        return False
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and document.get("format") == FORMAT


def read_problem(path: storage.PathLike) -> Problem:
    """The problem of a document; ValueError names the file, the rule broken and the value found."""
    document = storage.read_json(path, kind=FORMAT)
    try:
        return Problem.from_dict(document)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{path}: {error}") from error
