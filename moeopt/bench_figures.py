"""Figures of a sweep: steps over logarithmic axes, fronts, and maps of where experts went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

from moeopt.page import COLOURS
from moeopt.svg import picture, readable, round_step

__all__ = ["STYLES", "Axis", "Line", "Mark", "front_chart", "map_style", "placement_map", "step_chart"]

STYLES = 24  # of lines, classes m0 to m23: eight colours, three kinds of dashes
SEPARATE = 3  # kinds of dashes
NUMBERED = 64  # experts of a map that writes the GPUs into its cells, at most
LETTERS = 16  # of a name in a figure
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 380.0, 240.0, 46.0, 18.0, 24.0, 36.0
MAP_WIDTH, MAP_LEFT, MAP_TOP = 960.0, 40.0, 18.0


@dataclass(frozen=True)
class Axis:
    """One side of a chart: what it shows, from where to where, and the values written at it.

    On a logarithmic side, what is below `low` stands at `low`.
    """

    name: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    logarithmic: bool = False

    @classmethod
    def shares(cls, name: str, values: Sequence[float], *, percent: bool = True) -> Axis:
        """Between round numbers around the values, in per cent or as they are."""
        low, high = min(values), max(values)
        if high - low < 0.02 * max(abs(low), abs(high), 0.01):
            room = 0.1 * max(abs(low), abs(high), 0.1)
            low, high = max(low - room, min(low, 0.0)), high + room
        step = round_step(high - low)
        first = floor(low / step + 1e-9)
        last = max(first + 1, ceil(high / step - 1e-9))
        marks = [at * step for at in range(first, last + 1)]
        texts = [f"{100 * mark:.4g} %" if percent else f"{mark:.4g}" for mark in marks]
        return cls(name, marks[0], marks[-1], tuple(zip(marks, texts, strict=True)))

    @classmethod
    def decades(cls, name: str, low: float, *, high: float, seconds: bool = False) -> Axis:
        """Powers of ten around `low` and `high`, as shares in per cent or as seconds."""
        first = floor(log10(low) + 1e-9)
        last = max(ceil(log10(max(high, low)) - 1e-9), first + 1)
        every = -(-(last - first) // 5)
        texts = [
            (power, _seconds(power) if seconds else f"{10.0 ** (power + 2):g} %")
            for power in range(first, last + 1)
        ]
        ticks = tuple((10.0**power, text) for power, text in texts[::every])
        return cls(name, 10.0**first, 10.0**last, ticks, True)

    def at(self, value: float) -> float:
        """Where a value stands, from 0 to 1."""
        value = min(max(value, self.low), self.high)
        if self.logarithmic:
            return log10(value / self.low) / log10(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Line:
    """Steps of a chart: from a point on, the value is that of the point. `style` is a class, from 0 on."""

    style: int
    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Mark:
    """A point of a chart and a `note` on it; those that are `chosen` are filled, named and connected by colour."""

    colour: int
    name: str
    note: str
    x: float
    y: float
    radius: float
    chosen: bool


def map_style() -> str:
    """Rules for the classes m0 to m23 of lines and of legends."""
    kinds = (("none", "solid"), ("7 3", "dashed"), ("2 2.5", "dotted"))
    rules = [
        ".m{fill:none;stroke:var(--k);stroke-width:2;stroke-linejoin:round}",
        '.legend [class^="m"]::before{width:1.6em;height:0;background:none;border-radius:0;vertical-align:.25em;'
        "border-top:3px var(--d) var(--k)}",
    ]
    for style in range(STYLES):
        dash, border = kinds[style % SEPARATE]
        rules.append(f".m{style}{{--k:var(--s{style % COLOURS});--d:{border};stroke-dasharray:{dash}}}")
    return "\n".join(rules)


def step_chart(lines: Sequence[Line], *, x: Axis, y: Axis, label: str) -> str:
    """A line of steps for each, going on to the right end; where lines meet, the gaps of dashes show both."""
    parts = _frame(x, y)
    for line in sorted(lines, key=lambda one: one.style % SEPARATE):
        if not line.points:
            continue
        path, height = "", ""
        for at, (across, up) in enumerate(line.points):
            level = f"{_down(y, up):.1f}"
            if at and level == height:
                continue
            path += f"H{_across(x, across):.1f}V{level}" if at else f"M{_across(x, across):.1f} {level}"
            height = level
        last = line.points[-1][1]
        parts.append(
            f'<path class="m m{line.style % STYLES}" d="{path}H{WIDTH - RIGHT:.1f}">'
            f"<title>{readable(line.name)}: {last:.3g} at the end</title></path>"
        )
    return picture(parts, label, width=WIDTH, height=HEIGHT)


def front_chart(marks: Sequence[Mark], *, x: Axis, y: Axis, label: str) -> str:
    """Points, low and right to high and left is better; the chosen ones of one colour joined by steps."""
    parts = _frame(x, y)
    placed = [(_across(x, mark.x), _down(y, mark.y), mark) for mark in marks]
    chosen = sorted((spot for spot in placed if spot[2].chosen), key=lambda spot: (spot[0], spot[1]))
    for colour in sorted({mark.colour for mark in marks}):
        spots = [spot for spot in chosen if spot[2].colour == colour]
        path = "".join(
            f"H{left:.1f}V{top:.1f}" if at else f"M{left:.1f} {top:.1f}"
            for at, (left, top, _) in enumerate(spots)
        )
        if len(spots) > 1:
            parts.append(f'<path class="join k{colour % COLOURS}" d="{path}"/>')
    for left, top, mark in sorted(placed, key=lambda spot: spot[2].chosen):
        kind = f"s{mark.colour % COLOURS}" if mark.chosen else f"hollow k{mark.colour % COLOURS}"
        parts.append(
            f'<circle class="{kind}" cx="{left:.1f}" cy="{top:.1f}" r="{mark.radius:.1f}">'
            f"<title>{readable(mark.note)}</title></circle>"
        )
    taken = [(left - 5, top - 5, left + 5, top + 5) for left, top, _ in placed]
    for left, top, mark in chosen:
        parts += _named(left, top, mark, taken)
    return picture(parts, label, width=WIDTH, height=HEIGHT)


def placement_map(hosts: Mapping[int, Sequence[Sequence[int]]], *, label: str) -> str:
    """A row a layer, a column an expert, coloured by GPU; a cell with copies is divided among their GPUs.

    `hosts`: by layer, of every expert the GPUs that hold it. Few experts have the GPUs' numbers written in.
    """
    columns = max((len(row) for row in hosts.values()), default=1)
    width, height = (MAP_WIDTH - MAP_LEFT) / columns, 24.0 if columns <= NUMBERED else 12.0
    bottom = MAP_TOP + height * len(hosts)
    runs: dict[int, list[str]] = {}
    words = []
    for at, (layer, row) in enumerate(hosts.items()):
        middle = MAP_TOP + (at + 0.5) * height + 4
        words.append(f'<text class="end" x="{MAP_LEFT - 6}" y="{middle:.1f}">{layer}</text>')
        for expert, gpus in enumerate(row):
            share = 1 / max(len(gpus), 1)
            for part, gpu in enumerate(gpus):
                begin = expert + part * share
                runs.setdefault(gpu % COLOURS, []).append(f"M{begin:.4g} {at}h{share:.3g}")
                if columns <= NUMBERED and share * width >= 4 + 6.5 * len(str(gpu)):
                    middle_x = MAP_LEFT + (begin + share / 2) * width
                    words.append(f'<text class="mid on" x="{middle_x:.1f}" y="{middle:.1f}">{gpu}</text>')
    paths = "".join(f'<path class="cell k{colour}" d="{"".join(runs[colour])}"/>' for colour in sorted(runs))
    place = f"translate({MAP_LEFT} {MAP_TOP + height / 2}) scale({width:.6g} {height})"
    lines = "".join(f"M{at} -.5v{len(hosts)}" for at in range(1, columns) if columns <= NUMBERED)
    lines += "".join(f"M0 {at - 0.5}h{columns}" for at in range(1, len(hosts)))
    every = next(step for step in (1, 2, 4, 8, 16, 32, 64, 128, 256, columns) if columns / step <= 32)
    heads = "".join(
        f'<text class="mid axis" x="{MAP_LEFT + (at + 0.5) * width:.1f}" y="{MAP_TOP - 5}">{at}</text>'
        for at in range(0, columns, every)
    )
    grid = f'<path class="gap" d="{lines}"/>' if lines else ""
    heads += f'<text class="axis" x="0" y="{MAP_TOP - 5}">expert</text>'
    parts = [f'<g transform="{place}">{paths}{grid}</g>', heads, *words]
    return picture(parts, label, width=MAP_WIDTH, height=bottom + 4)


def _seconds(power: int) -> str:
    value = 10.0**power
    return f"{value:g} s" if power >= 0 else f"{1e3 * value:g} ms" if power >= -3 else f"{1e6 * value:g} µs"


def _across(axis: Axis, value: float) -> float:
    return LEFT + axis.at(value) * (WIDTH - LEFT - RIGHT)


def _down(axis: Axis, value: float) -> float:
    return HEIGHT - BOTTOM - axis.at(value) * (HEIGHT - TOP - BOTTOM)


def _frame(x: Axis, y: Axis) -> list[str]:
    parts = []
    for value, text in y.ticks:
        top = _down(y, value)
        parts.append(f'<path class="grid" d="M{LEFT} {top:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text class="end" x="{LEFT - 5}" y="{top + 4:.1f}">{readable(text)}</text>')
    for value, text in x.ticks:
        left = _across(x, value)
        parts.append(f'<path class="grid" d="M{left:.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
        parts.append(
            f'<text class="mid" x="{left:.1f}" y="{HEIGHT - BOTTOM + 15:.1f}">{readable(text)}</text>'
        )
    middle = LEFT + (WIDTH - LEFT - RIGHT) / 2
    parts.append(f'<text class="mid axis" x="{middle}" y="{HEIGHT - 4}">{readable(x.name)}</text>')
    parts.append(f'<text class="axis" x="2" y="11">{readable(y.name)}</text>')
    return parts


def _named(left: float, top: float, mark: Mark, taken: list[tuple[float, float, float, float]]) -> list[str]:
    """The name of a mark where it hides nothing, or nothing."""
    short = mark.name if len(mark.name) <= LETTERS else mark.name[: LETTERS - 1] + "…"
    length = 6.3 * len(short)
    for begin, down in (
        (8.0, 4.0),
        (-length - 8, 4.0),
        (-length / 2, -9.0),
        (-length / 2, 17.0),
        (7.0, -7.0),
        (7.0, 14.0),
    ):
        box = (left + begin, top + down - 10, left + begin + length, top + down + 2)
        inside = box[0] >= LEFT and box[2] <= WIDTH and box[1] >= TOP - 8 and box[3] <= HEIGHT - BOTTOM
        if inside and not any(_meet(box, other) for other in taken):
            taken.append(box)
            return [f'<text class="over" x="{box[0]:.1f}" y="{top + down:.1f}">{readable(short)}</text>']
    return []


def _meet(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
