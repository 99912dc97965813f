"""Tiny load problems, small enough for brute force."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from moeopt.loads import MEASURES, LoadProblem
from tests.problem_strategies import clusters


@st.composite
def load_problems(draw: st.DrawFn, *, measures: tuple[str, ...] = MEASURES) -> LoadProblem:
    """Equal or unequal slots and speeds; loads with zeros and ties."""
    experts, gpus = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    cluster = draw(clusters(experts=experts, gpus=gpus))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    load = rng.integers(0, draw(st.sampled_from([2, 10, 1000])), experts)
    speeds = rng.integers(1, 5, gpus).tolist() if draw(st.booleans()) else None
    return LoadProblem(
        load, cluster, speeds, draw(st.sampled_from(measures)), layer_id=draw(st.integers(0, 9))
    )
