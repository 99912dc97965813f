"""Stored rows as Markdown tables, kept between the markers of README.md and FINDINGS.md."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, median, stdev
from types import MappingProxyType
from typing import Any

from benchmarks import (
    findings,
    first_steps,
    front_tables,
    fuzzing,
    kernel_tables,
    node_tables,
    paper_tables,
    setting_tables,
    stream_tables,
    sweep_tables,
)
from benchmarks.cases import NULL
from benchmarks.drawing import NONE, drawn, percent, seconds
from benchmarks.run import shown
from benchmarks.schemes import SCHEMES
from benchmarks.suite import CORES, FRACTION, METHODS, trouble
from moeopt.bench_rows import Row

PAGES = (Path(__file__).parent.parent / "README.md", Path(__file__).parent / "FINDINGS.md")
MARKED = re.compile(r"(<!-- table:(?P<name>[\w-]+) -->\n).*?(<!-- /table -->)", re.DOTALL)


def update(pages: Sequence[Path], *, folder: Path, write: bool = True) -> list[str]:
    """Bring every marked table up to date, or only say which are stale.

    Raises ValueError for a marker without a table, or a table with rows that no page has a marker for.
    """
    texts = {page: page.read_text(encoding="utf-8") for page in pages}
    marked = {page: [match["name"] for match in MARKED.finditer(text)] for page, text in texts.items()}
    for page, names in marked.items():
        if unknown := [name for name in names if name not in TABLES]:
            raise ValueError(f"{page.name}: no table is named {unknown[0]!r}; known are {', '.join(TABLES)}")
    tables = {name: table(name, folder=folder) for name in TABLES}
    everywhere = [name for names in marked.values() for name in names]
    if lost := [name for name, content in tables.items() if content and name not in everywhere]:
        places = ", ".join(page.name for page in pages)
        raise ValueError(f"{places}: no marker <!-- table:{lost[0]} --> ... <!-- /table -->")
    stale = []
    for page, text in texts.items():
        fresh = MARKED.sub(lambda match: match[1] + tables[match["name"]] + match[3], text)
        now = {match["name"]: match[0] for match in MARKED.finditer(fresh)}
        stale += [match["name"] for match in MARKED.finditer(text) if match[0] != now[match["name"]]]
        if write and fresh != text:
            page.write_text(fresh, encoding="utf-8")
    return list(dict.fromkeys(stale))


def table(name: str, *, folder: Path) -> str:
    """The table with the command of its experiment above and its machine below; empty without rows."""
    experiment, draw = TABLES[name]
    rows = shown(experiment, folder=folder)
    good = [row for row in rows if row["outcome"] == "done" and not trouble([row])]
    if not good:
        return ""
    command = f"`python -m benchmarks run {experiment}`"
    left_out = _left_out(rows) if name == experiment else ""
    return f"{command}\n\n{draw(good)}\n{_origin(good)}\n{left_out}"


def _left_out(rows: Sequence[Row]) -> str:
    """The cases of rows that no table shows, by reason: "" without any."""
    cases: dict[str, dict[str, None]] = {}
    for row in rows:
        if row["outcome"] != "done" or trouble([row]):
            solver = row["found"].get("solver")
            case = (
                row["case"] if solver is None else f"{row['case']} by {row['found']['formulation']}, {solver}"
            )
            scheme = row["method"].partition(": ")[0]
            case = f"{scheme} on {case}" if scheme in SCHEMES else case
            reason = row["reason"] or row["found"].get("message") or row["found"].get("status")
            cases.setdefault(reason, {})[case] = None
    lines = [f"{'; '.join(names)} ({reason})" for reason, names in cases.items()]
    return f"\nLeft out: {'; '.join(lines)}.\n" if lines else ""


def _certified(rows: Sequence[Row]) -> str:
    """A line a run."""
    lines = []
    for row in rows:
        if row["layer"] is not None:
            continue
        found = row["found"]
        layers = [
            one["found"]["seconds"] for one in rows if one["case"] == row["case"] and one["layer"] is not None
        ]
        lines.append(
            [
                row["case"],
                f"{found['layers_optimal']} of {found['layers']}",
                f"{found['fan_out']:.3f}",
                f"{found['linear_fan_out']:.3f}",
                percent(1 - found["fan_out"] / found["linear_fan_out"]),
                percent(found["certified_share"]),
                f"{seconds(median(layers))}, {seconds(max(layers))}",
                seconds(found["seconds"]),
                seconds(found["verify_seconds"]),
                f"{found['peak_mib']:.0f} + {CORES} × {found['peak_worker_mib']:.0f}",
            ]
        )
    head = [
        "traffic",
        "layers proved optimal",
        "fan-out",
        "linear",
        "saved",
        "certified share",
        "a layer: median, longest",
        f"solved, {CORES} processes",
        "verified",
        "peak memory, MiB",
    ]
    return drawn(head, lines)


def _held_out(rows: Sequence[Row]) -> str:
    """A line a model and method: mean ± standard deviation over seeds, the null beside it."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["case"], row["found"]["method"]), []).append(row["found"])
    lines = []
    for name in dict.fromkeys(row["case"].removeprefix(NULL) for row in rows):
        for method in METHODS:
            real, null = found.get((name, method), []), found.get((NULL + name, method), [])
            lines.append(
                [
                    name,
                    method,
                    _spread([one["held_out_fan_out"] for one in real], digits=3),
                    _spread([one["held_out_reduction"] for one in real], percent=True),
                    _spread([one["certified_share"] for one in real], percent=True),
                    _spread([one["max_violation"] for one in real], digits=2),
                    _spread([one["held_out_reduction"] for one in null], percent=True),
                    _spread([one["certified_share"] for one in null], percent=True),
                ]
            )
    seeds = len({row["seed"] for row in rows})
    head = [
        "traffic",
        "method",
        "held-out fan-out",
        "saved on linear",
        "certified share",
        "MaxVio",
        "null: saved",
        "null: certified share",
    ]
    note = (
        f"\nMean ± standard deviation over {seeds} splits, {100 * FRACTION:.0f} % of the requests held out; "
        "certified share and MaxVio on the others.\n"
    )
    return drawn(head, lines) + note


