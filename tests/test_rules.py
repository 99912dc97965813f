"""Rules in their order, each with its numbers, layer by layer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from moeopt.cluster import Cluster
from moeopt.dispatch import Plan
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.rules import check_shape, violation_of
from moeopt.trace import Trace

CHOSEN = np.array([[0, 1], [0, 2], [0, 3], [1, 2]])
TRACE = Trace(np.stack([CHOSEN, CHOSEN[:, ::-1]], axis=1), 4, layer_ids=np.array([3, 9]))
WIDE = Cluster(1, 2, 4)
EVEN = Placement.partition([[0, 0, 1, 1], [0, 0, 1, 1]], WIDE, layer_ids=(3, 9))


def problem_of(cluster: Cluster = WIDE, **fields: Any) -> Problem:
    return Problem.from_trace(TRACE, cluster, **fields)


def hosted(*layers: list[list[int]]) -> Placement:
    """Copies by layer and expert."""
    hosts = np.array([[[gpu in held for gpu in range(2)] for held in layer] for layer in layers])
    return Placement(hosts, hosts.argmax(axis=2), 1, 4, (3, 9))


def test_what_breaks_nothing_breaks_nothing() -> None:
    problem = problem_of(incumbent=EVEN, max_moves=0, load_tolerance="0.25")
    assert violation_of(problem, EVEN) == ""
    assert violation_of(problem, problem.plan(EVEN)) == ""


@pytest.mark.parametrize(
    ("fields", "placement", "words"),
    [
        (
            {"cluster": Cluster(1, 2, (4, 2))},
            hosted([[0]] * 4, [[0], [1], [1], [1]]),
            "layer 9: GPU 1 holds 3 experts, slots are 2",
        ),
        (
            {"replicas": 1},
            hosted([[0, 1], [0], [1], [1]], [[0, 1], [0, 1], [1], [1]]),
            "layer 9: 2 replicas, the budget is 1",
        ),
        (
            {"replicas": 1, "total_replicas": 1},
            hosted([[0, 1], [0], [1], [1]], [[0, 1], [0], [1], [1]]),
            "2 replicas over all layers, the budget is 1",
        ),
        (
            {"incumbent": EVEN, "max_moves": 1},
            hosted([[0], [0], [1], [0]], [[1], [1], [1], [1]]),
            "layer 9: 2 copies moved from the incumbent, 1 may",
        ),
        (
            {"load_tolerance": "0.5"},
            hosted([[0], [0], [1], [1]], [[0], [0], [0], [1]]),
            "layer 9: GPU 0 serves 7 activations, load tolerance 0.5 allows 6",
        ),
        (
            {"cluster": Cluster(1, 2, 4, speeds=(3, 1)), "load_tolerance": "0.25"},
            hosted([[0], [0], [1], [0]], [[0], [0], [1], [1]]),
            "layer 9: GPU 1 serves 3 activations, load tolerance 0.25 allows 2",
        ),
    ],
)
def test_a_broken_rule_comes_with_its_layer_and_numbers(
    fields: dict[str, Any], placement: Placement, words: str
) -> None:
    problem = problem_of(**fields)
    assert violation_of(problem, placement) == problem.violation(placement) == words
    assert violation_of(problem, problem.plan(placement)) == words


def test_the_gpu_that_is_farthest_over_its_own_cap_is_named() -> None:
    """Seven of eight is within the cap of a fast GPU; one may be too much for a slow one."""
    problem = problem_of(Cluster(1, 2, 4, speeds=(12, 1)), load_tolerance="0.12")
    assert problem.load_caps is not None
    assert problem.load_caps.tolist() == [8, 0]
    broken = violation_of(problem, hosted([[0], [0], [0], [1]], [[0], [0], [0], [1]]))
    assert broken == "layer 3: GPU 1 serves 1 activations, load tolerance 0.12 allows 0"


def test_a_dispatch_is_judged_after_the_placement() -> None:
    problem = problem_of()
    plan = problem.plan(EVEN)
    short = Plan(
        EVEN, (plan.dispatches[0], replace(plan.dispatches[1], tokens=plan.dispatches[1].tokens * 2))
    )
    assert violation_of(problem, short) == "layer 9: expert set 0 has 1 tokens of family 0, 2 served"
    tight = problem_of(Cluster(1, 2, (3, 1)))
    assert violation_of(tight, short) == "layer 3: GPU 1 holds 2 experts, slots are 1"


@pytest.mark.parametrize(
    ("placement", "words"),
    [
        (EVEN.layer(0), r"placement and problem differ in layers: \(3,\) and \(3, 9\)"),
        (Placement.partition([[0, 0, 1]] * 2, WIDE, layer_ids=(3, 9)), "experts: 3 and 4"),
        (Placement.partition([[0, 0, 1, 1]] * 2, Cluster(1, 3, 4), layer_ids=(3, 9)), "GPUs: 3 and 2"),
        (Placement.partition([[0, 0, 1, 1]] * 2, Cluster(2, 1, 4), layer_ids=(3, 9)), "nodes: 2 and 1"),
    ],
)
def test_a_placement_of_another_shape_is_refused(placement: Placement, words: str) -> None:
    for judge in (check_shape, violation_of):
        with pytest.raises(ValueError, match=words):
            judge(problem_of(), placement)


def test_copies_on_gpus_of_unequal_speed_are_over_budget_and_no_mistake() -> None:
    """An incumbent may have copies that the problem does not allow; a method offers it all the same."""
    problem = problem_of(Cluster(1, 2, 4, speeds=(1, 3)), load_tolerance="0.5")
    copied = hosted([[0, 1], [0], [1], [1]], [[0], [0], [1], [1]])
    assert violation_of(problem, copied) == "layer 3: 1 replicas, the budget is 0"
