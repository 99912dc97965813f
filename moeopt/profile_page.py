"""A profile as one HTML file: nothing to fetch, no scripts, light and dark, wide and narrow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moeopt import storage
from moeopt.page import document, figure_block, folded, section_block, table_block, tile_list
from moeopt.profile_pairs import chosen_layers, pair_picture
from moeopt.profile_pattern_topics import drift_topic, flow_topic, pair_topic
from moeopt.profile_request_topic import request_topic
from moeopt.profile_topic import Topic, mean_known, percent, rounded
from moeopt.profile_usage_topics import family_topic, load_topic, phase_topic
from moeopt.svg import readable

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
    shape = [
        f"{profile.tokens:,} {'tokens' if profile.top_k else 'activations'}",
        *([] if profile.requests is None else [f"{profile.requests:,} requests"]),
        f"{len(profile.layers)} layers",
        f"{profile.n_experts} experts, top-{profile.top_k or 'k not recorded'}",
    ]
    if profile.sampled is not None:
        shape.append(f"sets and pairs of {profile.sampled:,} tokens drawn at random")
    return document(
        f"Traffic of {profile.model or 'this recording'}",
        header=f"<p>{' · '.join(shape)}</p>{tile_list(_headlines(profile))}",
        body="".join(map(_section, topics)),
        footer="Written by <code>moeopt profile</code>. Measures: arXiv 2604.23150, section 3; halves, null models "
        "and drift as documented in <code>moeopt.characteristics</code>. TRACE stands for the recording.",
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
    parts = []
    if topic.why:
        parts.append(f'<p class="why">Not told by this recording: {readable(topic.why)}.</p>')
    advice = ""
    if topic.advice:
        command = f"<pre><code>{readable(topic.command)}</code></pre>"
        advice = f'<div><p class="next">{readable(topic.advice)}</p>{command}</div>'
    if topic.figures:
        beside = advice if len(topic.figures) == 1 else ""
        parts.append(f'<div class="figures">{"".join(map(figure_block, topic.figures))}{beside}</div>')
    if len(topic.figures) != 1:
        parts.append(advice)
    if topic.rows:
        table = table_block(topic.columns, topic.rows, caption=topic.caption)
        parts.append(table if len(topic.rows) <= OPEN_ROWS else folded(f"{len(topic.rows)} rows", table))
    return section_block(topic.title, *parts)
