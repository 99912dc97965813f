"""The two-level clique partition is what it says: GPUs inside nodes, never more of them than a node has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from moeopt.cluster import Cluster
from moeopt.formulation import Separable
from moeopt.problem import Problem
from moeopt.solvers.door import Session
from moeopt.testing import brute_force, check_formulation
from moeopt.trace import Trace
from moeopt_formulations.two_level import TwoLevelPairs

TWO_LEVEL = TwoLevelPairs()


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with Session() as session:
        yield session


def problem_of(
    experts: int, cluster: Cluster, *, seed: int = 0, objective: str = "cut", tolerance: str | None = None
) -> Problem:
    rng = np.random.default_rng(seed)
    chosen = np.array([rng.permutation(experts)[:2] for _ in range(40)])
    family = rng.integers(0, 2, 40).astype(np.uint8)
    family[:2] = 0, 1
    trace = Trace(experts=chosen[:, None], n_experts=experts, families=("code", "math"), family=family)
    return Problem.from_trace(trace, cluster, objective=objective, load_tolerance=tolerance)


def test_it_offers_every_optional_part() -> None:
    assert isinstance(TWO_LEVEL, Separable)


@settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    experts=st.integers(2, 4),
    spare=st.integers(0, 2),
    gpu_cost=st.integers(0, 2),
    node_cost=st.integers(1, 4),
    tolerance=st.sampled_from([None, None, "0.3", "0.6", "1"]),
    weighted=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_it_agrees_with_brute_force(
    session: Session,
    experts: int,
    spare: int,
    gpu_cost: int,
    node_cost: int,
    tolerance: str | None,
    weighted: bool,
    seed: int,
) -> None:
    cluster = Cluster(2, 2, -(-experts // 4) + spare, gpu_cost, node_cost)
    try:
        problem = problem_of(experts, cluster, seed=seed, tolerance=tolerance)
    except ValueError:
        assume(False)
    weights = {"code": 1, "math": 0.3} if weighted else None
    check_formulation(TWO_LEVEL, [replace(problem, family_weights=weights)], session=session)


@pytest.mark.parametrize(
    ("experts", "cluster", "heads"),
    [
        (4, Cluster(2, 2, 1, 1, 4), False),  # every slot used
        (3, Cluster(2, 2, 1, 1, 4), True),  # a GPU may be empty
        (5, Cluster(2, 2, 2, 1, 4), True),  # three experts of a node never on three GPUs
        (5, Cluster(2, 3, 1, 2, 1), False),  # slots alone keep a node from a fourth GPU
        (4, Cluster(2, 3, 2, 2, 1), True),
        (4, Cluster(3, 2, 1, 0, 1), True),  # a price on nodes alone
        (4, Cluster(2, 2, 9, 1, 1), True),  # more slots than experts
    ],
)
def test_every_shape_of_nodes_agrees_with_brute_force(
    session: Session, experts: int, cluster: Cluster, heads: bool
) -> None:
    problem = problem_of(experts, cluster)
    names = TWO_LEVEL.matrix(problem).column_names
    assert any(name.startswith("head") for name in names) == heads
    assert check_formulation(TWO_LEVEL, [problem], session=session) == 1


def test_a_node_takes_no_more_gpus_than_it_has(session: Session) -> None:
    # Heavy pairs 0-1 and 2-3 and 4-5 want GPUs of their own; loads keep all others apart; a node has two GPUs.
    pairs = [(0, 1)] * 9 + [(2, 3)] * 9 + [(4, 5)] * 9
    links = [pair for pair in pairwise((1, 2, 5)) for _ in range(2)]
    trace = Trace(np.array([[pair] for pair in pairs + links]), 6)
    problem = Problem.from_trace(trace, Cluster(2, 2, 3, 0, 1), objective="cut", load_tolerance="0.5")
    matrix = TWO_LEVEL.matrix(problem)
    lazy = TWO_LEVEL.lazy(problem)
    inside = np.array([[a // 2 == b // 2 for b in range(6)] for a in range(6)])[np.triu_indices(6, 1)]
    point = np.concatenate([inside, np.ones(15), np.zeros(21)])
    point[30] = 1.0  # head[0,0]
    assert (
        lazy.rows @ point <= lazy.upper
    ).all()  # two partitions, one within the other: three GPUs on one node
    assert TWO_LEVEL.placement(problem, point) is None
    assert matrix.violation(point) > 0.5
    least, _ = brute_force(problem)
    assert least is not None
    assert least > 0


def test_the_most_broken_triangles_of_both_levels_come_first() -> None:
    problem = problem_of(4, Cluster(2, 2, 1, 1, 4))
    #                      01   02   03   12   13   23
    gpus, nodes = np.array([[0.9, 0.4, 0.0, 1.0, 0.0, 0.4], [1.0, 0.2, 0.0, 1.0, 0.0, 0.4]])
    point = np.append(gpus, nodes)
    found = TWO_LEVEL.separate(problem, point)
    amount = found.rows @ point - found.upper
    assert amount == pytest.approx(np.sort(amount)[::-1])
    assert found.keys[0].tolist() == [1, 0, 1, 2]  # 1 + 1 - 0.2 > 1, on nodes
    everything = TWO_LEVEL.lazy(problem)
    assert (everything.rows @ point - everything.upper > 1e-6).sum() == len(found.keys)


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (problem_of(4, Cluster(2, 2, 1, 1, 4), objective="fan-out"), 'objective="cut"'),
        (problem_of(4, Cluster(2, 2, (2, 1, 1, 1), 1, 4)), '"assignment" for unequal'),
        (problem_of(4, Cluster(1, 4, 1, 1, 4)), 'found 1 nodes of 4 GPUs and node cost 4: use "pairs"'),
        (problem_of(4, Cluster(4, 1, 1, 1, 4)), "4 nodes of 1 GPUs"),
        (problem_of(4, Cluster(2, 2, 1)), "node cost 0"),
        (replace(problem_of(4, Cluster(2, 2, 1, 1, 4)), tail=0), '"families"'),
    ],
)
def test_it_says_what_to_do_where_it_does_not_apply(problem: Problem, words: str) -> None:
    assert words in TWO_LEVEL.supports(problem)


def test_values_that_are_no_nested_partitions_stand_for_no_placement() -> None:
    problem = problem_of(4, Cluster(2, 2, 1, 1, 4))
    together, apart = np.ones(6), np.zeros(6)
    assert TWO_LEVEL.placement(problem, np.append(apart, apart)) is None  # four nodes
    assert TWO_LEVEL.placement(problem, np.append(apart, together)) is None  # four GPUs of one node
    assert TWO_LEVEL.placement(problem, np.append(together, apart)) is None  # a GPU on four nodes
    chain = np.array([1.0, 0, 0, 1, 0, 0])  # 0 with 1, 1 with 2, 0 not with 2
    assert TWO_LEVEL.placement(problem, np.append(chain, together)) is None
    model = TWO_LEVEL.build(problem)
    for variable in [*model.y.values(), *model.y_node.values()]:
        variable.set_value(0)
    with pytest.raises(ValueError, match="no partition into nodes"):
        TWO_LEVEL.read(model)
