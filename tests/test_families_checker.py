"""The check of prices for several mixtures: a bound is accepted exactly when no placement is below it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import moeopt.families_checker as families_checker
import moeopt.priced_checker as priced_checker
from moeopt.certificate import Proof
from moeopt.cluster import Cluster
from moeopt.expert_sets import ExpertSets
from moeopt.families_checker import check_families
from moeopt.families_recount import (
    COMPLETE,
    FOUND,
    LONG,
    Closing,
    Tokens,
    cover_below,
    pairs_inside,
    tokens_meeting,
)
from moeopt.pair_counts import PairCounts
from moeopt.problem import Problem
from moeopt.risk import Risk
from moeopt.trace import Trace
from tests.families_strategies import tail_problems

Block = tuple[int, ...]
Numbers = dict[str, Any]
SLOW = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
TOO_LARGE = "prices too large to be checked in 64-bit arithmetic"


def family_costs(problem: Problem) -> tuple[dict[Block, list[int]], list[int]]:
    """(what every admissible block costs each family, what a family pays beside its blocks), by the definition."""
    (sets,) = problem.workload.layers
    unit, fan_out = problem.cluster.further_gpu, problem.objective == "fan-out"
    members, counts = [set(row) for row in sets.members.tolist()], sets.counts.tolist()
    slots = min(int(problem.cluster.slots_of[0]), sets.n_experts)
    costs = {}
    for size in range(max(1, sets.n_experts - (problem.cluster.gpus - 1) * slots), slots + 1):
        for block in combinations(range(sets.n_experts), size):
            if problem.load_cap is not None and sum(int(sets.load[e]) for e in block) > problem.load_cap:
                continue
            held = [len(row & set(block)) for row in members]
            times = [min(n, 1) if fan_out else -n * (n - 1) // 2 for n in held]
            costs[block] = [
                unit * sum(t * own[f] for t, own in zip(times, counts, strict=True))
                for f in range(len(problem.workload.families))
            ]
    pairs = sets.top_k * (sets.top_k - 1) // 2
    return costs, [unit * (-1 if fan_out else pairs) * sum(own) for own in sets.counts.T.tolist()]


def risk_of(problem: Problem) -> Risk:
    assert problem.risk is not None
    return problem.risk


def full(problem: Problem) -> bool:
    experts = problem.workload.n_experts
    return problem.cluster.gpus * min(int(problem.cluster.slots_of[0]), experts) == experts


def reduced_of(costs: Mapping[Block, list[int]], numbers: Numbers) -> dict[Block, int]:
    """The reduced cost of each block under the weights, by the definition."""
    triples = list(zip(numbers.get("triples", []), numbers.get("discounts", []), strict=True))
    return {
        block: numbers["scale"] * sum(q * c for q, c in zip(numbers["weights"], own, strict=True))
        - sum(numbers["prices"][e] for e in block)
        - numbers["group_price"]
        + sum(discount for triple, discount in triples if len(set(triple) & set(block)) >= 2)
        for block, own in costs.items()
    }


def budget_of(problem: Problem, numbers: Numbers, *, bound: int) -> int:
    """What reduced costs of a placement below the bound may sum to, by the definition."""
    multiple = risk_of(problem).multiple(numbers["weights"])
    _, offsets = family_costs(problem)
    offset = sum(q * c for q, c in zip(numbers["weights"], offsets, strict=True))
    dual = sum(numbers["prices"]) + problem.cluster.gpus * numbers["group_price"]
    dual -= sum(numbers.get("discounts", []))
    limit = Fraction(bound - 1) / multiple
    return int(numbers["scale"] * (limit.numerator // limit.denominator - offset) - dual)


def with_group(problem: Problem, costs: Mapping[Block, list[int]], numbers: Numbers) -> Numbers:
    """With the largest group price that leaves no reduced cost negative."""
    least = min(reduced_of(costs, {**numbers, "group_price": 0}).values(), default=0)
    return {**numbers, "group_price": least if full(problem) else min(least, 0)}


def random_set(
    problem: Problem, costs: Mapping[Block, list[int]], *, rng: np.random.Generator, plain: bool, inner: bool
) -> Numbers:
    """Right weights and prices: random ones, or prices of 0 where `plain`."""
    experts, gpus = problem.workload.n_experts, problem.cluster.gpus
    weights = [int(rng.integers(0, 4)) if mass else 0 for mass in risk_of(problem).masses]
    if not any(weights) or rng.random() < 0.3:
        weights = list(risk_of(problem).units)
    scale = int(rng.choice([1, 4, 1024]))
    numbers: Numbers = {"weights": weights, "scale": scale, "prices": [0] * experts}
    if not plain:
        prices = rng.integers(-scale, scale + 1, experts)
        for part in np.array_split(rng.permutation(experts), min(gpus, experts)):
            own = costs.get(tuple(sorted(part.tolist())), [0] * len(weights))
            prices[part] += scale * sum(q * c for q, c in zip(weights, own, strict=True)) // len(part)
        numbers["prices"] = prices.tolist()
    if inner:
        every = list(combinations(range(experts), 3))
        count = 0 if plain else min(3, len(every))
        numbers["triples"] = [list(every[i]) for i in rng.permutation(len(every))[:count]]
        numbers["discounts"] = rng.integers(0, 2 * scale, count).tolist()
    return with_group(problem, costs, numbers)


def right_numbers(
    problem: Problem, *, bound: int, seed: int = 0, sets: int = 2, plain: bool = False
) -> Numbers:
    """Numbers of which the check has nothing to say but whether a placement is below the bound."""
    rng = np.random.default_rng(seed)
    left, _ = family_costs(problem)
    given: list[Numbers] = []
    for index in range(1 + sets):
        own = random_set(problem, left, rng=rng, plain=plain, inner=index > 0)
        given.append(own)
        budget = budget_of(problem, own, bound=bound)
        if budget < 0:
            break
        reduced = reduced_of(left, own)
        left = {block: costs for block, costs in left.items() if reduced[block] <= budget}
    return {"outer": given[0], "inner": given[1:]}


def proof_of(problem: Problem, numbers: Numbers, *, bound: int) -> Proof:
    return Proof(5, problem.workload.digest, "families", bound, numbers=numbers)


def said(problem: Problem, numbers: Numbers, *, bound: int) -> str:
    """What the check says, of malformed numbers too."""
    try:
        return check_families(problem, proof_of(problem, numbers, bound=bound))
    except ValueError as error:
        return str(error)


def least_cost(problem: Problem) -> int | None:
    """The objective of the best placement; None when no placement is admissible."""
    return min((problem.cost(candidate) for candidate in problem.candidates()), default=None)


@SLOW
@given(
    problem=tail_problems(),
    seed=st.integers(0, 2**32 - 1),
    sets=st.integers(0, 3),
    plain=st.booleans(),
    nodes=st.booleans(),
)
def test_a_bound_is_accepted_exactly_when_no_placement_is_below_it(
    problem: Problem, seed: int, sets: int, plain: bool, nodes: bool
) -> None:
    if nodes:  # every GPU a node of its own
        cluster = problem.cluster
        problem = replace(problem, cluster=Cluster(cluster.gpus, 1, cluster.slots, node_cost=2))
    least = least_cost(problem)
    known = 7 if least is None else least
    for bound in {0, 1, known - 1, known, known + 1, known + 40}:
        if bound >= 0:
            numbers = right_numbers(problem, bound=bound, seed=seed, sets=sets, plain=plain)
            below = least is not None and least < bound
            reason = f"a placement below the bound {bound} exists" if below else ""
            assert said(problem, numbers, bound=bound) == reason


@SLOW
@given(problem=tail_problems(), seed=st.integers(0, 2**32 - 1), change=st.integers(1, 3), data=st.data())
def test_a_negative_reduced_cost_is_named_exactly_when_there_is_one(
    problem: Problem, seed: int, change: int, data: st.DataObject
) -> None:
    bound = max(1, least_cost(problem) or 1)
    numbers = right_numbers(problem, bound=bound, seed=seed)
    given = [numbers["outer"], *numbers["inner"]]
    index = data.draw(st.integers(0, len(given) - 1))
    given[index] = {**given[index], "group_price": given[index]["group_price"] + change}
    assume(full(problem) or given[index]["group_price"] <= 0)
    name = "outer" if index == 0 else f"inner set {index - 1}"
    left, _ = family_costs(problem)
    for own in given[:index]:
        reduced, budget = reduced_of(left, own), budget_of(problem, own, bound=bound)
        left = {block: costs for block, costs in left.items() if reduced[block] <= budget}
    assume(budget_of(problem, given[index], bound=bound) >= 0 or index == len(given) - 1)
    wrong = {
        f"{name}: block {list(block)} has reduced cost {value}, below 0"
        for block, value in reduced_of(left, given[index]).items()
        if value < 0
    }
    found = said(problem, {"outer": given[0], "inner": given[1:]}, bound=bound)
    assert found in wrong if wrong else "reduced cost" not in found


@pytest.mark.parametrize("objective", ["fan-out", "cut"])
@pytest.mark.parametrize("tail", ["0", "0.1234567", "1/3"])
@pytest.mark.parametrize("tolerance", [None, "0.3"])
@pytest.mark.parametrize("cluster", [Cluster(1, 3, 2), Cluster(1, 3, 4), Cluster(4, 1, 2, node_cost=2)])
def test_masses_caps_and_empty_gpus(
    objective: str, tail: str, tolerance: str | None, cluster: Cluster
) -> None:
    """Three families whose shares have no small denominator, rounded where the tail is a share."""
    rng = np.random.default_rng(1)
    rows = [rng.choice(6, 3, replace=False, p=(w := rng.random(6) + 0.1) / w.sum()) for _ in range(31)]
    trace = Trace(
        np.array(rows)[:, None, :],
        6,
        families=("code", "math", "chat"),
        family=np.repeat(np.arange(3), [7, 11, 13]).astype(np.uint8),
    )
    problem = Problem.from_trace(
        trace, cluster, objective=objective, load_tolerance=tolerance, tail=tail,
        family_weights={"code": 0.31, "math": 0.127, "chat": 0.7},
    )  # fmt: skip
    least = least_cost(problem)
    assert least is not None
    for seed in range(3):
        numbers = right_numbers(problem, bound=least, seed=seed)
        assert said(problem, numbers, bound=least) == ""
        numbers = right_numbers(problem, bound=least + 1, seed=seed)
        assert said(problem, numbers, bound=least + 1) == f"a placement below the bound {least + 1} exists"


@pytest.fixture(scope="module")
def problem() -> Problem:
    """Eight experts on three GPUs of four slots; two families that pull apart."""
    rng = np.random.default_rng(0)
    rows = [rng.permutation(4)[:2] + 4 * (i % 2) for i in range(30)]
    rows += [2 * rng.permutation(4)[:2] + i % 2 for i in range(9)]
    family = np.repeat([0, 1], [30, 9]).astype(np.uint8)
    trace = Trace(np.array(rows)[:, None, :], 8, families=("code", "math"), family=family)
    return Problem.from_trace(trace, Cluster(1, 3, 4), tail="0")


@pytest.fixture(scope="module")
def bound(problem: Problem) -> int:
    least = least_cost(problem)
    assert least is not None
    return least


@pytest.fixture(scope="module")
def numbers(problem: Problem, bound: int) -> Numbers:
    right = right_numbers(problem, bound=bound, seed=5, sets=2)
    assert len(right["inner"]) == 2
    assert said(problem, right, bound=bound) == ""
    return right


def outer_with(**changed: Any) -> Callable[[Numbers], Numbers]:
    return lambda numbers: {**numbers, "outer": {**numbers["outer"], **changed}}


def shifted(own: Numbers) -> Numbers:
    """The prices, a large part of one expert's paid by another: of the same dual."""
    first, second, *rest = own["prices"]
    return {**own, "prices": [first + (1 << 20), second - (1 << 20), *rest]}


