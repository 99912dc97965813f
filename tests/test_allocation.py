"""One budget over all layers: the split is the best there is, its bound holds, and its file can be checked."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeopt.allocation import allocate
from moeopt.allocation_checker import verify_allocation
from moeopt.cluster import Cluster
from moeopt.exact import Exact
from moeopt.knapsack import split_budget
from moeopt.problem import Problem
from moeopt.statements import named_formulation
from moeopt.stop import Stop
from moeopt.trace import Trace


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.lists(st.integers(-5, 20), min_size=3, max_size=3), min_size=1, max_size=4),
    total=st.integers(0, 8),
)
def test_no_split_within_the_budget_is_cheaper(values: list[list[int]], total: int) -> None:
    choices, least = split_budget(values, total)
    splits = [split for split in product(range(3), repeat=len(values)) if sum(split) <= total]
    assert least == min(sum(row[at] for row, at in zip(values, split, strict=True)) for split in splits)
    assert least == sum(row[at] for row, at in zip(values, choices, strict=True))
    assert sum(choices) <= total


def problem_of(total: int | None = 2) -> tuple[Problem, Trace]:
    rng = np.random.default_rng(4)
    trace = Trace(np.array([[rng.permutation(4)[:2] for _ in range(2)] for _ in range(25)]), 4)
    return Problem.from_trace(trace, Cluster(1, 2, 3), replicas=2, total_replicas=total), trace


def optimum(problem: Problem) -> int:
    return min(problem.cost(candidate) for candidate in problem.candidates())


@pytest.fixture(scope="module")
def spent() -> tuple[Problem, Trace, dict[str, object]]:
    problem, trace = problem_of()
    method = Exact(named_formulation("covers"))
    allocation = allocate(problem, method, stop=Stop(seconds=None))
    assert allocation.status == "certified-optimal"
    assert allocation.cost == allocation.bound == problem.cost(allocation.placement)
    assert problem.violation(allocation.placement) == ""
    # By definition: every pair of layer optima within the budget.
    layers = [[optimum(replace(problem.layer(layer), replicas=r)) for r in range(3)] for layer in range(2)]
    least = min(layers[0][r] + layers[1][q] for r in range(3) for q in range(3) if r + q <= 2)
    assert allocation.cost == least
    return problem, trace, allocation.to_dict()


def test_the_file_of_an_allocation_states_its_problem_and_is_verified_without_a_solver(
    spent: tuple[Problem, Trace, dict[str, object]],
) -> None:
    problem, trace, document = spent
    assert document["problem"] == problem.fields()
    verdict = verify_allocation(document, trace)
    assert verdict.accepted, verdict.reason
    assert [claim for _, claim, _ in verdict.layers] == ["optimal", "optimal"]


def test_a_raised_bound_or_budget_is_refused(spent: tuple[Problem, Trace, dict[str, object]]) -> None:
    _, trace, document = spent
    bound = document["bound"]
    assert isinstance(bound, int)
    assert "the file says" in verify_allocation({**document, "bound": bound + 1}, trace).reason
    assert "the file says" in verify_allocation({**document, "total_replicas": 4}, trace).reason
    assert "2 choices and 1 layers" in verify_allocation({**document, "certificates": [[None]]}, trace).reason
    unproved = {**document, "certificates": [[None] * 3] * 2}
    assert "without a certificate" in verify_allocation(unproved, trace).reason
    assert "copies are spent" in verify_allocation({**document, "replicas": [2, 2]}, trace).reason


def test_a_placement_beyond_the_budget_over_all_layers_is_not_admissible() -> None:
    problem, _ = problem_of()
    wide = replace(problem, total_replicas=None)
    hosts = np.ones((2, 4, 2), bool)
    hosts[:, 3, 0] = hosts[:, 0, 1] = False
    start = wide.partition(np.array([[0, 0, 0, 1]] * 2))
    placement = replace(start, hosts=hosts)
    assert wide.violation(placement) == ""
    assert problem.violation(placement) == "4 replicas over all layers, the budget is 2"


def test_a_budget_that_is_none_and_one_without_replicas_are_refused() -> None:
    with pytest.raises(ValueError, match="needs total_replicas"):
        allocate(problem_of(None)[0])
    with pytest.raises(ValueError, match="needs replicas, the most copies of one layer"):
        replace(problem_of()[0], replicas=0)
