"""Hosts are best for their groups of requests, and quotas hold when requests are dealt."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeopt.expert_groups import AtHome, capacity, dealt, filled, usage_of
from moeopt.joint_batches import JointBatches
from moeopt.micro_batches import greedy_hosts
from tests.batch_strategies import family_trace


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), held=st.integers(2, 3))
def test_no_hosts_keep_more_local(seed: int, held: int) -> None:
    used = np.random.default_rng(seed).integers(0, 20, (1, 4, 2))
    hosts = filled(used, held=held)
    assert (hosts.sum(axis=1) == held).all()
    assert hosts.any(axis=2).all()
    sides = list(combinations(range(4), held))
    best = max(
        sum(int(used[0, list(side), group].sum()) for group, side in enumerate(pair))
        for pair in product(sides, repeat=2)
        if len(set(pair[0]) | set(pair[1])) == 4
    )
    assert int(used[hosts].sum()) == best
    assert int(used[greedy_hosts(used, held=held)].sum()) <= best


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    requests=st.integers(1, 12),
    groups=st.integers(1, 5),
    room=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_no_group_misses_its_share_by_more_than_its_room(
    seed: int, requests: int, groups: int, room: float
) -> None:
    gains = np.random.default_rng(seed).random((requests, groups))
    sizes = np.bincount(dealt(gains, room=room), minlength=groups)
    slack = int(room * requests / groups)
    assert sizes.max() <= -(-requests // groups) + slack
    assert sizes.min() >= requests // groups - slack


def test_equal_gains_go_round_and_unequal_ones_to_the_best() -> None:
    gains = np.array([[1.0, 1.0, 0.0]] * 4 + [[0.0, 0.0, 1.0]])
    assert dealt(gains, room=None).tolist() == [0, 1, 0, 1, 2]
    assert sorted(dealt(gains, room=0.0).tolist()) == [0, 0, 1, 1, 2]


def test_usage_sums_the_requests_of_each_group() -> None:
    activations = np.arange(12).reshape(3, 1, 4)
    inside = np.array([[True, False], [True, False], [False, True]])
    assert usage_of(activations, inside)[0].T.tolist() == [[4, 6, 8, 10], [8, 9, 10, 11]]


def test_a_relative_gain_does_not_know_lengths() -> None:
    hosts = np.array([[[True, False], [False, True]]])
    first = np.array([[[3, 1]], [[30, 10]], [[0, 0]]])
    assert AtHome(hosts).gains(first).tolist() == [[3, 1], [30, 10], [0, 0]]
    assert AtHome(hosts, relative=True).gains(first).tolist() == [[0.75, 0.25], [0.75, 0.25], [0, 0]]


@pytest.mark.parametrize(
    ("experts", "groups", "replicas", "message"),
    [
        (8, 3, 0, "8 experts \\+ 0 replicas do not part into 3"),
        (8, 4, 2, "8 experts \\+ 2 replicas do not part into 4"),
        (4, 8, 4, "do not part into 8"),
        (4, 2, 6, "5 experts, the layer has 4"),
        (4, 0, 0, "groups must be a whole number, at least 1"),
        (4, 2, -2, "replicas must be a whole number, at least 0"),
    ],
)
def test_groups_hold_equally_many_experts(experts: int, groups: int, replicas: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        capacity(experts, groups, replicas=replicas)


def test_ragged_sums_are_whole_with_copies() -> None:
    assert capacity(8, 3, replicas=1) == 3


def test_groups_of_other_layers_are_refused() -> None:
    trace = family_trace()
    groups = JointBatches(2).fit(trace, seed=0)
    with pytest.raises(ValueError, match=r"know layers \[3, 4\], the trace has \[1, 8\] and \[4\]"):
        groups.assign(trace.layers([4]))
