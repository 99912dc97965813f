"""Figures of a profile as SVG text; colours are those of the page that holds them, see `moeopt.page`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from moeopt.svg import picture, readable, round_step

__all__ = ["LEVELS", "SHADES", "SMALLEST", "bar_chart", "heat_map", "line_chart", "number_grid", "readable"]

LEVELS = 8  # shades of a heat map beside none
SHADES = 6  # colours of lines, classes s0 to s5
SMALLEST = 160  # cells of a side that a heat map draws, at most
LETTERS = 12  # of a name in a figure
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 400.0, 215.0, 38.0, 8.0, 10.0, 36.0
Values = Sequence[float | None]


def bar_chart(
    values: Values, *, names: Sequence[object], axis: str, label: str, line: float | None = None
) -> str:
    """A bar for each value from 0 on, gaps where it is None; `line` is drawn across."""
    scale = _Scale(0.0, max([value for value in values if value is not None] + [line or 0.0, 1e-9]))
    step = (WIDTH - LEFT - RIGHT) / max(len(values), 1)
    parts = [*_ticks(scale), *_names(names, axis)]
    for at, value in enumerate(values):
        if value is not None:
            top, x = scale.y(value), LEFT + at * step
            parts.append(
                f'<rect class="s0" x="{x + 0.1 * step:.1f}" y="{top:.1f}" width="{0.8 * step:.1f}" '
                f'height="{scale.y(0.0) - top:.1f}"><title>{readable(names[at])}: {value:.3g}</title></rect>'
            )
    if line is not None:
        parts.append(_rule(scale, line))
    return _svg(parts, label)


def line_chart(
    series: Sequence[tuple[str, Values]],
    *,
    names: Sequence[object],
    axis: str,
    label: str,
    line: float | None = None,
) -> str:
    """A line through the values of each series, broken where they are None; at most six, the first on top."""
    found = [value for _, values in series for value in values if value is not None]
    found += [1.0 if line is None else line]
    scale = _Scale(min(0.8, *found), max(1.0, *found))
    step = (WIDTH - LEFT - RIGHT) / max(len(names), 1)
    parts = [*_ticks(scale), *_names(names, axis)]
    if line is not None:
        parts.append(_rule(scale, line))
    for colour, (name, values) in reversed(list(enumerate(series[:SHADES]))):
        path, begun = "", False
        for at, value in enumerate(values):
            if value is not None:
                path += f"{'L' if begun else 'M'}{LEFT + (at + 0.5) * step:.1f} {scale.y(value):.1f}"
            begun = value is not None
        parts.append(f'<path class="l{colour}" d="{path}"/>')
        for at, value in enumerate(values):
            if value is not None:
                parts.append(
                    f'<circle class="s{colour}" cx="{LEFT + (at + 0.5) * step:.1f}" cy="{scale.y(value):.1f}" r="2.4">'
                    f"<title>{readable(name)}, {readable(names[at])}: {value:.3f}</title></circle>"
                )
    return _svg(parts, label)


def number_grid(rows: Sequence[Values], *, names: Sequence[str], label: str) -> str:
    """A square of correlations, blue above 0 and orange below, written out where there is room."""
    margin, count = 92.0, len(names)
    cell = min((WIDTH - margin) / count, 54.0)
    size, parts = cell * count, []
    short = [readable(name, most=LETTERS) for name in names]
    for i, row in enumerate(rows):
        y = i * cell
        full = readable(names[i])
        if cell >= 11:
            parts.append(
                f'<text class="end" x="{margin - 6}" y="{y + cell / 2 + 4:.1f}">{short[i]}<title>{full}</title></text>'
            )
            parts.append(
                f'<text transform="translate({margin + y + cell / 2 + 4:.1f} {size + 8:.1f}) rotate(-45)" '
                f'class="end">{short[i]}<title>{full}</title></text>'
            )
        for j, value in enumerate(row):
            if value is None:
                continue
            kind, weight = ("cold" if value < 0 else "s0"), abs(value)
            x = margin + j * cell
            parts.append(
                f'<rect class="{kind}" fill-opacity="{weight:.2f}" x="{x:.1f}" y="{y:.1f}" width="{cell:.1f}" '
                f'height="{cell:.1f}"><title>{full} ~ {readable(names[j])}: {value:.3f}</title></rect>'
            )
            if cell >= 26:
                over = ' class="mid on"' if weight > 0.55 else ' class="mid"'
                parts.append(
                    f'<text{over} x="{x + cell / 2:.1f}" y="{y + cell / 2 + 4:.1f}">{round(value, 2) + 0.0:.2f}</text>'
                )
    return _svg(
        parts, label, width=margin + size + 2, height=size + 16 + 4.8 * min(LETTERS, max(map(len, names)))
    )


def heat_map(levels: NDArray[np.int64], *, edges: Sequence[int], label: str) -> str:
    """Squares of shades 0 (blank) to 8, [cells, cells]; lines at `edges`, cell numbers, divide rows and columns."""
    side = len(levels)
    runs: dict[int, list[str]] = {}
    for y, row in enumerate(levels.tolist()):
        begin = 0
        for x in range(1, side + 1):
            if x == side or row[x] != row[begin]:
                if row[begin]:
                    runs.setdefault(row[begin], []).append(f"M{begin} {y}h{x - begin}v1h-{x - begin}z")
                begin = x
    parts = [f'<rect class="ground" width="{side}" height="{side}"/>']
    parts += [
        f'<path class="s0" fill-opacity="{level / LEVELS:.3f}" d="{"".join(runs[level])}"/>'
        for level in sorted(runs)
    ]
    lines = "".join(f"M0 {edge}H{side}M{edge} 0V{side}" for edge in edges)
    parts.append(f'<path class="edge" d="{lines}"/><rect class="edge" width="{side}" height="{side}"/>')
    return _svg(parts, label, width=side, height=side, crisp=True)


class _Scale:
    """Heights of values between round numbers."""

    def __init__(self, low: float, high: float) -> None:
        self.step = round_step(high - low)
        self.low = float(np.floor(low / self.step + 1e-9) * self.step)
        self.high = float(np.ceil(high / self.step - 1e-9) * self.step)

    def y(self, value: float) -> float:
        """Where a value stands, from the top."""
        return HEIGHT - BOTTOM - (value - self.low) / (self.high - self.low) * (HEIGHT - TOP - BOTTOM)


def _ticks(scale: _Scale) -> list[str]:
    parts = []
    for tick in np.arange(scale.low, scale.high + scale.step / 2, scale.step):
        y, value = scale.y(float(tick)), 0.0 if abs(tick) < 1e-12 else float(tick)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text class="end" x="{LEFT - 5}" y="{y + 4:.1f}">{value:.4g}</text>')
    return parts


def _names(names: Sequence[object], axis: str) -> list[str]:
    """Some of the names, as many as have room, and what they are."""
    step = (WIDTH - LEFT - RIGHT) / max(len(names), 1)
    every = max(1, -(-len(names) // 12))
    parts = [
        f'<text class="mid" x="{LEFT + (at + 0.5) * step:.1f}" y="{HEIGHT - BOTTOM + 14:.1f}">'
        f"{readable(names[at], most=6)}</text>"
        for at in range(0, len(names), every)
    ]
    middle = LEFT + (WIDTH - LEFT - RIGHT) / 2
    return [*parts, f'<text class="mid axis" x="{middle}" y="{HEIGHT - 6}">{readable(axis)}</text>']


def _rule(scale: _Scale, value: float) -> str:
    return f'<path class="rule" d="M{LEFT} {scale.y(value):.1f}H{WIDTH - RIGHT}"><title>{value:.3g}</title></path>'


def _svg(
    parts: Sequence[str], label: str, *, width: float = WIDTH, height: float = HEIGHT, crisp: bool = False
) -> str:
    return picture(parts, label, width=width, height=height, crisp=crisp)
