"""Groups keep together and pay for the way to the next layer, the dearest pair or all of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from moeopt.cluster import Cluster
from moeopt.flow import FlowProblem
from moeopt.judged import Judged
from moeopt.labels import LabelProblem
from tests.label_strategies import label_problems

GROUPS = np.array([[0, 0, 1, 1], [0, 1, 0, 1]])
FLOW = np.arange(16).reshape(1, 4, 4)
ONE = Cluster(1, 2, 2)


@settings(max_examples=60, deadline=None)
@given(problem=label_problems())
def test_candidates_keep_every_rule_and_come_once(problem: LabelProblem) -> None:
    assert isinstance(problem, Judged)
    found = list(problem.candidates())
    assert not any(map(problem.violation, found))
    assert len(set(found)) == len(found)


@settings(max_examples=60, deadline=None)
@given(problem=label_problems())
def test_the_total_is_the_cost_of_the_flow_and_the_tail_is_no_more(problem: LabelProblem) -> None:
    flow = FlowProblem(problem.flow, None, problem.cluster, layer_ids=problem.layer_ids)
    tail, total = (replace(problem, measure=measure) for measure in ("tail", "total"))
    gpus, steps = problem.cluster.gpus, problem.n_layers - 1
    for placement in list(problem.candidates())[:20]:
        assert total.cost(placement) == flow.cost(placement)
        assert tail.cost(placement) <= total.cost(placement) <= tail.cost(placement) * gpus**2 or not steps


def test_the_dearest_pair_of_every_step_counts() -> None:
    problem = LabelProblem(FLOW, GROUPS, ONE)
    assert problem.traffic.tolist() == [
        [[0 + 2 + 4 + 6, 1 + 3 + 5 + 7], [8 + 10 + 12 + 14, 9 + 11 + 13 + 15]]
    ]
    straight, crossed = problem.labelled([[0, 1], [0, 1]]), problem.labelled([[0, 1], [1, 0]])
    assert (problem.cost(straight), problem.cost(crossed)) == (44, 48)
    total = replace(problem, measure="total")
    assert (total.cost(straight), total.cost(crossed)) == (60, 60)


def test_a_broken_rule_is_named() -> None:
    problem = LabelProblem(FLOW, GROUPS, Cluster(1, 3, (2, 2, 1)), memory=3, layer_ids=(4, 7))
    flow = FlowProblem(FLOW, None, problem.cluster, layer_ids=(4, 7))
    cases = {
        ((0, 1, 2, 2), (0, 1, 0, 1)): "layer 4: experts 0 and 1 of groups 0 and 0 are apart",
        ((0, 0, 1, 1), (0, 0, 0, 0)): "layer 7: experts 0 and 1 of groups 0 and 1 are on one GPU",
        ((2, 2, 1, 1), (0, 1, 0, 1)): "layer 4: GPU 2 holds 2 experts, slots are 1",
        ((0, 0, 1, 1), (0, 1, 0, 1)): "GPU 0 holds 4 experts of all layers, memory is 3",
    }
    for gpu_of, words in cases.items():
        assert problem.violation(flow.partition(gpu_of)) == words


def test_the_digest_tells_problems_apart() -> None:
    problem = LabelProblem(FLOW, GROUPS, ONE)
    changes: list[dict[str, Any]] = [
        {"flow": FLOW + 1},
        {"groups": 1 - GROUPS},
        {"cluster": Cluster(1, 2, 3)},
        {"measure": "total"},
        {"memory": 5},
        {"layer_ids": (3, 4)},
    ]
    assert len({problem.digest, *(replace(problem, **change).digest for change in changes)}) == 7


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"groups": GROUPS[0]}, r"groups must have shape \[any, any\], found \[4\]"),
        ({"groups": np.zeros((2, 0), int)}, r"groups must be \[layers, experts\], found \[2, 0\]"),
        ({"groups": GROUPS + 1}, "numbered below the 2 GPUs, found group 2"),
        (
            {"groups": np.zeros((2, 4), int)},
            r"layer 0: groups of \[4, 0\] experts do not fit GPUs of \[2, 2\] slots",
        ),
        ({"flow": FLOW[:0]}, r"flow must have shape \[1, 4, 4\], found \[0, 4, 4\]"),
        ({"measure": "mean"}, "one of tail, total, found 'mean'"),
        ({"memory": 3}, "memory 3 is too small: 2 GPUs hold 6 experts, 2 layers of 4 need 8"),
        ({"memory": 0}, "at least 1, or None, found 0"),
        ({"memory": True}, "found True"),
        ({"cluster": Cluster(1, 2, 1)}, "2 GPUs offer 2 slots a layer for 4 experts"),
        ({"flow": FLOW * (1 << 54)}, "too large for exact 64-bit arithmetic"),
    ],
)
def test_bad_input_is_refused_with_its_numbers(change: dict[str, Any], words: str) -> None:
    given: dict[str, Any] = {"flow": FLOW, "groups": GROUPS, "cluster": ONE}
    with pytest.raises(ValueError, match=words):
        LabelProblem(**(given | change))


def test_homes_are_refused_for_labels_know_none() -> None:
    flow = FlowProblem(FLOW, np.zeros((2, 4, 2), int), ONE)
    with pytest.raises(ValueError, match="the flow problem has homes"):
        LabelProblem.of(flow.partition(GROUPS), flow)


def test_brute_force_refuses_what_it_cannot_enumerate() -> None:
    groups = np.tile(np.arange(6), (2, 1))
    problem = LabelProblem(np.zeros((1, 6, 6), int), groups, Cluster(1, 6, 1))
    with pytest.raises(ValueError, match="ends at 100,000 candidates, found 518,400"):
        next(problem.candidates())
