"""The textbook model is what it says: unequal GPUs, two levels, load."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from moeopt.cluster import Cluster
from moeopt.formulation import Provable, Separable
from moeopt.problem import Problem
from moeopt.solvers.door import Session
from moeopt.testing import check_formulation
from moeopt.trace import Trace
from moeopt_formulations.assignment import Assignment
from tests.problem_strategies import problems

ASSIGNMENT = Assignment()
FAMILY = np.array([0, 0, 0, 1, 1], np.uint8)


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with Session() as session:
        yield session


def problem_of(experts: int, cluster: Cluster, *, objective: str = "cut", tokens: int = 40) -> Problem:
    rng = np.random.default_rng(0)
    chosen = np.array([rng.permutation(experts)[:2] for _ in range(tokens)])
    return Problem.from_trace(Trace(experts=chosen[:, None], n_experts=experts), cluster, objective=objective)


def test_it_offers_the_optional_parts_it_needs() -> None:
    assert isinstance(ASSIGNMENT, Provable)
    assert not isinstance(ASSIGNMENT, Separable)


@settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(problem=problems(objectives=("cut",), most_experts=5, most_gpus=3))
def test_it_agrees_with_brute_force(session: Session, problem: Problem) -> None:
    check_formulation(ASSIGNMENT, [problem], session=session)


@pytest.mark.parametrize(
    "cluster",
    [
        Cluster(1, 3, (3, 1, 1)),
        Cluster(1, 2, (5, 0)),
        Cluster(2, 2, 2, node_cost=3),
        Cluster(2, 2, (1, 2, 2, 1), gpu_cost=0, node_cost=1),
        Cluster(1, 2, 3, node_cost=4),  # one node: its price is never paid
        Cluster(1, 2, 3, gpu_cost=0, node_cost=4),  # nothing is ever paid
    ],
)
def test_every_shape_of_cluster_agrees_with_brute_force(session: Session, cluster: Cluster) -> None:
    assert check_formulation(ASSIGNMENT, [problem_of(5, cluster)], session=session) == 1


@pytest.mark.parametrize("slots", [2, 3])  # with 3 the least cost is 0: offset and costs cancel
def test_costs_beyond_the_exact_integers_of_a_float_agree_with_brute_force(
    session: Session, slots: int
) -> None:
    trace = Trace(experts=np.array([[[0, 1, 2]]] * 5), n_experts=3, families=("code", "math"), family=FAMILY)
    problem = Problem.from_trace(
        trace, Cluster(1, 2, slots, gpu_cost=3), objective="cut", family_weights={"code": 1, "math": 0}
    )
    offset = ASSIGNMENT.costs(problem)[1]
    assert int(float(offset)) != offset
    assert check_formulation(ASSIGNMENT, [problem], session=session) == 1


def test_it_says_what_to_do_with_fan_out() -> None:
    problem = problem_of(4, Cluster(1, 2, 2), objective="fan-out")
    assert 'objective="cut", or "blocks"' in ASSIGNMENT.supports(problem)


def test_a_point_without_a_gpu_for_an_expert_stands_for_no_placement() -> None:
    problem = problem_of(3, Cluster(1, 2, 2))
    x = np.zeros(3 * 2 + 3 * 2)
    x[[0, 2]] = 1.0
    assert ASSIGNMENT.placement(problem, x) is None
    model = ASSIGNMENT.build(problem)
    for variable in model.x.values():
        variable.set_value(0)
    with pytest.raises(ValueError, match="every expert on one GPU"):
        ASSIGNMENT.read(model)
