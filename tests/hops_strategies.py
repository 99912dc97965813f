"""Tiny problems of hops, small enough for brute force."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from moeopt.topology import HopsProblem
from tests.flow_strategies import SIZES
from tests.problem_strategies import clusters


@st.composite
def hops_problems(draw: st.DrawFn, *, memory: bool | None = None) -> HopsProblem:
    """Any activity and hops, equal ones often; unequal slots and memory now and then, or as `memory` says."""
    layers, experts, gpus = draw(st.sampled_from(SIZES))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    least = -(-experts * layers // gpus)
    limited = draw(st.booleans()) if memory is None else memory
    return HopsProblem(
        rng.integers(draw(st.sampled_from([1, 3, 50])), size=(layers, experts)),
        rng.integers(draw(st.sampled_from([2, 9])), size=(layers, gpus)),
        draw(clusters(experts=experts, gpus=gpus)),
        draw(st.integers(least, least + 2)) if limited else None,
    )
