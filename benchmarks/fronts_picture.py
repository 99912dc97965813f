"""The picture of the README: what copies save, by method, from stored rows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from benchmarks.run import shown
from moeopt.bench_rows import Row
from moeopt.svg import readable

FILE = Path(__file__).parent / "fronts.svg"
EXPERIMENT = "replica-fronts"
TOLERANCE = 0.15
NAMES: Mapping[str, str] = {"search": "search", "tacg-gesr": "TACG + GESR", "eplb": "EPLB"}
MODELS = ("deepseek-v2-lite", "gpt-oss-20b")
WIDTH, HEIGHT, LEFT, TOP, BOTTOM, GAP, NAME = 860, 340, 52, 44, 62, 46, 106  # of the picture and its margins
STEP = 0.1  # of the saved share, from one line to the next

Points = list[tuple[int, float]]

STYLE = """svg{background:#fff}text{font:13px system-ui,sans-serif;fill:#3a3f47}.title{font-weight:600;font-size:14px}
.grid{stroke:#d9dde3;stroke-width:1}.line{fill:none;stroke-width:2.5}.s0{stroke:#0b6bcb}.s1{stroke:#c2410c}.s2{stroke:#6b7280}
.m0{fill:#0b6bcb}.m1{fill:#c2410c}.m2{fill:#6b7280}
@media (prefers-color-scheme:dark){svg{background:#15181d}text{fill:#d5dae1}.grid{stroke:#363c45}.s0{stroke:#5aa9f8}
.s1{stroke:#fb8a4b}.s2{stroke:#a3abb8}.m0{fill:#5aa9f8}.m1{fill:#fb8a4b}.m2{fill:#a3abb8}}"""


def refresh(*, folder: Path, write: bool = True, file: Path = FILE) -> list[str]:
    """Draw the picture anew where it is not that of the rows, or only say so; empty when it is, or without rows."""
    rows = [row for row in shown(EXPERIMENT, folder=folder) if row["outcome"] == "done"]
    if not rows or (file.exists() and file.read_text(encoding="utf-8") == drawn_fronts(rows)):
        return []
    if write:
        file.write_text(drawn_fronts(rows), encoding="utf-8")
    return [file.name]


def curve(rows: Sequence[Row], model: str, scheme: str) -> Points:
    """(replicas, share of the hops saved): means over splits, where every split has a placement."""
    found: dict[int, list[float | None]] = {}
    for row in rows:
        one = row["found"]
        if (one["model"], one["scheme"], one["tolerance"]) == (model, scheme, TOLERANCE):
            served = one["served"]
            best = None if served is None else served.get(f"guard {TOLERANCE}", served["cover"])["reduction"]
            found.setdefault(one["replicas"], []).append(best)
    means = []
    for replicas, values in sorted(found.items()):
        if all(value is not None for value in values):
            means.append((replicas, fmean(value for value in values if value is not None)))
    return means


def drawn_fronts(rows: Sequence[Row]) -> str:
    """A panel a model, a line a method; dark where the page is."""
    curves = {model: {name: curve(rows, model, name) for name in NAMES} for model in MODELS}
    values = [value for lines in curves.values() for line in lines.values() for _, value in line]
    top = STEP * (int(max(values) / STEP) + 1)
    panel = (WIDTH - LEFT - GAP - 2 * NAME) / 2
    parts = []
    for number, model in enumerate(MODELS):
        begin = LEFT + number * (panel + NAME + GAP)
        most = max(replicas for line in curves[model].values() for replicas, _ in line)
        parts.append(_panel(model, curves[model], begin=begin, width=panel, most=most, top=top))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="Hops saved on held-out requests, by copies in a layer">\n<style>{STYLE}</style>\n'
        f"{''.join(parts)}</svg>\n"
    )


def _panel(
    model: str, lines: Mapping[str, Points], *, begin: float, width: float, most: int, top: float
) -> str:
    floor, height = HEIGHT - BOTTOM, HEIGHT - TOP - BOTTOM

    def place(replicas: float, value: float) -> tuple[float, float]:
        return begin + width * replicas / most, floor - height * value / top

    parts = [f'<text class="title" x="{begin:.1f}" y="{TOP - 20}">{readable(model)}: hops saved</text>\n']
    for step in range(round(top / STEP) + 1):
        _, y = place(0, step * STEP)
        parts.append(f'<path class="grid" d="M{begin:.1f} {y:.1f}h{width:.1f}"/>')
        parts.append(
            f'<text x="{begin - 8:.1f}" y="{y + 4:.1f}" text-anchor="end">{100 * step * STEP:.0f} %</text>\n'
        )
    for replicas in sorted({replicas for line in lines.values() for replicas, _ in line}):
        x, _ = place(replicas, 0)
        parts.append(f'<text x="{x:.1f}" y="{floor + 28}" text-anchor="middle">{replicas}</text>\n')
    parts.append(
        f'<text x="{begin + width / 2:.1f}" y="{floor + 50}" text-anchor="middle">copies in a layer</text>\n'
    )
    for number, (name, line) in enumerate(lines.items()):
        if not line:
            continue
        dots = [place(*point) for point in line]
        parts.append(f'<path class="line s{number}" d="M{"L".join(f"{x:.1f} {y:.1f}" for x, y in dots)}"/>')
        parts += [f'<circle class="m{number}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in dots]
        x, y = dots[-1]
        parts.append(
            f'<text class="m{number}" x="{x + 9:.1f}" y="{y + 4:.1f}">{readable(NAMES[name])}</text>\n'
        )
    return "".join(parts)
