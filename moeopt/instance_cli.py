"""What `moeopt bench instance` shows and writes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from moeopt import storage
from moeopt.instance_library import (
    SOLUTIONS,
    Entry,
    named_entry,
    read_documents,
    read_solutions,
    solution_lines,
)

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["answer_of", "card", "listing", "told", "write_instance"]


def answer_of(entry: Entry) -> dict[str, Any]:
    """JSON-ready: the fields of an entry, and its status."""
    return {**entry.to_dict(), "status": entry.status}


def listing(known: Sequence[Entry]) -> Table:
    """A line an instance."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title="Instances", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("name", "size", "objective", "model", "cost", "bound"):
        right = column in ("size", "cost", "bound")
        table.add_column(
            column,
            justify="right" if right else "left",
            no_wrap=right or column == "name",
            overflow="fold",
            min_width={"objective": 8, "model": 10}.get(column),
        )
    for one in known:
        goal = ", ".join(filter(None, (one.objective, one.rules)))
        size = f"{one.experts} on {one.gpus} x {one.slots}"
        bound = "proved" if one.optimal else str(one.bound)
        table.add_row(one.name, size, goal, one.formulation, str(one.cost), bound)
    table.caption = (
        "size: experts on GPUs x slots; model: formulation of the MPS file, in whose units cost and bound are; "
        "cost: least known; bound: certified, or proved: none costs less"
    )
    table.caption_justify = "left"
    return table


def card(entry: Entry) -> list[str]:
    """What is known of one instance, line by line."""
    nodes = f" on {entry.nodes} nodes" if entry.nodes > 1 else ""
    return [
        f"{entry.name}: {entry.about}",
        f"{entry.experts} experts, top-{entry.top_k}, {entry.sets:,} expert sets; "
        f"{entry.gpus} GPUs x {entry.slots} slots{nodes}",
        f"{', '.join(filter(None, (entry.objective, entry.rules)))}; model {entry.formulation}",
        *solution_lines([entry]).splitlines(),
        f"write it: moeopt bench instance {entry.name} -o FOLDER",
    ]


def write_instance(name: str, folder: Path, *, formulation: str | None = None) -> dict[str, Any]:
    """Write problem, certificate, model and solution values into a folder, each whole or not at all.

    The model is that of `formulation`, by default of the entry's. ValueError for unknown names, a formulation that does
    not state the problem, or a folder that cannot be written.
    """
    from moeopt.mps import free_mps, full_matrix
    from moeopt.problem import Problem
    from moeopt.statements import named_formulation

    entry = named_entry(name)
    stated = named_formulation(formulation or entry.formulation)
    documents, values = read_documents(entry), read_solutions()
    matrix = full_matrix(stated, Problem.from_dict(json.loads(documents["problem"])))
    model = free_mps(matrix, name=entry.name)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: a folder is wanted, found a file")
    if not folder.exists():
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise ValueError(f"{folder}: cannot be made: {error.strerror}") from error
    contents = {f"{name}.{kind}.json": content for kind, content in documents.items()}
    contents |= {f"{name}.mps": model, SOLUTIONS: values.encode()}
    paths = {file: folder / file for file in contents}
    for file, content in contents.items():
        storage.write_bytes(paths[file], content)
    certificate, problem = (paths[f"{name}.{kind}.json"] for kind in ("certificate", "problem"))
    return {
        **answer_of(entry),
        "formulation": stated.name,
        "columns": matrix.cost.size,
        "rows": matrix.row_lower.size,
        "entries": matrix.rows.nnz,
        "files": [{"file": str(path), "bytes": len(contents[file])} for file, path in paths.items()],
        "check": f"moeopt verify {quote(str(certificate))} {quote(str(problem))}",
    }


def told(written: dict[str, Any]) -> list[str]:
    """What `write_instance` wrote, line by line."""
    from rich.markup import escape

    size = f"{written['columns']:,} columns, {written['rows']:,} rows, {written['entries']:,} entries"
    return [
        *(f"{escape(one['file'])}: {one['bytes']:,} bytes" for one in written["files"]),
        f"the model is that of {written['formulation']}: {size}",
        f"check it yourself: {escape(written['check'])}",
    ]
