"""The baselines are the placements that engines and packers make."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeopt.cluster import Cluster
from moeopt.heuristics.linear import Linear
from moeopt.heuristics.lpt import Lpt
from moeopt.heuristics.random import Random
from moeopt.heuristics.round_robin import RoundRobin
from moeopt.method import Heuristic
from moeopt.problem import Problem
from moeopt.stop import Stop
from moeopt.trace import Trace
from tests.problem_strategies import problems

FREELY = Stop(seconds=None)
BASELINES: list[Heuristic] = [Linear(), RoundRobin(), Random(), Lpt()]


def problem_of(experts: int, cluster: Cluster) -> Problem:
    return Problem.from_trace(Trace(np.arange(experts)[:, None, None], experts), cluster)


def labels(method: Heuristic, problem: Problem, seed: int = 0) -> list[int]:
    placement = method.solve(problem, stop=FREELY, seed=seed).placement
    assert placement is not None
    return [int(gpu) for gpu in placement.primary[0]]


@settings(max_examples=60, deadline=None)
@given(problem=problems(), seed=st.integers(0, 9))
@pytest.mark.parametrize("method", BASELINES, ids=lambda method: str(method.name))
def test_without_a_load_tolerance_every_baseline_keeps_the_slots(
    method: Heuristic, problem: Problem, seed: int
) -> None:
    free = replace(problem, load_tolerance=None)
    result = method.solve(free, stop=FREELY, seed=seed)
    assert result.status == "feasible"
    assert result.placement is not None
    assert free.violation(result.placement) == ""
    assert result.cost == free.cost(result.placement)
    assert method.solve(free, stop=FREELY, seed=seed).placement == result.placement


def test_linear_gives_consecutive_experts_to_each_gpu() -> None:
    assert labels(Linear(), problem_of(6, Cluster(1, 3, 2))) == [0, 0, 1, 1, 2, 2]
    assert labels(Linear(), problem_of(7, Cluster(1, 3, 4))) == [0, 0, 0, 1, 1, 2, 2]
    assert labels(Linear(), problem_of(6, Cluster(1, 3, (1, 4, 1)))) == [0, 1, 1, 1, 1, 2]


def test_round_robin_deals_and_passes_over_full_gpus() -> None:
    assert labels(RoundRobin(), problem_of(7, Cluster(1, 3, 3))) == [0, 1, 2, 0, 1, 2, 0]
    assert labels(RoundRobin(), problem_of(6, Cluster(1, 3, (1, 4, 1)))) == [0, 1, 2, 1, 1, 1]
    assert labels(RoundRobin(), problem_of(4, Cluster(1, 2, 2**31 - 1))) == [0, 1, 0, 1]


def test_random_follows_its_seed_and_keeps_sizes_equal() -> None:
    problem = problem_of(12, Cluster(1, 4, 5))
    drawn = [labels(Random(), problem, seed) for seed in range(20)]
    assert len({tuple(row) for row in drawn}) > 15
    assert all(np.bincount(row).tolist() == [3, 3, 3, 3] for row in drawn)


@settings(max_examples=60, deadline=None)
@given(problem=problems(unequal=False))
def test_balance_keeps_counts_equal_without_a_load_tolerance(problem: Problem) -> None:
    free = replace(problem, load_tolerance=None)
    sizes = np.bincount(labels(Lpt(), free), minlength=free.cluster.gpus)
    assert sizes.max() <= ceil(free.workload.n_experts / free.cluster.gpus)


def test_balance_levels_where_packing_breaks_the_tolerance() -> None:
    load = [5, 5, 4, 4, 3, 3, 3, 3]  # 15 a GPU; packed by counts alone 16 and 14
    ids = np.repeat(np.arange(8), load)[:, None, None]
    cluster = Cluster(1, 2, 5)
    free = Problem.from_trace(Trace(ids, 8), cluster)
    tight = replace(free, load_tolerance="0")
    result = Lpt().solve(tight, stop=FREELY, seed=0)
    assert result.status in ("feasible", "none-found")
    if result.placement is not None:
        assert tight.violation(result.placement) == ""
    else:
        assert result.tolerance_reached is not None
        assert result.tolerance_reached > 0
