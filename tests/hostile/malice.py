"""Files made with malice, of every kind."""

from __future__ import annotations

from pathlib import Path

from tests.hostile.bombs import add_archives, add_tables
from tests.hostile.cases import Case, Folder
from tests.hostile.lies import add_arrays, add_tensors
from tests.hostile.places import add_places
from tests.hostile.programs import add_programs
from tests.hostile.texts import add_texts


def hostile(path: Path, canary: str) -> list[Case]:
    """Files made with malice; `canary` is the path that their code would create."""
    folder = Folder(path)
    for make in (add_archives, add_tables, add_arrays, add_texts, add_tensors, add_places):
        make(folder)
    add_programs(folder, canary)
    return folder.cases
