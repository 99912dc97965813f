"""A profile as one HTML file: nothing to fetch, no scripts, light and dark, wide and narrow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moeopt import storage
from moeopt.profile_figures import readable
from moeopt.profile_pairs import chosen_layers, pair_picture
from moeopt.profile_pattern_topics import drift_topic, flow_topic, pair_topic
from moeopt.profile_request_topic import request_topic
from moeopt.profile_topic import Figure, Topic, mean_known, percent, rounded
from moeopt.profile_usage_topics import family_topic, load_topic, phase_topic

if TYPE_CHECKING:
    from moeopt.characteristics import Profile
    from moeopt.placement import Placement
    from moeopt.profile_counts import Traffic
    from moeopt.storage import PathLike

__all__ = ["page_of", "topics_of", "write_page"]

OPEN_ROWS = 8  # of a table that is not folded


def write_page(
    profile: Profile, path: PathLike, *, traffic: Traffic, placement: Placement | None = None
) -> None:
    """Write the page, whole or not at all; parameters and errors as of `page_of`, ValueError for the file."""
    storage.write_bytes(path, page_of(profile, traffic=traffic, placement=placement).encode())


def page_of(profile: Profile, *, traffic: Traffic, placement: Placement | None = None) -> str:
    """The page of a profile of `traffic`; pairs of experts in the order of the placement's GPUs, or of spectral groups.

    Texts of the recording are escaped. Raises ValueError for a placement of other experts or layers.
    """
    topics = topics_of(profile, traffic=traffic, placement=placement)
    model = readable(profile.model or "this recording")
    shape = [
        f"{profile.tokens:,} {'tokens' if profile.top_k else 'activations'}",
        *([] if profile.requests is None else [f"{profile.requests:,} requests"]),
        f"{len(profile.layers)} layers",
        f"{profile.n_experts} experts, top-{profile.top_k or 'k not recorded'}",
    ]
    if profile.sampled is not None:
        shape.append(f"sets and pairs of {profile.sampled:,} tokens drawn at random")
    tiles = "".join(
        f"<li><b>{readable(value)}</b> {readable(meaning)}</li>" for value, meaning in _headlines(profile)
    )
    body = "".join(map(_section, topics))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f'<meta name="color-scheme" content="light dark"><title>Traffic of {model}</title>'
        f"<style>{STYLE}</style></head><body><header><h1>Traffic of {model}</h1><p>{' · '.join(shape)}</p>"
        f'<ul class="tiles">{tiles}</ul></header><main>{body}</main>'
        "<footer>Written by <code>moeopt profile</code>. Measures: arXiv 2604.23150, section 3; halves, null models "
        "and drift as documented in <code>moeopt.characteristics</code>. TRACE stands for the recording.</footer>"
        "</body></html>\n"
    )


def topics_of(profile: Profile, *, traffic: Traffic, placement: Placement | None = None) -> tuple[Topic, ...]:
    """All topics in the order of the page; parameters and errors as of `page_of`."""
    found = [pair_picture(traffic, at, placement=placement) for at in chosen_layers(profile)]
    pictures = [picture for picture in found if picture is not None]
    return (
        load_topic(profile),
        family_topic(profile),
        phase_topic(profile),
        *([] if profile.classification is None else [request_topic(profile.classification)]),
        pair_topic(profile, pictures=pictures, placed=placement is not None),
        flow_topic(profile),
        drift_topic(profile),
    )


def _headlines(profile: Profile) -> list[tuple[str, str]]:
    """(number, what it is) of each topic that has one."""
    found = [(rounded(profile.mean("max_over_mean")), "busiest expert over the mean, mean of layers")]
    if (alike := profile.mean("family_correlation")) is not None:
        found.append(
            (
                rounded(alike),
                f"correlation between families; {rounded(profile.within)} within one",
            )
        )
    if (phases := profile.mean("phase_correlation")) is not None:
        found.append((rounded(phases), "correlation of prefill and decode"))
    if (excess := profile.mean("coactivation")) is not None:
        least = "≥ " if profile.recorded_pairs < 1 else ""
        found.append((least + percent(excess, digits=0), "of pairs lie elsewhere than by independent choice"))
    if profile.drift is not None:
        found.append(
            (rounded(mean_known(profile.drift.consecutive)), "correlation of a window with the next")
        )
    return found


def _section(topic: Topic) -> str:
    parts = [f"<section><h2>{readable(topic.title)}</h2>"]
    if topic.why:
        parts.append(f'<p class="why">Not told by this recording: {readable(topic.why)}.</p>')
    advice = ""
    if topic.advice:
        command = f"<pre><code>{readable(topic.command)}</code></pre>"
        advice = f'<div><p class="next">{readable(topic.advice)}</p>{command}</div>'
    if topic.figures:
        beside = advice if len(topic.figures) == 1 else ""
        parts.append(f'<div class="figures">{"".join(map(_figure, topic.figures))}{beside}</div>')
    if len(topic.figures) != 1:
        parts.append(advice)
    if topic.rows:
        parts.append(_table(topic))
    return "".join(parts) + "</section>"


def _figure(figure: Figure) -> str:
    keys = "".join(f'<li class="k{at}">{readable(name)}</li>' for at, name in enumerate(figure.lines))
    legend = f'<ul class="legend">{keys}</ul>' if len(figure.lines) > 1 else ""
    return f"<figure>{figure.svg}{legend}<figcaption>{readable(figure.sentence)}</figcaption></figure>"


def _table(topic: Topic) -> str:
    words = [any(_worded(row[at]) for row in topic.rows) for at in range(len(topic.columns))]
    kinds = [' class="word"' if word else "" for word in words]
    head = "".join(
        f'<th scope="col"{kind}>{readable(name)}</th>'
        for kind, name in zip(kinds, topic.columns, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(f"<td{kind}>{readable(cell)}</td>" for kind, cell in zip(kinds, row, strict=True))
        + "</tr>"
        for row in topic.rows
    )
    table = f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    caption = f'<p class="note">{readable(topic.caption)}</p>' if topic.caption else ""
    if len(topic.rows) <= OPEN_ROWS:
        return table + caption
    return f"<details><summary>{len(topic.rows)} rows</summary>{table}{caption}</details>"


def _worded(cell: str) -> bool:
    """Whether a cell is not a number, a share or a dash."""
    return bool(cell.strip("–-+.,%x 0123456789"))


STYLE = """
:root{--paper:#fff;--card:#f6f7f9;--ink:#1f2933;--muted:#5b6875;--grid:#dfe4e9;--s0:#2f6f9f;--s1:#c4622d;--s2:#3c8a57;
--s3:#8a5ba8;--s4:#a8842c;--s5:#4f7f86;--cold:#c4622d}
@media (prefers-color-scheme:dark){:root{--paper:#14181d;--card:#1c2229;--ink:#e3e8ed;--muted:#9aa7b4;--grid:#343d47;
--s0:#6fb1e0;--s1:#f0935f;--s2:#72c58f;--s3:#c398e0;--s4:#dcb95c;--s5:#86bcc4;--cold:#f0935f}}
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
svg text{font-size:11px;fill:var(--ink);font-variant-numeric:tabular-nums}
svg .end{text-anchor:end}svg .mid{text-anchor:middle}svg .axis{fill:var(--muted)}svg .on{fill:var(--paper)}
.s0{fill:var(--s0)}.s1{fill:var(--s1)}.s2{fill:var(--s2)}.s3{fill:var(--s3)}.s4{fill:var(--s4)}.s5{fill:var(--s5)}
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
