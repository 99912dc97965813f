"""The one traffic count is what counting token by token gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeopt.cluster import Cluster
from moeopt.problem import Problem
from moeopt.trace import Trace
from moeopt.traffic import Traffic, jain, max_violation, variation
from tests.strategies import traces


@settings(max_examples=60, deadline=None)
@given(trace=traces(), seed=st.integers(0, 999))
def test_traffic_is_the_sum_over_tokens(trace: Trace, seed: int) -> None:
    cluster = Cluster(2, 2, trace.n_experts)
    problem = Problem.from_trace(trace, cluster)
    gpu_of = np.random.default_rng(seed).integers(0, 4, (trace.n_layers, trace.n_experts))
    traffic = Traffic.of(problem, problem.plan(problem.partition(gpu_of)))
    gpus, nodes = (np.zeros((trace.n_layers, len(trace.families)), int) for _ in range(2))
    loads = np.zeros((trace.n_layers, 4), int)
    for token, family in zip(trace.experts, trace.family, strict=True):
        for layer, chosen in enumerate(token):
            touched = gpu_of[layer, chosen]
            gpus[layer, family] += len(set(touched))
            nodes[layer, family] += len(set(touched // 2))
            np.add.at(loads[layer], touched, 1)
    assert (traffic.gpus_touched == gpus).all()
    assert (traffic.nodes_touched == nodes).all()
    assert (traffic.loads == loads).all()
    assert (traffic.summed == loads.sum(axis=0)).all()
    assert traffic.fan_out == pytest.approx(gpus.sum() / (trace.n_tokens * trace.n_layers) - 1)
    assert traffic.fan_out == pytest.approx(traffic.layer_fan_out.mean())
    assert traffic.node_fan_out <= traffic.fan_out + 1e-12
    assert traffic.max_over_mean == pytest.approx(loads.max(axis=1) / loads.mean(axis=1))
    present = {trace.families[family] for family in trace.family}
    assert set(traffic.family_fan_out) == present
    shares = {name: int((trace.family == i).sum()) for i, name in enumerate(trace.families)}
    mean = sum(value * shares[name] for name, value in traffic.family_fan_out.items()) / trace.n_tokens
    assert mean == pytest.approx(traffic.fan_out)


def test_balance_of_loads() -> None:
    even, lonely = np.array([3, 3, 3, 3]), np.array([0, 8, 0, 0])
    assert (max_violation(even), jain(even), variation(even)) == (0.0, 1.0, 0.0)
    assert (max_violation(lonely), jain(lonely)) == (3.0, 0.25)
    assert variation(lonely) == pytest.approx(3**0.5)
