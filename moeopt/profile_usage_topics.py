"""Which experts are used: loads, families, phases."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from moeopt.profile_figures import SHADES, bar_chart, line_chart, number_grid
from moeopt.profile_topic import Figure, Topic, layer_ids, objective, percent, rounded

if TYPE_CHECKING:
    from moeopt.characteristics import Profile

__all__ = ["family_topic", "load_topic", "phase_topic"]

MOST_FAMILIES = 18  # in a figure: the largest
SKEWED, ALIKE, CLEAR = 2.0, 0.9, 0.5  # what sentences call so


def load_topic(profile: Profile) -> Topic:
    """How uneven the loads of experts are."""
    layers, names = profile.layers, layer_ids(profile)
    skew = [layer.max_over_mean for layer in layers]
    worst = layers[int(np.argmax(skew))]
    idle = sum(layer.idle for layer in layers)
    sentence = (
        f"The busiest expert serves {np.median(skew):.2f} times the mean in the median layer, "
        f"{worst.max_over_mean:.2f} in layer {worst.layer}. Gini {rounded(profile.mean('gini'))}, entropy "
        f"{percent(profile.mean('entropy'))} of that of even loads. "
        + (
            f"{idle} of {profile.n_experts * len(layers)} experts were never chosen."
            if idle
            else "No expert is idle."
        )
    )
    heavy, option = float(np.median(skew)) > SKEWED, objective(profile)
    return Topic(
        "Load of experts",
        (
            Figure(
                bar_chart(
                    skew, names=names, axis="layer", label="Largest load over the mean, by layer", line=1.0
                ),
                sentence,
            ),
        ),
        (
            "layer",
            "max / mean",
            "CV",
            "Gini",
            "entropy",
            "idle",
            "distinct sets",
            "of tokens",
            "10 commonest",
        ),
        tuple(
            (
                str(layer.layer),
                rounded(layer.max_over_mean),
                rounded(layer.variation),
                rounded(layer.gini, ".3f"),
                rounded(layer.entropy, ".3f"),
                str(layer.idle),
                "–" if layer.distinct_sets is None else f"{layer.distinct_sets:,}",
                percent(layer.distinct_share),
                percent(layer.common_share),
            )
            for layer in layers
        ),
        "MaxVio is max / mean less 1. Distinct sets: of experts that one token chose, and as a share of the tokens; "
        "the last column is the share of the tokens that have one of the 10 commonest.",
        "Few experts carry much: even out the GPUs, and give the busiest experts copies."
        if heavy
        else "Loads are fairly even: a tolerance on the load of GPUs costs little.",
        "moeopt allocate TRACE --gpus 8 --replicas 2 --total-replicas 12"
        if heavy and not option and len(layers) > 1
        else f"moeopt place TRACE --gpus 8{option or ' --load-tolerance 0.1'} -o placement.json",
    )


def family_topic(profile: Profile) -> Topic:
    """How alike the families are."""
    title = "Families"
    rows = _family_rows(profile)
    columns = (
        "family",
        "tokens",
        "requests",
        "worst max / mean",
        "its halves r",
        "most alike",
        "least alike",
    )
    caption = (
        "r: Pearson correlation of the loads of experts, mean over layers; halves: of the family's requests."
    )
    if profile.matrix is None or len(profile.compared) < 2:
        return Topic(title, (), columns, rows, caption, "", "", profile.missing.get("families", "one family"))
    largest = sorted(range(len(profile.compared)), key=lambda at: -profile.families[profile.compared[at]])
    shown = sorted(largest[:MOST_FAMILIES])
    matrix = [[profile.matrix[i][j] for j in shown] for i in shown]
    between, within = profile.mean("family_correlation"), profile.within
    alike = between is not None and between > ALIKE * (within or 1.0)
    unclear = within is not None and within < CLEAR
    guard = "" if alike or unclear else " --tail 0"
    if unclear:
        advice = (
            "Halves of one family differ as well: loads are even, or tokens too few to tell families apart."
        )
    elif alike:
        advice = "Families use the same experts: one placement serves them all."
    else:
        advice = "Families use different experts: say how much each counts, or guard the worst one."
    general = profile.mean("everywhere")
    chance = profile.n_experts * 0.25 ** len(profile.compared)
    sentence = (
        f"Loads of two families correlate {rounded(between)}, those of two halves of one family (diagonal) "
        f"{rounded(within)}. {rounded(general, '.1f')} of {profile.n_experts} experts a layer are in the "
        f"busiest quarter of every family, {rounded(profile.mean('somewhere'), '.1f')} of one family alone; "
        f"families that choose independently would share {chance:.2f}."
    )
    if len(shown) < len(profile.compared):
        sentence += f" Shown: the {len(shown)} largest of {len(profile.compared)} families."
    grid = number_grid(
        matrix, names=[profile.compared[at] for at in shown], label="Correlation of loads of families"
    )
    return Topic(
        title,
        (Figure(grid, sentence),),
        columns,
        rows,
        caption,
        advice,
        f"moeopt place TRACE --gpus 8{objective(profile) or guard} -o placement.json",
    )


def _family_rows(profile: Profile) -> tuple[tuple[str, ...], ...]:
    rows = []
    for name, tokens in profile.families.items():
        factors = [by_family[name] for by_family in profile.imbalance.values() if name in by_family]
        own, ends = None, ["–", "–"]
        if profile.matrix is not None and name in profile.compared:
            at = profile.compared.index(name)
            own = profile.matrix[at][at]
            others = [
                (r, other)
                for r, other in zip(profile.matrix[at], profile.compared, strict=True)
                if r is not None
            ]
            others = [pair for pair in others if pair[1] != name]
            ends = [f"{other} ({rounded(r)})" for r, other in (max(others), min(others))] if others else ends
        requests = "–" if profile.family_requests is None else f"{profile.family_requests[name]:,}"
        rows.append(
            (
                name,
                f"{tokens:,}",
                requests,
                rounded(max(factors, default=None)),
                rounded(own),
                *ends,
            )
        )
    return tuple(rows)


def phase_topic(profile: Profile) -> Topic:
    """How alike prefill and decode are."""
    title, caption = "Prefill and decode", "r: Pearson correlation of loads in prefill and in decode."
    counts = profile.phases or {}
    rows = tuple((name, f"{tokens:,}") for name, tokens in counts.items())
    mean = profile.mean("phase_correlation")
    if mean is None:
        why = profile.missing.get("phase correlation") or profile.missing.get("phases", "loads are constant")
        return Topic(title, (), ("phase", "tokens"), rows, "", "", "", why)
    layers = [layer for layer in profile.layers if layer.phase_correlation is not None]
    least = min(layers, key=lambda layer: layer.phase_correlation or 0.0)
    names = sorted(profile.compared, key=lambda name: -profile.families[name])[: SHADES - 1]
    series = [("all", [layer.phase_correlation for layer in profile.layers])]
    if len(profile.compared) > 1:
        series += [
            (name, [(layer.phase_by_family or {}).get(name) for layer in profile.layers]) for name in names
        ]
    halves = profile.mean("halves")
    chart = line_chart(
        series,
        names=layer_ids(profile),
        axis="layer",
        label="Correlation of prefill and decode, by layer",
        line=halves,
    )
    clear = halves is None or halves > CLEAR
    same = mean > ALIKE * (1.0 if halves is None else halves)
    if not clear:
        advice = (
            "Halves of the requests differ as well: loads are even, or tokens too few to tell phases apart."
        )
    elif same:
        advice = "Both phases load the same experts: one placement serves both."
    else:
        advice = "Phases differ: where they run on different machines, place each on its own trace."
    return Topic(
        title,
        (
            Figure(
                chart,
                f"Loads in prefill and decode correlate {rounded(mean)} in the mean of the layers, "
                f"{rounded(least.phase_correlation)} in layer {least.layer}; those of two halves of the requests "
                f"{rounded(halves)} (dashed).",
                tuple(name for name, _ in series),
            ),
        ),
        ("layer", *(f"r of {name}" for name, _ in series)),
        tuple(
            (str(layer.layer), *(rounded(values[at]) for _, values in series))
            for at, layer in enumerate(profile.layers)
        ),
        f"{caption} Tokens: " + ", ".join(f"{tokens:,} in {name}" for name, tokens in counts.items()) + ".",
        advice,
        "moeopt place DECODE_TRACE --gpus 8 -o decode.json"
        if clear and not same
        else "moeopt replay placement.json TRACE",
    )
