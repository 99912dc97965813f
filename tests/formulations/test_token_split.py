"""The flow of tokens to copies is whole at its vertices, and its relaxation is the densest set of GPUs."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from math import ceil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from moeopt.cluster import Cluster
from moeopt.formulation import Tabulated
from moeopt.problem import Problem
from moeopt.solvers.door import Session
from moeopt.splitting import SplitProblem
from moeopt.testing import check_formulation
from moeopt.trace import Trace
from moeopt_formulations.token_split import TokenSplit
from tests.splitting_strategies import split_problems

SPLIT = TokenSplit()


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with Session() as session:
        yield session


def test_it_offers_its_matrix() -> None:
    assert isinstance(SPLIT, Tabulated)


@settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(problem=split_problems())
def test_it_agrees_with_brute_force(session: Session, problem: SplitProblem) -> None:
    check_formulation(SPLIT, [problem], session=session)


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(problem=split_problems(most_experts=10, most_gpus=6, most_load=1000))
def test_the_relaxation_rounded_up_is_the_least_cost(session: Session, problem: SplitProblem) -> None:
    outcome = session.solve(SPLIT.matrix(problem), relax=True)
    assert outcome.objective is not None
    densities = []
    for mask in range(1, 1 << problem.gpus):
        outside = np.array([not mask >> g & 1 for g in range(problem.gpus)])
        bound = problem.load[~problem.hosts[:, outside].any(axis=1)].sum()
        densities.append(Fraction(int(bound), mask.bit_count()))
    assert outcome.objective == pytest.approx(float(max(densities)), abs=1e-6)
    assert problem.cost(problem.solve()[0]) == ceil(max(densities))


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(problem=split_problems(most_experts=10, most_gpus=6, most_load=1000))
def test_a_solver_finds_what_the_flow_finds(session: Session, problem: SplitProblem) -> None:
    outcome = session.solve(SPLIT.matrix(problem))
    assert outcome.x is not None
    split = SPLIT.placement(problem, outcome.x)
    assert not problem.violation(split)
    assert problem.cost(split) == problem.cost(problem.solve()[0])


def test_it_says_where_its_problem_is_described() -> None:
    placement = Problem.from_trace(Trace(experts=np.zeros((1, 1, 1), int), n_experts=2), Cluster(1, 2, 1))
    assert SPLIT.supports(placement) == "states a SplitProblem, found Problem: see moeopt.splitting"
