"""Set partitioning is what it says: brute force, matching, direct counting and its own Pyomo statement agree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations

import networkx as nx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moeopt.cluster import Cluster
from moeopt.columns import Columns, block_sizes, column_count, contents
from moeopt.exact import Exact
from moeopt.expert_sets import ExpertSets
from moeopt.formulation import ByColumns
from moeopt.inclusion import meeting_weight
from moeopt.matrix import canonical, from_pyomo
from moeopt.problem import Problem
from moeopt.solvers.door import Session, Status
from moeopt.stop import Stop
from moeopt.testing import brute_force, check_formulation
from moeopt.trace import Trace
from moeopt_formulations import blocks as module
from moeopt_formulations.blocks import Blocks
from tests.problem_strategies import problems

BLOCKS = Blocks()
EXACT = Exact(BLOCKS)
FREELY = Stop(seconds=None)


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with Session() as session:
        yield session


def problem_of(
    experts: int, cluster: Cluster, *, k: int = 3, seed: int = 0, objective: str = "fan-out"
) -> Problem:
    rng = np.random.default_rng(seed)
    ids = np.array([[rng.permutation(experts)[:k]] for _ in range(40)])
    return Problem.from_trace(Trace(ids, experts), cluster, objective=objective)


def columns_of(problem: Problem) -> dict[tuple[int, ...], int]:
    columns = BLOCKS.columns(problem)
    return {
        tuple(row[row >= 0].tolist()): int(cost)
        for row, cost in zip(columns.members, columns.cost, strict=True)
    }


def test_it_offers_columns() -> None:
    assert isinstance(BLOCKS, ByColumns)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(problem=problems())
def test_the_proved_cost_is_that_of_brute_force(problem: Problem) -> None:
    if BLOCKS.supports(problem):
        return
    least, _ = brute_force(problem)
    result = EXACT.solve(problem, stop=FREELY, seed=0)
    if least is None:
        assert (result.status, result.placement, result.bound) == ("infeasible-claimed", None, None)
        return
    assert result.status == "certified-optimal", result.message
    assert result.cost == result.bound == least
    assert result.placement is not None
    assert problem.violation(result.placement) == ""
    assert problem.cost(result.placement) == least


@pytest.mark.parametrize("objective", ["fan-out", "cut"])
@pytest.mark.parametrize(
    ("experts", "cluster"),
    [
        (4, Cluster(1, 4, 1)),
        (4, Cluster(1, 5, 1)),
        (6, Cluster(1, 3, 2)),
        (6, Cluster(1, 2, 3)),
        (8, Cluster(1, 2, 4)),
        (7, Cluster(1, 2, 4)),  # one slot free
        (5, Cluster(1, 3, 4)),  # many slots free, GPUs may stay empty
        (6, Cluster(3, 1, 2, gpu_cost=2, node_cost=5)),  # a GPU a node
        (6, Cluster(2, 2, 2)),  # nodes without a price
        (3, Cluster(1, 1, 3)),
        (3, Cluster(1, 2, 9)),  # more slots than experts
    ],
)
def test_every_shape_of_groups_agrees_with_brute_force(
    experts: int, cluster: Cluster, objective: str
) -> None:
    problem = problem_of(experts, cluster, objective=objective)
    result = EXACT.solve(problem, stop=FREELY, seed=0)
    assert (result.status, result.cost) == ("certified-optimal", brute_force(problem)[0])


@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(problem=problems(unequal=False, nodes=False, most_experts=5, most_gpus=3))
def test_the_statement_agrees_with_brute_force(session: Session, problem: Problem) -> None:
    plain = replace(problem, family_weights=None)  # a float solver sees no 50-bit costs
    check_formulation(BLOCKS, [plain], session=session)


@pytest.mark.parametrize("objective", ["fan-out", "cut"])
@pytest.mark.parametrize("cluster", [Cluster(1, 3, 2), Cluster(1, 3, 3), Cluster(1, 4, 2)])
def test_the_fast_matrix_is_the_pyomo_statement(session: Session, cluster: Cluster, objective: str) -> None:
    problem = problem_of(6, cluster, objective=objective)
    stated, _ = from_pyomo(BLOCKS.build(problem))
    fast = BLOCKS.matrix(problem)
    assert canonical(fast) == canonical(stated)
    least, _ = brute_force(problem)
    for model in (stated, fast):
        outcome = session.solve(model)
        assert outcome.status == Status.OPTIMAL
        assert outcome.objective == pytest.approx(least)
    outcome = session.solve(fast)
    assert outcome.x is not None
    found = BLOCKS.placement(problem, outcome.x)
    assert found is not None
    assert problem.cost(found) == least


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("objective", ["fan-out", "cut"])
def test_two_experts_a_gpu_are_a_minimum_cost_perfect_matching(seed: int, objective: str) -> None:
    problem = problem_of(10, Cluster(1, 5, 2), seed=seed, objective=objective)
    graph = nx.Graph()
    for pair, cost in columns_of(problem).items():
        graph.add_edge(*pair, weight=cost)
    matching = nx.min_weight_matching(graph)
    gpu_of = np.empty(10, np.int64)
    for gpu, pair in enumerate(matching):
        gpu_of[list(pair)] = gpu
    result = EXACT.solve(problem, stop=FREELY, seed=0)
    assert result.status == "certified-optimal"
    assert result.cost == problem.cost(problem.partition(gpu_of))


@settings(max_examples=40, deadline=None)
@given(
    experts=st.integers(2, 9),
    k=st.integers(1, 6),
    size=st.integers(1, 6),
    seed=st.integers(0, 2**32 - 1),
)
def test_inclusion_and_exclusion_count_what_direct_counting_counts(
    experts: int, k: int, size: int, seed: int
) -> None:
    k, size = min(k, experts), min(size, experts)
    rng = np.random.default_rng(seed)
    rows = np.array([rng.choice(experts, k, replace=False) for _ in range(12)])
    sets = ExpertSets.of(rows, rng.integers(1, 1 << 40, (12, 1)), n_experts=experts)
    weights = sets.counts[:, 0]
    (subsets,) = contents(experts, [size])
    found = meeting_weight(subsets, sets.members, weights=weights, n_experts=experts)
    held = [set(row) for row in sets.members.tolist()]
    for block, value in zip(subsets.tolist(), found.tolist(), strict=True):
        assert value == sum(int(w) for members, w in zip(held, weights, strict=True) if members & set(block))


@settings(max_examples=40, deadline=None)
@given(problem=problems(unequal=False, nodes=False))
def test_the_blocks_of_a_placement_cost_what_the_placement_costs(problem: Problem) -> None:
    columns = BLOCKS.columns(problem)
    cost = columns_of(problem)
    _, best = brute_force(problem)
    if best is None:
        return
    groups: dict[int, list[int]] = {}
    for expert, gpu in enumerate(best.primary[0].tolist()):
        groups.setdefault(gpu, []).append(expert)
    assert columns.offset + sum(cost[tuple(group)] for group in groups.values()) == problem.cost(best)


def test_contents_come_in_the_order_of_their_rank() -> None:
    for size, subsets in zip((1, 2, 3), contents(6, [1, 2, 3]), strict=True):
        wanted = sorted(combinations(range(6), size), key=lambda subset: subset[::-1])
        assert [tuple(row) for row in subsets.tolist()] == wanted
    assert [len(part) for part in contents(6, [2, 4])] == [15, 15]


@pytest.mark.parametrize(
    ("experts", "gpus", "slots", "sizes"),
    [
        (6, 3, 2, [2]),
        (6, 3, 3, [1, 2, 3]),
        (7, 2, 4, [3, 4]),
        (3, 2, 9, [1, 2, 3]),
        (3, 1, 3, [3]),
        (4, 4, 1, [1]),
    ],
)
def test_only_sizes_that_occur_are_listed(experts: int, gpus: int, slots: int, sizes: list[int]) -> None:
    assert list(block_sizes(experts, gpus, slots=slots)) == sizes
    assert column_count(experts, gpus, slots=slots) == len(
        BLOCKS.columns(problem_of(experts, Cluster(1, gpus, slots)))
    )


def test_blocks_above_the_load_cap_are_left_out() -> None:
    free = problem_of(6, Cluster(1, 3, 3), seed=2)
    capped = replace(free, load_tolerance="0.1")
    load = free.workload.layers[0].load
    assert capped.load_cap is not None
    wanted = {
        block: cost for block, cost in columns_of(free).items() if load[list(block)].sum() <= capped.load_cap
    }
    assert columns_of(capped) == wanted
    assert len(wanted) < len(columns_of(free))


@pytest.mark.parametrize(
    ("cluster", "changes", "words"),
    [
        (Cluster(1, 2, 4), {"replicas": 1}, "one copy of each expert, replicas are 1"),
        (Cluster(1, 2, (4, 3)), {}, r"equal slots and speeds, found slots \(4, 3\)"),
        (Cluster(2, 2, 2, node_cost=3), {}, "additive over GPUs, 2 nodes have node cost 3"),
    ],
)
def test_it_says_why_it_does_not_apply(cluster: Cluster, changes: dict[str, int], words: str) -> None:
    problem = replace(problem_of(6, cluster), **changes)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=words):
        EXACT.solve(problem, stop=FREELY, seed=0)


def test_it_says_when_there_is_too_much_to_list(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = problem_of(8, Cluster(1, 2, 4))
    monkeypatch.setattr(module, "LARGEST_WORK", 1000)
    assert BLOCKS.supports(problem) == "inclusion-exclusion over 70 contents of 4 experts is too much work"
    assert BLOCKS.supports(replace(problem, objective="cut")) == ""
    monkeypatch.setattr(module, "LARGEST_COUNT", 69)
    assert BLOCKS.supports(problem) == '70 contents of 4 experts, enumeration ends at 69: use "priced"'


def test_a_tolerance_that_search_rules_out_is_a_result_that_says_what_can_be_met() -> None:
    ids = np.array([[[0]]] * 5 + [[[1]]] * 5 + [[[2]]] * 5 + [[[3]]] * 1)
    problem = Problem.from_trace(
        Trace(ids, 4), Cluster(1, 2, 2), load_tolerance="0.2"
    )  # 10 and 6 at best; 9 allowed
    result = EXACT.solve(problem, stop=FREELY, seed=0)
    assert result.status == "infeasible-claimed"
    assert (result.placement, result.cost, result.bound, result.certificate) == (None, None, None, None)
    assert result.tolerance_reached == 0.25
    assert result.message == "no placement meets load tolerance 0.2; 0.25 can be met"
    again = EXACT.solve(replace(problem, load_tolerance=result.tolerance_reached), stop=FREELY, seed=0)
    assert again.status == "certified-optimal"


@settings(max_examples=60, deadline=None)
@given(problem=problems(unequal=False, nodes=False), tolerance=st.sampled_from(["0", "0.05", "0.1", "0.2"]))
def test_the_tolerance_said_to_be_met_can_be_met(problem: Problem, tolerance: str) -> None:
    try:
        tight = replace(problem, load_tolerance=tolerance)
    except ValueError:
        return
    result = EXACT.solve(tight, stop=FREELY, seed=0)
    if result.status == "infeasible-claimed":
        assert result.tolerance_reached is not None
        loose = replace(problem, load_tolerance=result.tolerance_reached)
        assert EXACT.solve(loose, stop=FREELY, seed=0).status == "certified-optimal"


def test_family_weights_of_fifty_bits_are_proved_on_wide_tokens() -> None:
    rng = np.random.default_rng(0)
    ids = np.array([[rng.permutation(16)[:8]] for _ in range(100)])
    trace = Trace(ids, 16, families=("a", "b"), family=rng.integers(0, 2, 100, dtype=np.uint8))
    for cluster in (Cluster(1, 8, 2), Cluster(8, 1, 2, gpu_cost=1, node_cost=9)):
        for objective in ("fan-out", "cut"):
            problem = Problem.from_trace(trace, cluster, objective=objective, family_weights={"a": 1, "b": 3})
            result = EXACT.solve(problem, stop=FREELY, seed=0)
            assert result.status == "certified-optimal", result.message


def test_columns_know_their_sizes_and_who_is_where() -> None:
    columns = Columns(np.array([[0, 2], [1, -1]], np.int16), np.array([1, 2]), 0, 3, 2)
    assert columns.sizes.tolist() == [2, 1]
    assert not columns.full
    assert columns.gpu_of([1, 0]).tolist() == [1, 0, 1]
    assert columns.priced(np.array([10, 20, 30])).tolist() == [40, 20]
