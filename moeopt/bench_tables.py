"""Summaries of a sweep as a table for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from moeopt.bench_measures import MethodSummary
from moeopt.tables import number

__all__ = ["summary_table"]


def summary_table(found: Sequence[MethodSummary]) -> Table:
    """A line a method."""
    table = Table(title="Sweep", title_justify="left")
    held_out = any(one.held_out is not None for one in found)
    names = ["method", "runs", "proved", "share", "vs linear"]
    for name in [*names, *(["held-out"] if held_out else []), "MaxVio", "s"]:
        table.add_column(name, justify="left" if name == "method" else "right", no_wrap=True)
    for one in found:
        table.add_row(
            one.method,
            str(one.runs) if not one.failed else f"{one.runs}, {one.failed} failed",
            f"{one.optimal}/{one.layers}",
            number(one.share, ".1%"),
            _change(one.reduction),
            *([_change(one.held_out)] if held_out else []),
            number(one.max_violation, ".2f"),
            number(one.seconds, ".2f"),
        )
    table.caption = (
        "proved: layers proved optimal; share: certified share of the attainable saving by the best bound of any "
        "method, mean over layers; s: shifted geometric mean of the runs"
    )
    table.caption_justify = "left"
    return table


def _change(saving: float | None) -> str:
    return number(None if saving is None else 0.0 - saving, "+.1%")
