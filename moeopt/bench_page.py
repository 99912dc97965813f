"""The report of a sweep: one HTML file."""

from __future__ import annotations

from collections.abc import Sequence

from moeopt.bench_figures import map_style
from moeopt.bench_origins import identity_of, mixed_origins, origins, superseded
from moeopt.bench_outcomes import SORTED, failure_section, front_section, map_section, run_section
from moeopt.bench_rows import Row
from moeopt.bench_sections import Sweep, gap_section, profile_section
from moeopt.bench_summaries import COLUMNS, MEANING, summary_cells, summary_keys
from moeopt.page import document, note_block, section_block, table_block, tile_list
from moeopt.svg import readable

__all__ = ["page_of"]


def page_of(rows: Sequence[Row], *, title: str = "Sweep of methods") -> str:
    """The page of the rows of a sweep, see `moeopt.bench_solving`; of rows about the same the newest counts.

    Nothing to fetch; one script of the page's own sorts the tables of methods and of runs. Texts of rows are escaped.
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
        header=tile_list(tiles) + _origin(sweep.rows, given=rows),
        body="".join(body),
        footer="Written by <code>moeopt bench</code>. Every cost was computed again and every bound verified by the "
        "checker before it was stored.",
        style=STYLE + map_style() + "\n",
        script=SCRIPT,
    )


def _methods(sweep: Sweep) -> str:
    """A table a case: methods need not have run on the same ones."""
    if not sweep.methods:
        return section_block("Methods", note_block("No rows: nothing has been run."))
    tables = [
        f"<h3>{readable(case)}</h3>"
        + table_block(COLUMNS, summary_cells(part.methods), keys=summary_keys(part.methods))
        for case, part in sweep.parts.items()
    ]
    return section_block(
        "Methods", f'<div class="methods">{"".join(tables)}</div>', note_block(f"{MEANING} {SORTED}")
    )


def _origin(rows: Sequence[Row], *, given: Sequence[Row]) -> str:
    """By what and where the rows were made."""
    parts = [*mixed_origins(rows), *superseded(given, rows)]
    if doubled := len(given) - len({identity_of(row) for row in given}):
        parts.append(f"{doubled} rows were left out: later ones are about the same.")
    told = "".join(
        f"<dt>{name}</dt>" + "".join(f"<dd>{readable(text)}</dd>" for text in texts)
        for name, texts in origins(rows)
    )
    warned = "".join(f'<p class="warned">{part}</p>' for part in parts)
    return warned + (f"<dl>{told}</dl>" if told else "")


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
h3{font-size:1rem;margin:1.2rem 0 0}
.methods td:first-child{white-space:normal;overflow-wrap:anywhere;min-width:8rem;max-width:24rem}
.runs td{max-width:18rem}.runs td:last-child{max-width:10rem}
.runs td:nth-child(2){white-space:normal;overflow-wrap:anywhere;min-width:7rem}
.runs td:first-child,.wrapped td{white-space:normal;min-width:12rem}.wrapped td:nth-child(-n+3){min-width:0}
@media (min-width:60rem){.runs td:first-child{min-width:17rem}}
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
