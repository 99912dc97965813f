"""Problems on disk: the JSON document of `Problem.to_dict`, told from its content."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

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
        document = _parsed(content)
    except ValueError:
        return False
    return isinstance(document, dict) and document.get("format") == FORMAT


def read_problem(path: storage.PathLike) -> Problem:
    """The problem of a document; ValueError names the file, the rule broken and the value found."""
    source = Path(path)
    try:
        if source.exists() and not source.is_file():
            raise ValueError("a document is a regular file, found something else")
        if (size := source.stat().st_size) > storage.LIMIT:
            raise ValueError(f"a document may have {storage.LIMIT} bytes, found {size}")
        document = _parsed(source.read_bytes())
        return Problem.from_dict(storage.expect(document, kind=FORMAT))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{path}: {error}") from error


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from error
