"""Uneven spectral groups at the knee, limited by the slots, and copies from the heaviest group to the lightest."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from moeopt.cluster import Cluster
from moeopt.heuristics.grace import Grace, knee
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.stop import Stop
from moeopt.trace import Trace

CLIQUES = [*combinations(range(5), 2), *combinations(range(5, 8), 2)]


def problem_of(slots: int, replicas: int = 0, nodes: int = 1) -> Problem:
    """Five experts chosen in pairs among themselves, three others likewise; on two GPUs."""
    tokens = np.repeat(np.array(CLIQUES), 6, axis=0)
    return Problem.from_trace(
        Trace(tokens[:, None, :], 8), Cluster(nodes, 2 // nodes, slots), replicas=replicas
    )


def solved(method: Grace, problem: Problem) -> Placement:
    placement = method.solve(problem, stop=Stop(seconds=None), seed=0).placement
    assert placement is not None
    return placement


@pytest.mark.parametrize("nodes", [1, 2])
@pytest.mark.parametrize("deviation", [None, 1, 3])
def test_groups_follow_the_cliques_where_the_slots_allow(deviation: int | None, nodes: int) -> None:
    gpu_of = solved(Grace(deviation), problem_of(slots=5, nodes=nodes)).primary[0].tolist()
    assert len(set(gpu_of[:5])) == 1
    assert len(set(gpu_of[5:])) == 1
    assert gpu_of[0] != gpu_of[5]


def test_no_deviation_gives_equal_groups() -> None:
    assert np.bincount(solved(Grace(0), problem_of(slots=5)).primary[0]).tolist() == [4, 4]


def test_uneven_groups_are_proposed_first_and_those_within_the_slots_after_them() -> None:
    problem = problem_of(slots=4)
    clock = Stop(seconds=None).start()
    found = list(Grace(1).search(problem, clock=clock, rng=np.random.default_rng(0), start=None))
    sizes = [sorted(np.bincount(placement.primary[0]).tolist()) for placement in found]
    assert sizes == [[3, 5], [4, 4]]
    assert "slots are 4" in problem.violation(found[0])
    assert problem.violation(found[1]) == ""


def test_the_knee_is_where_the_gain_most_exceeds_the_spread() -> None:
    assert knee([0.0, 1.0, 2.0, 4.0], [10, 18, 19, 20]) == 1  # 0, .8 - .25, .9 - .5, 0
    assert knee([0.0, 0.0], [7, 7]) == 0
    assert knee([0.0, 1.0, 1.0], [3, 9, 9]) == 1
    assert knee([1.5], [3]) == 0


def test_hot_experts_of_the_heaviest_group_are_copied_until_it_is_at_the_mean() -> None:
    # Loads: 24 each of five experts, 12 each of three; groups of 120 and 36, mean 78.
    # rho = 1.54, one copy each; a copied expert takes 12 away: four of them.
    problem = problem_of(slots=8, replicas=8)
    placement = solved(Grace(1), problem)
    assert placement.hosts[0].sum(axis=1).tolist() == [2, 2, 2, 2, 1, 1, 1, 1]
    fewer = solved(Grace(1), problem_of(slots=8, replicas=2))
    assert fewer.hosts[0].sum(axis=1).tolist() == [2, 2, 1, 1, 1, 1, 1, 1]


def test_a_node_of_one_gpu_has_nowhere_to_copy_to() -> None:
    assert solved(Grace(), problem_of(slots=8, replicas=4, nodes=2)).is_partition


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="deviation must be at least 0, found -1"):
        Grace(-1)
    with pytest.raises(ValueError, match="rounds must be at least 1, found 0"):
        Grace(rounds=0)
    with pytest.raises(ValueError, match="restarts must be at least 1, found 0"):
        Grace(restarts=0)
