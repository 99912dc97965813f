"""The model of activated experts is what it says: free or given placement, copies, sum or worst batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from moeopt.activation import ActivationProblem
from moeopt.cluster import Cluster
from moeopt.formulation import Formulation
from moeopt.problem import Problem
from moeopt.solvers.door import Session
from moeopt.testing import check_formulation
from moeopt.trace import Trace
from moeopt_formulations.activated import Activated
from tests.activation_strategies import activation_problems

ACTIVATED = Activated()
BATCHES = np.array([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1], [1, 1, 1, 0]], bool)


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with Session() as session:
        yield session


def test_it_is_a_formulation() -> None:
    assert isinstance(ACTIVATED, Formulation)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(problem=activation_problems())
def test_it_agrees_with_brute_force(session: Session, problem: ActivationProblem) -> None:
    check_formulation(ACTIVATED, [problem], session=session)


@pytest.mark.parametrize("worst", [False, True])
@pytest.mark.parametrize(
    "fields",
    [
        {"cluster": Cluster(1, 2, 2)},
        {"cluster": Cluster(1, 2, 3), "replicas": 2},
        {"cluster": Cluster(1, 3, (3, 2, 0)), "replicas": 1},  # two kinds of GPU, one without slots
        {"cluster": Cluster(1, 3, 2), "replicas": 2},  # two copies of one expert on the first two GPUs
        {
            "cluster": Cluster(1, 2, 3),
            "replicas": 2,
            "hosts": np.array([[1, 1], [1, 1], [1, 0], [0, 1]], bool),
        },
    ],
)
def test_every_shape_agrees_with_brute_force(session: Session, fields: dict[str, Any], worst: bool) -> None:
    problem = ActivationProblem(BATCHES, worst=worst, **fields)
    assert check_formulation(ACTIVATED, [problem], session=session) == 1


def test_a_batch_of_nothing_costs_nothing(session: Session) -> None:
    problem = ActivationProblem(np.zeros((2, 3), bool), Cluster(1, 2, 2))
    assert check_formulation(ACTIVATED, [problem], session=session) == 1


def test_an_expert_without_a_gpu_is_refused() -> None:
    model = ACTIVATED.build(ActivationProblem(BATCHES, Cluster(1, 2, 2)))
    for variable in model.h.values():
        variable.set_value(0)
    with pytest.raises(ValueError, match="every expert on a GPU"):
        ACTIVATED.read(model)


def test_it_says_where_its_problem_is_described() -> None:
    placement = Problem.from_trace(Trace(experts=np.zeros((1, 1, 1), int), n_experts=2), Cluster(1, 2, 1))
    assert (
        ACTIVATED.supports(placement) == "states an ActivationProblem, found Problem: see moeopt.activation"
    )
