"""What the page of a sweep says, section by section."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from moeopt.bench_figures import STYLES, Axis, Line, step_chart
from moeopt.bench_measures import (
    MethodSummary,
    Place,
    best_bounds,
    gap_curve,
    named_rows,
    performance_profile,
    summaries,
)
from moeopt.bench_rows import Row
from moeopt.page import Figure, figure_grid, note_block, percent, section_block

__all__ = [
    "FIGURES",
    "Sweep",
    "counted",
    "gap_section",
    "left_out",
    "placed_layers",
    "profile_section",
]

LEAST = 1e-4  # share at the lower end of logarithmic sides
POINTS = 120  # of a curve
FIGURES = 12  # of a section


@dataclass(frozen=True)
class Sweep:
    """Rows of a sweep, each with the name of its method, and what is read from them more than once."""

    rows: tuple[Row, ...]

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Sweep:
        """Of rows about the same, the newest, see `moeopt.bench_measures.named_rows`."""
        return cls(tuple(named_rows(rows)))

    @cached_property
    def methods(self) -> list[MethodSummary]:
        """A summary of each, in the order of their colours."""
        return summaries(self.rows)

    @cached_property
    def styles(self) -> dict[str, int]:
        """Of lines, by method."""
        return {one.method: at for at, one in enumerate(self.methods)}

    @cached_property
    def runs(self) -> list[Row]:
        """The rows of all layers."""
        return [row for row in self.rows if row["layer"] is None]

    @cached_property
    def cases(self) -> dict[str, list[Row]]:
        """Rows by case."""
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            found.setdefault(row["case"], []).append(row)
        return found

    @cached_property
    def parts(self) -> dict[str, Sweep]:
        """A sweep a case, methods named as in the whole."""
        return {case: Sweep(tuple(rows)) for case, rows in self.cases.items()}

    @cached_property
    def bounds(self) -> dict[Place, int]:
        """The best verified bound of each layer."""
        return best_bounds(self.rows)

    def legend(self, used: Iterable[str]) -> tuple[str, ...]:
        """Names in the order of their colours, empty for methods that a figure does not show."""
        shown = set(used)
        return tuple(one.method if one.method in shown else "" for one in self.methods[:STYLES])


def profile_section(sweep: Sweep) -> str:
    """Shares of problems within a ratio of the least cost; cases that the same methods ran on share a figure."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for case, rows in sweep.cases.items():
        groups.setdefault(tuple(sorted({row["found"]["method"] for row in rows})), []).append(case)
    figures = []
    for methods, cases in list(groups.items())[:FIGURES]:
        costs: dict[str, dict[Place, float]] = {name: {} for name in methods}
        for row in (row for case in cases for row in placed_layers(sweep.cases[case])):
            costs[row["found"]["method"]][(row["case"], row["seed"], row["layer"])] = row["found"]["cost"]
        if any(costs.values()):
            figures.append(_profile(sweep, costs, cases))
    if not figures:
        return ""
    why = (
        "A problem is a layer of a case with a seed. A line shows on which share of the problems a method's cost is at "
        "most so far above the least cost that any method found; a problem without a placement counts against it "
        "(performance profile, Dolan and Moré, 2002)."
    )
    return section_block(
        "Who finds the least cost", note_block(why), figure_grid(figures), left_out(len(groups))
    )


def _profile(sweep: Sweep, costs: Mapping[str, Mapping[Place, float]], cases: Sequence[str]) -> Figure:
    problems = {place for own in costs.values() for place in own}
    least = {place: min(own[place] for own in costs.values() if place in own) for place in problems}
    excess = [own[one] / least[one] - 1 for own in costs.values() for one in own if least[one]]
    x = Axis.decades("cost above the least", LEAST, high=max([*excess, 10 * LEAST]))
    above = _spread(x.low, x.high)
    found = performance_profile(costs, ratios=[1.0, 1.01, *(1 + one for one in above)])
    order = sorted(found, key=lambda name: (-found[name][0], -sum(found[name]), sweep.styles[name]))
    lines = [
        Line(sweep.styles[name], name, list(zip(above, found[name][2:], strict=True)))
        for name in order
        if sweep.styles[name] < STYLES
    ]
    y = Axis.shares("share of the problems", [0.0, 1.0])
    told = ", ".join(
        f"{name} {percent(found[name][0], digits=0)} ({percent(found[name][1], digits=0)})"
        for name in order[:4]
    )
    count = counted(len(problems), "problem")
    sentence = f"{_names(cases)}, {count}. Has the least cost (is within 1 % of it): {told}."
    label = f"Share of {count} by cost above the least, {counted(len(lines), 'method')}"
    return Figure(step_chart(lines, x=x, y=y, label=label), sentence, sweep.legend(order), "m")


