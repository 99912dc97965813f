"""The hyperedge model is what it says: exact fan-out on unequal GPUs and nodes, and no weaker for its extra rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from moeopt.cluster import Cluster
from moeopt.formulation import Separable, Tabulated
from moeopt.levels import priced_levels
from moeopt.problem import Problem
from moeopt.solvers.door import Session
from moeopt.testing import brute_force, check_formulation
from moeopt.trace import Trace
from moeopt_formulations import hyperedge as module
from moeopt_formulations.hyperedge import Hyperedge
from tests.problem_strategies import problems

HYPEREDGE = Hyperedge()
SLOW = [HealthCheck.too_slow]


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with Session() as session:
        yield session


def problem_of(experts: int, cluster: Cluster, *, k: int = 3, objective: str = "fan-out") -> Problem:
    rng = np.random.default_rng(0)
    chosen = np.array([rng.permutation(experts)[:k] for _ in range(30)])
    return Problem.from_trace(Trace(experts=chosen[:, None], n_experts=experts), cluster, objective=objective)


def test_it_offers_the_optional_parts_it_needs() -> None:
    assert isinstance(HYPEREDGE, Tabulated)
    assert not isinstance(HYPEREDGE, Separable)


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=SLOW)
@given(problem=problems(objectives=("fan-out",), most_experts=5, most_gpus=3))
def test_it_agrees_with_brute_force(session: Session, problem: Problem) -> None:
    check_formulation(HYPEREDGE, [problem], session=session)


@pytest.mark.parametrize(
    "cluster",
    [
        Cluster(1, 3, (3, 1, 1)),
        Cluster(1, 2, (5, 0)),
        Cluster(1, 2, (9, 2)),  # more slots than experts
        Cluster(2, 2, 2, node_cost=3),
        Cluster(2, 2, (1, 2, 2, 1), gpu_cost=0, node_cost=1),
        Cluster(2, 2, (2, 1, 2, 1), gpu_cost=2),  # nodes without a price: alike across nodes
        Cluster(4, 1, 2, node_cost=4),  # every GPU a node
        Cluster(1, 2, 3, gpu_cost=0, node_cost=4),  # nothing is ever paid
    ],
)
def test_every_shape_of_cluster_agrees_with_brute_force(session: Session, cluster: Cluster) -> None:
    assert check_formulation(HYPEREDGE, [problem_of(5, cluster)], session=session) == 1


@pytest.mark.parametrize("tolerance", ["0.1", "0.5"])
def test_faster_gpus_may_serve_more(session: Session, tolerance: str) -> None:
    problem = replace(problem_of(5, Cluster(1, 3, 3, speeds=(1, 2, 1))), load_tolerance=tolerance)
    assert problem.load_caps is not None
    assert len(set(problem.load_caps.tolist())) == 2
    assert check_formulation(HYPEREDGE, [problem], session=session) == 1


@pytest.mark.parametrize("k", [1, 4])
def test_the_widest_and_the_narrowest_sets_agree_with_brute_force(session: Session, k: int) -> None:
    assert check_formulation(HYPEREDGE, [problem_of(5, Cluster(2, 2, 2, 1, 2), k=k)], session=session) == 1


def test_sets_of_weight_zero_have_no_variables(session: Session) -> None:
    ids = np.array([[[0, 1]], [[1, 2]], [[2, 3]]])
    trace = Trace(ids, 4, families=("a", "b"), family=np.array([0, 1, 1], np.uint8))
    problem = Problem.from_trace(trace, Cluster(1, 2, 2), family_weights={"a": 1, "b": 0})
    names = HYPEREDGE.matrix(problem).column_names
    assert [name for name in names if name.startswith("u")] == ["u[0,0]", "u[0,1]"]
    assert check_formulation(HYPEREDGE, [problem], session=session) == 1


def test_costs_are_exact_integers_beyond_those_of_a_float() -> None:
    trace = Trace(
        np.array([[[0, 1, 2]]] * 5), 3, families=("a", "b"), family=np.array([0, 0, 0, 1, 1], np.uint8)
    )
    problem = Problem.from_trace(trace, Cluster(1, 2, 2, gpu_cost=9), family_weights={"a": 1, "b": 0})
    costs, offset = HYPEREDGE.costs(problem)
    assert int(float(offset)) != offset
    placement = problem.partition(np.array([1, 0, 1]))
    point = HYPEREDGE.values(problem, placement).astype(np.int64)
    assert int(costs @ point) + offset == problem.cost(placement)


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=SLOW)
@given(problem=problems(objectives=("fan-out",), most_experts=5, most_gpus=3))
def test_no_placement_costs_less_than_the_relaxation_says(session: Session, problem: Problem) -> None:
    least, _ = brute_force(problem)
    if least is None:
        return
    matrix, unit = HYPEREDGE.matrix(problem), float(problem.total_weight)
    scaled = replace(matrix, cost=matrix.cost / unit, offset=matrix.offset / unit)
    bound = session.solve(scaled, relax=True).objective
    assert bound is not None
    assert bound <= least / unit + 1e-6


def test_the_relaxation_knows_what_gpus_are_too_small_for(session: Session) -> None:
    problem = problem_of(8, Cluster(1, 4, 2), k=4)
    bound = session.solve(HYPEREDGE.matrix(problem), relax=True).objective
    assert bound is not None
    assert bound > 30 * (2 - 1)  # four experts need two GPUs of two slots; equal shares would cost this


def test_a_set_needs_the_gpus_that_its_load_fills() -> None:
    problem = replace(problem_of(4, Cluster(1, 2, 4), k=3), load_tolerance="0")
    (level,) = priced_levels(problem)
    assert level.need(np.array([[0, 1, 2]], np.int32)).tolist() == [2]
    (level,) = priced_levels(replace(problem, load_tolerance=None))
    assert level.need(np.array([[0, 1, 2]], np.int32)).tolist() == [1]


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (problem_of(4, Cluster(1, 2, 2), objective="cut"), 'objective="fan-out", or "assignment"'),
        (replace(problem_of(4, Cluster(1, 2, 3)), replicas=1), "replicas are 1"),
        (replace(problem_of(4, Cluster(1, 2, 2)), tail=0), '"families"'),
    ],
)
def test_it_says_what_to_do_where_it_does_not_apply(problem: Problem, words: str) -> None:
    assert words in HYPEREDGE.supports(problem)


def test_it_says_when_there_are_too_many_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = problem_of(5, Cluster(1, 2, 3))
    monkeypatch.setattr(module, "LARGEST_ENTRIES", 100)
    assert "coefficients for 10 sets, the limit is 100" in HYPEREDGE.supports(problem)


def test_it_says_what_it_states_when_given_something_else() -> None:
    assert "found int" in HYPEREDGE.supports(3)  # type: ignore[arg-type]


def test_a_point_without_a_gpu_for_an_expert_stands_for_no_placement() -> None:
    problem = problem_of(3, Cluster(1, 2, 2))
    assert HYPEREDGE.placement(problem, np.zeros(HYPEREDGE.costs(problem)[0].size)) is None
    model = HYPEREDGE.build(problem)
    for variable in model.x.values():
        variable.set_value(0)
    with pytest.raises(ValueError, match="every expert on one GPU"):
        HYPEREDGE.read(model)