def _presets(rows: Sequence[Row]) -> str:
    """A line a preset."""
    lines = [
        [
            row["case"],
            f"{row['found']['experts']}, {row['found']['top_k']}",
            str(row["found"]["gpus"]),
            f"{row['found']['max_over_mean']:.1f}",
            f"{row['found']['family_correlation']:.2f}",
            f"{row['found']['linear_fan_out']:.2f}",
            percent(row["found"]["reduction"]),
            percent(row["found"]["null_reduction"]),
        ]
        for row in rows
    ]
    head = [
        "preset",
        "experts, top-k",
        "GPUs",
        "load max/mean",
        "family correlation",
        "linear fan-out",
        "saved by swap",
        "null: saved",
    ]
    return drawn(head, lines)


def _layouts(rows: Sequence[Row]) -> str:
    """A line a trace: a row a token against a row a token and layer."""
    lines = []
    for row in rows:
        found = row["found"]
        sizes = [f"{found[f'{layout}_megabytes']:.1f}" for layout in ("wide", "tall")]
        ratios = [found[f"tall_{what}"] / found[f"wide_{what}"] for what in ("seconds", "layer_seconds")]
        lines.append([row["case"], *sizes, *(f"{ratio:.1f}" for ratio in ratios)])
    head = [
        "trace",
        "MB, a row a token",
        "MB, a row a token and layer",
        "time to read all, ratio",
        "time to read one layer, ratio",
    ]
    return drawn(head, lines)


TABLES: Mapping[str, tuple[str, Callable[[Sequence[Row]], str]]] = MappingProxyType(
    {
        "bounds": ("bounds", _certified),
        "certified": ("certified", _certified),
        "held-out": ("held-out", _held_out),
        "layouts": ("layouts", _layouts),
        "presets": ("presets", _presets),
        **findings.TABLES,
        **paper_tables.TABLES,
        **node_tables.TABLES,
        **stream_tables.TABLES,
        **setting_tables.TABLES,
        **front_tables.TABLES,
        **sweep_tables.TABLES,
        **first_steps.TABLES,
        **kernel_tables.TABLES,
        **fuzzing.TABLES,
    }
)
"""Name of a table to its experiment and how it is drawn."""


def _origin(rows: Sequence[Row]) -> str:
    """The machines and versions of the rows, one line."""
    origins = {
        f"{row['machine']['cpu']}, {row['machine']['cores']} cores, Python {row['versions']['python']}, "
        f"highspy {row['versions']['highspy']}"
        for row in rows
    }
    return f"{'; '.join(sorted(origins))}. Times are orders of magnitude."


def _spread(values: Sequence[float | None], *, digits: int = 0, percent: bool = False) -> str:
    """Mean ± sample standard deviation; a dash when a value is missing."""
    known = [value * (100 if percent else 1) for value in values if value is not None]
    if not known or len(known) < len(values):
        return NONE
    digits = 1 if percent else digits
    unit = " %" if percent else ""
    mean, spread = fmean(known), stdev(known) if len(known) > 1 else 0.0
    return f"{mean + 0.0:.{digits}f} ± {spread:.{digits}f}{unit}"
