"""The form of what a profile says on a topic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from moeopt.page import Figure, percent, rounded

if TYPE_CHECKING:
    from moeopt.characteristics import Profile

__all__ = ["Figure", "Topic", "layer_ids", "mean_known", "objective", "percent", "rounded"]


@dataclass(frozen=True)
class Topic:
    """A section; `why` says why it has no figures. Text is plain, `rows` are cells of a table under `columns`."""

    title: str
    figures: tuple[Figure, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str
    advice: str
    command: str
    why: str = ""


def objective(profile: Profile) -> str:
    """The option of `moeopt place` that takes such a recording; empty for a trace, which takes all of them."""
    if profile.layers[0].distinct_sets is not None:
        return ""
    return " --objective cut" if profile.layers[0].coactivation is not None else " --objective load"


def layer_ids(profile: Profile) -> list[int]:
    """Absolute indices of the layers."""
    return [layer.layer for layer in profile.layers]


def mean_known(values: Sequence[float | None]) -> float | None:
    """Mean of the numbers among them; None when there are none."""
    found = [value for value in values if value is not None]
    return float(np.mean(found)) if found else None
