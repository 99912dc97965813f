"""Tokens and experts clustered in turn: local at theta 0, even at theta 1."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from moeopt.cluster import Cluster
from moeopt.heuristics.sem_moe import SemMoe
from moeopt.problem import Problem
from moeopt.stop import Stop
from moeopt.trace import Trace


def labels(method: SemMoe, problem: Problem, seed: int = 0) -> list[int]:
    placement = method.solve(problem, stop=Stop(seconds=None), seed=seed).placement
    assert placement is not None
    return [int(gpu) for gpu in placement.primary[0]]


def test_experts_that_tokens_choose_together_share_a_gpu_when_only_locality_counts() -> None:
    tokens = np.array([[0, 2, 4]] * 9 + [[1, 3, 5]] * 9)
    problem = Problem.from_trace(Trace(tokens[:, None, :], 6), Cluster(1, 2, 3))
    gpu_of = labels(SemMoe(theta=0), problem)
    assert gpu_of in ([0, 1, 0, 1, 0, 1], [1, 0, 1, 0, 1, 0])
    assert problem.cost(problem.partition(np.array(gpu_of))) == 0


def test_loads_are_even_when_only_they_count() -> None:
    load = [4, 3, 2, 1]
    problem = Problem.from_trace(Trace(np.repeat(np.arange(4), load)[:, None, None], 4), Cluster(1, 2, 2))
    assert np.bincount(labels(SemMoe(theta=1), problem), weights=load).tolist() == [5, 5]


def test_a_larger_theta_gives_up_locality_for_even_loads() -> None:
    # Two pairs, one of them three times as frequent: apart they are even, together local.
    tokens = np.array([[0, 1]] * 9 + [[2, 3]] * 3)
    problem = Problem.from_trace(Trace(tokens[:, None, :], 4), Cluster(1, 2, 2))
    local = labels(SemMoe(theta=0.2), problem)  # 0.2 * 12 = 2.4 against 0.8 * 12
    even = labels(SemMoe(theta=0.8), problem)  # 0.8 * 12 = 9.6 against 0.2 * 12
    assert local[0] == local[1]
    assert local[2] == local[3]
    assert even[0] != even[1]
    assert even[2] != even[3]


def test_the_sum_is_what_the_formula_says_and_no_worse_than_of_any_placement_here() -> None:
    rng = np.random.default_rng(1)
    tokens = np.array([rng.choice(6, 2, replace=False) for _ in range(40)])
    problem = Problem.from_trace(Trace(tokens[:, None, :], 6), Cluster(1, 2, 3))
    theta = 0.5

    def value(gpu_of: list[int]) -> float:
        load = [sum(gpu_of[e] == j for row in tokens.tolist() for e in row) for j in range(2)]
        remote = sum(min(sum(gpu_of[e] != j for e in row) for j in range(2)) for row in tokens.tolist())
        return float(theta * sum(abs(part - 40) for part in load) + (1 - theta) * remote)

    everything = [[int(e in first) for e in range(6)] for first in combinations(range(6), 3)]
    assert value(labels(SemMoe(theta, restarts=20), problem)) == min(map(value, everything))


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match=r"theta must lie between 0 and 1, found 1\.5"):
        SemMoe(theta=1.5)
    with pytest.raises(ValueError, match="restarts must be at least 1, found 0"):
        SemMoe(restarts=0)
    with pytest.raises(ValueError, match="rounds must be at least 1, found 0"):
        SemMoe(rounds=0)
