"""Whether the opening of a request tells what kind of request it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moeopt.profile_figures import line_chart
from moeopt.profile_topic import Figure, Topic, percent

if TYPE_CHECKING:
    from moeopt.request_profiles import Classifications

__all__ = ["request_topic"]

TELLING = 0.05  # accuracy above the yardsticks that sentences call so


def request_topic(told: Classifications) -> Topic:
    """How often a regression on the first activations names the family of a held-out request, layer by layer."""
    found, chance = told.recorded, told.shuffled
    telling = found.mean > max(chance.mean, found.majority) + TELLING
    sentence = (
        f"From its first activations in one layer, {percent(found.mean)} of {found.held_out} held-out requests are "
        f"given their family, in the mean of the layers; {percent(chance.mean)} when experts are shuffled among "
        f"tokens and only the length of a request is left; always the commonest: {percent(found.majority)} (dashed)."
    )
    if found.left_out:
        sentence += f" Too few requests: {', '.join(found.left_out)}."
    lines = ("as recorded", "shuffled")
    chart = line_chart(
        list(zip(lines, (found.accuracy, chance.accuracy), strict=True)),
        names=list(found.layers),
        axis="layer",
        label="Share of held-out requests given their family, by layer",
        line=found.majority,
    )
    return Topic(
        "Kinds of requests",
        (Figure(chart, sentence, lines),),
        ("layer", *lines),
        tuple(
            (str(layer), percent(own), percent(other))
            for layer, own, other in zip(found.layers, found.accuracy, chance.accuracy, strict=True)
        ),
        f"Logistic regression on the counts of {found.learned} requests; {found.decided_by}. Both columns: share of "
        "the held-out requests.",
        "The first tokens tell the kind of a request: where kinds are served apart, place each on its own trace."
        if telling
        else "The first tokens do not tell the kind of a request: mixed batches lose little here.",
        "moeopt place FAMILY_TRACE --gpus 8" if telling else "moeopt compare TRACE --gpus 8 --held-out 0.2",
    )
