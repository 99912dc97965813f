"""The default proves where it can, searches where it cannot, and says which and why."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from moeopt.auto import Auto
from moeopt.cluster import Cluster
from moeopt.heuristics.linear import Linear
from moeopt.problem import Problem
from moeopt.relaxations.counting import counting_proof
from moeopt.stop import Stop
from moeopt.testing import brute_force
from moeopt.trace import Trace
from moeopt_formulations.blocks import Blocks
from moeopt_formulations.priced import Priced
from tests.problem_strategies import problems

FREELY = Stop(seconds=None)
FEW = Stop(seconds=None, candidates=20)
RNG = np.random.default_rng(0)
TRACE = Trace(np.array([[RNG.permutation(8)[:3]] for _ in range(60)]), 8)


@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(problem=problems(most_experts=6))
def test_where_blocks_applies_the_answer_is_proved(problem: Problem) -> None:
    if Blocks().supports(problem):
        return
    least, _ = brute_force(problem)
    result = Auto().solve(problem, stop=FREELY, seed=0)
    if least is None:
        assert result.status == "infeasible-claimed"
        return
    assert (result.status, result.cost, result.bound) == ("certified-optimal", least, least)
    route = "blocks" if Priced().supports(problem) else "priced"  # a single slot has nothing to price
    assert result.message == f"swap search, then proof by {route}"
    assert result.method == repr(Auto())


def test_replicas_on_a_few_gpus_are_proved() -> None:
    problem = Problem.from_trace(TRACE, Cluster.of(gpus=4, slots=3), replicas=4)
    result = Auto().solve(problem, stop=FREELY, seed=0)
    assert result.status == "certified-optimal"
    assert result.message == "search and proof by covers"
    assert result.method == repr(Auto())


def test_replicas_elsewhere_are_searched_and_bounded_by_prices_of_usage() -> None:
    problem = Problem.from_trace(TRACE, Cluster.of(gpus=5, slots=3), replicas=4)
    result = Auto().solve(problem, stop=FEW, seed=0)
    assert result.status == "certified-gap"
    assert result.bound is not None
    assert result.cost is not None
    assert counting_proof(problem, cost=None).bound == 0 < result.bound <= result.cost
    reason = "no exact route: the search lists contents of 2 to 4 GPUs, found 5"
    assert result.message == f"anneal search with the usage bound; {reason}"
    assert result.placement is not None
    assert problem.violation(result.placement) == ""


def test_without_an_exact_route_it_says_why_and_bounds_by_the_semidefinite_relaxation() -> None:
    problem = Problem.from_trace(TRACE, Cluster(2, 2, 2, node_cost=5))
    for one in (problem, replace(problem, objective="cut")):
        least, _ = brute_force(one)
        result = Auto().solve(one, stop=FEW, seed=0)
        assert least is not None
        assert result.bound is not None
        assert result.cost is not None
        assert result.status in ("certified-gap", "certified-optimal")
        assert 0 < result.bound <= least <= result.cost
        if one is problem:
            why = Blocks().supports(problem)
            assert result.message == f"swap search with the semidefinite bound; no exact route: {why}"


def test_unequal_gpus_are_bounded_by_counting() -> None:
    problem = Problem.from_trace(TRACE, Cluster(1, 3, (2, 3, 4)))
    result = Auto().solve(problem, stop=FEW, seed=0)
    assert result.bound == counting_proof(problem, cost=None).bound
    assert "with the counting bound; no exact route: needs GPUs with equal slots" in result.message


def test_a_start_is_used() -> None:
    plain = Problem.from_trace(TRACE, Cluster.of(gpus=4, slots=2))
    best = Auto().solve(plain, stop=FREELY, seed=0)
    assert Auto().solve(plain, stop=FREELY, seed=1, start=best.placement).cost == best.cost
    dear = Problem.from_trace(TRACE, Cluster(2, 2, 2, node_cost=5))
    least, placement = brute_force(dear)
    one = Stop(seconds=None, candidates=1)
    assert Auto().solve(dear, stop=one, seed=0, start=placement).cost == least
    assert Linear().solve(dear, stop=one, seed=0).cost != least


def test_what_is_priced_too_slowly_goes_to_the_semidefinite_relaxation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("moeopt.auto.PRICED_SIZE", 15)
    problem = Problem.from_trace(TRACE, Cluster.of(gpus=4, slots=2))
    result = Auto(exact=("priced",)).solve(problem, stop=FEW, seed=0)
    why = "no exact route: 8 experts on GPUs of 2 slots are priced too slowly"
    assert result.message == f"swap search with the semidefinite bound; {why}"
    assert result.bound is not None
    assert result.cost is not None
    assert 0 < result.bound <= result.cost
