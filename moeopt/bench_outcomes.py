"""What became of the runs of a sweep: savings and what they cost, where experts went, every run, what failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from moeopt.bench_figures import Axis, Mark, front_chart, placement_map
from moeopt.bench_measures import front, saving, total_bounds
from moeopt.bench_rows import Row
from moeopt.bench_sections import FIGURES, Sweep, counted, left_out, placed_layers
from moeopt.page import (
    COLOURS,
    Figure,
    figure_grid,
    folded,
    note_block,
    percent,
    rounded,
    section_block,
    table_block,
)

__all__ = ["SORTED", "failure_section", "front_section", "map_section", "run_section"]

SORTED = "A click on the head of a column sorts by it, another turns the order around."
CELLS = 4096  # of a map
LAYERS = 24  # of a map
WIDEST = 512  # experts of a map


@dataclass(frozen=True)
class Point:
    """Means of a method's runs on a case; `uneven` is MaxVio, `copies` are those of a layer."""

    case: str
    method: str
    saved: float
    uneven: float
    copies: int

    @classmethod
    def of(cls, case: str, runs: Sequence[Row]) -> Point:
        """Of runs that differ in their seeds."""
        saved = [share for run in runs if (share := saving(run["found"])) is not None]
        uneven = fmean(run["found"]["max_violation"] for run in runs)
        first = runs[0]["found"]
        return cls(case, first["method"], fmean(saved), uneven, first.get("replicas") or 0)

    def order(self) -> tuple[float, ...]:
        """What is to be low."""
        return -self.saved, self.uneven, float(self.copies)

    def cells(self) -> tuple[str, ...]:
        """Of a table."""
        return self.case, self.method, str(self.copies), percent(self.saved), rounded(self.uneven)


def front_section(sweep: Sweep) -> str:
    """What a method saves on linear against the imbalance it leaves and the memory it takes."""
    groups: dict[tuple[Any, ...], list[Point]] = {}
    for case, rows in sweep.cases.items():
        told = [row for row in rows if row["layer"] is None and saving(row["found"]) is not None]
        told = [row for row in told if row["found"].get("max_violation") is not None]
        methods: dict[str, list[Row]] = {}
        for row in told:
            methods.setdefault(row["found"]["method"], []).append(row)
        if told:
            first = min(told, key=lambda row: row["seed"])["found"]
            about = tuple(first.get(name) for name in ("model", "layers", "gpus", "nodes", "linear_fan_out"))
            groups.setdefault(about, []).extend(Point.of(case, own) for own in methods.values())
    if not groups:
        return ""
    fronts = [front([point.order() for point in points]) for points in groups.values()]
    figures = [
        _front(about, list(zip(points, best, strict=True)))
        for (about, points), best in zip(groups.items(), fronts, strict=True)
    ]
    points = [point for group in groups.values() for point in group]
    chosen = [best for group in fronts for best in group]
    cells = [(*point.cells(), "yes" if best else "no") for point, best in zip(points, chosen, strict=True)]
    keys = [(None, None, point.copies, point.saved, point.uneven, None) for point in points]
    table = table_block(("case", "method", "copies", "saved", "MaxVio", "front"), cells, keys=keys)
    why = (
        "Saved: 1 - fan-out / fan-out of linear, on the traffic placed for. MaxVio: what the busiest GPU has above the "
        "mean, median layer. Points are means over seeds. Those that no other beats in both without more copies are "
        "filled; steps join those with the same copies. Cases on the same traffic and as many GPUs share a figure."
    )
    parts = (note_block(why), figure_grid(figures[:FIGURES]), left_out(len(figures)))
    return section_block("What a saving costs", *parts, folded(counted(len(points), "point"), table))


def map_section(sweep: Sweep) -> str:
    """For every case, on which GPUs the best placement has each expert."""
    figures = [figure for case in list(sweep.cases)[:FIGURES] for figure in _map(sweep.cases[case])]
    if not figures:
        return ""
    why = (
        "The placement of each case with the least cost for its reference. A row is a layer, a column an expert, a "
        f"colour and, where there is room, a number a GPU; after {COLOURS} GPUs colours repeat. A cell with copies is "
        "divided among their GPUs. Where GPUs are alike and on one node, only equal colours in a row mean something."
    )
    return section_block(
        "Where experts went", note_block(why), figure_grid(figures), left_out(len(sweep.cases))
    )


def run_section(sweep: Sweep) -> str:
    """Every run in a table that a script sorts."""
    columns = ("case", "method", "seed", "status", "cost", "bound", "gap", "seconds", "reason")
    bounds = total_bounds(sweep.rows)
    cells, keys = [], []
    for row in sweep.runs:
        found = row["found"]
        cost, bound, seconds = found.get("cost"), found.get("bound"), found.get("seconds")
        best, gap = bounds.get((row["case"], row["seed"])), None
        if cost is not None and best is not None:
            gap = (cost - best) / cost if cost else 0.0
        status = found.get("status", row["outcome"])
        numbers = (rounded(cost, ","), rounded(bound, ","), percent(gap, digits=2), rounded(seconds, ".3g"))
        cells.append((row["case"], found["method"], str(row["seed"]), status, *numbers, row["reason"]))
        keys.append((None, None, row["seed"], None, cost, bound, gap, seconds, None))
    if not cells:
        return ""
    told = len(columns) if any(row["reason"] for row in sweep.runs) else len(columns) - 1
    caption = (
        "Bound: verified, of the run itself. Gap: to the best verified bound on the case and seed, of any method. "
        f"{SORTED}"
    )
    table = table_block(
        columns[:told],
        [line[:told] for line in cells],
        caption=caption,
        keys=[line[:told] for line in keys],
    )
    return section_block("All runs", f'<div class="runs">{table}</div>')


