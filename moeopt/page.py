"""One HTML file for people: nothing to fetch, light and dark, wide and narrow; the parts that reports share."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from moeopt.svg import readable

__all__ = [
    "COLOURS",
    "STYLE",
    "Figure",
    "document",
    "figure_block",
    "figure_grid",
    "folded",
    "note_block",
    "percent",
    "rounded",
    "section_block",
    "table_block",
    "tile_list",
]

COLOURS = 8  # classes s0 to s7 fill, k0 to k7 stand in legends


@dataclass(frozen=True)
class Figure:
    """A picture and what stands under it.

    | field | holds |
    |---|---|
    | svg | the picture |
    | sentence | plain text under it |
    | lines | names in the order of their colours; empty for a colour that this picture does not use |
    | key | prefix of the classes of the legend |
    | wide | takes a row of its own, and is scrolled where it has no room |
    """

    svg: str
    sentence: str
    lines: tuple[str, ...] = ()
    key: str = "k"
    wide: bool = False


def rounded(value: float | None, pattern: str = ".2f") -> str:
    """A number in words; a dash where there is none, and no minus before a zero."""
    text = "–" if value is None else format(value, pattern)
    return text if text.strip("-+.,%0") else text.removeprefix("-")


def percent(value: float | None, *, digits: int = 1) -> str:
    """A share in words; a dash where there is none."""
    return "–" if value is None else f"{rounded(100 * value, f'.{digits}f')} %"


def document(title: str, *, header: str, body: str, footer: str, style: str = "", script: str = "") -> str:
    """The page: `title` is plain text, the parts are HTML; of scripts a browser runs this one and no other."""
    allowed, code = "", ""
    if script:
        allowed = f"; script-src 'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'"
        code = f"<script>{script}</script>"
    name = readable(title)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'"
        f'{allowed}"><meta name="color-scheme" content="light dark"><title>{name}</title>'
        f"<style>{STYLE}{style}</style></head><body><header><h1>{name}</h1>{header}</header><main>{body}</main>"
        f"<footer>{footer}</footer>{code}</body></html>\n"
    )


def tile_list(tiles: Sequence[tuple[str, str]]) -> str:
    """Large numbers and what they are."""
    items = "".join(f"<li><b>{readable(value)}</b> {readable(meaning)}</li>" for value, meaning in tiles)
    return f'<ul class="tiles">{items}</ul>'


def section_block(title: str, *parts: str) -> str:
    """HTML under a heading."""
    return f"<section><h2>{readable(title)}</h2>{''.join(parts)}</section>"


def figure_block(figure: Figure) -> str:
    """The picture with its legend and its sentence."""
    keys = "".join(
        f'<li class="{figure.key}{at}">{readable(name)}</li>' for at, name in enumerate(figure.lines) if name
    )
    legend = f'<ul class="legend">{keys}</ul>' if len(figure.lines) > 1 else ""
    svg, kind = figure.svg, ""
    if figure.wide:
        svg, kind = _scrolled(svg, figure.sentence), ' class="full"'
    return f"<figure{kind}>{svg}{legend}<figcaption>{readable(figure.sentence)}</figcaption></figure>"


def table_block(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    caption: str = "",
    keys: Sequence[Sequence[float | None]] = (),
) -> str:
    """A table of plain text; with `keys`, numbers that cells stand for, its rows can be sorted by a script."""
    words = [any(_worded(row[at]) for row in rows) for at in range(len(columns))]
    kinds = [' class="word"' if word else "" for word in words]
    head = "".join(
        f'<th scope="col"{kind}>{readable(name)}</th>' for kind, name in zip(kinds, columns, strict=True)
    )
    values = keys or [[None] * len(columns)] * len(rows)
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{kind}{_sorted_by(key)}>{readable(cell)}</td>"
            for kind, cell, key in zip(kinds, row, own, strict=True)
        )
        + "</tr>"
        for row, own in zip(rows, values, strict=True)
    )
    kind = ' class="sortable"' if keys else ""
    table = f"<table{kind}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    note = note_block(caption) if caption else ""
    return (_scrolled(table, "rows") if keys else f'<div class="wide">{table}</div>') + note


def figure_grid(figures: Sequence[Figure]) -> str:
    """Figures beside one another as far as there is room."""
    return f'<div class="figures">{"".join(map(figure_block, figures))}</div>'


def note_block(text: str) -> str:
    """A paragraph of plain text in small letters."""
    return f'<p class="note">{readable(text)}</p>'


def folded(summary: str, body: str) -> str:
    """HTML that a reader opens."""
    return f"<details><summary>{readable(summary)}</summary>{body}</details>"


def _scrolled(body: str, label: str) -> str:
    """HTML that may be wider than the screen, within reach of the keyboard."""
    return f'<div class="wide" role="region" tabindex="0" aria-label="{readable(label)}">{body}</div>'


def _sorted_by(key: float | None) -> str:
    return "" if key is None else f' data-key="{key:.17g}"'


def _worded(cell: str) -> bool:
    """Whether a cell is not a number, a share or a dash."""
    return bool(cell.strip("–-+.,%x/ 0123456789"))


STYLE = """
:root{--paper:#fff;--card:#f6f7f9;--ink:#1f2933;--muted:#5b6875;--grid:#dfe4e9;--s0:#2f6f9f;--s1:#c4622d;--s2:#3c8a57;
--s3:#8a5ba8;--s4:#a8842c;--s5:#4f7f86;
--s6:#b03a66;--s7:#626a73;--cold:#c4622d}
@media (prefers-color-scheme:dark){:root{--paper:#14181d;--card:#1c2229;--ink:#e3e8ed;--muted:#9aa7b4;--grid:#343d47;
--s0:#6fb1e0;--s1:#f0935f;--s2:#72c58f;--s3:#c398e0;--s4:#dcb95c;--s5:#86bcc4;
--s6:#f08bb0;--s7:#b4bcc4;--cold:#f0935f}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1.2rem 1rem 3rem;max-width:72rem;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;overflow-wrap:anywhere}
h1{font-size:1.6rem;line-height:1.2;margin:.4rem 0}
h2{font-size:1.2rem;margin:2.4rem 0 .6rem;padding-top:.8rem;border-top:1px solid var(--grid)}
header p,footer,.note,.why{color:var(--muted)}
.note,footer{font-size:.875rem}
.tiles,.legend{list-style:none;padding:0;margin:1rem 0 0;display:flex;flex-wrap:wrap;gap:.7rem}
.tiles li{flex:1 1 9.5rem;background:var(--card);border-radius:8px;padding:.7rem .9rem;font-size:.875rem;
color:var(--muted)}
.tiles b{display:block;font-size:1.5rem;line-height:1.2;color:var(--ink);font-variant-numeric:tabular-nums}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,20rem),1fr));gap:1rem;align-items:start}
figure{margin:0;background:var(--card);border-radius:8px;padding:.9rem;max-width:36rem}
figure svg{display:block;width:100%;height:auto;overflow:visible}
figcaption{font-size:.9rem;margin-top:.6rem}
.legend{gap:.2rem 1rem;margin:.4rem 0 0;font-size:.85rem}
.legend li::before{content:"";display:inline-block;width:.8em;height:.8em;border-radius:2px;margin-right:.4em;
background:var(--k)}
.k0{--k:var(--s0)}.k1{--k:var(--s1)}.k2{--k:var(--s2)}.k3{--k:var(--s3)}.k4{--k:var(--s4)}.k5{--k:var(--s5)}
.k6{--k:var(--s6)}.k7{--k:var(--s7)}
svg text{font-size:11px;fill:var(--ink);font-variant-numeric:tabular-nums}
svg .end{text-anchor:end}svg .mid{text-anchor:middle}svg .axis{fill:var(--muted)}svg .on{fill:var(--paper)}
.s0{fill:var(--s0)}.s1{fill:var(--s1)}.s2{fill:var(--s2)}.s3{fill:var(--s3)}.s4{fill:var(--s4)}.s5{fill:var(--s5)}
.s6{fill:var(--s6)}.s7{fill:var(--s7)}
.cold{fill:var(--cold)}.ground{fill:var(--paper)}
.l0,.l1,.l2,.l3,.l4,.l5{fill:none;stroke-width:1.6;stroke-linejoin:round}
.l0{stroke:var(--s0)}.l1{stroke:var(--s1)}.l2{stroke:var(--s2)}.l3{stroke:var(--s3)}.l4{stroke:var(--s4)}.l5{stroke:var(--s5)}
.grid{stroke:var(--grid);fill:none}.rule{stroke:var(--ink);stroke-dasharray:4 3;fill:none}
.edge{stroke:var(--ink);stroke-width:1;fill:none;vector-effect:non-scaling-stroke;opacity:.65}
.next{font-weight:600;margin:1rem 0 .3rem}
pre{margin:.2rem 0 1rem;padding:.6rem .8rem;background:var(--card);border-radius:6px;white-space:pre-wrap}
code{font-family:ui-monospace,"SF Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:.85rem}
.figures>*{min-width:0}
.wide{overflow-x:auto;margin-top:.8rem}
table{border-collapse:collapse;font-size:.85rem;font-variant-numeric:tabular-nums;min-width:100%;overflow-wrap:normal}
th,td{text-align:right;padding:.25rem .6rem;border-bottom:1px solid var(--grid);white-space:nowrap}
th{color:var(--muted);font-weight:600}
.word,th:first-child,td:first-child{text-align:left}
td{max-width:22rem;overflow:hidden;text-overflow:ellipsis}
summary{cursor:pointer;color:var(--muted);margin:.4rem 0}
"""
