"""Activated experts: what a batch costs, which copies serve it, how batches come out of a trace."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeopt.activation import Activation, ActivationProblem
from moeopt.cluster import Cluster
from moeopt.judged import Judged
from moeopt.testing import brute_force
from moeopt.trace import DECODE, Trace
from tests.activation_strategies import activation_problems
from tests.strategies import traces

BATCHES = np.array([[1, 1, 0], [0, 1, 1]], bool)
HOSTS = np.array([[1, 0], [1, 1], [0, 1]], bool)
SERVING = np.array([[0, 1, -1], [-1, 0, 1]])


def problem_of(**changes: Any) -> ActivationProblem:
    fields: dict[str, Any] = {"batches": BATCHES, "cluster": Cluster(1, 2, 2), "replicas": 1}
    return ActivationProblem(**fields | changes)


def test_it_judges_its_own_answers() -> None:
    assert isinstance(problem_of(), Judged)


@settings(deadline=None)
@given(problem=activation_problems())
def test_the_cost_counts_the_experts_of_the_fullest_gpu(problem: ActivationProblem) -> None:
    for answer in problem.candidates():
        most = [
            max(list(row).count(gpu) for gpu in range(problem.cluster.gpus))
            for row in answer.serving.tolist()
        ]
        assert problem.cost(answer) == (max(most) if problem.worst else sum(most))
        assert not problem.violation(answer)


@settings(deadline=None)
@given(problem=activation_problems())
def test_no_choice_of_copies_is_better_than_the_one_served(problem: ActivationProblem) -> None:
    for candidate in problem.candidates():
        served = problem.serve(candidate.hosts)
        assert not problem.violation(served)
        found, wanted = problem.activated(served), problem.activated(candidate)
        assert found.max(axis=1).tolist() == wanted.max(axis=1).tolist()


@settings(deadline=None)
@given(problem=activation_problems())
def test_the_worst_batch_costs_no_more_than_their_sum(problem: ActivationProblem) -> None:
    costs = [
        brute_force(
            ActivationProblem(problem.batches, problem.cluster, problem.replicas, problem.hosts, worst=worst)
        )[0]
        for worst in (True, False)
    ]
    worst, total = costs
    assert worst is not None
    assert total is not None
    assert worst <= total <= worst * problem.n_batches


@given(trace=traces(), size=st.integers(1, 4), seed=st.integers(0, 2**32 - 1))
def test_batches_are_cut_step_by_step(trace: Trace, size: int, seed: int) -> None:
    shuffled = trace.take(np.random.default_rng(seed).permutation(trace.n_tokens))
    layer, cluster = int(trace.layer_ids[0]), Cluster(1, 1, trace.n_experts)
    steps: dict[int, int] = {}
    tokens = []
    for token in np.lexsort([shuffled.position, shuffled.request]).tolist():
        request = int(shuffled.request[token])
        steps[request] = steps.get(request, -1) + 1
        tokens.append((steps[request], request, token))
    order = [token for _, _, token in sorted(tokens, key=lambda entry: entry[:2])]
    if len(order) < size:
        with pytest.raises(ValueError, match="do not fill a batch"):
            ActivationProblem.from_trace(shuffled, cluster, batch_size=size, layer=layer, phase=None)
        return
    problem = ActivationProblem.from_trace(shuffled, cluster, batch_size=size, layer=layer, phase=None)
    assert problem.n_batches == trace.n_tokens // size
    for batch, active in enumerate(problem.batches):
        members = order[batch * size : (batch + 1) * size]
        assert set(np.flatnonzero(active)) == set(shuffled.experts[members, 0].ravel())


def test_only_decoded_tokens_make_batches_unless_asked() -> None:
    trace = Trace(np.arange(6).reshape(6, 1, 1), 6, phase=np.array([0, 0, 1, 1, 1, 1]))
    cluster = Cluster(1, 2, 3)
    problem = ActivationProblem.from_trace(trace, cluster, batch_size=2, layer=0)
    assert [np.flatnonzero(row).tolist() for row in problem.batches] == [[2, 3], [4, 5]]
    thinned = ActivationProblem.from_trace(trace, cluster, batch_size=1, layer=0, phase=None, most=2)
    assert [np.flatnonzero(row).tolist() for row in thinned.batches] == [[0], [5]]
    prefill = trace.take(trace.phase != DECODE)
    with pytest.raises(ValueError, match="no token of phase 1"):
        ActivationProblem.from_trace(prefill, cluster, batch_size=1, layer=0)
    with pytest.raises(ValueError, match="batch_size must be a whole number, at least 1, found 0"):
        ActivationProblem.from_trace(trace, cluster, batch_size=0, layer=0)
    with pytest.raises(ValueError, match="layer 3 is not in the trace"):
        ActivationProblem.from_trace(trace, cluster, batch_size=1, layer=3)


def test_answers_are_equal_by_value_and_problems_are_told_apart() -> None:
    answer, same = Activation(HOSTS, SERVING), Activation(HOSTS.copy(), SERVING.copy())
    assert answer == same
    assert hash(answer) == hash(same)
    assert answer != Activation(HOSTS, np.full_like(SERVING, -1))
    problems = [
        problem_of(),
        problem_of(batches=~BATCHES),
        problem_of(cluster=Cluster(1, 2, 3)),
        problem_of(replicas=0),
        problem_of(hosts=HOSTS),
        problem_of(worst=True),
    ]
    assert len({problem.digest for problem in problems}) == len(problems)


@pytest.mark.parametrize(
    ("hosts", "serving", "changes", "words"),
    [
        (HOSTS | True, SERVING, {}, "GPU 0 holds 3 experts, slots are 2"),
        (HOSTS & [[1], [1], [0]], SERVING, {}, "expert 2 is on no GPU"),
        (HOSTS, SERVING, {"replicas": 0}, "1 replicas, the budget is 0"),
        (HOSTS[:, ::-1], SERVING, {"hosts": HOSTS}, "expert 0 is not on the GPUs that are given"),
        (HOSTS, SERVING[::-1], {}, "batch 0, expert 0: served by GPU -1, activated is True"),
        (HOSTS, SERVING * [1, 1, 0], {}, "batch 0, expert 2: served by GPU 0, activated is False"),
        (
            HOSTS,
            np.array([[1, 1, -1], [-1, 0, 1]]),
            {},
            "batch 0: GPU 1 serves expert 0 and does not hold it",
        ),
    ],
)
def test_a_violation_names_the_rule_and_the_numbers(
    hosts: Any, serving: Any, changes: dict[str, Any], words: str
) -> None:
    assert problem_of(**changes).violation(Activation(hosts, serving)) == words


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batches": BATCHES.astype(int)}, "batches must be bool"),
        ({"batches": BATCHES[:0]}, r"found bool\[0, 3\]"),
        ({"replicas": -1}, "replicas must be a whole number, at least 0, found -1"),
        ({"replicas": 2}, "3 experts and 2 replicas need as many slots, 2 GPUs offer 4"),
        ({"hosts": HOSTS[:2]}, r"hosts must be bool \[3, 2\]"),
        ({"hosts": HOSTS, "replicas": 0}, "hosts: 1 replicas, the budget is 0"),
    ],
)
def test_bad_input_is_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        problem_of(**changes)


def test_bad_answers_are_named() -> None:
    with pytest.raises(ValueError, match="serving must have two axes"):
        Activation(HOSTS, np.zeros(3, int))
    with pytest.raises(ValueError, match=r"serving must have shape \[2, 3\], found \[1, 3\]"):
        problem_of().cost(Activation(HOSTS, SERVING[:1]))
    with pytest.raises(ValueError, match=r"serving must name GPUs 0..1 or -1, found -1..2"):
        problem_of().cost(Activation(HOSTS, np.where(SERVING == 1, 2, SERVING)))