def failure_section(sweep: Sweep) -> str:
    """What failed, was skipped or is not believed, by its reason; empty when nothing is."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in sweep.rows:
        if row["reason"] or row["outcome"] != "done":
            what = row["outcome"] if row["outcome"] != "done" else row["found"].get("status", "done")
            about = (row["found"]["method"], what, row["reason"] or "no reason given")
            groups.setdefault(about, []).append(row)
    if not groups:
        return ""
    cells = [
        (what, method, str(len(rows)), _where(rows), reason)
        for (method, what, reason), rows in groups.items()
    ]
    columns = ("what", "method", "rows", "where", "reason")
    count = sum(map(len, groups.values()))
    table = table_block(columns, cells)
    return section_block(
        "What failed",
        note_block(f"{counted(count, 'row')}, by reason."),
        f'<div class="wrapped">{table}</div>',
    )


def _where(rows: Sequence[Row]) -> str:
    """Cases with their seeds and layers."""
    cases: dict[str, tuple[set[int], set[int]]] = {}
    for row in rows:
        seeds, layers = cases.setdefault(row["case"], (set(), set()))
        seeds.add(row["seed"])
        layers |= set() if row["layer"] is None else {row["layer"]}
    return "; ".join(
        f"{case}, seed {', '.join(map(str, sorted(seeds)))}"
        + (f", layer {', '.join(map(str, sorted(layers)))}" if layers else "")
        for case, (seeds, layers) in cases.items()
    )


def _front(about: tuple[Any, ...], points: Sequence[tuple[Point, bool]]) -> Figure:
    levels = sorted({point.copies for point, _ in points})
    words = {copies: f"{copies} copies a layer" if copies else "no copies" for copies in levels}
    marks = [
        Mark(
            levels.index(point.copies),
            point.method,
            f"{point.method}: {percent(point.saved)} saved, MaxVio {point.uneven:.2f}, {words[point.copies]}",
            point.uneven,
            point.saved,
            4.0 if len(levels) == 1 else 3.5 + 3.5 * point.copies / levels[-1],
            chosen,
        )
        for point, chosen in points
    ]
    x = Axis.shares("MaxVio", [mark.x for mark in marks], percent=False)
    y = Axis.shares("saved on linear", [mark.y for mark in marks])
    model, layers, gpus = about[:3]
    most = max((point for point, _ in points), key=lambda point: point.saved)
    count = counted(len(points), "point")
    sentence = (
        f"{model or 'A model without a name'}, {counted(layers or 0, 'layer')} on {counted(gpus or 0, 'GPU')}: "
        f"{sum(chosen for _, chosen in points)} of {count} on a front. {most.method} saves most, "
        f"{percent(most.saved)}, with {words[most.copies]} and MaxVio {most.uneven:.2f}."
    )
    if len(levels) > COLOURS:
        sentence += f" Colours repeat after {COLOURS} numbers of copies."
    svg = front_chart(marks, x=x, y=y, label=f"Saved on linear against MaxVio, {count}")
    return Figure(svg, sentence, tuple(words.values())[:COLOURS])


def _map(rows: Sequence[Row]) -> list[Figure]:
    found = [row for row in rows if row["layer"] is None and row["found"].get("cost") is not None]
    own: dict[int, list[list[int]]] = {}
    for run in sorted(found, key=lambda row: row["found"]["cost"] / (row["found"].get("reference") or 1)):
        about = (run["found"]["method"], run["seed"])
        layers = [row for row in placed_layers(rows) if (row["found"]["method"], row["seed"]) == about]
        own = {row["layer"]: row["found"]["hosts"] for row in layers if row["found"].get("hosts")}
        if own:
            break
    if not own:
        return []
    experts, gpus = max(map(len, own.values())), run["found"].get("gpus")
    copies = sum(len(hosts) - 1 for row in own.values() for hosts in row)
    columns = min(experts, WIDEST)
    most = max(1, min(len(own), LAYERS, CELLS // columns))
    every = len(own) / most
    shown = [sorted(own)[int(at * every)] for at in range(most)]
    limits = [f"{most} of {len(own)} layers, evenly spaced"] if most < len(own) else []
    limits += [f"the first {columns} of {experts} experts"] if columns < experts else []
    saved = saving(run["found"])
    sentence = (
        f"{run['case']}: {about[0]}, seed {about[1]}, cost {run['found']['cost']:,}"
        + (f", {percent(saved)} saved on linear" if saved is not None else "")
        + f"; {experts} experts, {counted(len(own), 'layer')}, {counted(gpus or 0, 'GPU')}, "
        + f"{f'{copies:,}' if copies else 'no'} {'copy' if copies == 1 else 'copies'}."
        + (f" Shown: {' and '.join(limits)}." if limits else "")
    )
    svg = placement_map(
        {layer: own[layer][:columns] for layer in shown}, label=f"GPUs of experts by layer, {run['case']}"
    )
    same = [list(range(colour, gpus or 0, COLOURS)) for colour in range(min(gpus or 0, COLOURS))]
    legend = tuple(f"GPU {', '.join(map(str, one[:3]))}{', …' if len(one) > 3 else ''}" for one in same)
    return [Figure(svg, sentence, legend, wide=True)]