def second_with(**changed: Any) -> Callable[[Numbers], Numbers]:
    return lambda n: {**n, "inner": [n["inner"][0], {**n["inner"][1], **changed}]}


ALTERED: list[tuple[Callable[[Numbers], Numbers], str]] = [
    (lambda n: {"outer": n["outer"]}, r"expected \['inner', 'outer'\], found \['outer'\]"),
    (lambda n: {**n, "dual": 0}, r"expected \['inner', 'outer'\], found \['dual', "),
    (lambda n: {**n, "outer": None}, "outer must be an object, found None"),
    (lambda n: {**n, "inner": {}}, r"inner must be a list, found \{\}"),
    (lambda n: {**n, "inner": [n["inner"][0], 7]}, "inner set 1 must be an object, found 7"),
    (outer_with(triples=[]), r"outer: expected \['group_price', .*'triples'"),
    (second_with(searched=0), r"inner set 1: expected \['discounts', .*'searched'"),
    (lambda n: {**n, "inner": [n["outer"]]}, r"inner set 0: expected \['discounts', "),
    (outer_with(scale=3), "outer: scale must be a power of two, found 3"),
    (outer_with(scale=0), "outer: scale 0 must be at least 1"),
    (outer_with(scale=True), "outer: expected whole numbers, found True"),
    (outer_with(scale=1 << 62), f"outer: {TOO_LARGE}"),
    (outer_with(scale=1 << 57), f"outer: {TOO_LARGE}"),
    (outer_with(group_price=1), "outer: the price of a GPU must not be positive .*, found 1"),
    (outer_with(group_price=0.5), "outer: expected whole numbers, found 0.5"),
    (outer_with(group_price=-(1 << 61)), f"outer: {TOO_LARGE}"),
    (outer_with(prices=[0] * 7), "outer: expected 8 prices"),
    (outer_with(prices="prices"), "outer: prices, triples and discounts must be lists"),
    (outer_with(prices=[1 << 62] + [0] * 7), f"outer: {TOO_LARGE}"),
    (outer_with(prices=[10**300] + [0] * 7), f"outer: {TOO_LARGE}"),
    (lambda n: {**n, "outer": shifted(n["outer"])}, "outer: block .* has reduced cost -.*, below 0"),
    (outer_with(weights=[1]), "outer: a weight for each of 2 families is needed, found 1"),
    (outer_with(weights=[1, 1, 0]), "outer: a weight for each of 2 families is needed, found 3"),
    (outer_with(weights=(1, 1)), r"outer: weights must be a list, found \(1, 1\)"),
    (outer_with(weights=[1, -1]), "outer: family 1 of mass 1 must not weigh -1"),
    (outer_with(weights=[0, 0]), "outer: some family must weigh more than 0"),
    (outer_with(weights=[True, 1]), "outer: expected whole numbers, found True"),
    (outer_with(weights=[1, 1.0]), "outer: expected whole numbers, found 1.0"),
    (outer_with(weights=[1, "1"]), "outer: expected whole numbers, found '1'"),
    (outer_with(weights=[1 << 62, 1]), f"outer: a weight must be below {1 << 62}, found {1 << 62}"),
    (outer_with(weights=[10**200, 1]), f"outer: a weight must be below {1 << 62}, found 1000000000"),
    (outer_with(weights=[1 << 61, 1]), "outer: objective too large for exact 64-bit arithmetic"),
    (second_with(weights=[1, -1]), "inner set 1: family 1 of mass 1 must not weigh -1"),
    (second_with(scale=5), "inner set 1: scale must be a power of two, found 5"),
    (second_with(scale=1 << 57), f"inner set 1: {TOO_LARGE}"),
    (second_with(group_price=1), "inner set 1: the price of a GPU must not be positive .*, found 1"),
    (second_with(triples=[[0, 1, 8]], discounts=[1]), "inner set 1: a triple must be three ascending"),
    (second_with(triples=[[0, 1, 2]], discounts=[]), "inner set 1: expected 8 prices and a discount for"),
    (second_with(triples=[[0, 1, 2]], discounts=[-1]), "inner set 1: discounts must not be negative, found -1"),
    (second_with(triples=[[0, 1, 2]], discounts=[1 << 62]), f"inner set 1: {TOO_LARGE}"),
    (
        lambda n: {**n, "inner": [n["inner"][0], shifted(n["inner"][1])]},
        "inner set 1: block .* has reduced cost -.*, below 0",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("alter", "words"), ALTERED)
def test_altered_numbers_are_refused_with_the_reason(
    problem: Problem, bound: int, numbers: Numbers, alter: Callable[[Numbers], Numbers], words: str
) -> None:
    assert re.match(words, said(problem, alter(numbers), bound=bound))


@pytest.mark.parametrize(
    ("claimed", "words"),
    [
        (-3, "weights of families prove bounds of at least 0, found -3"),
        (1 << 61, f"outer: {TOO_LARGE}"),
        (1 << 62, TOO_LARGE),
        (10**300, TOO_LARGE),
    ],
)
def test_bounds_below_nothing_or_too_large_are_refused(
    problem: Problem, numbers: Numbers, claimed: int, words: str
) -> None:
    assert said(problem, numbers, bound=claimed) == words


@pytest.fixture
def halves(problem: Problem) -> Problem:
    """The same traffic on two full GPUs: every split costs something."""
    return replace(problem, cluster=Cluster(1, 2, 4))


def split_prices(problem: Problem, *, inner: bool) -> Numbers:
    """Each expert pays its part of the sets that hold it, and a GPU what no split avoids."""
    costs, _ = family_costs(problem)
    (sets,) = problem.workload.layers
    weights = list(risk_of(problem).units)
    load = sets.weighted_load(sets.counts @ np.array(weights))
    own = {"weights": weights, "scale": 8, "prices": (8 * load // sets.top_k).tolist()}
    return with_group(problem, costs, {**own, "triples": [], "discounts": []} if inner else own)


def test_a_negative_budget_ends_the_proof(halves: Problem) -> None:
    outer, inner = split_prices(halves, inner=False), split_prices(halves, inner=True)
    loose = {**outer, "prices": [0] * 8, "group_price": -10_000}
    dear = outer["group_price"] + 1
    budget = budget_of(halves, outer, bound=1)
    assert budget == budget_of(halves, inner, bound=1) < 0
    for numbers, reason in (
        ({"outer": outer, "inner": []}, ""),
        ({"outer": loose, "inner": [inner]}, ""),
        (
            {"outer": outer, "inner": [inner]},
            f"inner set 0 is more than the bound needs: outer has budget {budget}",
        ),
        (
            {"outer": loose, "inner": [inner, inner]},
            f"inner set 1 is more than the bound needs: inner set 0 has budget {budget}",
        ),
    ):
        assert said(halves, numbers, bound=1) == reason
    wrong = said(halves, {"outer": {**outer, "group_price": dear}, "inner": []}, bound=1)
    assert re.fullmatch(r"outer: block .* has reduced cost -1, below 0", wrong)
    wrong = said(halves, {"outer": loose, "inner": [{**inner, "group_price": dear}]}, bound=1)
    assert re.fullmatch(r"inner set 0: block .* has reduced cost -1, below 0", wrong)


def test_a_negative_budget_needs_no_search(halves: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    def search(*_: Any) -> None:
        raise AssertionError("searched")

    monkeypatch.setattr(families_checker, "cover_below", search)
    assert said(halves, {"outer": split_prices(halves, inner=False), "inner": []}, bound=1) == ""


def test_what_takes_too_long_is_refused(
    problem: Problem, bound: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = right_numbers(problem, bound=bound, plain=True, sets=1)
    monkeypatch.setattr(families_checker, "MOST_STEPS", 3)
    assert re.fullmatch(
        r"the search of \d+ blocks takes more than 3 steps", said(problem, numbers, bound=bound)
    )
    monkeypatch.setattr(families_checker, "MOST_LEFT", 5)
    assert said(problem, numbers, bound=bound) == "more than 5 blocks are within every budget"
    monkeypatch.setattr(priced_checker, "MOST_NEAR", 2)
    assert re.match(
        "outer: more than 2 blocks have a reduced cost of at most", said(problem, numbers, bound=bound)
    )


@pytest.mark.parametrize("at_once", [1, 7])
def test_blocks_may_come_in_parts(
    problem: Problem, bound: int, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(families_checker, "AT_ONCE", at_once)
    assert said(problem, right_numbers(problem, bound=bound), bound=bound) == ""
    assert "below the bound" in said(problem, right_numbers(problem, bound=bound + 1), bound=bound + 1)


def test_pair_counts_prove_the_cut(problem: Problem) -> None:
    sets = problem.workload.layers[0]
    workload = replace(problem.workload, layers=(PairCounts.of_sets(sets),))
    counted = replace(problem, workload=workload, objective="cut")
    least = least_cost(counted)
    assert least is not None
    right = right_numbers(replace(problem, objective="cut"), bound=least)
    assert said(counted, right, bound=least) == ""


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (
            {"tail": None},
            "weights of families bound the worst of them, the problem asks for the mean over all",
        ),
        ({"cluster": Cluster(1, 3, 4), "replicas": 1}, "placements without replicas, the budget is 1"),
        ({"cluster": Cluster(1, 2, (4, 5))}, "GPUs with equal slots"),
        ({"cluster": Cluster(2, 2, 2, node_cost=1)}, "cannot see nodes, the node cost is 1"),
    ],
)
def test_problems_that_blocks_do_not_state_are_refused(
    problem: Problem, changed: dict[str, Any], words: str
) -> None:
    assert words in said(replace(problem, **changed), {}, bound=1)


@settings(max_examples=60, deadline=None)
@given(
    experts=st.integers(1, 9),
    k=st.integers(1, 5),
    size=st.integers(1, 5),
    rows=st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
)
def test_its_family_costs_are_those_of_direct_counting(
    experts: int, k: int, size: int, rows: int, seed: int
) -> None:
    k, size = min(k, experts), min(size, experts)
    rng = np.random.default_rng(seed)
    drawn = np.array([rng.choice(experts, k, replace=False) for _ in range(15)])
    sets = ExpertSets.of(drawn, rng.integers(0, 3, (15, 3)) * rng.integers(1, 1 << 40), n_experts=experts)
    blocks = np.array(
        [np.sort(rng.choice(experts, size, replace=False)) for _ in range(rows)], np.int16
    )  # any order, some twice
    members = [set(row) for row in sets.members.tolist()]
    together = np.stack([sets.affinity(counts) for counts in sets.counts.T], axis=2)
    met, inside = tokens_meeting(blocks, Tokens.of(sets), 3), pairs_inside(blocks, together)
    for row, block in enumerate(blocks.tolist()):
        held = np.array([len(own & set(block)) for own in members], np.int64)
        assert met[row].tolist() == ((held > 0) @ sets.counts).tolist()
        assert inside[row].tolist() == ((held * (held - 1) // 2) @ sets.counts).tolist()


@st.composite
def closings(draw: st.DrawFn) -> Closing:
    """Random blocks of up to 3 of up to 7 experts, with any costs, reduced costs and tail."""
    experts, m, families = draw(st.integers(1, 7)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    every = [block for size in range(1, m + 1) for block in combinations(range(experts), size)]
    chosen = [block for block in every if rng.random() < draw(st.sampled_from([0.3, 0.8]))]
    padded = np.full((len(chosen), m), -1, np.int64)
    for row, block in enumerate(chosen):
        padded[row, : len(block)] = block
    largest = draw(st.sampled_from([30, (1 << 62) - 1]))
    budgets = draw(st.integers(1, 3))
    masses = rng.integers(0, 3, families)
    masses[0] += 1
    return Closing(
        padded,
        rng.integers(0, largest, (len(chosen), budgets)),
        rng.integers(0, min(3 * largest, 1 << 62), budgets),
        rng.integers(-20, 20, (len(chosen), families)),
        rng.integers(-20, 20, families),
        rng.integers(0, 3, families),
        masses,
        draw(st.integers(1, int(masses.sum()))),
        experts,
        draw(st.integers(1, 4)),
        draw(st.integers(-40, 40)),
    )


@settings(max_examples=300, deadline=None)
@given(closing=closings())
def test_its_search_finds_what_is_below_the_bound_and_within_every_budget(closing: Closing) -> None:
    blocks = [frozenset(e for e in row if e >= 0) for row in closing.blocks.tolist()]
    reduced, budgets = closing.reduced.tolist(), closing.budgets.tolist()
    risk = Risk(tuple(closing.masses.tolist()), closing.total, tuple(closing.units.tolist()))
    within = []
    for size in range(1, closing.gpus + 1):
        for chosen in combinations(range(len(blocks)), size):
            if sum(len(blocks[b]) for b in chosen) != closing.experts:
                continue
            if len(frozenset().union(*(blocks[b] for b in chosen))) != closing.experts:
                continue
            spent = closing.offsets + closing.costs[list(chosen)].sum(axis=0)
            fits = all(sum(reduced[b][k] for b in chosen) <= room for k, room in enumerate(budgets))
            if fits and risk.worst((spent * closing.units).tolist()) < closing.bound:
                within.append(chosen)
    end, _ = cover_below(closing, 1 << 40)
    assert end == (FOUND if within else COMPLETE)


def test_a_search_without_patience_ends_long() -> None:
    none, zero, one = np.zeros((0, 1), np.int64), np.zeros((1, 1), np.int64), np.ones(1, np.int64)
    closing = Closing(zero, zero, one, one[None], one, one, one, 1, 1, 1, 9)
    assert cover_below(closing, 0)[0] == LONG
    assert cover_below(closing, 9)[0] == FOUND
    assert cover_below(closing._replace(blocks=none, reduced=none, costs=none), 9)[0] == COMPLETE
