"""Groups find their GPUs: brute force, assignment and sorting agree with the program."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from moeopt.cluster import Cluster
from moeopt.labels import LabelProblem
from moeopt.matrix import from_pyomo
from moeopt.problem import Problem
from moeopt.solvers.door import Session, Status
from moeopt.testing import check_formulation
from moeopt.trace import Trace
from moeopt_formulations.cluster_to_gpu import ClusterToGpu
from tests.label_strategies import label_problems

CLUSTER_TO_GPU = ClusterToGpu()
SLOW = settings(
    max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with Session() as session:
        yield session


def problem_of(cluster: Cluster, *, layers: int = 2, measure: str = "tail", seed: int = 0) -> LabelProblem:
    rng = np.random.default_rng(seed)
    groups = np.stack([rng.permutation(cluster.gpus) for _ in range(layers)])
    flow = rng.integers(100, size=(layers - 1, cluster.gpus, cluster.gpus))
    return LabelProblem(flow, groups, cluster, measure)


@SLOW
@given(problem=label_problems())
def test_it_agrees_with_brute_force(session: Session, problem: LabelProblem) -> None:
    check_formulation(CLUSTER_TO_GPU, [problem], session=session)


@pytest.mark.parametrize("measure", ["tail", "total"])
@pytest.mark.parametrize(
    "cluster",
    [
        Cluster(2, 2, 1, gpu_cost=1, node_cost=3),
        Cluster(2, 2, 1, gpu_cost=0, node_cost=3),
        Cluster(4, 1, 1, gpu_cost=1, node_cost=3),  # every GPU a node: one level of price 4
        Cluster(2, 2, (1, 2, 1, 1), gpu_cost=1, node_cost=3),  # GPUs with names
        Cluster(1, 4, 1, gpu_cost=0, node_cost=3),  # nothing is ever paid
    ],
)
def test_every_shape_of_cluster_agrees_with_brute_force(
    session: Session, cluster: Cluster, measure: str
) -> None:
    assert check_formulation(CLUSTER_TO_GPU, [problem_of(cluster, measure=measure)], session=session) == 1


@SLOW
@given(problem=label_problems(one_level=True, memory=False))
def test_on_one_level_the_relaxation_of_the_total_and_the_floor_of_the_tail_are_exact(
    session: Session, problem: LabelProblem
) -> None:
    least = min(map(problem.cost, problem.candidates()))
    matrix, _ = from_pyomo(CLUSTER_TO_GPU.build(problem))
    if problem.measure == "total":
        assert session.solve(matrix, relax=True).objective == pytest.approx(least)
    else:
        floors = [name.startswith("t[") for name in matrix.column_names]
        assert matrix.lower[floors].sum() == least


@SLOW
@given(problem=label_problems(one_level=True, memory=False))
def test_on_one_level_the_total_is_an_assignment_problem_a_step(problem: LabelProblem) -> None:
    from scipy.optimize import linear_sum_assignment

    kept = [step[linear_sum_assignment(step, maximize=True)].sum() for step in problem.traffic]
    total = LabelProblem(problem.flow, problem.groups, problem.cluster, "total")
    assert min(map(total.cost, total.candidates())) == int(problem.traffic.sum()) - sum(map(int, kept))


def test_on_two_levels_the_total_is_a_shortest_path_over_the_contents_of_nodes(session: Session) -> None:
    from scipy.optimize import linear_sum_assignment

    problem = problem_of(Cluster(2, 2, 1, gpu_cost=2, node_cost=3), layers=4, measure="total", seed=5)
    halves = [([a, b], [c for c in range(4) if c not in (a, b)]) for a, b in combinations(range(4), 2)]
    least = [0] * len(halves)
    for traffic in problem.traffic:
        ways = []
        for here in halves:
            price = []
            for there in halves:
                kept = 0
                for inside in (traffic[np.ix_(*pair)] for pair in zip(here, there, strict=True)):
                    kept += 3 * int(inside.sum()) + 2 * int(inside[linear_sum_assignment(inside, True)].sum())
                price.append(5 * int(traffic.sum()) - kept)
            ways.append(price)
        least = [
            min(old + way[at] for old, way in zip(least, ways, strict=True)) for at in range(len(halves))
        ]
    matrix, _ = from_pyomo(CLUSTER_TO_GPU.build(problem))
    assert session.solve(matrix).objective == pytest.approx(min(least))


def test_memory_that_the_groups_cannot_meet_is_found_out(session: Session) -> None:
    # Groups of 3 and 1, then of 4 twice: a GPU holds 5, 7 or more of the 12, the other the rest, never 6 and 6.
    groups = np.array([[0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]])
    problem = LabelProblem(np.zeros((2, 4, 4), int), groups, Cluster(1, 2, 4), memory=6)
    assert not list(problem.candidates())
    matrix, _ = from_pyomo(CLUSTER_TO_GPU.build(problem))
    assert session.solve(matrix).status == Status.INFEASIBLE
    assert check_formulation(CLUSTER_TO_GPU, [problem], session=session) == 1


def test_it_says_what_it_states() -> None:
    problem = Problem.from_trace(Trace(np.zeros((2, 1, 1), int), 2), Cluster(1, 2, 1))
    assert CLUSTER_TO_GPU.supports(problem) == "states a LabelProblem, found Problem: see moeopt.labels"


def test_values_without_a_gpu_for_every_group_stand_for_no_placement() -> None:
    model = CLUSTER_TO_GPU.build(problem_of(Cluster(1, 3, 1)))
    for variable in model.y.values():
        variable.set_value(0)
    with pytest.raises(ValueError, match="every group a GPU of its own"):
        CLUSTER_TO_GPU.read(model)
