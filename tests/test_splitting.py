"""Tokens split over copies: a densest set of GPUs proves every split that is called best."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from moeopt.cluster import Cluster
from moeopt.expert_sets import ExpertSets
from moeopt.judged import Judged
from moeopt.placement import Placement
from moeopt.splitting import Split, SplitProblem
from moeopt.spread import reachable_cap
from moeopt.testing import brute_force
from moeopt.workload import Workload
from tests.splitting_strategies import split_problems

HOSTS = np.array([[1, 1], [1, 0], [0, 1]], bool)
LARGER = split_problems(most_experts=12, most_gpus=8, most_load=1000)


def problem_of(**changes: Any) -> SplitProblem:
    fields: dict[str, Any] = {"load": np.array([3, 4, 0]), "hosts": HOSTS}
    return SplitProblem(**fields | changes)


def every_set(gpus: int) -> list[NDArray[np.bool_]]:
    """bool [gpus]: every set of GPUs but the empty one."""
    return [np.array([mask >> g & 1 for g in range(gpus)], bool) for mask in range(1, 1 << gpus)]


def test_it_judges_its_own_answers() -> None:
    assert isinstance(problem_of(), Judged)


@settings(deadline=None)
@given(problem=split_problems())
def test_no_split_is_better_than_the_one_found(problem: SplitProblem) -> None:
    least, _ = brute_force(problem)
    split, densest = problem.solve()
    assert not problem.violation(split)
    assert problem.cost(split) == problem.density(densest) == least


@settings(deadline=None)
@given(problem=LARGER)
def test_the_least_cost_is_the_largest_density(problem: SplitProblem) -> None:
    split, densest = problem.solve()
    assert not problem.violation(split)
    densities = [problem.density(gpus) for gpus in every_set(problem.gpus)]
    assert problem.cost(split) == problem.density(densest) == max(densities)


@settings(deadline=None)
@given(problem=LARGER, seed=st.integers(0, 2**32 - 1))
def test_density_counts_the_tokens_bound_to_a_set(problem: SplitProblem, seed: int) -> None:
    gpus = np.random.default_rng(seed).random(problem.gpus) < 0.5
    gpus[0] = True
    inside = set(np.flatnonzero(gpus).tolist())
    bound = sum(
        load
        for load, held in zip(problem.load.tolist(), problem.hosts, strict=True)
        if set(np.flatnonzero(held).tolist()) <= inside
    )
    assert problem.density(gpus) == -(-Fraction(bound) // len(inside))


@settings(deadline=None)
@given(problem=LARGER)
def test_the_compiled_flow_finds_the_same_cap(problem: SplitProblem) -> None:
    starts = np.concatenate([[0], problem.hosts.sum(axis=1).cumsum()])
    hosts = np.nonzero(problem.hosts)[1].astype(np.int32)
    split, _ = problem.solve()
    assert problem.cost(split) == reachable_cap(problem.load, starts, hosts, problem.gpus, 0)


@settings(deadline=None)
@given(problem=LARGER)
def test_weights_are_shares_of_the_copies(problem: SplitProblem) -> None:
    split, _ = problem.solve()
    assert split.weights.sum(axis=1) == pytest.approx(1)
    assert not split.weights[~problem.hosts].any()
    assert split.weights * problem.load[:, None] == pytest.approx(split.tokens)


def test_an_expert_without_tokens_is_shared_equally() -> None:
    problem = problem_of(load=np.array([0, 4, 1]))
    assert problem.solve()[0].weights.tolist() == [[0.5, 0.5], [1, 0], [0, 1]]


def test_a_placement_splits_its_recorded_traffic() -> None:
    sets = ExpertSets.of(np.array([[0, 1], [0, 2]]), np.array([[3], [1]]), n_experts=3)
    workload = Workload((sets,), (5,), ("all",), np.array([4]))
    placement = Placement(HOSTS[None], np.array([[0, 0, 1]]), 1, 2, (5,))
    problem = SplitProblem.from_placement(placement, workload)
    assert problem.load.tolist() == [4, 3, 1]
    assert problem.cost(problem.solve()[0]) == 4
    other = Placement.partition([[0, 0, 1]], Cluster(1, 2, 2), layer_ids=(4,))
    with pytest.raises(ValueError, match=r"found layers \[4\] and \[5\]"):
        SplitProblem.from_placement(other, workload)


def test_answers_are_equal_by_value_and_problems_are_told_apart() -> None:
    tokens = np.array([[1, 2], [4, 0], [0, 0]])
    assert Split(tokens, HOSTS) == Split(tokens.copy(), HOSTS.copy())
    assert hash(Split(tokens, HOSTS)) == hash(Split(tokens.copy(), HOSTS.copy()))
    assert Split(tokens, HOSTS) != Split(tokens[:, ::-1], HOSTS)
    problems = [problem_of(), problem_of(load=np.array([3, 4, 1])), problem_of(hosts=~HOSTS | HOSTS)]
    assert len({problem.digest for problem in problems}) == 3


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        ([[0, 3], [0, 4], [0, 0]], "GPU 1 serves 4 tokens of expert 1 and does not hold it"),
        ([[0, 2], [4, 0], [0, 0]], "expert 0: 2 tokens are served, its load is 3"),
    ],
)
def test_a_violation_names_the_rule_and_the_numbers(tokens: list[list[int]], words: str) -> None:
    assert problem_of().violation(Split(np.array(tokens), HOSTS)) == words


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hosts": HOSTS.astype(int)}, "hosts must be bool"),
        ({"hosts": HOSTS[:, :1]}, "expert 2 is on no GPU"),
        ({"load": np.array([1, 2])}, r"load must have shape \[3\]"),
        ({"load": np.full(3, 1 << 59)}, "too large"),
    ],
)
def test_bad_input_is_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        problem_of(**changes)


def test_answers_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"tokens must have shape \[3, 2\], found \[2, 2\]"):
        problem_of().cost(Split(np.zeros((2, 2), int), HOSTS[:2]))
    with pytest.raises(ValueError, match=r"tokens must have shape \[3, 2\], found \[2, 2\]"):
        Split(np.zeros((2, 2), int), HOSTS)
