"""GESR: copies of the most central experts, within replicas and slots, where their partners are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeopt.cluster import Cluster
from moeopt.family_graphs import FamilyGraphs
from moeopt.heuristics.gesr import TacgGesr, generality
from moeopt.heuristics.tacg import Tacg
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.stop import Stop
from moeopt.trace import Trace
from tests.problem_strategies import any_problems

FREELY = Stop(seconds=None)


def placed(method: Tacg, problem: Problem, seed: int = 0) -> Placement:
    placement = method.solve(problem, stop=FREELY, seed=seed).placement
    assert placement is not None
    return placement


def example(*, replicas: int, slots: int | tuple[int, ...] = 5, tolerance: str | None = None) -> Problem:
    """300 tokens of two tastes, 12 experts on 4 GPUs, top-3."""
    rng = np.random.default_rng(0)
    taste = rng.dirichlet(np.ones(12), 2) + 0.02
    taste /= taste.sum(axis=1, keepdims=True)
    family = np.arange(300) % 2
    chosen = np.array([rng.choice(12, 3, replace=False, p=taste[own]) for own in family])
    trace = Trace(chosen[:, None, :], 12, families=("code", "math"), family=family.astype(np.uint8))
    return Problem.from_trace(trace, Cluster(1, 4, slots), replicas=replicas, load_tolerance=tolerance)


@settings(max_examples=60, deadline=None)
@given(
    problem=any_problems(extras=("replicas", "speeds", "tail")),
    n_rep=st.integers(0, 4),
    k_sec=st.integers(0, 3),
)
def test_copies_keep_slots_and_both_budgets(problem: Problem, n_rep: int, k_sec: int) -> None:
    free = replace(problem, load_tolerance=None)
    placement = placed(TacgGesr(seeds=2, n_rep=n_rep, k_sec=k_sec), free)
    assert free.violation(placement) == ""
    copies = placement.hosts[0].sum(axis=1) - 1
    assert copies.sum() <= min(free.replicas, n_rep * k_sec)
    assert copies.max() <= k_sec
    assert np.count_nonzero(copies) <= n_rep
    assert (placement.primary == placed(Tacg(seeds=2), free).primary).all()


def test_without_replicas_it_is_tacg() -> None:
    problem = example(replicas=0)
    assert placed(TacgGesr(), problem) == placed(Tacg(), problem)


def test_copies_go_to_the_most_central_experts_where_their_partners_are() -> None:
    problem = example(replicas=5, slots=12)
    placement = placed(TacgGesr(), problem)
    graphs = FamilyGraphs.of(problem)
    ranked = np.argsort(-generality(graphs, lambda1=0.0, lambda2=0.0), kind="stable")
    copies = placement.hosts[0].sum(axis=1) - 1
    assert copies[ranked[:3]].tolist() == [2, 2, 1]
    assert copies.sum() == 5
    primary = placement.primary[0]
    for expert in ranked[:3]:
        pull = np.array([graphs.pooled[expert, primary == gpu].sum() for gpu in range(4)])
        pull[primary[expert]] = -1
        nearest = np.argsort(-pull)[: copies[expert]]
        assert set(np.flatnonzero(placement.hosts[0, expert]).tolist()) == {primary[expert], *nearest}


def test_replicas_beyond_the_published_number_stay_unused() -> None:
    problem = example(replicas=20, slots=8)
    assert placed(TacgGesr(n_rep=4), problem).hosts.sum() == 12 + 8
    assert placed(TacgGesr(), problem).hosts.sum() == 12 + 16


def test_copies_fill_unequal_slots_and_no_more() -> None:
    problem = example(replicas=4, slots=(3, 3, 3, 7))
    placement = placed(TacgGesr(), problem)
    assert problem.violation(placement) == ""
    assert placement.hosts[0, :, 3].sum() == 7


def test_more_replicas_than_slots_are_refused() -> None:
    with pytest.raises(ValueError, match="replicas 9 cannot be placed: 12 experts leave 8 of 20 slots free"):
        example(replicas=9)


def test_where_the_tolerance_is_broken_copies_of_a_levelled_placement_follow() -> None:
    problem = example(replicas=4, tolerance="0.02")
    proposals = list(
        TacgGesr().search(problem, clock=FREELY.start(), rng=np.random.default_rng(0), start=None)
    )
    assert all(proposal.hosts.sum() == 16 for proposal in proposals)
    assert len(proposals) == (2 if problem.violation(proposals[0]) else 1)


def test_the_score_is_centrality_consistency_and_specificity() -> None:
    graphs = FamilyGraphs.of(example(replicas=0))
    found = generality(graphs, lambda1=0.5, lambda2=2.0)
    for expert in range(12):
        mean = graphs.pooled[expert]
        rows = graphs.affinity[:, expert]
        cosines = [row @ mean / np.sqrt((row @ row) * (mean @ mean)) for row in rows]
        apart = [np.sqrt(((row - mean) ** 2).sum()) for row in rows]
        assert found[expert] == pytest.approx(mean.sum() + 0.5 * np.mean(cosines) - 2.0 * max(apart))


def test_an_expert_that_nobody_uses_scores_nothing() -> None:
    ids = np.array([[0, 1], [1, 2], [0, 2]])
    problem = Problem.from_trace(Trace(ids[:, None, :], 4), Cluster(1, 2, 3), replicas=2)
    assert generality(FamilyGraphs.of(problem), lambda1=1.0, lambda2=1.0)[3] == 0
    assert placed(TacgGesr(lambda1=1.0, lambda2=1.0), problem).hosts[0, 3].sum() == 1


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"n_rep": -1}, "n_rep must not be negative, found -1"),
        ({"k_sec": -2}, "k_sec must not be negative, found -2"),
        ({"lambda1": float("inf")}, "lambda1 must be finite and not negative, found inf"),
        ({"lambda2": -0.5}, r"lambda2 must be finite and not negative, found -0\.5"),
        ({"alpha": 2.0}, r"alpha must lie between 0 and 1, found 2\.0"),
    ],
)
def test_bad_settings_are_named(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TacgGesr(**asked)
