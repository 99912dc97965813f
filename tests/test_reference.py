"""The reference is the mean over all equal partitions, exactly."""

from __future__ import annotations

from fractions import Fraction
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeopt.cluster import Cluster
from moeopt.problem import Problem
from moeopt.reference import equal_sizes, reference_cost
from moeopt.trace import Trace


@pytest.mark.parametrize("objective", ["fan-out", "cut"])
@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize(
    "cluster",
    [
        Cluster(1, 3, 2),
        Cluster(1, 4, 2),  # 6 experts on 4 GPUs: uneven
        Cluster(1, 3, (4, 1, 1)),
        Cluster(2, 2, 2, gpu_cost=2, node_cost=3),
        Cluster(2, 2, (3, 0, 1, 2), gpu_cost=0, node_cost=1),
        Cluster(3, 1, 6, node_cost=1),
        Cluster(1, 1, 6),
    ],
)
def test_it_is_the_mean_over_all_equal_partitions(cluster: Cluster, k: int, objective: str) -> None:
    rng = np.random.default_rng(k)
    ids = np.array([[rng.permutation(6)[:k] for _ in range(2)] for _ in range(4)])
    problem = Problem.from_trace(Trace(ids, 6), cluster, objective=objective)
    sizes = equal_sizes(6, cluster.slots_of)
    labels = sorted(set(permutations(np.repeat(np.arange(cluster.gpus), sizes).tolist())))
    total = sum(problem.cost(problem.partition(np.array([gpu_of, gpu_of]))) for gpu_of in labels)
    assert reference_cost(problem) == Fraction(total, len(labels))


def test_weights_of_families_are_in_it() -> None:
    family = np.array([0, 0, 1])
    trace = Trace(np.array([[[0, 1]], [[1, 2]], [[2, 3]]]), 4, families=("a", "b"), family=family)
    problem = Problem.from_trace(trace, Cluster(1, 2, 2), family_weights={"a": 1, "b": 3})
    assert reference_cost(problem) == Fraction(2, 3) * problem.total_weight


@given(experts=st.integers(1, 12), data=st.data())
def test_sizes_are_as_equal_as_the_slots_allow(experts: int, data: st.DataObject) -> None:
    slots: Any = np.array(data.draw(st.lists(st.integers(0, 6), min_size=1, max_size=5)))
    if slots.sum() < experts:
        return
    sizes = equal_sizes(experts, slots)
    assert sizes.sum() == experts
    assert (sizes <= slots).all()
    for gpu in np.flatnonzero(sizes < slots):  # nobody with a free slot has two fewer than another
        assert sizes[gpu] >= sizes.max() - 1
