"""Summaries of a sweep as a table for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from moeopt.bench_measures import SHIFT, MethodSummary
from moeopt.tables import number

__all__ = ["summary_table"]

NARROWEST = 12  # columns of the terminal for a name


def summary_table(found: Sequence[MethodSummary], *, title: str) -> Table:
    """A line a method; long names are folded, numbers are not. `title` may hold markup."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 0))
    held_out = any(one.held_out is not None for one in found)
    names = ["method", "runs", "proved", "share", "vs linear"]
    for name in [*names, *(["held-out"] if held_out else []), "MaxVio", "s"]:
        if name == "method":
            table.add_column(name, overflow="fold", min_width=NARROWEST)
        else:
            table.add_column(name, justify="right", no_wrap=True)
    for one in found:
        table.add_row(
            escape(one.method),
            str(one.runs) if not one.failed else f"{one.runs - one.failed} of {one.runs}",
            f"{one.optimal}/{one.layers}",
            number(one.share, ".1%"),
            _change(one.reduction),
            *([_change(one.held_out)] if held_out else []),
            number(one.max_violation, ".2f"),
            number(one.seconds, ".2f"),
        )
    table.caption = (
        "proved: layers proved optimal; share: certified share of the attainable saving by the best bound of any "
        "method, mean over layers; "
        f"s: geometric mean of the runs, shifted by {SHIFT:g} s"
        + ("; runs: those with an answer, of all" if any(one.failed for one in found) else "")
    )
    table.caption_justify = "left"
    return table


def _change(saving: float | None) -> str:
    return number(None if saving is None else 0.0 - saving, "+.1%")
