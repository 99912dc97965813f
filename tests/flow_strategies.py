"""Tiny problems about several layers, small enough for brute force over named GPUs."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from moeopt.cluster import Cluster
from moeopt.flow import FlowProblem
from moeopt.trace import Trace
from tests.problem_strategies import clusters

# (layers, experts, GPUs): the number of answers to try is GPUs ^ (experts x layers), a hundred or two.
SIZES = [(1, 4, 2), (1, 3, 3), (2, 3, 2), (2, 2, 3), (2, 2, 4), (3, 2, 2)]


@st.composite
def several_layers(draw: st.DrawFn, *, layers: int, experts: int, most_tokens: int = 12) -> Trace:
    """A tiny trace of a few requests; contents follow a seed."""
    k, tokens = draw(st.integers(1, min(experts, 3))), draw(st.integers(1, most_tokens))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    chosen = np.argsort(rng.random((tokens, layers, experts)), axis=2)[:, :, :k]
    return Trace(
        chosen,
        experts,
        layer_ids=np.sort(rng.choice(40, layers, replace=False)).astype(np.int32),
        request=rng.integers(4, size=tokens).astype(np.int32),
    )


@st.composite
def flow_problems(draw: st.DrawFn) -> FlowProblem:
    """Tokens that return home or go on, homes known or not, two levels, unequal slots, load caps now and then."""
    layers, experts, gpus = draw(st.sampled_from(SIZES))
    trace = draw(several_layers(layers=layers, experts=experts))
    cluster = draw(clusters(experts=experts, gpus=gpus))
    returning = draw(st.booleans())
    home = trace.request % gpus if draw(st.booleans()) else None
    tolerance = draw(st.sampled_from([None, None, "0.3", "1"]))
    try:
        return FlowProblem.from_trace(
            trace, cluster, returning=returning, home=home, load_tolerance=tolerance
        )
    except ValueError:  # one expert alone is too heavy
        return FlowProblem.from_trace(trace, cluster, returning=returning, home=home)


@st.composite
def full_flow_problems(draw: st.DrawFn) -> FlowProblem:
    """Tokens that go on, no homes, equal slots that are all taken, one level; load caps now and then."""
    layers, experts, gpus = draw(st.sampled_from([(1, 4, 2), (2, 4, 2), (2, 3, 3), (3, 2, 2), (4, 2, 2)]))
    trace = draw(several_layers(layers=layers, experts=experts))
    nodes = draw(st.sampled_from([1, gpus]))
    cluster = Cluster(nodes, gpus // nodes, experts // gpus, *draw(st.sampled_from([(1, 0), (2, 3), (0, 1)])))
    tolerance = draw(st.sampled_from([None, "0.3", "1"]))
    try:
        return FlowProblem.from_trace(trace, cluster, returning=False, load_tolerance=tolerance)
    except ValueError:  # one expert alone is too heavy
        return FlowProblem.from_trace(trace, cluster, returning=False)
