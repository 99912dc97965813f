"""Tables for people."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from moeopt.comparison import Evaluation, Row


def number(value: float | None, pattern: str = ".3f") -> str:
    """A number in a cell; a dash where there is none."""
    return "–" if value is None else format(value, pattern)


def placed(summary: dict[str, Any]) -> Table:
    """Layers of a placement, per token: bounds where the objective is the fan-out, else the cut."""
    table = Table(title="Placement", title_justify="left")
    fan_out = summary["objective"] == "fan-out"
    names = ("layer", "status", "fan-out", "bound" if fan_out else "cut", "share", "load", "seconds")
    for name in names:
        table.add_column(name, justify="left" if name == "status" else "right", no_wrap=True)
    for layer in summary["layers"]:
        table.add_row(
            str(layer["layer"]),
            layer["status"],
            number(layer["fan_out"]),
            number(layer["fan_out_bound"]) if fan_out else per_token(layer["cost"], summary["cost_unit"]),
            number(layer["certified_share"], ".2%"),
            number(layer["load_max_over_mean"], ".2f"),
            number(layer["seconds"], ".2f"),
        )
    table.add_section()
    table.add_row(
        "all",
        summary["status"],
        number(summary["fan_out"]),
        number(summary["bound"])
        if fan_out
        else per_token(summary["cost"], summary["cost_unit"] * len(summary["layers"])),
        number(summary["certified_share"], ".2%"),
        "",
        number(summary["seconds"], ".2f"),
    )
    table.caption = "share: certified share of the attainable saving; load: busiest GPU over the mean"
    table.caption_justify = "left"
    return table


def compared(rows: Sequence[Row]) -> Table:
    """Methods, averaged over seeds."""
    table = Table(title="Comparison", title_justify="left")
    held_out = any(row.held_out_fan_out is not None for row in rows)
    names = ["method", "fan-out", "vs linear", *(["held-out"] if held_out else []), "share", "MaxVio", "s"]
    for name in names:
        table.add_column(name, justify="left" if name == "method" else "right", no_wrap=True)
    statuses: dict[str, list[str]] = {}
    for method in dict.fromkeys(row.method for row in rows):
        own = [row for row in rows if row.method == method]
        statuses.setdefault(", ".join(dict.fromkeys(row.status for row in own)), []).append(method)
        unseen = number(saving(mean([row.held_out_reduction for row in own])), "+.1%")
        table.add_row(
            method,
            number(mean([row.fan_out for row in own])),
            number(saving(mean([row.reduction for row in own])), "+.1%"),
            *([unseen] if held_out else []),
            number(mean([row.certified_share for row in own]), ".2%"),
            number(mean([row.max_violation for row in own])),
            number(mean([row.seconds for row in own]), ".2f"),
        )
    unseen = "; held-out: vs linear, on the requests set aside" if held_out else ""
    table.caption = (
        f"means over seeds{unseen}; share: certified share of the attainable saving; MaxVio: of the median layer\n"
        + "\n".join(f"{status}: {', '.join(methods)}" for status, methods in statuses.items())
    )
    table.caption_justify = "left"
    return table


def evaluated(result: Evaluation) -> Table:
    """A placement judged on a trace."""
    table = Table(title="Evaluation", title_justify="left", show_header=False)
    table.add_column(justify="left")
    table.add_column(justify="right")
    rows = [
        ("fan-out (further GPUs per token and layer)", number(result.fan_out)),
        ("linear placement", number(result.linear_fan_out)),
        ("against linear", number(saving(result.reduction), "+.1%")),
        ("further nodes", number(result.node_fan_out)),
        *((f"fan-out of {name}", number(value)) for name, value in result.families.items()),
        ("MaxVio, summed over layers", number(result.max_violation)),
        ("MaxVio, median layer", number(result.median_layer)),
        ("MaxVio, worst layer", number(result.worst_layer)),
        ("Jain index, summed over layers", number(result.jain, ".4f")),
        ("CV, summed over layers", number(result.variation)),
    ]
    for cells in rows:
        table.add_row(*cells)
    if result.broken:
        table.add_row("broken rule", result.broken)
    return table


def mean(values: Sequence[float | None]) -> float | None:
    """Mean of the known values; None when there is none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def per_token(cost: int | None, unit: int) -> str:
    """An exact cost in a cell, per token and layer."""
    return number(None if cost is None else cost / unit)


def saving(reduction: float | None) -> float | None:
    """A reduction as a change: 0.3 becomes -0.3."""
    return None if reduction is None else 0.0 - reduction
