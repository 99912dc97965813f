"""Tiny problems of groups that look for GPUs, small enough for brute force over all their permutations."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from moeopt.cluster import Cluster
from moeopt.flow import FlowProblem
from moeopt.labels import LabelProblem
from tests.flow_strategies import several_layers

# (layers, experts, GPUs): the number of answers to try is (GPUs !) ^ layers, below a thousand.
SIZES = [(1, 4, 3), (2, 4, 2), (2, 4, 3), (2, 5, 4), (3, 5, 3), (5, 4, 2)]


@st.composite
def label_problems(draw: st.DrawFn, *, one_level: bool = False, memory: bool = True) -> LabelProblem:
    """Groups of any size within the slots, some without experts; nodes, unequal slots and memory now and then."""
    layers, experts, gpus = draw(st.sampled_from(SIZES))
    trace = draw(several_layers(layers=layers, experts=experts))
    least = -(-experts // gpus)
    slots = tuple([least + 1] * (gpus - 1) + [least])
    nodes = draw(st.sampled_from([n for n in (1, 2, gpus) if gpus % n == 0]))
    equal = one_level or draw(st.integers(0, 2)) > 0
    prices = draw(st.sampled_from([(1, 0)] if one_level else [(1, 0), (2, 3), (1, 5), (0, 1)]))
    cluster = Cluster(nodes, gpus // nodes, least + 1 if equal else slots, *prices)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    seats = np.repeat(np.arange(gpus), slots)
    groups = np.stack([rng.permutation(seats)[:experts] for _ in range(layers)])
    flow = FlowProblem.from_trace(trace, cluster, returning=False)
    cap = draw(st.sampled_from([None, -(-experts * layers // gpus)])) if memory else None
    placement = flow.partition(groups)
    return LabelProblem.of(placement, flow, measure=draw(st.sampled_from(["tail", "total"])), memory=cap)
