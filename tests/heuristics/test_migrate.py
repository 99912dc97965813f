"""The search for few moves keeps the budget and finds what brute force finds, mostly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings

from moeopt.cluster import Cluster
from moeopt.heuristics.migrate import Migrate
from moeopt.heuristics.mixture import Mixture
from moeopt.problem import Problem
from moeopt.stop import Stop
from moeopt.testing import brute_force
from moeopt.trace import Trace
from tests.families_strategies import move_problems, tail_problems

FREELY = Stop(seconds=None)
SOME = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@SOME
@given(problem=move_problems(nodes=True))
def test_what_is_found_keeps_the_budget_and_is_no_dearer_than_the_incumbent(problem: Problem) -> None:
    assert problem.incumbent is not None
    assert problem.max_moves is not None
    result = Migrate(kicks=4).solve(problem, stop=FREELY, seed=0)
    least, _ = brute_force(problem)
    if result.placement is None:
        assert problem.violation(problem.incumbent)
        return
    assert problem.violation(result.placement) == ""
    assert least is not None
    assert result.cost is not None
    assert result.cost >= least
    if not problem.violation(problem.incumbent):
        assert result.cost <= problem.cost(problem.incumbent)


@SOME
@given(problem=move_problems(most_experts=5))
def test_tiny_layers_are_searched_to_the_optimum_where_loads_are_free(problem: Problem) -> None:
    free = replace(problem, load_tolerance=None)
    result = Migrate().solve(free, stop=FREELY, seed=0)
    assert result.cost == brute_force(free)[0]


def test_it_starts_from_what_it_is_given() -> None:
    rng = np.random.default_rng(0)
    ids = np.array([[rng.permutation(8)[:3]] for _ in range(60)])
    problem = Problem.from_trace(Trace(ids, 8), Cluster(1, 4, 2))
    problem = replace(problem, incumbent=problem.partition(np.arange(8) // 2), max_moves=4)
    best = Migrate().solve(problem, stop=FREELY, seed=0)
    again = Migrate(kicks=0).solve(
        problem, stop=Stop(candidates=1, seconds=None), seed=0, start=best.placement
    )
    assert again.cost == best.cost


def test_it_says_what_it_needs() -> None:
    rng = np.random.default_rng(0)
    ids = np.array([[rng.permutation(6)[:2]] for _ in range(30)])
    problem = Problem.from_trace(Trace(ids, 6), Cluster(1, 3, 3))
    incumbent = problem.partition(np.arange(6) // 2)
    assert "the problem has no max_moves" in Migrate().supports(problem)
    moving = replace(problem, incumbent=incumbent, max_moves=2)
    assert Migrate().supports(moving) == ""
    assert "replicas are 1" in Migrate().supports(replace(moving, replicas=1))
    assert "no tail" in Mixture().supports(problem)
    worst = replace(problem, tail="0")
    assert Mixture().supports(worst) == ""
    assert "replicas are 1" in Mixture().supports(replace(worst, replicas=1))
    assert "max_moves is 2" in Mixture().supports(replace(moving, tail="0"))


@SOME
@given(problem=tail_problems(unequal=True, nodes=True))
def test_mixtures_find_the_best_worst_case_of_tiny_layers(problem: Problem) -> None:
    free = replace(problem, load_tolerance=None)
    least, _ = brute_force(free)
    assume(least is not None)
    result = Mixture().solve(free, stop=FREELY, seed=0)
    assert least is not None
    assert result.cost is not None
    assert least <= result.cost <= 1.5 * least


@pytest.mark.parametrize("seconds", [1e-9])
def test_an_expired_clock_ends_the_search(seconds: float) -> None:
    rng = np.random.default_rng(0)
    ids = np.array([[rng.permutation(6)[:2]] for _ in range(30)])
    problem = Problem.from_trace(Trace(ids, 6), Cluster(1, 3, 2))
    moving = replace(problem, incumbent=problem.partition(np.arange(6) // 2), max_moves=2)
    assert Migrate().solve(moving, stop=Stop(seconds=seconds), seed=0).placement is not None
    assert Mixture().solve(replace(problem, tail="0"), stop=Stop(seconds=seconds), seed=0).cost is not None
