"""Small traces for property tests."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from moeopt.trace import Trace

FIELDS = ("experts", "n_experts", "layer_ids", "families", "family", "request", "position", "phase", "model")


@st.composite
def traces(
    draw: st.DrawFn,
    *,
    max_layers: int = 3,
    max_experts: int = 8,
    max_k: int = 3,
    max_tokens: int = 30,
    max_families: int = 3,
) -> Trace:
    """Tiny traces: sizes shrink, contents follow a seed; a token's experts come in any order."""
    layers = draw(st.integers(1, max_layers))
    experts = draw(st.integers(2, max_experts))
    k = draw(st.integers(1, min(max_k, experts)))
    tokens = draw(st.integers(1, max_tokens))
    families = draw(st.integers(1, max_families))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    # Few distinct sets, so that equal ones meet.
    pool = np.argsort(rng.random((draw(st.integers(1, tokens)), layers, experts)), axis=2)[:, :, :k]
    return Trace(
        pool[rng.integers(len(pool), size=tokens)],
        experts,
        layer_ids=np.sort(rng.choice(60, layers, replace=False)).astype(np.int32),
        families=tuple(f"family {index}" for index in range(families)),
        family=rng.integers(families, size=tokens).astype(np.uint8),
        request=rng.integers(5, size=tokens).astype(np.int32),
        position=rng.integers(100, size=tokens).astype(np.int32),
        phase=rng.integers(2, size=tokens).astype(np.uint8),
        model=draw(st.text(max_size=5)),
    )


def same(first: Trace, second: Trace) -> bool:
    """Whether two traces agree field by field, types included."""
    return all(_equal(getattr(first, name), getattr(second, name)) for name in FIELDS)


def _equal(first: Any, second: Any) -> bool:
    if isinstance(first, np.ndarray):
        return first.dtype == second.dtype and np.array_equal(first, second)
    return bool(first == second)
