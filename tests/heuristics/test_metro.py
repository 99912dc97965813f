"""Few activated experts on the fullest GPU of a batch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeopt.activation import Activation, ActivationProblem
from moeopt.cluster import Cluster
from moeopt.heuristics.metro import Metro, drawn_batches, spread_activations
from moeopt.problem import Problem
from moeopt.stop import Stop
from moeopt.trace import Trace

BATCHES = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1]], bool)


def test_experts_of_one_batch_are_kept_apart() -> None:
    assert spread_activations(BATCHES, np.array([2, 2])).tolist() == [0, 1, 0, 1]


def test_the_greedy_answer_has_the_least_cost_of_the_exact_problem_here() -> None:
    problem = ActivationProblem(BATCHES, Cluster(1, 2, 2))
    gpu_of = spread_activations(BATCHES, np.array([2, 2]))
    answer = Activation(gpu_of[:, None] == np.arange(2), np.where(BATCHES, gpu_of, -1))
    assert problem.violation(answer) == ""
    assert problem.cost(answer) == min(map(problem.cost, problem.candidates())) == 3


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), batch=st.integers(1, 6))
def test_a_batch_activates_what_its_tokens_choose(seed: int, batch: int) -> None:
    rng = np.random.default_rng(seed)
    tokens = np.array([rng.choice(7, 3, replace=False) for _ in range(20)])
    (sets,) = Problem.from_trace(Trace(tokens[:, None, :], 7), Cluster(1, 2, 4)).workload.layers
    active = drawn_batches(sets, batch=batch, batches=5, rng=np.random.default_rng(seed))
    assert active.shape == (5, 7)
    assert (active.sum(axis=1) >= 3).all()
    assert (active.sum(axis=1) <= 3 * batch).all()
    if batch == 1:
        rows = {tuple(np.flatnonzero(row).tolist()) for row in active}
        assert rows <= {tuple(sorted(row)) for row in tokens.tolist()}


def test_experts_that_are_always_active_are_spread_evenly() -> None:
    tokens = np.tile([0, 1, 2, 3], (8, 1))
    problem = Problem.from_trace(Trace(tokens[:, None, :], 8), Cluster(1, 4, 2))
    placement = Metro().solve(problem, stop=Stop(seconds=None), seed=0).placement
    assert placement is not None
    assert sorted(placement.primary[0, :4].tolist()) == [0, 1, 2, 3]


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="batch must be at least 1, found 0"):
        Metro(batch=0)
    with pytest.raises(ValueError, match="batches must be at least 1, found 0"):
        Metro(batches=0)
