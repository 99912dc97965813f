"""The model of even loads is what it says: slots, speeds, both measures."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from moeopt.cluster import Cluster
from moeopt.formulation import Formulation
from moeopt.loads import LoadProblem
from moeopt.matrix import from_pyomo
from moeopt.problem import Problem
from moeopt.solvers.door import Session
from moeopt.testing import check_formulation
from moeopt.trace import Trace
from moeopt_formulations.balance import Balance
from tests.loads_strategies import load_problems

BALANCE = Balance()


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with Session() as session:
        yield session


def test_it_is_a_formulation() -> None:
    assert isinstance(BALANCE, Formulation)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(problem=load_problems())
def test_it_agrees_with_brute_force(session: Session, problem: LoadProblem) -> None:
    check_formulation(BALANCE, [problem], session=session)


@pytest.mark.parametrize("measure", ["maximum", "deviation"])
@pytest.mark.parametrize(
    ("cluster", "speeds"),
    [
        (Cluster(1, 3, 2), None),
        (Cluster(1, 3, (4, 1, 1)), None),
        (Cluster(1, 3, (3, 3, 0)), None),  # a GPU without slots
        (Cluster(1, 3, 2), [3, 1, 1]),  # two of three alike
        (Cluster(1, 3, 6), [2, 3, 5]),
    ],
)
def test_every_shape_of_cluster_agrees_with_brute_force(
    session: Session, measure: str, cluster: Cluster, speeds: list[int] | None
) -> None:
    problem = LoadProblem(np.array([9, 7, 4, 4, 1, 0]), cluster, speeds, measure)
    assert check_formulation(BALANCE, [problem], session=session) == 1


def test_loads_of_nothing_are_balanced(session: Session) -> None:
    problem = LoadProblem(np.zeros(3, int), Cluster(1, 2, 2))
    assert check_formulation(BALANCE, [problem], session=session) == 1


def test_one_numbering_of_equal_gpus_is_left(session: Session) -> None:
    """Two GPUs that hold {9} and {7, 2}: heaviest first, so GPU 0 holds 9 in every solution."""
    problem = LoadProblem(np.array([2, 9, 7]), Cluster(1, 2, 2))
    compiled, variables = from_pyomo(BALANCE.build(problem))
    outcome = session.solve(compiled)
    assert outcome.x is not None
    found = {variable.name for variable, value in zip(variables, outcome.x, strict=True) if value > 0.5}
    assert {"x[1,0]", "x[0,1]", "x[2,1]"} <= found


def test_values_that_are_no_placement_are_refused() -> None:
    model = BALANCE.build(LoadProblem(np.array([1, 2]), Cluster(1, 2, 1)))
    for variable in model.x.values():
        variable.set_value(0)
    with pytest.raises(ValueError, match="every expert on one GPU"):
        BALANCE.read(model)


def test_it_says_where_its_problem_is_described() -> None:
    placement = Problem.from_trace(Trace(experts=np.zeros((1, 1, 1), int), n_experts=2), Cluster(1, 2, 1))
    assert BALANCE.supports(placement) == "states a LoadProblem, found Problem: see moeopt.loads"
