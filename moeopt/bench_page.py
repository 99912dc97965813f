"""The report of a sweep: one HTML file, and its summary as Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from moeopt.bench_figures import map_style
from moeopt.bench_measures import mixed_origins
from moeopt.bench_outcomes import failure_section, front_section, map_section, run_section
from moeopt.bench_rows import Row
from moeopt.bench_sections import COLUMNS, Sweep, gap_section, profile_section, summary_cells
from moeopt.page import document, note_block, section_block, table_block, tile_list
from moeopt.svg import readable

__all__ = ["markdown_of", "page_of"]

MEANING = (
    "Proved: layers proved optimal, of those with a placement. Share: certified share of the attainable saving, gap: "
    "(cost - bound) / cost; both by the best verified bound of any method, means over layers. Seconds: shifted "
    "geometric mean of the runs. Saved: fan-out against linear on the traffic placed for; held out: the same on "
    "requests set aside. MaxVio: what the busiest GPU has above the mean, median layer. A dash: no row tells."
)


def page_of(rows: Sequence[Row], *, title: str = "Sweep of methods") -> str:
    """The page of the rows of a sweep, see `moeopt.bench_solving`; of rows about the same the last counts.

    Nothing to fetch; one script of the page's own sorts the table of runs. Texts of rows are escaped.
    """
    sweep = Sweep.of(rows)
    failed = sum(one.failed for one in sweep.methods)
    layers = sum(one.layers for one in sweep.methods)
    tiles = [
        (f"{len(sweep.cases)}", "cases"),
        (f"{len(sweep.methods)}", "methods"),
        (f"{len(sweep.runs):,}", "runs"),
        (f"{failed:,}", "runs failed or skipped"),
        (
            f"{sum(one.optimal for one in sweep.methods):,}",
            f"of {layers:,} placements of layers proved optimal",
        ),
    ]
    body = [
        _methods(sweep),
        profile_section(sweep),
        gap_section(sweep),
        front_section(sweep),
        map_section(sweep),
        run_section(sweep),
        failure_section(sweep),
    ]
    return document(
        title,
        header=tile_list(tiles) + _origin(sweep.rows, given=len(rows)),
        body="".join(body),
        footer="Written by <code>moeopt bench</code>. Every cost was computed again and every bound verified by the "
        "checker before it was stored.",
        style=STYLE + map_style() + "\n",
        script=SCRIPT,
    )


def markdown_of(rows: Sequence[Row]) -> str:
    """The table of methods as Markdown, with a line that says what its columns mean; texts are escaped."""
    sweep = Sweep.of(rows)
    lines = [COLUMNS, ("---", *["---:"] * (len(COLUMNS) - 1)), *map(_plain, summary_cells(sweep))]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + f"\n{MEANING}{_unequal(sweep)}\n"


def _plain(cells: Sequence[str]) -> list[str]:
    """Cells whose text Markdown leaves as it is."""
    return [re.sub(r"([\\`*_\[\]|~])", r"\\\1", readable(cell)) for cell in cells]


def _methods(sweep: Sweep) -> str:
    if not sweep.methods:
        return section_block("Methods", note_block("No rows: nothing has been run."))
    return section_block(
        "Methods", table_block(COLUMNS, summary_cells(sweep), caption=MEANING + _unequal(sweep))
    )


def _unequal(sweep: Sweep) -> str:
    """A warning when means of methods are over different cases."""
    asked = {(row["case"], row["found"]["method"]) for row in sweep.rows}
    missing = len(sweep.cases) * len(sweep.methods) - len(asked)
    if not missing:
        return ""
    return (
        f" Not every method ran on every case ({missing} pairs are missing): means are over different cases."
    )


def _origin(rows: Sequence[Row], *, given: int) -> str:
    """By what and where the rows were made."""
    machines = _counted([f"{row['machine'].get('cpu')}, {row['machine'].get('cores')} cores" for row in rows])
    versions = _counted([", ".join(f"{name} {one}" for name, one in row["versions"].items()) for row in rows])
    parts = mixed_origins(rows)
    if given > len(rows):
        parts.append(f"{given - len(rows)} rows were left out: later ones are about the same.")
    stops = _counted([row["stop"] for row in rows])
    lines = [("Machine", machines), ("Versions", versions), ("Stop", stops)]
    told = "".join(
        f"<dt>{name}</dt>"
        + "".join(f"<dd>{readable(text)}{_share(count, found)}</dd>" for text, count in found.items())
        for name, found in lines
        if found
    )
    warned = "".join(f'<p class="warned">{part}</p>' for part in parts)
    return warned + (f"<dl>{told}</dl>" if told else "")


def _share(count: int, found: dict[str, int]) -> str:
    return f" ({count} of {sum(found.values())} rows)" if len(found) > 1 else ""


def _counted(texts: Sequence[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for text in texts:
        found[text] = found.get(text, 0) + 1
    return found


STYLE = """footer{margin-top:2.4rem}
.warned{border-left:4px solid var(--cold);padding:.1rem .8rem;color:var(--ink)}
dl{margin:1rem 0 0;font-size:.875rem;color:var(--muted);display:grid;grid-template-columns:auto 1fr;gap:.1rem .8rem}
dt{font-weight:600}dd{margin:0;grid-column:2}
.figures{grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr))}
.full{grid-column:1/-1;max-width:none}.full svg{min-width:46rem}
.cell{stroke:var(--k);stroke-width:1;fill:none}
.gap{stroke:var(--card);stroke-width:2.5;fill:none;vector-effect:non-scaling-stroke}
.join{stroke:var(--k);stroke-width:1.6;fill:none}.hollow{stroke:var(--k);stroke-width:1.6;fill:var(--card)}
.over{paint-order:stroke;stroke:var(--card);stroke-width:3px;stroke-linejoin:round}
[role=region]:focus-visible,button:focus-visible{outline:2px solid var(--s0);outline-offset:2px}
table.sortable td{max-width:18rem}table.sortable td:last-child{max-width:10rem}
table.sortable td:first-child,.wrapped td{white-space:normal;min-width:12rem}.wrapped td:nth-child(-n+3){min-width:0}
@media (min-width:60rem){table.sortable td:first-child{min-width:17rem}}
@media (max-width:30rem){figure:not(.full) svg text:not(.over){font-size:12.5px}}
th button{font:inherit;color:inherit;background:none;border:0;padding:0;cursor:pointer}
th button::after{content:" ↕";opacity:.45}
th[aria-sort=ascending] button::after{content:" ↑";opacity:1}
th[aria-sort=descending] button::after{content:" ↓";opacity:1}
"""
SCRIPT = """"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  const numeric = (cell) => cell.dataset.key !== undefined;
  const value = (cell) => numeric(cell) ? Number(cell.dataset.key) : cell.textContent;
  const bare = (cell) => !numeric(cell) && (cell.textContent === "–" || cell.textContent === "");
  const compare = (a, b) => typeof a === "number" && typeof b === "number" ? a - b
    : String(a).localeCompare(String(b), "en", {numeric: true});
  heads.forEach((head, at) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const turned = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", turned === 1 ? "ascending" : "descending");
      const order = [...body.rows].sort((one, other) => {
        const a = one.cells[at], b = other.cells[at];
        return bare(a) - bare(b) || turned * compare(value(a), value(b));
      });
      body.append(...order);
    });
  });
}
"""
