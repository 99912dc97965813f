"""A budget of moves: brute force agrees, and the extremes are what they must be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings

from moeopt.cluster import Cluster
from moeopt.formulation import Tabulated
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.solvers.scaled import ScaledSession
from moeopt.testing import brute_force, check_formulation
from moeopt.trace import Trace
from moeopt_formulations.assignment import Assignment
from moeopt_formulations.hyperedge import Hyperedge
from moeopt_formulations.labelled import Labelled
from moeopt_formulations.migration import Migration
from moeopt_formulations.pairs import Pairs
from tests.families_strategies import move_problems
from tests.problem_strategies import problems

SLOW = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def session() -> Iterator[ScaledSession]:
    with ScaledSession() as session:
        yield session


def problem_of(cluster: Cluster, **changes: Any) -> Problem:
    rng = np.random.default_rng(3)
    ids = np.array([[rng.permutation(6)[:3]] for _ in range(40)])
    return Problem.from_trace(Trace(ids, 6), cluster, **changes)


def from_linear(cluster: Cluster, budget: int, **changes: Any) -> Problem:
    problem = problem_of(cluster, **changes)
    incumbent = problem.partition(np.repeat(np.arange(cluster.gpus), cluster.slots_of)[:6])
    return replace(problem, incumbent=incumbent, max_moves=budget)


def solved(problem: Problem, session: ScaledSession) -> Placement | None:
    x = session.solve(Migration().matrix(problem)).x
    placement: Placement | None = None if x is None else Migration().placement(problem, x)
    return placement


def test_it_is_tabulated() -> None:
    assert isinstance(Migration(), Tabulated)
    assert isinstance(Labelled(), Tabulated)


@SLOW
@given(problem=move_problems())
def test_named_contents_agree_with_brute_force(session: ScaledSession, problem: Problem) -> None:
    check_formulation(Migration(), [problem], session=session)


@SLOW
@given(problem=problems(most_experts=5, most_gpus=3, nodes=False))
def test_named_contents_agree_with_brute_force_without_a_budget(
    session: ScaledSession, problem: Problem
) -> None:
    if problem.max_moves is None:
        check_formulation(Labelled(), [problem], session=session)


@SLOW
@given(problem=move_problems(objectives=("cut",), most_experts=5, nodes=True))
def test_over_assignment_it_agrees_with_brute_force(session: ScaledSession, problem: Problem) -> None:
    check_formulation(Migration(Assignment()), [problem], session=session)


@SLOW
@given(problem=move_problems())
def test_a_budget_of_all_copies_is_no_budget(session: ScaledSession, problem: Problem) -> None:
    everything = replace(problem, max_moves=problem.workload.n_experts)
    least, _ = brute_force(replace(problem, incumbent=None, max_moves=None))
    placement = solved(everything, session)
    assert (None if placement is None else everything.cost(placement)) == least


@SLOW
@given(problem=move_problems())
def test_no_budget_keeps_the_incumbent(session: ScaledSession, problem: Problem) -> None:
    still = replace(problem, max_moves=0)
    assert still.incumbent is not None
    placement = solved(still, session)
    if still.violation(still.incumbent):
        assert placement is None
    else:
        assert placement is not None
        assert (placement.hosts == still.incumbent.hosts).all()


@SLOW
@given(problem=move_problems())
def test_a_larger_budget_costs_no_more(session: ScaledSession, problem: Problem) -> None:
    assert problem.max_moves is not None
    smaller = solved(problem, session)
    assume(smaller is not None)
    larger = solved(replace(problem, max_moves=problem.max_moves + 1), session)
    assert smaller is not None
    assert larger is not None
    assert problem.cost(larger) <= problem.cost(smaller)


def test_an_incumbent_with_copies_counts_the_copies_that_it_lacks(session: ScaledSession) -> None:
    problem = from_linear(Cluster(1, 3, 3), 2)
    assert problem.incumbent is not None
    hosts = problem.incumbent.hosts.copy()
    hosts[0, :2, 2] = True
    copied = replace(problem, incumbent=replace(problem.incumbent, hosts=hosts))
    for budget in range(4):
        check_formulation(Migration(), [replace(copied, max_moves=budget)], session=session)


def test_small_budgets_make_small_models() -> None:
    widths = [Migration().width(from_linear(Cluster(1, 3, 2), budget)) for budget in (0, 1, 2, 3, 4)]
    assert widths == [3, 3, 27, 27, 45]  # of two experts one is exchanged for one of four others, or both
    for budget in (0, 2, 4):
        problem = from_linear(Cluster(1, 3, 2), budget)
        assert Migration().matrix(problem).cost.size == Migration().width(problem)


def test_a_model_that_renames_gpus_cannot_count_moves() -> None:
    reason = Migration(Hyperedge()).supports(from_linear(Cluster(1, 3, 2), 2))
    assert reason == "hyperedge: renames GPUs that are alike"
    assert "has no columns x[e,g]" in Migration(Pairs()).supports(
        from_linear(Cluster(1, 3, 2), 2, objective="cut")
    )


def test_it_says_why_it_does_not_apply(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "the problem has no max_moves" in Migration().supports(problem_of(Cluster(1, 3, 2)))
    nodes = from_linear(Cluster(2, 2, 2, node_cost=1), 2)
    assert "the cost is additive over GPUs, 2 nodes have node cost 1" in Labelled().supports(nodes)
    assert "labelled: the cost is additive over GPUs" in Migration("labelled").supports(nodes)
    with pytest.raises(ValueError, match="no formulation underneath states this problem"):
        Migration("labelled").matrix(nodes)
    from moeopt_formulations import labelled

    monkeypatch.setattr(labelled, "LARGEST_COUNT", 44)
    assert "45 contents of named GPUs, enumeration ends at 44" in Labelled().supports(
        from_linear(Cluster(1, 3, 2), 4)
    )


def test_nodes_are_stated_over_assignment(session: ScaledSession) -> None:
    problem = from_linear(Cluster(2, 2, 2, node_cost=2), 2, objective="cut")
    assert Migration().supports(problem) == ""
    check_formulation(Migration(), [problem], session=session)


def test_values_that_place_an_expert_twice_stand_for_nothing() -> None:
    problem = from_linear(Cluster(1, 3, 2), 2)
    x = np.ones(Labelled().matrix(problem).cost.size)
    assert Labelled().placement(problem, x) is None
    model = Labelled().build(problem)
    for variable in model.z.values():
        variable.set_value(0)
    with pytest.raises(ValueError, match="do not put every expert on one GPU"):
        Labelled().read(model)
