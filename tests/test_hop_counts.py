"""Hops of partitions: the same by the compiled kernel, by arrays and by the listed dispatch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import moeopt as mo
from moeopt import hop_counts
from moeopt.hop_counts import partition_touches
from moeopt.pair_counts import PairCounts
from moeopt.touch_kernels import touch_sums
from moeopt.traffic import Traffic
from tests.strategies import traces


@settings(max_examples=80, deadline=None)
@given(traces(), st.integers(1, 3), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_kernel_and_arrays_count_what_a_loop_over_tokens_counts(
    trace: mo.Trace, nodes: int, per_node: int, seed: int
) -> None:
    cluster = mo.Cluster(nodes, per_node, trace.n_experts)
    sets = mo.Workload.from_trace(trace).layers[0]
    gpu_of = np.random.default_rng(seed).integers(0, cluster.gpus, trace.n_experts).astype(np.int32)
    wanted = np.zeros((2, len(trace.families)), np.int64)
    for experts, family in zip(trace.experts[:, 0], trace.family, strict=True):
        gpus = {int(gpu_of[expert]) for expert in experts}
        wanted[:, family] += len(gpus), len({gpu // per_node for gpu in gpus})
    assert np.array_equal(np.stack(partition_touches(sets, gpu_of, cluster=cluster)), wanted)
    for group_of, groups, sums in zip(
        (gpu_of, cluster.node_of[gpu_of].astype(np.int32)), (cluster.gpus, nodes), wanted, strict=True
    ):
        for ids in (groups, 65 + groups):
            assert np.array_equal(touch_sums(sets.members, sets.counts, group_of, ids), sums)


@settings(max_examples=40, deadline=None)
@given(traces(), st.integers(0, 2**32 - 1), st.booleans())
def test_traffic_and_cost_of_a_partition_are_those_of_its_listed_dispatch(
    trace: mo.Trace, seed: int, compiled: bool
) -> None:
    cluster = mo.Cluster.of(gpus=4, nodes=2, slots=trace.n_experts, node_cost=3)
    problem = mo.Problem.from_trace(trace, cluster)
    shape = (trace.n_layers, trace.n_experts)
    placement = problem.partition(np.random.default_rng(seed).integers(0, 4, shape))
    plan = problem.plan(placement)
    listed = Traffic.of(problem, plan)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hop_counts, "COMPILED", 0 if compiled else 1 << 60)
        counted = Traffic.of_placement(problem, placement)
        assert problem.layer_costs(placement) == problem.layer_costs(plan)
    for name in ("gpus_touched", "nodes_touched", "loads"):
        assert np.array_equal(getattr(counted, name), getattr(listed, name))


def test_hops_need_expert_sets() -> None:
    sets = mo.Workload.from_trace(mo.sample("tiny-moe")).layers[0]
    with pytest.raises(ValueError, match="pair counts only"):
        partition_touches(
            PairCounts.of_sets(sets), np.zeros(32, np.int32), cluster=mo.Cluster.of(gpus=1, slots=32)
        )
