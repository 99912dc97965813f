"""The tabulated form of blocks, which formulations on top of it read."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from moeopt.cluster import Cluster
from moeopt.formulation import Tabulated
from moeopt.problem import Problem
from moeopt.solvers.scaled import ScaledSession
from moeopt.testing import check_formulation
from moeopt.trace import Trace
from moeopt_formulations.blocks import Blocks
from tests.problem_strategies import problems

BLOCKS = Blocks()


@pytest.fixture(scope="module")
def session() -> Iterator[ScaledSession]:
    with ScaledSession() as session:
        yield session


def test_it_is_tabulated() -> None:
    assert isinstance(BLOCKS, Tabulated)


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(problem=problems(unequal=False, nodes=False, most_experts=6, most_gpus=3))
def test_every_placement_is_a_point_worth_its_cost(session: ScaledSession, problem: Problem) -> None:
    check_formulation(BLOCKS, [problem], session=session)


def problem_of(slots: int, **changes: object) -> Problem:
    ids = np.array([[[0, 1, 2]]] * 3 + [[[3, 4, 5]]] * 2)
    return Problem.from_trace(Trace(ids, 6), Cluster(1, 3, slots), **changes)  # type: ignore[arg-type]


def test_a_content_above_the_cap_has_no_column() -> None:
    problem = problem_of(3, load_tolerance="0.2")
    x = BLOCKS.values(problem, problem.partition(np.array([0, 0, 0, 1, 1, 1])))
    assert BLOCKS.matrix(problem).violation(x) > 0
    crowded = BLOCKS.values(problem, problem.partition(np.array([0, 0, 0, 0, 1, 1])))
    assert crowded.sum() == 2.0  # the smaller content, and one GPU left empty


def test_points_that_are_no_partition_stand_for_nothing() -> None:
    problem = problem_of(2)
    x = BLOCKS.values(problem, problem.partition(np.array([0, 0, 1, 1, 2, 2])))
    assert BLOCKS.placement(problem, x) is not None
    x[np.flatnonzero(x)[0]] = 0.0
    assert BLOCKS.placement(problem, x) is None
    assert BLOCKS.width(problem) == BLOCKS.matrix(problem).cost.size == 16
