"""The joint model and the knapsack over layers find the same optimum, and enumeration agrees."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from moeopt.cluster import Cluster
from moeopt.knapsack import split_budget
from moeopt.problem import Problem
from moeopt.rows import solve_model
from moeopt.statements import named_formulation
from moeopt.stop import Stop
from moeopt.trace import Trace
from moeopt_formulations.joint import Joint


def problem_of(seed: int, total: int, *, layers: int = 2) -> Problem:
    rng = np.random.default_rng(seed)
    trace = Trace(np.array([[rng.permutation(4)[:2] for _ in range(layers)] for _ in range(20)]), 4)
    return Problem.from_trace(trace, Cluster(1, 2, 3), replicas=2, total_replicas=total)


def by_layer(problem: Problem) -> int:
    """The optimum by definition: every layer enumerated with every budget, every split of the budget."""
    table = []
    for layer in range(len(problem.workload.layers)):
        single = problem.layer(layer)
        budgets = [replace(single, replicas=copies) for copies in range(problem.replicas + 1)]
        table.append([min(budget.cost(answer) for answer in budget.candidates()) for budget in budgets])
    assert problem.total_replicas is not None
    return split_budget(table, problem.total_replicas)[1]


@pytest.mark.parametrize("total", [0, 1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_the_joint_model_equals_the_knapsack_over_layers(seed: int, total: int) -> None:
    problem = problem_of(seed, total)
    found = solve_model(named_formulation("joint"), problem, stop=Stop(seconds=None))
    assert found.status == "certified-optimal", found.message
    assert found.cost == by_layer(problem)
    assert problem.violation(found.answer) == ""


def test_it_says_what_it_does_not_state() -> None:
    problem = problem_of(0, 1)
    assert "total_replicas is None" in Joint().supports(replace(problem, total_replicas=None))
    assert "found str" in Joint().supports("problem")
    assert "states no load tolerance" in Joint().supports(replace(problem, load_tolerance=1))
