"""What arithmetic alone rules out is refused with its numbers; what it does not rule out gets in."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeopt.brute import every_partition
from moeopt.cluster import Cluster
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.trace import Trace
from tests.problem_strategies import problems

TRACE = Trace(np.array([[[0, 1]], [[0, 2]], [[0, 3]], [[1, 2]]]), 4, layer_ids=np.array([9]))
PAIRS = Cluster(1, 2, 2)
INCUMBENT = Placement.partition([[0, 0, 1, 1]], PAIRS, layer_ids=(9,))


def problem_of(cluster: Cluster = PAIRS, **fields: Any) -> Problem:
    return Problem.from_trace(TRACE, cluster, **fields)


@pytest.mark.parametrize(
    ("cluster", "fields", "words"),
    [
        (PAIRS, {"max_moves": 1}, "max_moves 1 needs an incumbent to count from"),
        (PAIRS, {"max_moves": -1, "incumbent": INCUMBENT}, "at least 0, found -1"),
        (PAIRS, {"max_moves": True, "incumbent": INCUMBENT}, "found True"),
        (PAIRS, {"max_moves": 1.5, "incumbent": INCUMBENT}, "found 1.5"),
        (Cluster(1, 3, 2), {"incumbent": INCUMBENT}, "incumbent and problem differ in GPUs: 2 and 3"),
        (Cluster(2, 1, 2), {"incumbent": INCUMBENT}, "incumbent and problem differ in nodes: 1 and 2"),
        (
            PAIRS,
            {"incumbent": Placement.partition([[0, 0, 1, 1]], PAIRS, layer_ids=(8,))},
            r"incumbent and problem differ in layers: \(8,\) and \(9,\)",
        ),
        (
            PAIRS,
            {"incumbent": Placement.partition([[0, 0, 1]], PAIRS, layer_ids=(9,))},
            "incumbent and problem differ in experts: 3 and 4",
        ),
        (
            Cluster(1, 2, 3, speeds=(1, 2)),
            {"load_tolerance": "1", "replicas": 1},
            "a load tolerance on GPUs of unequal speed is for placements without replicas, found 1",
        ),
        (
            Cluster(1, 2, 4, speeds=(1, 3)),
            {"load_tolerance": "0"},
            None,
        ),
        (
            Cluster(1, 2, 4, speeds=(1, 2)),
            {"load_tolerance": "0"},
            "load tolerance 0 cannot be met: 2 GPUs may serve 2 to 5 activations each, there are 8",
        ),
        (
            Cluster(1, 4, 4, speeds=(1, 1, 1, 2)),
            {"load_tolerance": "0.4"},
            None,
        ),
        (
            Cluster(1, 4, 4, speeds=(4, 4, 4, 5)),
            {"load_tolerance": "0.15"},
            "layer 9, expert 0 alone serves 3 activations, a GPU may serve 2; at least 0.275 is needed",
        ),
    ],
)
def test_extras_are_refused_with_rule_and_value(
    cluster: Cluster, fields: dict[str, Any], words: str | None
) -> None:
    if words is None:
        assert problem_of(cluster, **fields).cluster == cluster
        return
    with pytest.raises(ValueError, match=words):
        problem_of(cluster, **fields)


@settings(max_examples=60, deadline=None)
@given(
    problem=problems(most_experts=5, most_gpus=3),
    tolerance=st.sampled_from(["0", "0.05", "0.2"]),
    data=st.data(),
)
def test_no_refused_tolerance_can_be_met(problem: Problem, tolerance: str, data: st.DataObject) -> None:
    """Brute force without the tolerance finds no placement within the caps; what is asked for is needed."""
    gpus = problem.cluster.gpus
    speeds = tuple(data.draw(st.lists(st.integers(1, 3), min_size=gpus, max_size=gpus)))
    free = replace(problem, load_tolerance=None, cluster=replace(problem.cluster, speeds=speeds))
    refusal = ""
    try:
        replace(free, load_tolerance=tolerance)
    except ValueError as error:
        refusal = str(error)
    if refusal:
        (sets,) = free.workload.layers
        least = Fraction(
            refusal.partition("cannot be met")[2].rpartition("at least ")[2].removesuffix(" is needed")
        )
        assert least > Fraction(tolerance)
        for placement in every_partition(free):
            loads = np.bincount(placement.primary[0], weights=sets.load, minlength=gpus)
            shares = [
                Fraction(int(load) * sum(speeds), speed) for load, speed in zip(loads, speeds, strict=True)
            ]
            assert max(shares) > (1 + Fraction(tolerance)) * free.load_total


def test_objectives_with_a_tail_are_measured_before_they_overflow() -> None:
    """Token counts without a small common multiple need weights of 2^50."""
    counts = (2, 3, 5, 7, 11, 13, 17, 19, 23)
    ids = np.array([[list(range(16))]] * sum(counts))
    families = tuple(f"family {count}" for count in counts)
    family = np.repeat(np.arange(len(counts)), counts).astype(np.uint8)
    trace = Trace(ids, 16, families=families, family=family)
    with pytest.raises(ValueError, match="objective too large for exact 64-bit arithmetic"):
        Problem.from_trace(trace, Cluster(1, 2, 8, gpu_cost=1000), tail=0)
    assert Problem.from_trace(trace, Cluster(1, 2, 8), tail=0).risk is not None
