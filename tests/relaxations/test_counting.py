"""Counting slots gives a bound that the checker re-proves and no placement undercuts."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from moeopt.checker import check_layer
from moeopt.problem import Problem
from moeopt.relaxations.counting import counting_proof, fewest
from moeopt.testing import brute_force
from tests.problem_strategies import problems


@settings(max_examples=60, deadline=None)
@given(problem=problems(objectives=("fan-out",)))
def test_no_placement_costs_less_and_the_checker_agrees(problem: Problem) -> None:
    least, placement = brute_force(problem)
    proof = counting_proof(problem, cost=least)
    assert least is None or proof.bound <= least
    assert proof.optimal == (proof.bound == least)
    assert check_layer(problem, proof, placement=placement) == ""


@given(capacities=st.lists(st.integers(0, 5), min_size=1, max_size=6), k=st.integers(1, 8))
def test_fewest_is_the_smallest_choice_that_holds_them(capacities: list[int], k: int) -> None:
    if sum(capacities) < k:
        return
    sizes = range(1, len(capacities) + 1)
    least = next(n for n in sizes if any(sum(chosen) >= k for chosen in combinations(capacities, n)))
    assert fewest(np.array(capacities), k) == least
