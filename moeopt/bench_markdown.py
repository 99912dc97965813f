"""The report of a sweep as Markdown: a table of methods a case, where its rows come from, what not to compare."""

from __future__ import annotations

import re
from collections.abc import Sequence

from moeopt.bench_origins import mixed_origins, origins, superseded
from moeopt.bench_rows import Row
from moeopt.bench_sections import Sweep
from moeopt.bench_summaries import COLUMNS, MEANING, summary_cells
from moeopt.svg import readable

__all__ = ["case_tables", "markdown_of"]


def case_tables(rows: Sequence[Row]) -> str:
    """A table of methods a case, with a line that says what its columns mean; texts are escaped."""
    head = (COLUMNS, ("---", *["---:"] * (len(COLUMNS) - 1)))
    parts = []
    for case, part in Sweep.of(rows).parts.items():
        lines = [*head, *(list(map(_plain, cells)) for cells in summary_cells(part.methods))]
        table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
        parts.append(f"**{_plain(case)}**\n\n{table}")
    return "\n".join([*parts, f"{MEANING}\n"])


def markdown_of(rows: Sequence[Row]) -> str:
    """`case_tables`, after what not to compare and before machines, versions and stops."""
    shown = Sweep.of(rows).rows
    warned = "".join(f"> {line}\n\n" for line in [*mixed_origins(shown), *superseded(rows, shown)])
    told = "".join(f"- {name}: {_plain(text)}\n" for name, texts in origins(shown) for text in texts)
    return f"{warned}{case_tables(rows)}" + (f"\n{told}" if told else "")


def _plain(cell: str) -> str:
    """A text that Markdown leaves as it is."""
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", readable(cell))
