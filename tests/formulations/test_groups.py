"""The model of groups is what it says, and its relaxation sees the capacities."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from moeopt.cluster import Cluster
from moeopt.formulation import Tabulated
from moeopt.grouping import GroupingProblem
from moeopt.problem import Problem
from moeopt.solvers.door import Session
from moeopt.testing import check_formulation
from moeopt.trace import Trace
from moeopt_formulations.groups import Groups
from tests.grouping_strategies import grouping_problems

GROUPS = Groups()


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with Session() as session:
        yield session


def test_it_offers_its_matrix() -> None:
    assert isinstance(GROUPS, Tabulated)


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(problem=grouping_problems())
def test_it_agrees_with_brute_force(session: Session, problem: GroupingProblem) -> None:
    check_formulation(GROUPS, [problem], session=session)


@pytest.mark.parametrize(
    "problem",
    [
        GroupingProblem(np.zeros((3, 1, 3), int), 2),  # nothing is activated: no z
        GroupingProblem(np.ones((2, 1, 2), int), 3),  # more groups than requests
        GroupingProblem(np.ones((4, 2, 4), int), 2, slots=[4, 0]),  # a group without experts
        GroupingProblem(np.eye(4, dtype=int)[:, None], 2, quotas=[4, 0]),  # a group without requests
        GroupingProblem(np.arange(12).reshape(3, 1, 4), 3, sizes=np.array([2, 1, 1]), slack=1),
    ],
)
def test_every_shape_of_groups_agrees_with_brute_force(session: Session, problem: GroupingProblem) -> None:
    assert check_formulation(GROUPS, [problem], session=session) == 1


def test_whole_clusters_that_fit_no_share_are_infeasible(session: Session) -> None:
    problem = GroupingProblem(np.ones((3, 1, 2), int), 2, sizes=np.array([2, 2, 2]))
    assert check_formulation(GROUPS, [problem], session=session) == 1
    assert list(problem.candidates()) == []


def test_the_relaxation_is_at_least_the_matching_with_degrees(session: Session) -> None:
    """Every request activates every expert once: a request finds a share of experts at home, whatever the groups."""
    problem = GroupingProblem(np.ones((4, 2, 6), int), 2)
    outcome = session.solve(GROUPS.matrix(problem), relax=True)
    assert outcome.objective == pytest.approx(4 * 2 * (6 - 3))


def test_a_request_in_no_group_is_refused() -> None:
    problem = GroupingProblem(np.ones((2, 1, 2), int), 2)
    model = GROUPS.build(problem)
    for variable in model.r.values():
        variable.set_value(0)
    with pytest.raises(ValueError, match="every request in one group"):
        GROUPS.read(model)


def test_it_says_where_its_problem_is_described() -> None:
    placement = Problem.from_trace(Trace(experts=np.zeros((1, 1, 1), int), n_experts=2), Cluster(1, 2, 1))
    assert GROUPS.supports(placement) == "states a GroupingProblem, found Problem: see moeopt.grouping"
    with pytest.raises(ValueError, match="states none"):
        check_formulation(GROUPS, [placement])
