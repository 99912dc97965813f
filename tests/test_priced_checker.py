"""The check of prices of blocks that are not listed: its listing is that of plain enumeration, its word is exact."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import moeopt.priced_checker as priced_checker
from moeopt.blocks_checker import BlockPrices, Frame
from moeopt.certificate import Certificate, Proof
from moeopt.checker import check_layer, verify
from moeopt.cluster import Cluster
from moeopt.priced_checker import check_priced, near_contents
from moeopt.priced_recount import _share
from moeopt.problem import Problem
from moeopt.recount import lexicographic, meeting_weight
from moeopt.testing import brute_force
from moeopt.trace import Trace

Block = tuple[int, ...]
SLOW = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])


@st.composite
def layers(draw: st.DrawFn, most_experts: int = 10, most_slots: int = 5, most_gpus: int = 10) -> Problem:
    """One layer on interchangeable GPUs: both objectives, full or not, with or without a load tolerance."""
    slots = draw(st.integers(1, most_slots))
    experts = draw(st.integers(1, min(most_experts, slots * most_gpus)))
    gpus = draw(st.integers(-(-experts // slots), min(-(-experts // slots) + 2, most_gpus)))
    k, tokens = draw(st.integers(1, min(4, experts))), draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shares = rng.random(experts) ** draw(st.sampled_from([0, 1, 3])) + 0.01
    rows = [rng.choice(experts, k, replace=False, p=shares / shares.sum()) for _ in range(tokens)]
    alone = draw(st.booleans())
    gpu_cost, node_cost = draw(st.integers(1, 3)), draw(st.integers(0, 2)) if alone else 0
    nodes = gpus if alone else 1
    cluster = Cluster(nodes, gpus // nodes, slots, gpu_cost=gpu_cost, node_cost=node_cost)
    trace = Trace(np.array(rows)[:, None, :], experts)
    try:
        return Problem.from_trace(
            trace,
            cluster,
            objective=draw(st.sampled_from(["fan-out", "cut"])),
            load_tolerance=draw(st.sampled_from([None, None, "0", "0.2", "1"])),
        )
    except ValueError:  # no placement keeps the tolerance
        assume(False)
        raise


def costs_of(problem: Problem) -> dict[Block, int]:
    """Every admissible block and its cost, by the definition."""
    (sets,) = problem.workload.layers
    weights, cluster = problem.set_weights(sets).tolist(), problem.cluster
    unit = cluster.gpu_cost + (cluster.node_cost if cluster.nodes == cluster.gpus > 1 else 0)
    members = [set(row) for row in sets.members.tolist()]
    slots = min(int(cluster.slots_of[0]), sets.n_experts)
    costs = {}
    for size in range(max(1, sets.n_experts - (cluster.gpus - 1) * slots), slots + 1):
        for block in combinations(range(sets.n_experts), size):
            if problem.load_cap is None or sum(int(sets.load[e]) for e in block) <= problem.load_cap:
                held = [len(row & set(block)) for row in members]
                if problem.objective == "fan-out":
                    cost = sum(w for w, n in zip(weights, held, strict=True) if n)
                else:
                    cost = -sum(w * n * (n - 1) // 2 for w, n in zip(weights, held, strict=True))
                costs[block] = unit * cost
    return costs


def reduced_of(costs: Mapping[Block, int], numbers: Mapping[str, Any]) -> dict[Block, int]:
    """The reduced cost of each block, by the definition."""
    triples = list(zip(numbers.get("triples", []), numbers.get("discounts", []), strict=True))
    return {
        block: numbers["scale"] * cost
        - sum(numbers["prices"][e] for e in block)
        - numbers["group_price"]
        + sum(discount for triple, discount in triples if len(set(triple) & set(block)) >= 2)
        for block, cost in costs.items()
    }


def priced(problem: Problem, numbers: Mapping[str, Any]) -> BlockPrices:
    return BlockPrices(**{**numbers, "triples": [], "discounts": []})


def shared_prices(problem: Problem, costs: Mapping[Block, int], *, scale: int, seed: int) -> list[int]:
    """Each expert pays its share of a block of a random partition, blurred a little."""
    rng = np.random.default_rng(seed)
    order, gpus = rng.permutation(problem.workload.n_experts), problem.cluster.gpus
    prices = rng.integers(-scale, scale + 1, len(order))
    for part in np.array_split(order, min(gpus, len(order))):
        block = tuple(sorted(part.tolist()))
        prices[part] += scale * costs.get(block, 0) // len(block)
    return [int(price) for price in prices]


def with_group(
    problem: Problem, costs: Mapping[Block, int], numbers: dict[str, Any], *, searched: int
) -> dict[str, Any]:
    """The numbers with the largest group price that leaves no reduced cost negative, and the dual that follows."""
    least = min(reduced_of(costs, {**numbers, "group_price": 0}).values(), default=0)
    group = least if Frame.of(problem).full else min(least, 0)
    dual = sum(numbers["prices"]) + problem.cluster.gpus * group - sum(numbers.get("discounts", []))
    return {**numbers, "group_price": group, "dual": dual, "searched": searched}


@SLOW
@given(problem=layers(), data=st.data())
def test_its_listing_is_that_of_plain_enumeration(problem: Problem, data: st.DataObject) -> None:
    costs = costs_of(problem)
    scale, seed = data.draw(st.sampled_from([1, 4, 1024])), data.draw(st.integers(0, 2**32 - 1))
    if data.draw(st.booleans()):
        prices = shared_prices(problem, costs, scale=scale, seed=seed)
    else:
        prices = (
            np.random.default_rng(seed).integers(-50 * scale, 50 * scale, problem.workload.n_experts).tolist()
        )
    numbers = with_group(problem, costs, {"scale": scale, "prices": prices}, searched=-1)
    reduced = reduced_of(costs, numbers)
    searched = data.draw(st.sampled_from([-1, 0, *sorted(reduced.values())]))
    assert listed_costs(problem, {**numbers, "searched": searched}) == {
        block: costs[block] for block, value in reduced.items() if value <= searched
    }


@SLOW
@given(problem=layers(), data=st.data())
def test_it_names_a_block_of_negative_reduced_cost_exactly_when_there_is_one(
    problem: Problem, data: st.DataObject
) -> None:
    costs = costs_of(problem)
    prices = shared_prices(problem, costs, scale=4, seed=data.draw(st.integers(0, 2**32 - 1)))
    numbers = with_group(problem, costs, {"scale": 4, "prices": prices}, searched=-1)
    numbers["group_price"] += data.draw(st.integers(-2, 2))
    reduced = reduced_of(costs, numbers)
    listed = near_contents(problem, priced(problem, numbers))
    if min(reduced.values(), default=0) >= 0:
        assert not isinstance(listed, str)
        assert not any(len(blocks) for blocks, _ in listed)
    else:
        wrong = {
            f"block {list(block)} has reduced cost {value}, below 0"
            for block, value in reduced.items()
            if value < 0
        }
        assert listed in wrong


@pytest.mark.parametrize("objective", ["fan-out", "cut"])
@pytest.mark.parametrize("tolerance", [None, "0.1"])
def test_deep_listings_agree_with_the_table_of_all_blocks(objective: str, tolerance: str | None) -> None:
    rng = np.random.default_rng(0)
    experts = 18
    near = np.arange(experts) // 5 == rng.integers(0, 4, 400)[:, None]
    rows = [rng.choice(experts, 4, replace=False, p=(n * 4 + 1) / (n * 4 + 1).sum()) for n in near]
    problem = Problem.from_trace(
        Trace(np.array(rows)[:, None, :], experts),
        Cluster(1, 3, 7),
        objective=objective,
        load_tolerance=tolerance,
    )
    (sets,) = problem.workload.layers
    weights = problem.set_weights(sets)
    affinity = sets.affinity(weights)
    share = 0.6 if objective == "fan-out" else -0.4
    numbers = {
        "scale": 1024,
        "prices": (share * 1024 * sets.load).astype(np.int64).tolist(),
        "group_price": 0,
    }
    costs: dict[Block, int] = {}
    for size in (4, 5, 6, 7):
        blocks = lexicographic(experts, size)
        if objective == "fan-out":
            own = meeting_weight(experts, size, len(blocks), sets.members, weights)
        else:
            own = -sum(affinity[blocks[:, i], blocks[:, j]] for i, j in combinations(range(size), 2))
        allowed = sets.load[blocks].sum(axis=1) <= (problem.load_cap or sets.load.sum())
        costs |= dict(zip(map(tuple, blocks[allowed].tolist()), own[allowed].tolist(), strict=True))
    numbers = with_group(problem, costs, numbers, searched=-1)
    reduced = reduced_of(costs, numbers)
    for searched in (-1, sorted(reduced.values())[30], sorted(reduced.values())[3000]):
        assert listed_costs(problem, {**numbers, "searched": searched}) == {
            block: costs[block] for block, value in reduced.items() if value <= searched
        }


def proof_of(problem: Problem, numbers: Mapping[str, Any]) -> Proof:
    """The proof that claims what its numbers say."""
    frame = Frame.of(problem)
    outer = priced(problem, {name: value for name, value in numbers.items() if name != "inner"})
    bound = frame.proved(outer)
    if numbers["inner"] is not None:
        bound = min(bound, frame.proved(BlockPrices(**numbers["inner"])))
    return Proof(0, problem.workload.digest, "priced", bound, numbers=numbers)


def searched_numbers(problem: Problem, *, seed: int, share: float, budget: int) -> dict[str, Any]:
    """Right numbers: of all blocks, the `share` of least reduced cost is searched, with prices of its own."""
    rng = np.random.default_rng(seed)
    costs = costs_of(problem)
    prices = shared_prices(problem, costs, scale=8, seed=seed)
    outer = with_group(problem, costs, {"scale": 8, "prices": prices}, searched=-1)
    reduced = reduced_of(costs, outer)
    searched = max([0, *sorted(reduced.values())[: int(share * len(reduced))]])
    near = {block: costs[block] for block, value in reduced.items() if value <= searched}
    every = list(combinations(range(problem.workload.n_experts), 3))
    triples = [list(every[i]) for i in rng.permutation(len(every))[:3]]
    inner = {
        "scale": 4,
        "prices": shared_prices(problem, costs, scale=4, seed=seed + 1),
        "triples": triples,
        "discounts": rng.integers(0, 9, len(triples)).tolist(),
    }
    return {**outer, "searched": searched, "inner": with_group(problem, near, inner, searched=budget)}


@SLOW
@given(problem=layers(most_experts=7, most_slots=4, most_gpus=4), seed=st.integers(0, 2**32 - 2))
def test_prices_alone_prove_a_bound_below_every_placement(problem: Problem, seed: int) -> None:
    costs = costs_of(problem)
    prices = shared_prices(problem, costs, scale=8, seed=seed)
    numbers = with_group(problem, costs, {"scale": 8, "prices": prices}, searched=-1)
    proof = proof_of(problem, {**numbers, "inner": None})
    least = least_cost(problem)
    assert check_priced(problem, proof) == ""
    assert least is None or proof.bound <= least


@SLOW
@given(
    problem=layers(most_experts=7, most_slots=4, most_gpus=4),
    seed=st.integers(0, 2**32 - 2),
    share=st.sampled_from([0, 0.1, 0.5, 1]),
    budget=st.sampled_from([-1, 0, 20, 500]),
)
def test_right_numbers_are_accepted_exactly_when_no_placement_costs_less(
    problem: Problem, seed: int, share: float, budget: int
) -> None:
    proof = proof_of(problem, searched_numbers(problem, seed=seed, share=share, budget=budget))
    least = least_cost(problem)
    refused = least is not None and least < proof.bound
    reason = f"a placement cheaper than the bound {proof.bound} exists" if refused else ""
    assert check_priced(problem, proof) == reason


def least_cost(problem: Problem) -> int | None:
    """The cost of the best placement; None when no placement is admissible."""
    try:
        return brute_force(problem)[0]
    except ValueError:
        return None


def listed_costs(problem: Problem, numbers: Mapping[str, Any]) -> dict[Block, int]:
    """The listed blocks with their costs; none comes twice."""
    listed = near_contents(problem, priced(problem, numbers))
    assert not isinstance(listed, str), listed
    pairs = [
        (tuple(row), cost)
        for blocks, costs in listed
        for row, cost in zip(blocks.tolist(), costs.tolist(), strict=True)
    ]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


@pytest.fixture
def problem() -> Problem:
    rng = np.random.default_rng(0)
    rows = [rng.permutation(4)[:2] + 4 * (i % 2) for i in range(30)] + [
        rng.permutation(8)[:2] for _ in range(9)
    ]
    return Problem.from_trace(Trace(np.array(rows)[:, None, :], 8), Cluster(1, 3, 4))


def small_numbers(problem: Problem) -> dict[str, Any]:
    return searched_numbers(problem, seed=3, share=0.3, budget=6)


def test_a_whole_certificate_of_the_kind_is_accepted(problem: Problem) -> None:
    proof = proof_of(problem, small_numbers(problem))
    assert check_layer(problem, proof, placement=None) == ""
    rng = np.random.default_rng(0)
    rows = [rng.permutation(4)[:2] + 4 * (i % 2) for i in range(30)] + [
        rng.permutation(8)[:2] for _ in range(9)
    ]
    certificate = Certificate.of_layer(problem, proof, placement=None)
    assert verify(certificate.to_dict(), Trace(np.array(rows)[:, None, :], 8)).accepted


def inner_with(**changed: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda numbers: {**numbers, "inner": {**numbers["inner"], **changed}}


ALTERED: list[tuple[Callable[[dict[str, Any]], dict[str, Any]], str]] = [
    (lambda n: {**n, "scale": 3}, "scale must be a power of two, found 3"),
    (lambda n: {**n, "scale": 16}, "the numbers prove"),
    (lambda n: {**n, "scale": 4}, "has reduced cost -.*, below 0"),
    (lambda n: {**n, "scale": 0}, "scale 0 must be at least 1"),
    (lambda n: {**n, "scale": True}, "expected whole numbers, found True"),
    (lambda n: {**n, "scale": 1 << 62}, "prices too large to be checked in 64-bit arithmetic"),
    (lambda n: {**n, "scale": 1 << 55}, "prices too large to be checked in 64-bit arithmetic"),
    (lambda n: {**n, "dual": n["dual"] + 1}, "the prices sum to .*, the certificate says"),
    (lambda n: {**n, "dual": float(n["dual"])}, "expected whole numbers, found"),
    (lambda n: {**n, "prices": n["prices"][1:]}, "expected 8 prices"),
    (lambda n: {**n, "prices": tuple(n["prices"])}, "must be lists"),
    (lambda n: {**n, "prices": [n["prices"][0] + 1, *n["prices"][1:]]}, "the prices sum to"),
    (
        lambda n: {**n, "prices": [n["prices"][0] + 400, *n["prices"][1:]], "dual": n["dual"] + 400},
        "block .* has reduced cost -.*, below 0",
    ),
    (
        lambda n: {**n, "prices": [1 << 62, *n["prices"][1:]], "dual": 0},
        "prices too large to be checked in 64-bit arithmetic",
    ),
    (
        lambda n: {**n, "group_price": 1, "dual": n["dual"] - 3 * n["group_price"] + 3},
        "the price of a GPU must not be positive where one may stay empty, found 1",
    ),
    (
        lambda n: {**n, "group_price": n["group_price"] + 1, "dual": n["dual"] + 3},
        "block .* has reduced cost -1, below 0",
    ),
    (lambda n: {**n, "searched": -2}, "searched -2 at least -1"),
    (lambda n: {**n, "searched": 1 << 62}, "at least -1"),
    (
        lambda n: {**n, "searched": -1},
        "a search needs inner prices, and only a search: searched -1, inner prices",
    ),
    (
        lambda n: {**n, "inner": None},
        "a search needs inner prices, and only a search: searched .*, no inner prices",
    ),
    (lambda n: {**n, "inner": []}, r"inner must be an object or nothing, found \[\]"),
    (lambda n: {name: value for name, value in n.items() if name != "inner"}, r"expected \['dual', "),
    (lambda n: {**n, "triples": []}, r"expected \['dual', "),
    (lambda n: {**n, "inner": {"scale": 1}}, r"inner prices: expected \['discounts', "),
    (inner_with(scale=5), "inner prices: scale must be a power of two, found 5"),
    (inner_with(scale=1 << 62), "inner prices: prices too large"),
    (inner_with(dual=0), "inner prices: the prices sum to .*, the certificate says 0"),
    (inner_with(discounts=[-1, 0, 0]), "inner prices: discounts must not be negative, found -1"),
    (inner_with(discounts=[0, 0]), "inner prices: expected 8 prices and a discount for each triple"),
    (inner_with(triples=[[1, 0, 2]] * 3), "inner prices: a triple must be three ascending experts below 8"),
    (
        lambda n: inner_with(group_price=1, dual=n["inner"]["dual"] - 3 * n["inner"]["group_price"] + 3)(n),
        "inner prices: the price of a GPU must not be positive where one may stay empty, found 1",
    ),
    (
        lambda n: inner_with(
            prices=[n["inner"]["prices"][0] + 300, *n["inner"]["prices"][1:]], dual=n["inner"]["dual"] + 300
        )(n),
        "the numbers prove",
    ),
]


@pytest.mark.parametrize(("alter", "words"), ALTERED)
def test_altered_numbers_are_refused_with_the_reason(
    problem: Problem, alter: Callable[[dict[str, Any]], dict[str, Any]], words: str
) -> None:
    proof = proof_of(problem, small_numbers(problem))
    altered = replace(proof, numbers=alter(dict(proof.numbers)))
    assert re.search(words, check_layer(problem, altered, placement=None))


@pytest.mark.parametrize("change", [-1, 1])
def test_the_bound_is_what_the_numbers_prove(problem: Problem, change: int) -> None:
    proof = proof_of(problem, small_numbers(problem))
    altered = replace(proof, bound=proof.bound + change)
    assert (
        check_priced(problem, altered)
        == f"the numbers prove {proof.bound}, the certificate says {altered.bound}"
    )


def test_inner_prices_of_a_negative_reduced_cost_are_refused_even_when_the_bound_follows(
    problem: Problem,
) -> None:
    numbers = small_numbers(problem)
    dear = {**numbers["inner"], "group_price": numbers["inner"]["group_price"] + 1}
    proof = proof_of(problem, {**numbers, "inner": {**dear, "dual": dear["dual"] + 3}})
    assert re.search("inner prices: block .* has reduced cost -1, below 0", check_priced(problem, proof))


def test_a_listing_without_end_is_refused(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    proof = proof_of(problem, small_numbers(problem))
    monkeypatch.setattr(priced_checker, "MOST_NEAR", 2)
    assert "more than 2 blocks have a reduced cost of at most" in check_priced(problem, proof)
    monkeypatch.setattr(priced_checker, "MOST_NEAR", 100)
    monkeypatch.setattr(priced_checker, "MOST_STEPS", 3)
    assert re.search("listing the blocks of . experts takes more than 3 steps", check_priced(problem, proof))


@pytest.mark.parametrize(
    ("cluster", "replicas", "words"),
    [
        (Cluster(1, 2, 5), 1, "placements without replicas, the budget is 1"),
        (Cluster(1, 2, (4, 5)), 0, "GPUs with equal slots"),
        (Cluster(2, 2, 2, node_cost=1), 0, "cannot see nodes, the node cost is 1"),
    ],
)
def test_problems_that_blocks_do_not_state_are_refused(cluster: Cluster, replicas: int, words: str) -> None:
    problem = Problem.from_trace(Trace(np.arange(8)[:, None, None], 8), cluster, replicas=replicas)
    assert words in check_priced(problem, Proof(0, problem.workload.digest, "priced", 0))


@given(alone=st.integers(1, 1 << 40), scale=st.integers(1, 1 << 15), others=st.integers(1, 9), data=st.data())
def test_the_share_of_an_expert_bounds_every_way_to_share(
    alone: int, scale: int, others: int, data: st.DataObject
) -> None:
    """Sets of total weight `alone`, each with some of the others: a set with y of them is shared by y + 1 experts."""
    cuts = sorted(data.draw(st.lists(st.integers(0, alone), min_size=others, max_size=others)))
    weights = [after - before for before, after in pairwise([0, *cuts, alone])]
    together = sum(weight * y for y, weight in enumerate(weights))
    share = scale * sum(Fraction(weight * y, y + 1) for y, weight in enumerate(weights))
    assert (
        share
        <= _share(True, scale, alone, together, others)
        <= scale * Fraction(alone * others, others + 1) + 1
    )
