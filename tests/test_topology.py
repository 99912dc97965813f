"""Hops are counted out and back, from the hosts of each layer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeopt.cluster import Cluster
from moeopt.judged import Judged
from moeopt.links import distances
from moeopt.topology import HopsProblem
from moeopt.trace import Trace
from moeopt.workload import Workload
from tests.flow_strategies import several_layers
from tests.hops_strategies import hops_problems

TWO = Cluster(2, 2, 2, gpu_cost=1, node_cost=4)
ONES = np.ones((2, 4), int)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), seed=st.integers(0, 99))
def test_a_problem_costs_the_hops_of_every_activation(data: st.DataObject, seed: int) -> None:
    trace = data.draw(several_layers(layers=3, experts=4))
    rng = np.random.default_rng(seed)
    hops, hosts = rng.integers(9, size=(4, 4)), rng.integers(4, size=(2, 3))
    problem = HopsProblem.from_workload(
        Workload.from_trace(trace), TWO, hops=hops, dispatch=hosts[0], collect=hosts[1]
    )
    gpu_of = rng.integers(4, size=(3, 4))
    cost = 0
    for token in trace.experts:
        for layer, chosen in enumerate(token):
            cost += sum(hops[hosts[0, layer], g] + hops[g, hosts[1, layer]] for g in gpu_of[layer, chosen])
    assert problem.cost(problem.partition(gpu_of)) == cost
    assert problem.layer_ids == tuple(trace.layer_ids.tolist())


@settings(max_examples=60, deadline=None)
@given(problem=hops_problems())
def test_candidates_keep_every_rule_and_come_once(problem: HopsProblem) -> None:
    assert isinstance(problem, Judged)
    found = list(problem.candidates())
    assert found
    assert not any(map(problem.violation, found))
    assert len(set(found)) == len(found)


def test_without_measurement_every_expert_counts_the_same() -> None:
    workload = Workload.from_trace(Trace(np.zeros((5, 2, 1), int), 4))
    problem = HopsProblem.from_workload(workload, TWO, dispatch=[0, 3], measured=False)
    assert problem.activity.tolist() == ONES.tolist()
    assert problem.hops.tolist() == (2 * distances(TWO)[[0, 3]]).tolist()
    measured = HopsProblem.from_workload(workload, TWO)
    assert measured.activity.tolist() == [[5, 0, 0, 0], [5, 0, 0, 0]]


def test_a_broken_rule_is_named() -> None:
    problem = HopsProblem(ONES, ONES, TWO, memory=3, layer_ids=(2, 9))
    assert problem.violation(problem.partition([[0, 1, 2, 3], [0, 0, 0, 1]])) == (
        "layer 9: GPU 0 holds 3 experts, slots are 2"
    )
    assert problem.violation(problem.partition([[0, 0, 1, 1], [0, 0, 2, 3]])) == (
        "GPU 0 holds 4 experts of all layers, memory is 3"
    )
    assert problem.violation(problem.partition([[0, 0, 1, 1], [0, 1, 2, 3]])) == ""


def test_the_digest_tells_problems_apart() -> None:
    problem = HopsProblem(ONES, ONES, TWO)
    changes: list[dict[str, Any]] = [
        {"activity": ONES + 1},
        {"hops": ONES + 1},
        {"cluster": Cluster(2, 2, 3)},
        {"memory": 5},
        {"layer_ids": (3, 4)},
    ]
    assert len({problem.digest, *(replace(problem, **change).digest for change in changes)}) == 6


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"activity": ONES[0]}, r"activity must have shape \[any, any\], found \[4\]"),
        ({"activity": ONES[:0]}, r"activity must be \[layers, experts\], found \[0, 4\]"),
        ({"activity": -ONES}, r"between 0 and \d+, found -1..-1"),
        ({"hops": ONES[:, :3]}, r"hops must have shape \[2, 4\], found \[2, 3\]"),
        ({"hops": ONES * (1 << 59)}, "too large for exact 64-bit arithmetic"),
        ({"memory": 1}, "memory 1 is too small: 4 GPUs hold 4 experts, 2 layers of 4 need 8"),
        ({"cluster": Cluster(1, 4, (1, 1, 1, 0))}, "4 GPUs offer 3 slots a layer for 4 experts"),
        ({"layer_ids": (3,)}, r"2 ascending numbers, found \[3\]"),
    ],
)
def test_bad_input_is_refused_with_its_numbers(change: dict[str, Any], words: str) -> None:
    given: dict[str, Any] = {"activity": ONES, "hops": ONES, "cluster": TWO}
    with pytest.raises(ValueError, match=words):
        HopsProblem(**(given | change))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dispatch": 4}, "dispatch must be a GPU 0..3, found 4..4"),
        ({"collect": [0, 1, 2]}, r"collect must be one GPU or int \[2\], found int64 \[3\]"),
        ({"hops": np.ones((3, 4), int)}, r"hops must have shape \[4, 4\], found \[3, 4\]"),
    ],
)
def test_a_workload_is_refused_with_its_numbers(change: dict[str, Any], words: str) -> None:
    workload = Workload.from_trace(Trace(np.zeros((5, 2, 1), int), 4))
    with pytest.raises(ValueError, match=words):
        HopsProblem.from_workload(workload, TWO, **change)


def test_brute_force_refuses_what_it_cannot_enumerate() -> None:
    problem = HopsProblem(np.ones((1, 9), int), np.ones((1, 4), int), Cluster(1, 4, 9))
    with pytest.raises(ValueError, match="ends at 100,000 candidates, found 262,144"):
        next(problem.candidates())
