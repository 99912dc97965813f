"""Equal groups with as many collaborating pairs inside as greedy growth and exchanges reach."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
from hypothesis import given, settings

from moeopt.affinity_groups import affinity_inside
from moeopt.cluster import Cluster
from moeopt.heuristics.occult import Occult
from moeopt.problem import Problem
from moeopt.stop import Stop
from moeopt.trace import Trace
from tests.problem_strategies import problems

FREELY = Stop(seconds=None)


def labels(problem: Problem) -> np.ndarray:
    placement = Occult().solve(problem, stop=FREELY, seed=0).placement
    assert placement is not None
    return np.asarray(placement.primary[0], np.int64)


def test_an_exchange_undoes_what_greed_began_with() -> None:
    # The pair 0, 1 collaborates most, 5 times; 0, 3 and 1, 2 together 8 times.
    pairs = {(0, 1): 5, (1, 2): 4, (0, 3): 4}
    tokens = np.repeat(np.array(list(pairs)), list(pairs.values()), axis=0)
    problem = Problem.from_trace(Trace(tokens[:, None, :], 4), Cluster(1, 2, 2))
    gpu_of = labels(problem)
    assert gpu_of[0] == gpu_of[3]
    assert gpu_of[1] == gpu_of[2]


@settings(max_examples=30, deadline=None)
@given(problem=problems())
def test_no_exchange_of_two_experts_adds_collaboration(problem: Problem) -> None:
    problem = replace(problem, load_tolerance=None)
    (sets,) = problem.workload.layers
    collaboration = sets.affinity(problem.set_weights(sets))
    gpu_of = labels(problem)
    reached = affinity_inside(collaboration, gpu_of)
    for e, f in combinations(range(len(gpu_of)), 2):
        swapped = gpu_of.copy()
        swapped[[e, f]] = swapped[[f, e]]
        assert affinity_inside(collaboration, swapped) <= reached


@settings(max_examples=15, deadline=None)
@given(problem=problems(objectives=("cut",), nodes=False))
def test_what_is_not_inside_is_the_cut(problem: Problem) -> None:
    problem = replace(problem, load_tolerance=None)
    (sets,) = problem.workload.layers
    gpu_of = labels(problem)
    inside = affinity_inside(sets.affinity(problem.set_weights(sets)), gpu_of)
    cut = problem.cost(problem.partition(gpu_of))
    assert cut == problem.cluster.gpu_cost * (problem.pair_weight - inside)
