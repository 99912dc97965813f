"""The model of several layers is what it says, with homes and without, on one level and two."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from moeopt.cluster import Cluster
from moeopt.flow import FlowProblem
from moeopt.formulation import Tabulated
from moeopt.problem import Problem
from moeopt.solvers.door import Session
from moeopt.testing import check_formulation
from moeopt.trace import Trace
from moeopt_formulations.layers import Layers
from tests.flow_strategies import flow_problems

LAYERS = Layers()
SLOW = settings(
    max_examples=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with Session() as session:
        yield session


def problem_of(layers: int, experts: int, cluster: Cluster, *, home: bool = False) -> FlowProblem:
    rng = np.random.default_rng(layers)
    chosen = np.argsort(rng.random((30, layers, experts)), axis=2)[:, :, :2]
    trace = Trace(chosen, experts)
    at = rng.integers(cluster.gpus, size=30) if home else None
    return FlowProblem.from_trace(trace, cluster, returning=False, home=at)


def test_it_writes_its_own_matrix() -> None:
    assert isinstance(LAYERS, Tabulated)


@SLOW
@given(problem=flow_problems())
def test_it_agrees_with_brute_force(session: Session, problem: FlowProblem) -> None:
    check_formulation(LAYERS, [problem], session=session)


@pytest.mark.parametrize(
    "cluster",
    [
        Cluster(1, 4, 1),
        Cluster(2, 2, 1, gpu_cost=1, node_cost=3),  # two levels, both with names that mean nothing
        Cluster(2, 2, 1, gpu_cost=0, node_cost=3),
        Cluster(4, 1, 1, gpu_cost=1, node_cost=3),  # every GPU a node: one level of price 4
        Cluster(2, 2, (2, 0, 1, 0), node_cost=3),
        Cluster(1, 3, 3, gpu_cost=0, node_cost=3),  # nothing is ever paid
    ],
)
@pytest.mark.parametrize("home", [False, True])
def test_every_shape_of_cluster_agrees_with_brute_force(
    session: Session, cluster: Cluster, home: bool
) -> None:
    assert check_formulation(LAYERS, [problem_of(2, 3, cluster, home=home)], session=session) == 1


def test_faster_gpus_serve_more(session: Session) -> None:
    trace = Trace(np.arange(24).reshape(4, 2, 3) % 3, 3)
    cluster = Cluster(1, 2, 3, speeds=(1, 2))
    problem = FlowProblem.from_trace(trace, cluster, returning=False, load_tolerance=0)
    assert problem.load_caps is not None
    assert problem.load_caps.tolist() == [[4, 8], [4, 8]]
    assert check_formulation(LAYERS, [problem], session=session) == 1


def test_tokens_that_return_home_need_no_branching(session: Session) -> None:
    rng = np.random.default_rng(3)
    chosen = np.argsort(rng.random((200, 3, 12)), axis=2)[:, :, :2]
    trace = Trace(chosen, 12, request=rng.integers(9, size=200).astype(np.int32))
    problem = FlowProblem.from_trace(trace, Cluster(2, 2, 3, node_cost=5), returning=True)
    outcome = session.solve(LAYERS.matrix(problem), relax=True)
    assert outcome.x is not None
    assert outcome.objective is not None
    placement = LAYERS.placement(problem, np.round(outcome.x))
    assert placement is not None
    assert problem.violation(placement) == ""
    assert problem.cost(placement) == pytest.approx(outcome.objective)


def test_the_relaxation_lets_no_expert_keep_more_than_its_best_partners(session: Session) -> None:
    problem = problem_of(3, 6, Cluster(1, 3, 2))
    kept = np.sort(problem.flow, axis=2)[..., -2:].sum()
    least = int(problem.flow.sum() - kept)
    outcome = session.solve(LAYERS.matrix(problem), relax=True)
    assert outcome.objective is not None
    assert outcome.objective >= least - 1e-6
    assert least > 0


def test_it_says_what_it_states() -> None:
    trace = Trace(np.zeros((2, 1, 1), int), 2)
    problem = Problem.from_trace(trace, Cluster(1, 2, 1))
    assert LAYERS.supports(problem) == "states a FlowProblem, found Problem: see moeopt.flow"


def test_a_point_without_a_gpu_for_an_expert_stands_for_no_placement() -> None:
    problem = problem_of(2, 3, Cluster(1, 2, 2))
    assert LAYERS.placement(problem, np.zeros(LAYERS.matrix(problem).cost.size)) is None
    model = LAYERS.build(problem)
    for variable in model.x.values():
        variable.set_value(0)
    with pytest.raises(ValueError, match="every expert on one GPU"):
        LAYERS.read(model)