def gap_section(sweep: Sweep) -> str:
    """For every case, how far costs were from the best bound while methods ran."""
    figures = [figure for case in list(sweep.cases)[:FIGURES] for figure in _gaps(sweep, case)]
    if not figures:
        return ""
    why = (
        "Gap: (cost - bound) / cost, mean over layers and seeds, by the best verified bound that any method ends with. "
        "Time is that of a layer. A line begins when each of its layers has a placement and goes on after its method "
        "has ended. On a logarithmic side, gaps below 0.01 % lie on the lower edge."
    )
    return section_block("Gap over time", note_block(why), figure_grid(figures), left_out(len(sweep.cases)))


def _gaps(sweep: Sweep, case: str) -> list[Figure]:
    rows = placed_layers(sweep.cases[case])
    runs: dict[str, list[tuple[list[list[Any]], float]]] = {}
    least: dict[Place, float] = {}
    for row in rows:
        place = (case, row["seed"], row["layer"])
        least[place] = min(row["found"]["cost"], least.get(place, row["found"]["cost"]))
    floors = {place: sweep.bounds.get(place, cost) for place, cost in least.items()}
    for row in rows:
        if row["found"].get("steps"):
            place = (case, row["seed"], row["layer"])
            runs.setdefault(row["found"]["method"], []).append((row["found"]["steps"], floors[place]))
    ends = [steps[-1][0] for own in runs.values() for steps, _ in own]
    ends += [row["found"]["seconds"] for row in rows if row["found"].get("seconds")]
    if not runs:
        return []
    begins = [steps[0][0] for own in runs.values() for steps, _ in own]
    x = Axis.decades("time", max(min(begins), 1e-4), high=max(ends), seconds=True)
    times = _spread(x.low, x.high)
    curves = {name: gap_curve(own, times=times) for name, own in runs.items()}
    points = {
        name: [(time, gap) for time, gap in zip(times, own, strict=True) if gap is not None]
        for name, own in curves.items()
    }
    last = {name: own[-1][1] for name, own in points.items() if own}
    if not last:
        return []
    y = _gap_axis([gap for own in points.values() for _, gap in own])
    order = sorted(last, key=lambda name: (last[name], sweep.styles[name]))
    lines = [Line(sweep.styles[name], name, points[name]) for name in order if sweep.styles[name] < STYLES]
    ended = ", ".join(f"{name} {percent(last[name], digits=2)}" for name in [*order[:3], *order[3:][-1:]])
    bounded, problems = sum(place in sweep.bounds for place in least), counted(len(least), "problem")
    if bounded == len(least):
        known = f"verified bounds of all of {problems}"
    elif bounded:
        known = (
            f"verified bounds of {bounded} of {problems}, of the others the least cost of any method instead"
        )
    else:
        known = f"no verified bound of {problems}: gaps are to the least cost of any method"
    most = max(map(len, runs.values()))
    partly = [f"{name} on {len(own)} of {most}" for name, own in runs.items() if len(own) < most]
    some = f" Placements of some only: {', '.join(partly)}." if partly else ""
    label = f"Mean gap over time of {counted(len(lines), 'method')} on {case}"
    svg = step_chart(lines, x=x, y=y, label=label)
    return [Figure(svg, f"{case}. At the end: {ended}; {known}.{some}", sweep.legend(order), "m")]


def placed_layers(rows: Iterable[Row]) -> list[Row]:
    """Rows of single layers that have a placement."""
    return [row for row in rows if row["layer"] is not None and row["found"].get("cost") is not None]


def left_out(count: int) -> str:
    """A note when a section has more figures than it shows."""
    return note_block(f"The first {FIGURES} of {count} are shown.") if count > FIGURES else ""


def counted(count: int, thing: str) -> str:
    """A number of things in words."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def _gap_axis(gaps: Sequence[float]) -> Axis:
    """Logarithmic, unless all gaps are alike."""
    if max(gaps) < 5 * min(gaps):
        return Axis.shares("gap", gaps)
    return Axis.decades("gap", max(min(gaps), LEAST), high=max(*gaps, 10 * LEAST))


def _spread(low: float, high: float) -> list[float]:
    return [low * (high / low) ** (at / (POINTS - 1)) for at in range(POINTS)]


def _names(cases: Sequence[str]) -> str:
    return cases[0] if len(cases) == 1 else f"{len(cases)} cases from {cases[0]} to {cases[-1]}"
