"""Alternated groupings are admissible, locally best, and the same for the same seed."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings

from moeopt.grouping import GroupingProblem
from moeopt.grouping_search import alternated
from moeopt.stop import Clock, Stop
from moeopt.testing import brute_force
from tests.grouping_strategies import grouping_problems


def rounds(count: int) -> Clock:
    return Stop(seconds=None, candidates=count).start()


@settings(max_examples=60, deadline=None)
@given(problem=grouping_problems())
def test_it_is_admissible_and_costs_no_less_than_the_optimum(problem: GroupingProblem) -> None:
    found = alternated(problem, clock=rounds(5), seed=0)
    if found is None:
        assert problem.size_of.max() > 1
        return
    assert problem.violation(found) == ""
    assert problem.complete(found.request_group).expert_group.shape == found.expert_group.shape
    assert problem.cost(problem.complete(found.request_group)) == problem.cost(found)
    least, _ = brute_force(problem)
    assert least is not None
    assert least <= problem.cost(found)


def test_clear_families_are_found() -> None:
    family, experts = np.arange(12) % 3, np.arange(6) % 3
    problem = GroupingProblem(9 * (family[:, None, None] == experts).astype(int), 3)
    found = alternated(problem, clock=rounds(40), seed=0)
    assert found is not None
    assert problem.cost(found) == 0


def test_more_rounds_never_cost_more_and_one_is_enough() -> None:
    problem = GroupingProblem(np.random.default_rng(0).integers(0, 9, (30, 2, 12)), 4)
    costs = []
    for count in (1, 10, 40):
        clock = rounds(count)
        found = alternated(problem, clock=clock, seed=3)
        assert found is not None
        assert clock.candidates == count
        assert found == alternated(problem, clock=rounds(count), seed=3)
        costs.append(problem.cost(found))
    assert costs == sorted(costs, reverse=True)
    assert alternated(problem, clock=Stop(seconds=1e-9).start(), seed=0) is not None


def test_the_first_rounds_begin_where_they_are_told() -> None:
    family, experts = np.arange(12) % 3, np.arange(6) % 3
    problem = GroupingProblem(9 * (family[:, None, None] == experts).astype(int), 3)
    told = (family[:, None] == np.arange(3)).astype(float)
    found = alternated(problem, clock=rounds(1), seed=0, starts=[told])
    assert found is not None
    assert found.request_group.tolist() == family.tolist()
    crowded = alternated(problem, clock=rounds(1), seed=0, starts=[np.ones((12, 1)) * [1.0, 0.0, 0.0]])
    assert crowded is not None
    assert problem.violation(crowded) == ""
