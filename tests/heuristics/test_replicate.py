"""Copies: within budget, slots and tolerance, never worse than without, and where the tables say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeopt.cluster import Cluster
from moeopt.heuristics.replicate import Replicate
from moeopt.heuristics.swap import Swap
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.replication import Copies, best_addition, changes, disjoint, survey_of
from moeopt.stop import Stop
from moeopt.trace import Trace
from moeopt.workload import Workload
from tests.problem_strategies import problems

UNTIMED = Stop(seconds=None, candidates=20)
BRIEF = Replicate(kicks=10, patience=8)


def example(
    *, replicas: int, tolerance: str | None = None, nodes: int = 1, node_cost: int = 0, seed: int = 0
) -> Problem:
    """400 tokens of skewed experts, 12 on 4 GPUs of 4 slots, top-3."""
    rng = np.random.default_rng(seed)
    share = rng.permutation(1.0 / np.arange(1, 13))
    chosen = np.array([rng.choice(12, 3, replace=False, p=share / share.sum()) for _ in range(400)])
    workload = Workload.from_trace(Trace(experts=chosen[:, None, :], n_experts=12))
    cluster = Cluster(nodes, 4 // nodes, 4, 1, node_cost)
    return Problem(workload, cluster, replicas=replicas, load_tolerance=tolerance)


@settings(max_examples=25, deadline=None)
@given(problem=problems(objectives=("fan-out",)), replicas=st.integers(0, 4))
def test_proposals_keep_slots_and_budget(problem: Problem, replicas: int) -> None:
    slots = np.minimum(problem.cluster.slots_of, problem.workload.n_experts)
    replicas = min(replicas, int(slots.sum()) - problem.workload.n_experts)
    problem = replace(problem, replicas=replicas)
    result = BRIEF.solve(problem, stop=UNTIMED, seed=0)
    free = replace(problem, load_tolerance=None)
    if result.placement is None:
        assert problem.load_tolerance is not None
        assert result.tolerance_reached is not None
    else:
        assert problem.violation(result.placement) == ""
        assert free.violation(result.placement) == ""
        assert problem.cost(result.placement) == result.cost


@pytest.mark.parametrize(("nodes", "node_cost"), [(1, 0), (2, 5)])
@pytest.mark.parametrize("tolerance", [None, "0.1"])
def test_copies_save_and_more_copies_save_more(tolerance: str | None, nodes: int, node_cost: int) -> None:
    costs = []
    for replicas in (0, 2, 4):
        problem = example(replicas=replicas, nodes=nodes, node_cost=node_cost)
        if replicas:
            problem = replace(problem, load_tolerance=tolerance)
        result = Replicate(kicks=20).solve(problem, stop=Stop(seconds=None), seed=1)
        assert result.status == "feasible"
        assert result.cost is not None
        costs.append(result.cost)
    if tolerance is None:
        assert costs[0] > costs[1] > costs[2]
    else:
        assert costs[1] > costs[2]


def test_a_tolerance_that_no_partition_keeps_is_kept_by_copies() -> None:
    chosen = np.array([[0, 1 + i % 7] for i in range(70)])
    workload = Workload.from_trace(Trace(experts=chosen[:, None, :], n_experts=8))
    cluster = Cluster(1, 4, 3)
    with pytest.raises(ValueError, match=r"load tolerance 0\.1 cannot be met"):
        Problem(workload, cluster, load_tolerance="0.1")
    problem = Problem(workload, cluster, replicas=4, load_tolerance="0.1")
    result = Replicate().solve(problem, stop=Stop(seconds=None), seed=0)
    assert result.placement is not None
    assert problem.violation(result.placement) == ""
    assert result.placement.hosts[0, 0].sum() >= 2


def test_a_tolerance_out_of_reach_says_how_near_it_came() -> None:
    problem = example(replicas=1, tolerance="0")
    result = BRIEF.solve(problem, stop=UNTIMED, seed=0)
    assert result.status == "none-found"
    assert result.tolerance_reached is not None
    assert result.tolerance_reached > 0


@pytest.mark.parametrize("tolerance", [None, "0.15"])
def test_the_same_seed_gives_the_same_answer(tolerance: str | None) -> None:
    problem = example(replicas=4, tolerance=tolerance)
    first, second = (BRIEF.solve(problem, stop=Stop(seconds=None), seed=3) for _ in range(2))
    assert first.placement == second.placement
    assert [event.cost for event in first.history] == [event.cost for event in second.history]


def test_a_start_is_never_made_worse() -> None:
    problem = example(replicas=4)
    start = Replicate(kicks=20).solve(problem, stop=Stop(seconds=None), seed=0)
    again = BRIEF.solve(problem, stop=UNTIMED, seed=1, start=start.placement)
    assert start.cost is not None
    assert again.cost is not None
    assert again.cost <= start.cost


def test_a_start_that_breaks_the_slots_is_passed_over() -> None:
    problem = example(replicas=2)
    crowded = Placement.partition(
        np.zeros((1, 12), int), problem.cluster, layer_ids=problem.workload.layer_ids
    )
    result = BRIEF.solve(problem, stop=UNTIMED, seed=0, start=crowded)
    assert result.placement is not None
    assert problem.violation(result.placement) == ""


def test_without_a_budget_it_is_a_partition_about_as_good_as_the_swaps() -> None:
    problem = example(replicas=0)
    result = BRIEF.solve(problem, stop=Stop(seconds=None), seed=0)
    swap = Swap(restarts=1, kicks=10).solve(problem, stop=Stop(seconds=None), seed=0)
    assert result.placement is not None
    assert result.placement.is_partition
    assert result.cost is not None
    assert swap.cost is not None
    assert result.cost <= swap.cost


def test_the_cut_is_declined() -> None:
    problem = replace(example(replicas=0), objective="cut")
    assert "fan-out" in Replicate().supports(problem)
    with pytest.raises(ValueError, match="objective must be fan-out"):
        Replicate().solve(problem, stop=UNTIMED, seed=0)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), nodes=st.sampled_from([1, 2, 4]), node_cost=st.sampled_from([0, 3]))
def test_the_tables_are_the_differences_of_cheapest_covers(seed: int, nodes: int, node_cost: int) -> None:
    problem = example(replicas=4, nodes=nodes, node_cost=node_cost, seed=seed)
    rng = np.random.default_rng(seed)
    hosts = rng.random((12, 4)) < 0.2
    hosts[np.arange(12), rng.integers(0, 4, 12)] = True
    copies = Copies.of(problem, hosts)
    saved, moved, lost = survey_of(problem, copies)
    for expert, gpu in rng.integers(0, [12, 4], (12, 2)):
        flipped = copies.after([np.array([expert * 4 + gpu])])
        if not hosts[expert, gpu]:
            assert saved[expert, gpu] == copies.cost - Copies.of(problem, flipped).cost
            flipped[expert] = np.arange(4) == gpu
            assert moved[expert, gpu] == Copies.of(problem, flipped).cost - copies.cost
        elif hosts[expert].sum() == 1:
            assert np.isinf(lost[expert, gpu])
        else:
            assert lost[expert, gpu] == Copies.of(problem, flipped).cost - copies.cost


def test_changes_keep_slots_budget_and_every_expert() -> None:
    problem = example(replicas=3)
    copies = Copies.of(problem, np.arange(12)[:, None] % 4 == np.arange(4))
    for _ in range(3):
        addition = best_addition(problem, copies)
        assert addition is not None
        copies = Copies.of(problem, copies.after([addition]))
        for change in changes(problem, copies):
            hosts = copies.after([change])
            assert hosts.any(axis=1).all()
            assert (hosts.sum(axis=0) <= 4).all()
            assert hosts.sum() <= 15
    assert best_addition(problem, copies) is None


def test_disjoint_changes_share_no_expert_and_no_gpu() -> None:
    rows = np.array([[0, 5, -1, -1], [1, 13, -1, -1], [6, 7, -1, -1], [10, 11, -1, -1], [14, 15, -1, -1]])
    assert disjoint(rows, gpus=4, most=3) == [0, 3]
    assert disjoint(rows, gpus=4, most=1) == [0]


def test_of_changes_made_together_only_one_adds_a_copy() -> None:
    rows = np.array([[0, -1, -1, -1], [5, -1, -1, -1], [10, 15, -1, -1]])
    assert disjoint(rows, gpus=4, most=3) == [0, 2]


def test_the_judge_agrees_with_the_search() -> None:
    for tolerance in (None, "0.1"):
        problem = example(replicas=4, tolerance=tolerance)
        hosts = np.arange(12)[:, None] % 4 == np.arange(4)
        hosts[[0, 1, 2, 3], [1, 2, 3, 0]] = True
        copies = Copies.of(problem, hosts)
        placement = copies.placement(problem)
        assert (problem.violation(placement) == "") == (copies.missing == 0)
        if not copies.missing:
            assert problem.cost(placement) == copies.cost
