"""The checker's own costs and its own search agree with the prover's, with direct counting and with enumeration."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeopt.blocks_checker import check_blocks
from moeopt.certificate import Proof
from moeopt.cluster import Cluster
from moeopt.columns import contents
from moeopt.expert_sets import ExpertSets
from moeopt.inclusion import meeting_weight
from moeopt.pricing import Prices, Relaxation, discounted
from moeopt.problem import Problem
from moeopt.recount import cheaper_cover, discounts_of, inside_weight, lexicographic
from moeopt.recount import meeting_weight as recounted_weight
from moeopt.stop import Stop
from moeopt.trace import Trace
from moeopt_formulations.blocks import Blocks


def random_sets(experts: int, k: int, seed: int) -> ExpertSets:
    rng = np.random.default_rng(seed)
    rows = np.array([rng.choice(experts, k, replace=False) for _ in range(15)])
    return ExpertSets.of(rows, rng.integers(1, 1 << 40, (15, 1)), n_experts=experts)


@settings(max_examples=60, deadline=None)
@given(
    experts=st.integers(1, 10), k=st.integers(1, 6), size=st.integers(1, 6), seed=st.integers(0, 2**32 - 1)
)
def test_its_costs_are_the_provers_and_those_of_direct_counting(
    experts: int, k: int, size: int, seed: int
) -> None:
    k, size = min(k, experts), min(size, experts)
    sets = random_sets(experts, k, seed)
    weights = sets.counts[:, 0]
    blocks = lexicographic(experts, size)
    assert [tuple(row) for row in blocks.tolist()] == list(combinations(range(experts), size))
    found = dict(
        zip(
            map(tuple, blocks.tolist()),
            recounted_weight(experts, size, len(blocks), sets.members, weights).tolist(),
            strict=True,
        )
    )
    (subsets,) = contents(experts, [size])
    proved = meeting_weight(subsets, sets.members, weights=weights, n_experts=experts)
    assert found == dict(zip(map(tuple, subsets.tolist()), proved.tolist(), strict=True))
    members = [set(row) for row in sets.members.tolist()]
    for block, value in found.items():
        assert value == sum(int(w) for row, w in zip(members, weights, strict=True) if row & set(block))
    affinity = sets.affinity(weights)
    for row, value in zip(blocks.tolist(), inside_weight(blocks, affinity).tolist(), strict=True):
        assert value == sum(int(affinity[pair]) for pair in combinations(row, 2))


@settings(max_examples=60, deadline=None)
@given(experts=st.integers(3, 8), size=st.integers(1, 5), data=st.data())
def test_its_discounts_are_the_provers_and_those_of_direct_counting(
    experts: int, size: int, data: st.DataObject
) -> None:
    size = min(size, experts)
    triples = data.draw(
        st.lists(st.sampled_from(list(combinations(range(experts), 3))), min_size=1, max_size=8)
    )
    amounts = data.draw(st.lists(st.integers(0, 1 << 40), min_size=len(triples), max_size=len(triples)))
    blocks = lexicographic(experts, size)
    found = discounts_of(blocks, np.array(triples), np.array(amounts), experts).tolist()
    for row, value in zip(blocks.tolist(), found, strict=True):
        held = [len(set(row) & set(triple)) for triple in triples]
        assert value == sum(amount for inside, amount in zip(held, amounts, strict=True) if inside >= 2)
    problem = Problem.from_trace(Trace(np.arange(experts)[:, None, None], experts), Cluster(1, 2, experts))
    columns = Blocks().columns(problem)
    of_prover = discounted(
        columns.members, np.array(triples), discounts=np.array(amounts), n_experts=columns.n_experts
    )[columns.sizes == size]
    order = [tuple(row[:size]) for row in columns.members[columns.sizes == size].tolist()]
    assert dict(zip(order, of_prover.tolist(), strict=True)) == dict(
        zip(map(tuple, blocks.tolist()), found, strict=True)
    )


@st.composite
def searches(draw: st.DrawFn) -> dict[str, Any]:
    """Random blocks of up to 3 of up to 7 experts, with any costs and reduced costs."""
    experts, m = draw(st.integers(1, 7)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    every = [block for size in range(1, m + 1) for block in combinations(range(experts), size)]
    chosen = [block for block in every if rng.random() < draw(st.sampled_from([0.3, 0.8]))]
    padded = np.full((len(chosen), m), -1, np.int64)
    for row, block in enumerate(chosen):
        padded[row, : len(block)] = block
    return {
        "blocks": padded,
        "reduced": rng.integers(0, 30, len(chosen)),
        "costs": rng.integers(-20, 20, len(chosen)),
        "experts": experts,
        "gpus": draw(st.integers(1, 4)),
    }


@settings(max_examples=200, deadline=None)
@given(case=searches(), budget=st.integers(0, 80), empty=st.integers(0, 10), bound=st.integers(-40, 40))
def test_its_search_finds_a_cheaper_cover_exactly_when_there_is_one(
    case: dict[str, Any], budget: int, empty: int, bound: int
) -> None:
    blocks = [frozenset(e for e in row if e >= 0) for row in case["blocks"].tolist()]
    exists = False
    for size in range(1, case["gpus"] + 1):
        for chosen in combinations(range(len(blocks)), size):
            exact = sum(len(blocks[b]) for b in chosen) == case["experts"]
            if exact and len(frozenset().union(*(blocks[b] for b in chosen))) == case["experts"]:
                spent = sum(int(case["reduced"][b]) for b in chosen) + (case["gpus"] - size) * empty
                cost = sum(int(case["costs"][b]) for b in chosen)
                exists = exists or (spent <= budget and cost < bound)
    found = cheaper_cover(
        case["blocks"],
        case["reduced"],
        costs=case["costs"],
        limits=(budget, empty, bound),
        experts=case["experts"],
        gpus=case["gpus"],
    )
    assert found == exists


def relaxed(problem: Problem) -> tuple[Prices, Any]:
    columns = Blocks().columns(problem)
    return Relaxation(columns, seed=0).solve(Stop(seconds=None).start()), columns


@pytest.mark.parametrize("objective", ["fan-out", "cut"])
@pytest.mark.parametrize(
    "cluster",
    [
        Cluster(1, 4, 2),
        Cluster(1, 3, 4),
        Cluster(1, 8, 1),
        Cluster(1, 1, 9),
        Cluster(4, 1, 2, gpu_cost=2, node_cost=3),
        Cluster(2, 2, 2),
    ],
)
def test_prices_alone_prove_their_bound_on_every_shape(cluster: Cluster, objective: str) -> None:
    rng = np.random.default_rng(0)
    trace = Trace(np.array([[rng.permutation(8)[:3]] for _ in range(50)]), 8, layer_ids=np.array([2]))
    problem = Problem.from_trace(trace, cluster, objective=objective)
    prices, columns = relaxed(problem)
    bound = prices.bound(columns, searched=-1)
    proof = Proof(2, problem.workload.digest, "blocks", bound, numbers=prices.numbers(columns, bound=bound))
    assert check_blocks(problem, proof) == ""
    weaker = Proof(2, proof.digest, "blocks", bound - 1, numbers=proof.numbers)
    assert "the numbers prove" in check_blocks(problem, weaker)


@pytest.mark.parametrize(
    ("cluster", "replicas", "words"),
    [
        (Cluster(1, 2, 5), 1, "placements without replicas, the budget is 1"),
        (Cluster(1, 2, (4, 5)), 0, "GPUs with equal slots"),
        (Cluster(2, 2, 2, node_cost=1), 0, "cannot see nodes, the node cost is 1"),
    ],
)
def test_problems_that_blocks_do_not_state_are_refused(cluster: Cluster, replicas: int, words: str) -> None:
    trace = Trace(np.arange(8)[:, None, None], 8)
    problem = Problem.from_trace(trace, cluster, replicas=replicas)
    assert words in check_blocks(problem, Proof(0, problem.workload.digest, "blocks", 0))
