"""Problems on disk: the JSON document of `Problem.to_dict`, told from its first bytes."""

from __future__ import annotations

import re
from pathlib import Path

from moeopt import storage
from moeopt.problem import FORMAT, Problem

__all__ = ["holds_problem", "read_problem"]

HEAD = 64  # bytes that tell


def holds_problem(path: storage.PathLike) -> bool:
    """Whether a regular file begins as the document of a problem does; False where nothing can be read."""
    source = Path(path)
    try:
        if not source.is_file():
            return False
        with source.open("rb") as file:
            head = file.read(HEAD)
    except OSError:
        return False
    return re.match(rb'\s*\{\s*"format"\s*:\s*"%b"' % FORMAT.encode(), head) is not None


def read_problem(path: storage.PathLike) -> Problem:
    """The problem of a document; ValueError names the file, the rule broken and the value found."""
    document = storage.read_json(path, kind=FORMAT)
    try:
        return Problem.from_dict(document)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{path}: {error}") from error
