"""Requests and experts in groups: activations counted one by one, capacities exact, the best experts found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeopt.grouping import Grouping, GroupingProblem
from moeopt.judged import Judged
from moeopt.testing import brute_force
from moeopt.trace import DECODE, Trace
from tests.grouping_strategies import grouping_problems
from tests.strategies import traces

ONES = np.ones((4, 2, 6), int)


def problem_of(**changes: Any) -> GroupingProblem:
    fields: dict[str, Any] = {"activations": ONES, "groups": 2}
    return GroupingProblem(**fields | changes)


def grouped(request_group: list[int], expert_group: list[list[int]]) -> Grouping:
    return Grouping(np.array(request_group), np.array(expert_group))


def test_it_judges_its_own_answers() -> None:
    assert isinstance(problem_of(), Judged)


@given(trace=traces(), groups=st.integers(1, 3), seed=st.integers(0, 2**32 - 1))
def test_the_cost_is_the_number_of_activations_away_from_home(trace: Trace, groups: int, seed: int) -> None:
    problem = GroupingProblem.from_trace(trace, groups=groups)
    rng = np.random.default_rng(seed)
    ids = np.unique(trace.request).tolist()
    answer = Grouping(
        rng.integers(0, groups, len(ids)), rng.integers(0, groups, (trace.n_layers, trace.n_experts))
    )
    remote = sum(
        answer.request_group[ids.index(request)] != answer.expert_group[layer, expert]
        for request, token in zip(trace.request.tolist(), trace.experts.tolist(), strict=True)
        for layer, experts in enumerate(token)
        for expert in experts
    )
    assert problem.cost(answer) == remote


@given(trace=traces())
def test_a_phase_counts_its_own_tokens_only(trace: Trace) -> None:
    decoded = trace.phase == DECODE
    if not decoded.any():
        with pytest.raises(ValueError, match="no token of phase 1"):
            GroupingProblem.from_trace(trace, groups=1, phase=DECODE)
        return
    problem = GroupingProblem.from_trace(trace, groups=1, phase=DECODE)
    alone = GroupingProblem.from_trace(trace.take(decoded), groups=1)
    assert (problem.activations == alone.activations).all()
    assert problem.activations.sum() == decoded.sum() * trace.n_layers * trace.top_k


@settings(max_examples=50, deadline=None)
@given(problem=grouping_problems(), seed=st.integers(0, 2**32 - 1))
def test_no_experts_do_better_than_those_that_complete_a_grouping(
    problem: GroupingProblem, seed: int
) -> None:
    requests = np.random.default_rng(seed).integers(0, problem.groups, problem.n_requests)
    best = problem.complete(requests)
    for candidate in problem.candidates():
        assert not problem.violation(candidate)
        other = Grouping(requests, candidate.expert_group)
        assert problem.cost(best) <= problem.cost(other)


@settings(max_examples=50, deadline=None)
@given(problem=grouping_problems(), seed=st.integers(0, 2**32 - 1))
def test_a_clustered_problem_costs_what_the_requests_cost(problem: GroupingProblem, seed: int) -> None:
    rng = np.random.default_rng(seed)
    cluster_of = np.unique(rng.integers(0, problem.n_requests, problem.n_requests), return_inverse=True)[1]
    clustered = problem.clustered(cluster_of, slack=15)
    assert (clustered.slack, clustered.total_size) == (15, problem.total_size)
    whole = clustered.complete(rng.integers(0, problem.groups, clustered.n_requests))
    assert clustered.cost(whole) == problem.cost(
        Grouping(whole.request_group[cluster_of], whole.expert_group)
    )


def test_clusters_never_beat_their_requests_under_the_same_bounds() -> None:
    rng = np.random.default_rng(0)
    problem = GroupingProblem(rng.integers(0, 9, (6, 1, 4)), 2)
    clustered = problem.clustered([0, 0, 1, 1, 2, 2], slack=1)
    least, _ = brute_force(GroupingProblem(problem.activations, 2, slack=1))
    found, _ = brute_force(clustered)
    assert least is not None
    assert found is not None
    assert least <= found


def test_shares_are_the_mean_rounded_down_and_up() -> None:
    problem = GroupingProblem(np.ones((5, 1, 7), int), 3, slack=1)
    assert problem.request_bounds.tolist() == [[0, 0, 0], [3, 3, 3]]
    assert problem.expert_bounds.tolist() == [[2, 2, 2], [3, 3, 3]]
    given_numbers = problem_of(slots=[4, 2], quotas=[1, 3])
    assert given_numbers.request_bounds.tolist() == [[1, 3], [1, 3]]
    assert given_numbers.expert_bounds.tolist() == [[4, 2], [4, 2]]


def test_the_digest_tells_problems_apart() -> None:
    problems = [
        problem_of(),
        problem_of(activations=ONES + 1),
        problem_of(groups=3),
        problem_of(slots=[2, 4]),
        problem_of(quotas=[1, 3]),
        problem_of(sizes=[2, 1, 1, 1]),
        problem_of(slack=1),
    ]
    assert len({problem.digest for problem in problems}) == len(problems)
    assert problem_of().digest == problem_of(sizes=[1, 1, 1, 1]).digest


def test_answers_are_equal_by_value() -> None:
    one, same, other = grouped([0, 1], [[0]]), grouped([0, 1], [[0]]), grouped([0, 0], [[0]])
    assert one == same
    assert hash(one) == hash(same)
    assert one != other


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (grouped([0, 0, 0, 1], [[0, 0, 0, 1, 1, 1]] * 2), "group 0 serves 3 requests, allowed are 2 to 2"),
        (
            grouped([0, 0, 1, 1], [[0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 1, 1]]),
            "layer 1: group 0 holds 4 experts, allowed are 3 to 3",
        ),
    ],
)
def test_a_violation_names_the_rule_and_the_numbers(answer: Grouping, words: str) -> None:
    assert words in problem_of().violation(answer)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"activations": np.ones((2, 3), int)}, "activations must have shape"),
        ({"activations": np.ones((0, 1, 3), int)}, "none of them 0"),
        ({"activations": ONES / 2}, "whole numbers, found dtype float64"),
        ({"activations": np.full((4, 2, 6), 1 << 58)}, "too large"),
        ({"groups": 0}, "groups must be a whole number, at least 1, found 0"),
        ({"slack": -1}, "slack must be a whole number, at least 0, found -1"),
        ({"slots": [3, 4]}, r"slots must sum to 6, found 7: \[3, 4\]"),
        ({"quotas": [3, 3]}, r"quotas must sum to 4, found 6"),
        ({"quotas": [4, 3], "slack": 1}, r"quotas must sum to 4 within 2, the slack of 2 groups, found 7"),
        ({"sizes": [1, 7, 1, 1]}, r"row 1 stands for 7 requests, a group serves at most 5: .* 2 more slack"),
        ({"sizes": [1, 2]}, "sizes must have shape"),
    ],
)
def test_bad_input_is_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        problem_of(**changes)


def test_bad_answers_and_clusters_are_named() -> None:
    problem = problem_of()
    with pytest.raises(ValueError, match=r"request_group must have shape \[4\]"):
        problem.cost(grouped([0], [[0] * 6] * 2))
    with pytest.raises(ValueError, match=r"expert_group must name groups 0..1, found 0..2"):
        problem.cost(grouped([0, 0, 1, 1], [[0, 0, 0, 1, 1, 2]] * 2))
    with pytest.raises(ValueError, match="request_group must be whole numbers with 1 axes"):
        Grouping(np.array([[0]]), np.array([[0]]))
    with pytest.raises(ValueError, match="without gaps"):
        problem.clustered([0, 2, 2, 2])
    with pytest.raises(ValueError, match="cluster_of must be whole numbers"):
        problem.clustered([0, 1])
    with pytest.raises(ValueError, match="brute force ends"):
        next(problem_of(activations=np.ones((4, 1, 20), int)).candidates())
