"""Descents end where no swap helps, on any cluster, and keep slots and load."""

from __future__ import annotations

from itertools import combinations, islice

import numpy as np
from hypothesis import given, settings

from moeopt.descent import cut_descents, lightest_placement
from moeopt.placement import Placement
from moeopt.problem import Problem
from tests.problem_strategies import problems


def proposals(problem: Problem, count: int = 4) -> list[Placement]:
    return list(islice(cut_descents(problem, rng=np.random.default_rng(0)), count))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(problem=problems(objectives=("cut",)))
def test_no_swap_improves_a_proposal(problem: Problem) -> None:
    admissible = problem.violation(lightest_placement(problem)) == ""
    for placement in proposals(problem):
        if problem.violation(placement):
            assert problem.load_tolerance is not None
            assert not admissible
            continue
        cost = problem.cost(placement)
        for one, other in combinations(range(placement.n_experts), 2):
            gpu_of = placement.primary.copy()
            gpu_of[0, [one, other]] = gpu_of[0, [other, one]]
            swapped = Placement.partition(gpu_of, problem.cluster, layer_ids=placement.layer_ids)
            assert problem.violation(swapped) or problem.cost(swapped) >= cost


@settings(max_examples=10, deadline=None, derandomize=True)
@given(problem=problems(objectives=("cut",)))
def test_one_generator_gives_one_answer(problem: Problem) -> None:
    assert proposals(problem) == proposals(problem)
