"""Stored rows as Markdown tables, kept between the markers of README.md."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, median, stdev
from types import MappingProxyType
from typing import Any

from benchmarks.cases import NULL
from benchmarks.run import Row, Store
from benchmarks.sizes import FORMULATIONS
from benchmarks.suite import CORES, FRACTION, METHODS, trouble

README = Path(__file__).parent.parent / "README.md"
MARKED = re.compile(r"(<!-- table:(?P<name>[\w-]+) -->\n).*?(<!-- /table -->)", re.DOTALL)
NONE = "–"


def update(readme: Path, *, folder: Path, write: bool = True) -> list[str]:
    """Bring every marked table up to date, or only say which are stale.

    Raises ValueError for a marker without a table, or a table with rows that has no marker.
    """
    text = readme.read_text(encoding="utf-8")
    names = [match["name"] for match in MARKED.finditer(text)]
    if unknown := [name for name in names if name not in TABLES]:
        raise ValueError(f"{readme.name}: no table is named {unknown[0]!r}; known are {', '.join(TABLES)}")
    tables = {name: table(name, folder=folder) for name in TABLES}
    if lost := [name for name, content in tables.items() if content and name not in names]:
        raise ValueError(f"{readme.name}: no marker <!-- table:{lost[0]} --> ... <!-- /table -->")
    fresh = MARKED.sub(lambda match: match[1] + tables[match["name"]] + match[3], text)
    now = {match["name"]: match[0] for match in MARKED.finditer(fresh)}
    stale = [match["name"] for match in MARKED.finditer(text) if match[0] != now[match["name"]]]
    if write and stale:
        readme.write_text(fresh, encoding="utf-8")
    return stale


def table(name: str, *, folder: Path) -> str:
    """The table of an experiment with its command above and its machine below; empty without rows."""
    rows = Store(folder / f"{name}.jsonl").latest()
    good = [row for row in rows if row["outcome"] == "done" and not trouble([row])]
    if not good:
        return ""
    missing = [
        f"{row['case']} ({row['reason'] or row['found'].get('status')})" for row in rows if row not in good
    ]
    left_out = f"\nLeft out: {'; '.join(dict.fromkeys(missing))}.\n" if missing else ""
    command = f"`python -m benchmarks run {name}`"
    return f"{command}\n\n{TABLES[name](good)}\n{_origin(good)}\n{left_out}"


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
                _percent(1 - found["fan_out"] / found["linear_fan_out"]),
                _percent(found["certified_share"]),
                f"{_seconds(median(layers))}, {_seconds(max(layers))}",
                _seconds(found["seconds"]),
                _seconds(found["verify_seconds"]),
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
    return _drawn(head, lines)


def _formulations(rows: Sequence[Row]) -> str:
    """How far each formulation gets, and how large it is."""
    cells: dict[tuple[str, int], dict[str, str]] = {}
    sizes: dict[int, dict[str, str]] = {}
    for row in rows:
        found = row["found"]
        name = next(one for one in FORMULATIONS if one in row["method"].lower())
        label = f"{found['source']}, layer {row['layer']}"
        own = cells.setdefault((label, found["experts"]), {})
        if row["case"].endswith(", fan-out"):
            own["fan-out"] = _ending(found)
            continue
        own[name] = _ending(found)
        lazy = f" + {found['lazy_rows']:,} on demand" if found["lazy_rows"] else ""
        sizes.setdefault(found["experts"], {})[name] = (
            f"{found['rows']:,}{lazy} × {found['columns']:,} ({_seconds(found['build_seconds'])})"
        )
    head = ["layer", "experts", *FORMULATIONS, "blocks, fan-out"]
    outcome = _drawn(
        head,
        [
            [label, str(experts), *(own.get(name, NONE) for name in (*FORMULATIONS, "fan-out"))]
            for (label, experts), own in sorted(cells.items())
        ],
    )
    size = _drawn(
        ["experts", *(f"{name}: rows × columns (built in)" for name in FORMULATIONS)],
        [
            [str(experts), *(own.get(name, NONE) for name in FORMULATIONS)]
            for experts, own in sorted(sizes.items())
        ],
    )
    return f"{outcome}\n{size}"


def _ending(found: Mapping[str, Any]) -> str:
    if found["status"] == "certified-optimal":
        return f"proved, {_seconds(found['seconds'])}"
    if found["status"] == "solver-claimed":
        return f"claimed, {_seconds(found['seconds'])}; {_percent(found['certified_share'])} certified"
    return f"{_percent(found['certified_share'])} certified, {_seconds(found['seconds'])}"


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
    return _drawn(head, lines) + note


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
            _percent(row["found"]["reduction"]),
            _percent(row["found"]["null_reduction"]),
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
    return _drawn(head, lines)


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
    return _drawn(head, lines)


TABLES: Mapping[str, Callable[[Sequence[Row]], str]] = MappingProxyType(
    {
        "certified": _certified,
        "formulations": _formulations,
        "held-out": _held_out,
        "layouts": _layouts,
        "presets": _presets,
    }
)


def _drawn(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    drawn = [head, ["---"] * len(head), *lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in drawn)


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


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.1f} %"


def _seconds(value: float | None) -> str:
    if value is None:
        return NONE
    return f"{value:.2g} s" if value < 10 else f"{value:.0f} s"
