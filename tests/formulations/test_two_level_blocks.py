"""Node contents with the best share among GPUs: brute force, direct enumeration and its own statement agree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moeopt.cluster import Cluster
from moeopt.columns import contents
from moeopt.nesting import NEVER, cheapest_shares
from moeopt.problem import Problem
from moeopt.solvers.door import Session, Status
from moeopt.testing import check_formulation
from moeopt.trace import Trace
from moeopt_formulations import two_level_blocks as module
from moeopt_formulations.two_level_blocks import TwoLevelBlocks
from tests.problem_strategies import problems

BLOCKS = TwoLevelBlocks()


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with Session() as session:
        yield session


def problem_of(experts: int, cluster: Cluster, *, k: int = 3, objective: str = "fan-out") -> Problem:
    rng = np.random.default_rng(1)
    chosen = np.array([rng.permutation(experts)[:k] for _ in range(30)])
    return Problem.from_trace(Trace(experts=chosen[:, None], n_experts=experts), cluster, objective=objective)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(problem=problems(objectives=("fan-out",), most_experts=5))
def test_it_agrees_with_brute_force(session: Session, problem: Problem) -> None:
    check_formulation(BLOCKS, [problem], session=session)


@pytest.mark.parametrize(
    "cluster",
    [
        Cluster(2, 2, 2, 1, 4),  # slots left: a node of 4 slots, GPUs of 2
        Cluster(2, 2, 3, 1, 4),  # three experts of a node never on three GPUs
        Cluster(2, 2, (3, 1, 1, 2), 1, 4),  # nodes of two kinds
        Cluster(2, 2, (2, 1, 1, 2), 1, 4),  # one kind, its GPUs in another order
        Cluster(2, 2, (2, 2, 1, 0), 1, 4),
        Cluster(2, 2, (3, 2, 0, 0), 1, 4),  # a node without slots
        Cluster(3, 2, 1, 2, 3),
        Cluster(2, 3, 1, 0, 1),
        Cluster(3, 1, 2, 1, 4),  # every GPU a node
        Cluster(1, 3, (3, 1, 1)),  # one level, unequal GPUs
        Cluster(2, 2, 2, 3, 0),  # nodes without a price
    ],
)
def test_every_shape_of_nodes_agrees_with_brute_force(session: Session, cluster: Cluster) -> None:
    assert check_formulation(BLOCKS, [problem_of(5, cluster)], session=session) == 1


@pytest.mark.parametrize("tolerance", ["0.2", "0.5"])
def test_the_load_cap_holds_for_gpus_and_not_only_for_nodes(session: Session, tolerance: str) -> None:
    trace = Trace(np.array([[[0]]] * 5 + [[[1]]] * 4 + [[[2]]] * 3 + [[[3]]] * 2 + [[[4]]] * 2), 5)
    for speeds in ((1, 1, 1, 1), (2, 1, 2, 1)):
        cluster = Cluster(2, 2, 2, 1, 4, speeds=speeds)
        try:
            problem = Problem.from_trace(trace, cluster, load_tolerance=tolerance)
        except ValueError:
            continue
        assert check_formulation(BLOCKS, [problem], session=session) == 1


def test_an_expert_that_fits_no_node_makes_the_statement_infeasible(session: Session) -> None:
    # 4 + 4 + 4 on three GPUs that may serve 6 each: any two of them together are too much, and slots want two together.
    trace = Trace(np.array([[[e]] for e in (0, 1, 2) for _ in range(4)]), 3)
    problem = Problem.from_trace(trace, Cluster(1, 3, (3, 0, 0)), load_tolerance="2")
    assert check_formulation(BLOCKS, [problem], session=session) == 1
    tight = replace(problem, cluster=Cluster(1, 2, (2, 1)), load_tolerance="0.1")
    assert check_formulation(BLOCKS, [tight], session=session) == 1
    outcome = session.solve(BLOCKS.matrix(tight))
    assert outcome.status == Status.INFEASIBLE


@settings(max_examples=40, deadline=None)
@given(
    experts=st.integers(2, 6),
    slots=st.lists(st.integers(0, 4), min_size=1, max_size=3),
    cap=st.integers(4, 20),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_cheapest_share_is_that_of_direct_enumeration(
    experts: int, slots: list[int], cap: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    slots = [*slots, 2]
    load, caps = rng.integers(1, 5, experts), rng.integers(4, cap + 1, len(slots))
    price = {frozenset[int](): 0}
    subsets = contents(experts, range(1, min(max(slots), experts) + 1))
    for rows in subsets:
        price.update((frozenset(row), int(rng.integers(0, 100))) for row in rows.tolist())
    table = np.array(
        [price[frozenset(row)] for rows in ([[]], *(s.tolist() for s in subsets)) for row in rows]
    )
    (nodes,) = contents(experts, [min(4, experts)])
    costs, shares = cheapest_shares(nodes, table, load=load, slots=np.array(slots), caps=caps)

    def cost_of(node: list[int], share: tuple[int, ...]) -> int:
        parts = [[e for e, g in zip(node, share, strict=True) if g == gpu] for gpu in range(len(slots))]
        if any(len(p) > m or load[p].sum() > c for p, m, c in zip(parts, slots, caps.tolist(), strict=True)):
            return NEVER
        return sum(price[frozenset(part)] for part in parts)

    for node, cost, share in zip(nodes.tolist(), costs.tolist(), shares.tolist(), strict=True):
        assert cost == min(cost_of(node, every) for every in product(range(len(slots)), repeat=len(node)))
        assert cost == NEVER or cost == cost_of(node, tuple(share))


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (problem_of(4, Cluster(2, 2, 1, 1, 1), objective="cut"), 'objective="fan-out", or "two-level"'),
        (replace(problem_of(4, Cluster(2, 2, 2, 1, 1)), replicas=1), "replicas are 1"),
        (problem_of(40, Cluster(2, 2, 10, 1, 1)), "137,846,528,820 contents of a node"),
    ],
)
def test_it_says_what_to_do_where_it_does_not_apply(problem: Problem, words: str) -> None:
    assert words in BLOCKS.supports(problem)


def test_it_says_when_there_is_too_much_to_share(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = problem_of(8, Cluster(2, 4, 1, 1, 1))
    monkeypatch.setattr(module, "LARGEST_WORK", 10_000)
    assert BLOCKS.supports(problem) == "14,716 shares of 70 contents of a node, the limit is 10,000"


def test_points_that_are_no_partition_stand_for_no_placement() -> None:
    problem = problem_of(4, Cluster(2, 2, 1, 1, 1))
    count = BLOCKS.costs(problem)[0].size
    assert BLOCKS.placement(problem, np.zeros(count)) is None
    assert BLOCKS.placement(problem, np.ones(count)) is None
    model = BLOCKS.build(problem)
    for variable in model.z.values():
        variable.set_value(0)
    with pytest.raises(ValueError, match="every expert on one node"):
        BLOCKS.read(model)
