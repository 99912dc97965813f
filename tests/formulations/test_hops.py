"""Hops are a minimum-cost flow: brute force, the relaxation and sorting agree."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from moeopt.cluster import Cluster
from moeopt.formulation import Tabulated
from moeopt.problem import Problem
from moeopt.solvers.door import Session
from moeopt.testing import check_formulation
from moeopt.topology import HopsProblem
from moeopt.trace import Trace
from moeopt_formulations.hops import Hops
from tests.hops_strategies import hops_problems

HOPS = Hops()
SLOW = settings(
    max_examples=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with Session() as session:
        yield session


def test_it_writes_its_own_matrix() -> None:
    assert isinstance(HOPS, Tabulated)


@SLOW
@given(problem=hops_problems())
def test_it_agrees_with_brute_force(session: Session, problem: HopsProblem) -> None:
    check_formulation(HOPS, [problem], session=session)


def test_memory_needs_no_branching(session: Session) -> None:
    rng = np.random.default_rng(1)
    problem = HopsProblem(
        rng.integers(100, size=(6, 20)), rng.integers(9, size=(6, 8)), Cluster(1, 8, 5), memory=15
    )
    outcome = session.solve(HOPS.matrix(problem), relax=True)
    assert outcome.x is not None
    placement = HOPS.placement(problem, np.round(outcome.x))
    assert placement is not None
    assert problem.violation(placement) == ""
    assert problem.cost(placement) == pytest.approx(outcome.objective)


@SLOW
@given(problem=hops_problems(memory=False))
def test_without_memory_the_busiest_experts_take_the_nearest_slots(problem: HopsProblem) -> None:
    cost = 0
    for activity, hops in zip(problem.activity, problem.hops, strict=True):
        nearest = np.sort(np.repeat(hops, problem.cluster.slots_of))
        cost += int(np.sort(activity)[::-1] @ nearest[: activity.size])
    assert min(map(problem.cost, problem.candidates())) == cost


def test_it_says_what_it_states() -> None:
    problem = Problem.from_trace(Trace(np.zeros((2, 1, 1), int), 2), Cluster(1, 2, 1))
    assert HOPS.supports(problem) == "states a HopsProblem, found Problem: see moeopt.topology"


def test_a_point_without_a_server_for_an_expert_stands_for_no_placement() -> None:
    problem = HopsProblem(np.ones((1, 2), int), np.ones((1, 2), int), Cluster(1, 2, 1))
    assert HOPS.placement(problem, np.zeros(4)) is None
    model = HOPS.build(problem)
    for variable in model.x.values():
        variable.set_value(0)
    with pytest.raises(ValueError, match="every expert on one server"):
        HOPS.read(model)
