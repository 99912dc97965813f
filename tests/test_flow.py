"""Transfers from layer to layer are counted as they are defined, token by token."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeopt.cluster import Cluster
from moeopt.flow import FlowProblem
from moeopt.judged import Judged
from moeopt.links import distances
from moeopt.placement import Placement
from moeopt.trace import Trace
from tests.flow_strategies import flow_problems, several_layers

TWO = Cluster(2, 2, 2, gpu_cost=1, node_cost=4)
FLOW = np.arange(16).reshape(1, 4, 4)


def placed(problem: FlowProblem, seed: int) -> Placement:
    rng = np.random.default_rng(seed)
    shape = (problem.n_layers, problem.n_experts)
    return problem.partition(rng.integers(problem.cluster.gpus, size=shape))


@settings(max_examples=60, deadline=None)
@given(data=st.data(), seed=st.integers(0, 99))
def test_a_problem_costs_what_its_tokens_travel(data: st.DataObject, seed: int) -> None:
    trace = data.draw(several_layers(layers=3, experts=4))
    home = np.random.default_rng(seed).integers(4, size=trace.n_tokens)
    on = FlowProblem.from_trace(trace, TWO, returning=False)
    entering = FlowProblem.from_trace(trace, TWO, returning=False, home=home)
    back = FlowProblem.from_trace(trace, TWO, returning=True, home=home)
    placement = placed(on, seed)
    way, gpu_of = distances(TWO), placement.primary
    travelled = entered = returned = 0
    for token, own in zip(trace.experts, home, strict=True):
        at = [gpu_of[layer, chosen] for layer, chosen in enumerate(token)]
        travelled += sum(way[g, h] for here, there in pairwise(at) for g in here for h in there)
        entered += sum(way[own, g] for g in at[0])
        returned += sum(way[own, g] + way[g, own] for layer in at for g in layer)
    assert on.cost(placement) == travelled
    assert entering.cost(placement) == travelled + entered
    assert back.cost(placement) == returned


@settings(max_examples=60, deadline=None)
@given(problem=flow_problems())
def test_candidates_are_the_admissible_placements_each_once(problem: FlowProblem) -> None:
    assert isinstance(problem, Judged)
    found = list(problem.candidates())
    assert not any(map(problem.violation, found))
    assert len(set(found)) == len(found)
    loose = problem.load is None and problem.cluster.slots_of.min() >= problem.n_experts
    if loose:
        assert len(found) == problem.cluster.gpus ** (problem.n_experts * problem.n_layers)


@settings(max_examples=60, deadline=None)
@given(problem=flow_problems(), seed=st.integers(0, 99))
def test_everything_on_one_gpu_moves_nothing_but_to_and_from_homes(problem: FlowProblem, seed: int) -> None:
    together = problem.partition(np.zeros((problem.n_layers, problem.n_experts), int))
    assert problem.cost(together) == int(problem.pull[:, :, 0].sum())
    assert problem.cost(placed(problem, seed)) >= 0


def test_names_of_gpus_do_not_matter_without_homes() -> None:
    problem = FlowProblem(FLOW, None, Cluster(1, 3, 4))
    placement = problem.partition([[0, 1, 2, 2], [1, 1, 0, 2]])
    renamed = problem.partition([[2, 0, 1, 1], [0, 0, 2, 1]])
    assert problem.cost(placement) == problem.cost(renamed)


def test_requests_live_on_gpus_in_turn() -> None:
    trace = Trace(np.zeros((4, 1, 1), int), 1, request=np.array([0, 1, 2, 5]))
    problem = FlowProblem.from_trace(trace, Cluster(1, 2, 1), returning=True)
    assert problem.home is not None
    assert problem.home.tolist() == [[[4, 4]]]  # two tokens each, there and back
    assert problem.cost(problem.partition([[0]])) == 4


def test_a_broken_rule_is_named() -> None:
    problem = FlowProblem(
        FLOW, None, Cluster(1, 2, 3), np.array([[1, 1, 1, 1], [3, 1, 1, 1]]), "0.5", layer_ids=(2, 5)
    )
    assert problem.violation(problem.partition([[0, 0, 0, 0], [0, 0, 1, 1]])) == (
        "layer 2: GPU 0 holds 4 experts, slots are 3"
    )
    assert problem.violation(problem.partition([[0, 0, 1, 1], [0, 0, 0, 1]])) == (
        "layer 5: GPU 0 serves 5 activations, it may serve 4"
    )
    assert problem.violation(problem.partition([[0, 0, 1, 1], [0, 0, 1, 1]])) == ""


def test_the_digest_tells_problems_apart() -> None:
    problem = FlowProblem(FLOW, None, TWO)
    changes: list[dict[str, Any]] = [
        {"flow": FLOW + 1},
        {"home": np.zeros((2, 4, 4), int)},
        {"cluster": Cluster(2, 2, 2)},
        {"load": np.ones((2, 4), int), "load_tolerance": 2},
        {"layer_ids": (3, 4)},
    ]
    digests = {problem.digest, *(replace(problem, **change).digest for change in changes)}
    assert len(digests) == 6
    assert FlowProblem(FLOW.astype(np.uint8), None, TWO).digest == problem.digest


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"flow": FLOW[0]}, r"flow must have shape \[any, any, any\], found \[4, 4\]"),
        ({"flow": FLOW[:, :2]}, r"\[layers - 1, experts, experts\], found \[1, 2, 4\]"),
        ({"flow": -FLOW}, r"between 0 and \d+, found -15..0"),
        ({"flow": FLOW / 2}, "whole numbers, found dtype float64"),
        ({"flow": FLOW * (1 << 54)}, "too large for exact 64-bit arithmetic"),
        ({"home": FLOW}, r"home must have shape \[2, 4, 4\], found \[1, 4, 4\]"),
        ({"cluster": Cluster(1, 3, 1)}, "3 GPUs offer 3 slots a layer for 4 experts"),
        ({"load": np.ones((2, 4), int)}, "go together"),
        ({"load_tolerance": 3}, "go together"),
        ({"load": np.ones((1, 4), int), "load_tolerance": 3}, r"load must have shape \[2, 4\]"),
        (
            {"load": np.diag([9, 3, 0, 0])[[1, 0]], "load_tolerance": 2},
            r"tolerance 2 cannot be met: layer 0 has 3 activations, 3 of one expert, GPUs may serve \[2, 2, 2, 2\]",
        ),
        ({"load": np.ones((2, 4), int), "load_tolerance": -1}, "must not be negative"),
        ({"layer_ids": (3, 3)}, r"2 ascending numbers, found \[3, 3\]"),
    ],
)
def test_bad_input_is_refused_with_its_numbers(change: dict[str, Any], words: str) -> None:
    given: dict[str, Any] = {"flow": FLOW, "home": None, "cluster": TWO}
    with pytest.raises(ValueError, match=words):
        FlowProblem(**(given | change))


def test_a_trace_is_refused_with_its_numbers() -> None:
    trace = Trace(np.zeros((3, 2, 1), int), 4)
    with pytest.raises(ValueError, match=r"a GPU 0..3, found 0..4"):
        FlowProblem.from_trace(trace, TWO, returning=True, home=[0, 4, 0])
    with pytest.raises(ValueError, match=r"int \[3\], found int64 \[2\]"):
        FlowProblem.from_trace(trace, TWO, returning=True, home=np.array([0, 1]))
    with pytest.raises(ValueError, match=r"load tolerance 0[.]1 cannot be met"):
        FlowProblem.from_trace(trace, TWO, returning=True, load_tolerance=0.1)


def test_an_answer_of_another_shape_is_refused() -> None:
    problem = FlowProblem(FLOW, None, TWO)
    other = Placement.partition([[0, 1, 2, 3]], TWO, layer_ids=[0])
    with pytest.raises(ValueError, match=r"differ in layers: \(0,\) and \(0, 1\)"):
        problem.cost(other)
    copies = Placement(np.ones((2, 4, 4), bool), np.zeros((2, 4), int), 2, 4, (0, 1))
    with pytest.raises(ValueError, match="the placement has copies"):
        problem.violation(copies)


def test_brute_force_refuses_what_it_cannot_enumerate() -> None:
    problem = FlowProblem(np.zeros((1, 6, 6), int), None, Cluster(1, 3, 6))
    with pytest.raises(ValueError, match="ends at 100,000 candidates, found 531,441"):
        next(problem.candidates())
