"""Tiny grouping problems, small enough for brute force."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from moeopt.grouping import GroupingProblem


@st.composite
def grouping_problems(draw: st.DrawFn) -> GroupingProblem:
    """Equal shares or given ones, rows of one request or of several; now and then nothing is admissible."""
    groups = draw(st.integers(1, 3))
    requests, layers, experts = draw(st.integers(1, 5)), draw(st.integers(1, 2)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    activations = rng.integers(0, 12, (requests, layers, experts)) * rng.integers(
        0, 2, (requests, layers, experts)
    )
    sizes = rng.integers(1, 4, requests) if draw(st.booleans()) else None
    total = requests if sizes is None else int(sizes.sum())
    slots = _shares(rng, experts, groups) if draw(st.booleans()) else None
    quotas = _shares(rng, total, groups) if draw(st.booleans()) else None
    share = -(-total // groups) if quotas is None else max(quotas)
    slack = draw(st.integers(0, 2)) + (0 if sizes is None else max(0, int(sizes.max()) - share))
    return GroupingProblem(activations, groups, slots, quotas, sizes, slack)


def _shares(rng: np.random.Generator, total: int, groups: int) -> list[int]:
    """Whole numbers that sum to the total."""
    return [int(share) for share in np.bincount(rng.integers(0, groups, total), minlength=groups)]
