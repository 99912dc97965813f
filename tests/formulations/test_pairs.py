"""The clique partition model is what it says, and says why where it does not apply."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from moeopt.cluster import Cluster
from moeopt.formulation import Provable, Separable
from moeopt.matrix import Matrix
from moeopt.problem import Problem
from moeopt.solvers.door import Session
from moeopt.testing import brute_force, check_formulation
from moeopt.trace import Trace
from moeopt_formulations.pairs import Pairs
from tests.problem_strategies import problems

PAIRS = Pairs()


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with Session() as session:
        yield session


def problem_of(experts: int, cluster: Cluster, *, objective: str = "cut", tokens: int = 40) -> Problem:
    rng = np.random.default_rng(0)
    chosen = np.array([rng.permutation(experts)[:2] for _ in range(tokens)])
    return Problem.from_trace(Trace(experts=chosen[:, None], n_experts=experts), cluster, objective=objective)


def test_it_offers_every_optional_part() -> None:
    assert isinstance(PAIRS, Separable)
    assert isinstance(PAIRS, Provable)


@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(problem=problems(objectives=("cut",), unequal=False, nodes=False, most_experts=6))
def test_it_agrees_with_brute_force(session: Session, problem: Problem) -> None:
    check_formulation(PAIRS, [problem], session=session)


@pytest.mark.parametrize(
    ("experts", "cluster"),
    [
        (7, Cluster(1, 3, 3)),  # m does not divide E: full
        (6, Cluster(1, 2, 5)),  # slots alone would allow more groups than GPUs: first, groups
        (7, Cluster(1, 2, 5)),
        (6, Cluster(1, 3, 2)),  # every group full
        (4, Cluster(4, 1, 2, gpu_cost=2, node_cost=3)),  # every GPU a node
        (6, Cluster(2, 2, 2, gpu_cost=2)),  # nodes without a price
        (3, Cluster(1, 2, 9)),  # more slots than experts
        (2, Cluster(1, 2, 1)),
    ],
)
def test_every_shape_of_groups_agrees_with_brute_force(
    session: Session, experts: int, cluster: Cluster
) -> None:
    assert check_formulation(PAIRS, [problem_of(experts, cluster)], session=session) == 1


def test_an_expert_that_carries_all_load_needs_no_row(session: Session) -> None:
    trace = Trace(experts=np.zeros((4, 1, 1), int), n_experts=3)
    problem = Problem.from_trace(trace, Cluster(1, 2, 2), objective="cut", load_tolerance=1)
    assert check_formulation(PAIRS, [problem], session=session) == 1


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (problem_of(4, Cluster(1, 2, 2), objective="fan-out"), 'objective="cut", or "blocks"'),
        (problem_of(4, Cluster(1, 2, (3, 1))), '"assignment" for unequal'),
        (problem_of(4, Cluster(2, 2, 2, node_cost=1)), "node_cost=0"),
    ],
)
def test_it_says_what_to_do_where_it_does_not_apply(problem: Problem, words: str) -> None:
    assert words in PAIRS.supports(problem)


def test_the_most_broken_triangles_come_first() -> None:
    problem = problem_of(4, Cluster(1, 2, 2))
    #                 01   02   03   12   13   23
    point = np.array([1.0, 0.5, 0.0, 1.0, 0.0, 0.4])
    found = PAIRS.separate(problem, point)
    amount = found.rows @ point - found.upper
    assert amount == pytest.approx(np.sort(amount)[::-1])
    assert found.keys[0].tolist() == [0, 1, 2]  # 1 + 1 - 0.5 > 1
    everything = PAIRS.lazy(problem)
    assert (everything.rows @ point - everything.upper > 1e-6).sum() == len(found.keys)


def test_values_that_are_no_partition_stand_for_no_placement() -> None:
    problem = problem_of(4, Cluster(1, 2, 2))
    assert (
        PAIRS.placement(problem, np.array([1.0, 0, 0, 1.0, 0, 0])) is None
    )  # 0 with 1, 1 with 2, not 0 with 2
    assert PAIRS.placement(problem, np.zeros(6)) is None  # four groups on two GPUs
    model = PAIRS.build(problem)
    for variable in model.y.values():
        variable.set_value(0)
    with pytest.raises(ValueError, match="no partition"):
        PAIRS.read(model)


def test_the_conformance_check_finds_a_wrong_statement_and_a_wrong_matrix(session: Session) -> None:
    problem = problem_of(6, Cluster(1, 2, 3))

    class Loose(Pairs):
        def build(self, problem: Problem) -> Any:
            model = super().build(problem)
            model.slots.deactivate()
            return model

    with pytest.raises(AssertionError, match="the least cost is"):
        check_formulation(Loose(), [problem], session=session)

    class Shifted(Pairs):
        def matrix(self, problem: Problem) -> Matrix:
            return replace(super().matrix(problem), offset=0.5)

    with pytest.raises(AssertionError, match="differ in offset"):
        check_formulation(Shifted(), [problem], session=session)
    with pytest.raises(ValueError, match="states none"):
        check_formulation(PAIRS, [problem_of(4, Cluster(1, 2, (3, 1)))], session=session)


def test_brute_force_refuses_what_it_cannot_enumerate() -> None:
    with pytest.raises(ValueError, match="at most 8 experts"):
        brute_force(problem_of(9, Cluster(1, 3, 3)))
