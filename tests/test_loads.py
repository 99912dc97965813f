"""The load of GPUs: scaled times are exact, bounds by arithmetic hold."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeopt.balance import balanced, levelled
from moeopt.cluster import Cluster
from moeopt.judged import Judged
from moeopt.loads import LoadProblem
from moeopt.placement import Placement
from moeopt.testing import brute_force
from moeopt.trace import Trace
from moeopt.workload import Workload
from tests.loads_strategies import load_problems
from tests.strategies import traces

LOAD = np.array([5, 3, 2, 2])


def problem_of(**changes: Any) -> LoadProblem:
    fields: dict[str, Any] = {"load": LOAD, "cluster": Cluster(1, 2, 3)}
    return LoadProblem(**fields | changes)


def test_it_judges_its_own_answers() -> None:
    assert isinstance(problem_of(), Judged)


@given(problem=load_problems(), seed=st.integers(0, 2**32 - 1))
def test_the_cost_is_the_time_in_whole_units(problem: LoadProblem, seed: int) -> None:
    gpus = problem.cluster.gpus
    gpu_of = np.random.default_rng(seed).integers(0, gpus, problem.n_experts)
    speeds = problem.speeds or (1,) * gpus
    times = [
        Fraction(
            sum(load for load, on in zip(problem.load.tolist(), gpu_of, strict=True) if on == gpu), speed
        )
        for gpu, speed in enumerate(speeds)
    ]
    scale = int(np.lcm.reduce(speeds))
    if problem.measure == "maximum":
        wanted = scale * max(times)
    else:
        mean = Fraction(int(problem.load.sum()), sum(speeds))
        wanted = scale * sum(speeds) * sum((abs(time - mean) for time in times), Fraction(0))
    assert problem.cost(problem.partition(gpu_of)) == wanted


@settings(deadline=None)
@given(problem=load_problems())
def test_no_placement_costs_less_than_arithmetic_says(problem: LoadProblem) -> None:
    least, _ = brute_force(problem)
    assert least is not None
    assert problem.least <= least


@settings(deadline=None)
@given(problem=load_problems(measures=("maximum",)))
def test_packing_and_swaps_cost_no_less_than_the_optimum(problem: LoadProblem) -> None:
    slots = problem.cluster.slots_of
    answer = problem.partition(levelled(problem.load, balanced(problem.load, slots), slots=slots))
    assert not problem.violation(answer)
    least, _ = brute_force(problem)
    assert least is not None
    assert problem.cost(answer) >= least


@given(trace=traces(max_layers=2))
def test_the_loads_of_a_workload_are_those_of_its_tokens(trace: Trace) -> None:
    workload = Workload.from_trace(trace)
    cluster = Cluster(1, 2, trace.n_experts)
    for index in range(trace.n_layers):
        problem = LoadProblem.from_workload(workload.layer(index), cluster)
        assert problem.load.tolist() == workload.layers[index].load.tolist()
        assert (problem.layer_id, problem.model) == (workload.layer_ids[index], trace.model)
    if trace.n_layers > 1:
        with pytest.raises(ValueError, match=r"found 2 layers: use workload.layer"):
            LoadProblem.from_workload(workload, cluster)


def test_heavy_experts_share_a_gpu_or_have_company() -> None:
    assert problem_of(cluster=Cluster(1, 2, 2)).least == 7  # 5 beside one of 2; half of all is 6
    assert problem_of(cluster=Cluster(1, 2, 3)).least == 6
    assert problem_of(cluster=Cluster(1, 2, 3), speeds=[1, 2]).least == 8  # lcm 2: 12 at speed 3
    assert (
        problem_of(load=np.array([5, 5, 5, 1]), cluster=Cluster(1, 2, 3)).least == 10
    )  # two of three together
    heavy = problem_of(load=np.array([9, 9, 3, 2, 1, 0]), cluster=Cluster(1, 3, 2))
    assert heavy.least == 10  # (9 + 9 + 0 + 1) / 2; the mean is 8


def test_the_digest_tells_problems_apart() -> None:
    problems = [
        problem_of(),
        problem_of(load=LOAD + 1),
        problem_of(cluster=Cluster(1, 2, 4)),
        problem_of(speeds=[1, 2]),
        problem_of(measure="deviation"),
    ]
    assert len({problem.digest for problem in problems}) == len(problems)


def test_a_violation_names_the_gpu_and_its_slots() -> None:
    problem = problem_of(layer_id=7)
    broken = problem.violation(problem.partition([0, 0, 0, 0]))
    assert broken == "layer 7: GPU 0 holds 4 experts, slots are 3"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"load": np.zeros(0, int)}, "at least one expert"),
        ({"load": LOAD / 2}, "whole numbers, found dtype float64"),
        ({"load": -LOAD}, "between 0 and"),
        ({"load": np.full(4, 1 << 57)}, "too large"),
        ({"cluster": Cluster(1, 2, 1)}, "2 GPUs offer 2 slots a layer for 4 experts"),
        ({"speeds": [1]}, r"speeds must have shape \[2\]"),
        ({"speeds": [1, 0]}, "speeds must be at least 1, found 0"),
        ({"measure": "mean"}, "measure must be one of maximum, deviation, found 'mean'"),
    ],
)
def test_bad_input_is_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        problem_of(**changes)


def test_answers_of_another_shape_are_refused() -> None:
    other = Placement.partition([[0, 1, 0]], Cluster(1, 2, 3), layer_ids=(0,))
    with pytest.raises(ValueError, match="differ in experts: 3 and 4"):
        problem_of().cost(other)
