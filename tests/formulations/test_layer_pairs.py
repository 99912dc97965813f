"""Pairs of experts in one layer and the next say what labels say."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from moeopt.cluster import Cluster
from moeopt.flow import FlowProblem
from moeopt.formulation import Separable
from moeopt.problem import Problem
from moeopt.solvers.door import Session
from moeopt.testing import check_formulation
from moeopt.trace import Trace
from moeopt_formulations.layer_pairs import LayerPairs
from moeopt_formulations.layers import Layers
from tests.flow_strategies import full_flow_problems

PAIRS = LayerPairs()
SLOW = settings(
    max_examples=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with Session() as session:
        yield session


def problem_of(layers: int, experts: int, cluster: Cluster) -> FlowProblem:
    rng = np.random.default_rng(layers)
    trace = Trace(np.argsort(rng.random((30, layers, experts)), axis=2)[:, :, :2], experts)
    return FlowProblem.from_trace(trace, cluster, returning=False)


def relaxed(
    session: Session, problem: FlowProblem
) -> tuple[float, np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """Value and point of the relaxation with all triangles."""
    session.load(PAIRS.matrix(problem))
    while True:
        outcome = session.resolve()
        assert outcome.x is not None
        assert outcome.objective is not None
        broken = PAIRS.separate(problem, outcome.x)
        if not len(broken.keys):
            return outcome.objective, outcome.x
        session.add_rows(rows=broken.rows, row_lower=broken.lower, row_upper=broken.upper)


def test_it_separates_its_rows() -> None:
    assert isinstance(PAIRS, Separable)


@SLOW
@given(problem=full_flow_problems())
def test_it_agrees_with_brute_force(session: Session, problem: FlowProblem) -> None:
    check_formulation(PAIRS, [problem], session=session)


def test_labels_run_on_through_three_layers(session: Session) -> None:
    assert check_formulation(PAIRS, [problem_of(3, 3, Cluster(1, 3, 1))], session=session) == 1


@SLOW
@given(problem=full_flow_problems())
def test_no_placement_costs_less_than_the_relaxation(session: Session, problem: FlowProblem) -> None:
    least = min(map(problem.cost, problem.candidates()), default=None)
    if least is not None:
        assert relaxed(session, problem)[0] <= least + 1e-6


def test_its_relaxation_sees_what_that_of_labels_does_not(session: Session) -> None:
    # Expert e goes to e + 1 and e + 2: each alone could keep both, but no two of them can share both.
    ring = (np.eye(8, k=1) + np.eye(8, k=-7) + np.eye(8, k=2) + np.eye(8, k=-6)).astype(int)
    problem = FlowProblem(ring[None], None, Cluster(1, 4, 2))
    labels = session.solve(Layers().matrix(problem), relax=True).objective
    assert labels is not None
    assert relaxed(session, problem)[0] > labels + 1


def test_a_load_without_another_expert_needs_no_row(session: Session) -> None:
    trace = Trace(np.zeros((4, 2, 1), int), 2)
    problem = FlowProblem.from_trace(trace, Cluster(1, 2, 1), returning=False, load_tolerance=1)
    assert check_formulation(PAIRS, [problem], session=session) == 1


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (problem_of(2, 4, Cluster(1, 2, 3)), "every slot taken, 4 experts have 6 slots"),
        (problem_of(2, 4, Cluster(1, 2, (3, 1))), "needs GPUs alike"),
        (problem_of(2, 4, Cluster(2, 2, 1, node_cost=1)), 'node_cost=0, or "layers"'),
        (FlowProblem(np.ones((1, 4, 4), int), np.ones((2, 4, 2), int), Cluster(1, 2, 2)), "has no homes"),
        (FlowProblem(np.ones((1, 1, 1), int), None, Cluster(1, 1, 1)), "needs two experts"),
    ],
)
def test_it_says_what_to_do_where_it_does_not_apply(problem: FlowProblem, words: str) -> None:
    assert words in PAIRS.supports(problem)


def test_it_says_what_it_states() -> None:
    problem = Problem.from_trace(Trace(np.zeros((2, 1, 1), int), 2), Cluster(1, 2, 1))
    assert PAIRS.supports(problem) == "states a FlowProblem, found Problem: see moeopt.flow"


def test_the_most_broken_triangles_come_first() -> None:
    problem = problem_of(2, 2, Cluster(1, 2, 1))
    #                 01   02   03   12   13   23
    point = np.array([1.0, 0.5, 0.0, 1.0, 0.0, 0.4])
    found = PAIRS.separate(problem, point)
    amount = found.rows @ point - found.upper
    assert amount == pytest.approx(np.sort(amount)[::-1])
    everything = PAIRS.lazy(problem)
    assert (everything.rows @ point - everything.upper > 1e-6).sum() == len(found.keys)


def test_values_that_are_no_partition_stand_for_no_placement() -> None:
    problem = problem_of(2, 2, Cluster(1, 2, 1))
    assert PAIRS.placement(problem, np.array([0, 1.0, 1.0, 0, 0, 0])) is None  # 2 and 3 with 0, and apart
    assert PAIRS.placement(problem, np.zeros(6)) is None  # nothing runs on
    model = PAIRS.build(problem)
    for variable in model.y.values():
        variable.set_value(0)
    with pytest.raises(ValueError, match="runs on to the next"):
        PAIRS.read(model)
