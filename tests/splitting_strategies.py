"""Tiny split problems, small enough for brute force."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from moeopt.splitting import SplitProblem


@st.composite
def split_problems(
    draw: st.DrawFn, *, most_experts: int = 4, most_gpus: int = 3, most_load: int = 5
) -> SplitProblem:
    """Some experts with copies, some without tokens; some GPUs empty."""
    experts, gpus = draw(st.integers(1, most_experts)), draw(st.integers(1, most_gpus))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    hosts = rng.random((experts, gpus)) < draw(st.sampled_from([0.1, 0.5, 0.9]))
    hosts[np.arange(experts), rng.integers(0, gpus, experts)] = True
    return SplitProblem(rng.integers(0, most_load + 1, experts), hosts)
