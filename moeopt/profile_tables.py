"""A profile as tables for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from moeopt.profile_topic import rounded

if TYPE_CHECKING:
    from moeopt.characteristics import Profile

__all__ = ["tables_of"]


def tables_of(profile: Profile) -> list[Any]:
    """Layers, families, similarity and drift, as far as they are known; then a line for each topic that is not."""
    shown: list[Any] = [_layers(profile), _families(profile)]
    if profile.similarity:
        similar = Table(title="Similarity of families", title_justify="left")
        similar.add_column("families")
        similar.add_column("r", justify="right")
        for name, value in profile.similarity.items():
            similar.add_row(escape(name), rounded(value))
        shown.append(similar)
    if profile.drift is not None:
        drift = Table(title="Over time", title_justify="left")
        for name in ("window", "r with the one before", "r with the first"):
            drift.add_column(name, justify="right")
        for at, (before, first) in enumerate(
            zip(profile.drift.consecutive, profile.drift.first, strict=True)
        ):
            drift.add_row(str(at + 2), rounded(before), rounded(first))
        drift.caption = f"steady traffic would have r {rounded(profile.drift.steady)}"
        drift.caption_justify = "left"
        shown.append(drift)
    if profile.classification is not None:
        recorded, shuffled = profile.classification.recorded, profile.classification.shuffled
        shown.append(
            f"first tokens tell the family of {recorded.mean:.1%} of {recorded.held_out} held-out requests; "
            f"shuffled {shuffled.mean:.1%}, always the commonest {recorded.majority:.1%}"
        )
    return [*shown, *(f"{topic}: {why}" for topic, why in profile.missing.items())]


def _layers(profile: Profile) -> Table:
    table = Table(title=f"{escape(profile.model) or 'trace'}: layers", title_justify="left")
    for name in ("layer", "max / mean", "Gini", "idle", "sets", "families", "phases", "pairs", "flow"):
        table.add_column(name, justify="right", no_wrap=True)
    for layer in profile.layers:
        excess = (None if one is None else one.excess for one in (layer.coactivation, layer.flow))
        table.add_row(
            str(layer.layer),
            rounded(layer.max_over_mean),
            rounded(layer.gini),
            str(layer.idle),
            "–" if layer.distinct_sets is None else str(layer.distinct_sets),
            rounded(layer.family_correlation),
            rounded(layer.phase_correlation),
            *(rounded(value, ".1%") for value in excess),
        )
    table.caption = (
        "max / mean: busiest expert; idle: experts never chosen; sets: distinct; families, phases: correlation of "
        "loads between them; pairs, flow: share of pairs, of transfers to the next layer, beyond independent choice"
    )
    table.caption_justify = "left"
    return table


def _families(profile: Profile) -> Table:
    table = Table(title="Families", title_justify="left")
    table.add_column("family")
    for name in ("tokens", "requests", "halves r"):
        table.add_column(name, justify="right")
    for name, tokens in profile.families.items():
        at = profile.compared.index(name) if name in profile.compared else None
        halves = profile.matrix[at][at] if profile.matrix is not None and at is not None else None
        requests = None if profile.family_requests is None else profile.family_requests[name]
        table.add_row(escape(name), f"{tokens:,}", rounded(requests, ",d"), rounded(halves))
    table.caption = "halves r: correlation of loads between two halves of the family's requests"
    table.caption_justify = "left"
    return table
