"""Summaries of methods as cells of tables, and what their columns mean."""

from __future__ import annotations

from collections.abc import Sequence

from moeopt.bench_measures import SHIFT, MethodSummary
from moeopt.page import percent, rounded

__all__ = ["COLUMNS", "MEANING", "summary_cells", "summary_keys"]

COLUMNS = ("method", "runs", "failed", "proved", "share", "gap", "seconds", "saved", "held out", "MaxVio")
MEANING = (
    "Proved: layers proved optimal, of those with a placement. Share: certified share of the attainable saving, gap: "
    "(cost - bound) / cost; both by the best verified bound of any method, means over layers. Seconds: "
    f"geometric mean of the runs, shifted by {SHIFT:g} s. Saved: fan-out against linear on the traffic placed for; "
    "held out: the same on requests set aside. MaxVio: what the busiest GPU has above the mean, median layer. "
    "A dash: no row tells."
)


def summary_cells(found: Sequence[MethodSummary]) -> list[tuple[str, ...]]:
    """A line a method under `COLUMNS`."""
    return [
        (
            one.method,
            str(one.runs),
            str(one.failed),
            f"{one.optimal}/{one.layers}",
            percent(one.share),
            percent(one.gap, digits=2),
            rounded(one.seconds, ".3g" if (one.seconds or 0.0) < 1000 else ",.0f"),
            percent(one.reduction),
            percent(one.held_out),
            rounded(one.max_violation),
        )
        for one in found
    ]


def summary_keys(found: Sequence[MethodSummary]) -> list[tuple[float | None, ...]]:
    """The numbers that the cells stand for; None for words and dashes."""
    return [
        (
            None,
            one.runs,
            one.failed,
            one.optimal,
            one.share,
            one.gap,
            one.seconds,
            one.reduction,
            one.held_out,
            one.max_violation,
        )
        for one in found
    ]
