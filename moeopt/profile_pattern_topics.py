"""How experts are chosen: together, one layer after the other, over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from moeopt.profile_figures import bar_chart, heat_map, line_chart
from moeopt.profile_topic import Figure, Topic, mean_known, objective, percent, rounded

if TYPE_CHECKING:
    from moeopt.characteristics import LayerProfile, Profile
    from moeopt.profile_null import Association
    from moeopt.profile_pairs import PairPicture

__all__ = ["drift_topic", "flow_topic", "pair_topic"]

WEAK, DRIFTING, CLEAR = 0.05, 0.05, 0.5  # what sentences call so


def pair_topic(profile: Profile, *, pictures: Sequence[PairPicture], placed: bool) -> Topic:
    """Which experts one token chooses together; `placed`: pictures are ordered by a placement."""
    title, note = "Experts chosen together", profile.missing.get("coactivation", "")
    found = {layer.layer: layer.coactivation for layer in profile.layers if layer.coactivation is not None}
    if not found:
        return Topic(title, (), (), (), "", "", "", note or "no pairs are recorded")
    excess, noise = (
        float(np.mean([getattr(one, name) for one in found.values()])) for name in ("excess", "noise")
    )
    strong, option = excess > noise + WEAK, objective(profile)
    if not strong:
        command = "moeopt place TRACE --gpus 8 --objective load -o placement.json"
    elif option:
        command = f"moeopt place TRACE --gpus 8{option} -o placement.json"
    else:
        command = "moeopt compare TRACE --gpus 8 --methods linear,spectral,search"
    return Topic(
        title,
        tuple(_pair_figure(picture, found[picture.layer], profile, placed) for picture in pictures),
        ("layer", "excess", "noise", "top 1 % hold", "over expected", "strongest pairs (over expected)"),
        _association_rows(profile.layers, "coactivation", " + "),
        "Expected: each token chooses k experts so that loads are as recorded, and nothing else. Excess: the share of "
        "pairs beyond it; noise: the excess of independent choice in so many tokens, at most about."
        + (f" Here {note}." if note else ""),
        "Experts go together: a placement that keeps them together saves traffic."
        if strong
        else "Experts are chosen almost independently: only loads are worth placing by.",
        command,
    )


def _pair_figure(picture: PairPicture, association: Association, profile: Profile, placed: bool) -> Figure:
    least, known = ("at least ", "recorded ") if profile.recorded_pairs < 1 else ("", "")
    kind = f"{picture.groups} GPUs" if placed else f"{picture.groups} spectral groups of experts"
    blocks = f" A cell is {picture.block} x {picture.block} experts." if picture.block > 1 else ""
    return Figure(
        heat_map(picture.levels, edges=picture.edges, label=f"Co-activation of layer {picture.layer}"),
        f"Layer {picture.layer}: {least}{percent(association.excess)} of the pairs lie elsewhere than by independent "
        f"choice (noise {percent(association.noise)}). {kind} hold {percent(picture.inside)} of the {known}pairs, by "
        f"independent choice {percent(picture.expected)}. Shades: observed over expected, from 1 to "
        f"{picture.darkest:.1f}.{blocks}",
    )


def flow_topic(profile: Profile) -> Topic:
    """What a layer tells of the next."""
    title, layers = "From layer to layer", profile.layers
    known = {layer.layer: layer.flow for layer in layers if layer.flow is not None}  # the last layer has none
    found = list(known.values())
    if not found:
        return Topic(title, (), (), (), "", "", "", profile.missing.get("flow", "not known"))
    mean, noise = float(np.mean([one.excess for one in found])), float(np.mean([one.noise for one in found]))
    strong = mean > noise + WEAK
    chart = bar_chart(
        [100 * one.excess for one in found],
        names=list(known),
        axis="from layer",
        label="Excess of transfers to the next layer shown, percent",
        line=100 * noise,
    )
    return Topic(
        title,
        (
            Figure(
                chart,
                f"{percent(mean)} of the transfers between an expert and one of the next layer shown lie elsewhere "
                f"than by independent choice, mean of the layers; noise {percent(noise)} (dashed). Bars are percent.",
            ),
        ),
        ("layers", "excess", "noise", "top 1 % hold", "over expected", "strongest transfers (over expected)"),
        tuple(
            (f"{row[0]} → {after.layer}", *row[1:])
            for row, after in zip(_association_rows(layers, "flow", " → "), layers[1:], strict=True)
        ),
        "Expected: load here x load in the next layer shown / tokens.",
        "The expert of a layer tells about that of the next: layers placed together keep tokens on a GPU; see what "
        "it costs within layers."
        if strong
        else "Layers choose almost independently: place each on its own.",
        "moeopt compare TRACE --gpus 8 --methods linear,exflow" if strong else "moeopt place TRACE --gpus 8",
    )


def drift_topic(profile: Profile) -> Topic:
    """How loads change in the order of the recording."""
    title, drift = "Over time", profile.drift
    if drift is None:
        return Topic(title, (), (), (), "", "", "", profile.missing.get("drift", "not known"))
    names = [str(at + 2) for at in range(drift.windows - 1)]
    mean, last = mean_known(drift.consecutive), drift.first[-1]
    clear = drift.steady is not None and drift.steady > CLEAR
    moving = clear and mean is not None and mean < (drift.steady or 0.0) - DRIFTING
    if not clear:
        advice = "Too little traffic to tell drift from chance: test a placement on requests set aside."
    elif moving:
        advice = "Loads move: re-place from time to time, and pay for moves only where they earn it."
    else:
        advice = "Loads hold still in this recording: a placement should last; test it on requests set aside."
    steady = (
        "there are too few requests to say what steady traffic would show."
        if drift.steady is None
        else f"steady traffic would show {drift.steady:.2f} (dashed)."
    )
    chart = line_chart(
        [("with the window before", drift.consecutive), ("with the first window", drift.first)],
        names=names,
        axis=f"window of {profile.tokens // drift.windows:,} tokens",
        label="Correlation of loads of windows",
        line=drift.steady,
    )
    return Topic(
        title,
        (
            Figure(
                chart,
                f"A window of tokens correlates {rounded(mean)} with the one before, the last one "
                f"{rounded(last)} with the first; {steady} Windows follow the order of the recording.",
                ("with the window before", "with the first window"),
            ),
        ),
        ("window", "r with the one before", "r with the first"),
        tuple(
            (name, rounded(before, ".3f"), rounded(first, ".3f"))
            for name, before, first in zip(names, drift.consecutive, drift.first, strict=True)
        ),
        "Means over layers. Steady: every so many-th request in a window, instead of consecutive tokens.",
        advice,
        "moeopt moves TRACE --incumbent placement.json --max-moves 12"
        if moving
        else "moeopt compare TRACE --gpus 8 --held-out 0.2",
    )


def _association_rows(layers: Sequence[LayerProfile], name: str, sign: str) -> tuple[tuple[str, ...], ...]:
    rows = []
    for layer in layers:
        one = getattr(layer, name)
        if one is not None:
            links = ", ".join(f"{link.first}{sign}{link.second} ({link.lift:.1f}x)" for link in one.links[:3])
            lift = "–" if one.top_lift is None else f"{one.top_lift:.1f}x"
            cells = (percent(one.excess), percent(one.noise), percent(one.top_share), lift)
            rows.append((str(layer.layer), *cells, links or "–"))
    return tuple(rows)
