"""The labelled model of replicas is what it says: any GPUs, two levels, loads, moves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from moeopt.cluster import Cluster
from moeopt.matrix import from_pyomo
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.solvers.door import Session, Status
from moeopt.testing import check_formulation
from moeopt.trace import Trace
from moeopt_formulations import replicated as module
from moeopt_formulations.replicated import Replicated
from tests.replica_strategies import replica_problems

REPLICATED = Replicated()


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with Session() as session:
        yield session


def problem_of(experts: int, cluster: Cluster, *, tokens: int = 6, **changes: object) -> Problem:
    rng = np.random.default_rng(0)
    chosen = np.array([rng.permutation(experts)[:2] for _ in range(tokens)])
    return Problem.from_trace(Trace(chosen[:, None], experts), cluster, **changes)  # type: ignore[arg-type]


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(problem=replica_problems(most_experts=4, unequal=True, nodes=True))
def test_it_agrees_with_brute_force_with_symmetry_and_without(session: Session, problem: Problem) -> None:
    for symmetry in (True, False):
        assert check_formulation(Replicated(symmetry=symmetry), [problem], session=session) == 1


@pytest.mark.parametrize(
    ("cluster", "replicas", "tolerance"),
    [
        (Cluster(1, 3, (3, 2, 1)), 2, None),
        (Cluster(1, 3, (3, 1, 3)), 2, "0.5"),  # the first and the last GPU are alike
        (Cluster(2, 2, 2, node_cost=3), 2, None),  # alike in nodes that are alike
        (Cluster(2, 2, (2, 1, 2, 1), gpu_cost=0, node_cost=1), 1, None),  # nodes alike, GPUs not
        (Cluster(1, 2, (4, 0)), 0, None),  # one GPU is never used
    ],
)
def test_every_shape_of_cluster_agrees_with_brute_force(
    session: Session, cluster: Cluster, replicas: int, tolerance: str | None
) -> None:
    problem = problem_of(4, cluster, replicas=replicas, load_tolerance=tolerance)
    assert check_formulation(REPLICATED, [problem], session=session) == 1


def test_moves_are_counted_from_the_incumbent(session: Session) -> None:
    problem = problem_of(4, Cluster(1, 2, 3), replicas=1)
    incumbent = problem.partition(np.array([0, 1, 0, 1]))
    problems = [replace(problem, incumbent=incumbent, max_moves=moves) for moves in (0, 1, 2, 4)]
    assert check_formulation(REPLICATED, problems, session=session) == 4
    least = [min(one.cost(answer) for answer in one.candidates()) for one in problems]
    assert least == sorted(least, reverse=True)
    assert least[0] == problem.cost(incumbent)
    full = next(iter(replace(problem, replicas=2).candidates()))
    assert isinstance(full, Placement)
    everything = replace(problem, incumbent=full, replicas=2, max_moves=0)
    assert check_formulation(REPLICATED, [everything], session=session) == 1


def test_copies_in_a_triangle_do_not_save_half_a_gpu(session: Session) -> None:
    trace = Trace(np.array([[[0, 1, 2]]]), 3)
    problem = Problem.from_trace(trace, Cluster(1, 3, 2), replicas=3)
    assert check_formulation(REPLICATED, [problem], session=session) == 1
    model = REPLICATED.build(problem)
    for g, held in enumerate(({0, 1}, {1, 2}, {0, 2})):
        for e in range(3):
            model.x[e, g].fix(float(e in held))
    model.order.deactivate()
    outcome = session.solve(from_pyomo(model)[0], relax=True)
    assert outcome.status == Status.OPTIMAL
    assert outcome.objective == pytest.approx(1)


def test_symmetry_rows_keep_one_name_of_every_partition(session: Session) -> None:
    problem = problem_of(4, Cluster(1, 4, 1))
    order = np.argsort(-problem.workload.layers[0].load, kind="stable")
    model = REPLICATED.build(problem)
    for g, expert in enumerate(order[::-1]):
        model.x[int(expert), g].fix(1)
    assert session.solve(from_pyomo(model)[0]).status == Status.INFEASIBLE
    model.order.deactivate()
    assert session.solve(from_pyomo(model)[0]).status == Status.OPTIMAL


@pytest.mark.parametrize(
    ("cluster", "changes", "words"),
    [
        (Cluster(1, 2, 2), {"objective": "cut"}, "not the cut"),
        (Cluster(1, 2, 2), {"tail": 0}, "tail is 0"),
        (Cluster(1, 17, 2), {}, "ends at 16; found 17"),
    ],
)
def test_it_says_why_it_does_not_apply(cluster: Cluster, changes: dict[str, Any], words: str) -> None:
    assert words in REPLICATED.supports(problem_of(4, cluster, **changes))


def test_it_says_when_there_is_too_much_to_state(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = problem_of(4, Cluster(1, 3, 2), replicas=1)
    monkeypatch.setattr(module, "LARGEST_ROWS", 12)
    count = len(problem.workload.layers[0]) * (2 * 6 + 1)
    assert f"{count} rows" in REPLICATED.supports(problem)
