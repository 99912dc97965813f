"""The check of prices of service: the Lagrangian by its definition, and never a bound above the least cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moeopt.certificate import Certificate, Proof
from moeopt.checker import verify
from moeopt.cluster import Cluster
from moeopt.problem import Problem
from moeopt.testing import brute_force
from moeopt.trace import Trace
from moeopt.usage_checker import LARGEST, MOST_LOAD_PRICES, check_usage
from tests.replica_strategies import replica_problems

Demand = tuple[list[int], int, int]  # members, tokens, multiplier


@dataclass(frozen=True)
class Prices:
    """`sole`: of the only copy of each expert told apart; `copies`: of each expert, nothing if not given."""

    scale: int
    prices: list[list[int]]
    load_prices: list[int]
    sole: dict[int, int] = field(default_factory=dict)
    copies: list[int] = field(default_factory=list)

    def copy_price(self, expert: int) -> int:
        return self.copies[expert] if self.copies else 0


def proof_of(problem: Problem, bound: Any, numbers: Any) -> Proof:
    return Proof(problem.workload.layer_ids[0], problem.workload.digest, "usage", bound, numbers=numbers)


def demands_of(problem: Problem) -> list[Demand]:
    """By the definition, a set and a multiplier at a time."""
    (sets,) = problem.workload.layers
    found = []
    for members, counts in zip(sets.members.tolist(), sets.counts.tolist(), strict=True):
        for q in sorted(set(problem.multipliers.tolist())):
            tokens = sum(n for n, own in zip(counts, problem.multipliers.tolist(), strict=True) if own == q)
            if tokens:
                found.append((members, tokens, q))
    return found


def unit_of(problem: Problem) -> int:
    cluster = problem.cluster
    return cluster.gpu_cost + (cluster.node_cost if cluster.nodes == cluster.gpus > 1 else 0)


def parts(content: set[int], members: list[int]) -> list[list[int]]:
    """All subsets of the positions in `members` that the content holds."""
    held = [i for i, e in enumerate(members) if e in content]
    return [list(part) for size in range(len(held) + 1) for part in combinations(held, size)]


def load_of(problem: Problem, expert: int) -> int:
    return sum(tokens for members, tokens, _ in demands_of(problem) if expert in members)


def share_of(problem: Problem, own: Prices, content: set[int], sole: set[int]) -> int:
    """What a GPU contributes at least: for the best load price, of every token the best part by trying all."""
    shares = []
    for load_price in own.load_prices:
        share = -load_price * (problem.load_cap or 0)
        share -= sum(own.sole[e] if e in sole else own.copy_price(e) for e in content)
        for (members, tokens, q), row in zip(demands_of(problem), own.prices, strict=True):
            touched = own.scale * unit_of(problem) * tokens * q
            forced = {i for i, e in enumerate(members) if e in sole}
            share += min(
                touched * bool(part) - sum((0 if i in forced else row[i]) - load_price * tokens for i in part)
                for part in parts(content, members)
                if forced <= set(part)
            )
        shares.append(share)
    return max(shares)


def markings(problem: Problem, own: Prices, content: tuple[int, ...]) -> list[set[int]]:
    """Which experts of a content may be the only copies."""
    told = [e for e in content if e in own.sole]
    every = [set(sole) for size in range(len(told) + 1) for sole in combinations(told, size)]
    cap = problem.load_cap
    return [sole for sole in every if cap is None or sum(load_of(problem, e) for e in sole) <= cap]


def floors_of(problem: Problem, own: Prices) -> list[int]:
    """The least share for each number of slots, over all marked contents that fit, or fill it if all slots are used."""
    experts, slots = problem.workload.n_experts, problem.cluster.slots_of.tolist()
    share = {
        content: min(share_of(problem, own, set(content), sole) for sole in markings(problem, own, content))
        for size in range(min(max(slots), experts) + 1)
        for content in combinations(range(experts), size)
    }
    full = experts + problem.replicas >= sum(min(own_slots, experts) for own_slots in slots)
    return [
        min(
            value
            for content, value in share.items()
            if len(content) == min(own_slots, experts) or (not full and len(content) < own_slots)
        )
        for own_slots in sorted(set(slots))
    ]


def least_paid(problem: Problem, own: Prices) -> int:
    """What experts pay at least, by trying all numbers of copies."""
    experts, gpus = problem.workload.n_experts, problem.cluster.gpus
    room = sum(min(slots, experts) for slots in problem.cluster.slots_of.tolist())
    paid = [0] * experts
    for (members, _, _), row in zip(demands_of(problem), own.prices, strict=True):
        for e, price in zip(members, row, strict=True):
            paid[e] += price
    return min(
        sum(
            own.sole[e] if c == 1 and e in own.sole else paid[e] + c * own.copy_price(e)
            for e, c in enumerate(counts)
        )
        for counts in product(range(1, gpus + 1), repeat=experts)
        if sum(counts) == min(experts + problem.replicas, room)
    )


def bound_of(problem: Problem, own: Prices, floors: list[int]) -> int:
    distinct = sorted(set(problem.cluster.slots_of.tolist()))
    total = least_paid(problem, own)
    total += sum(floors[distinct.index(slots)] for slots in problem.cluster.slots_of.tolist())
    weight = sum(tokens * q for _, tokens, q in demands_of(problem))
    return -(-(total - own.scale * unit_of(problem) * weight) // own.scale)


def numbers_of(own: Prices, floors: list[int]) -> dict[str, Any]:
    """Of three experts where copies have no price."""
    return {
        "scale": own.scale,
        "prices": own.prices,
        "load_prices": own.load_prices,
        "told_apart": list(own.sole),
        "sole_prices": list(own.sole.values()),
        "copy_prices": own.copies or [0, 0, 0],
        "floors": floors,
    }


def drawn_prices(problem: Problem, rng: np.random.Generator) -> Prices:
    """Whole numbers about the size where prices matter: a GPU shared by one to k members of a token."""
    demands, k = demands_of(problem), problem.workload.top_k
    scale = int(2 ** rng.integers(0, 6))
    dearest = scale * unit_of(problem) * max(q for _, _, q in demands)
    paid = 0 if problem.load_cap is None else int(rng.integers(0, 4))
    load_prices = sorted({0, *rng.integers(0, max(1, dearest), paid).tolist()})
    prices = []
    for _, tokens, q in demands:
        free = int(rng.choice(load_prices)) * tokens
        whole = scale * unit_of(problem) * tokens * q
        prices.append(
            [free + int(whole * rng.choice([0, 1, 1, 1.3]) / rng.integers(1, k + 1)) for _ in range(k)]
        )
    experts, weights = problem.workload.n_experts, dict.fromkeys(range(problem.workload.n_experts), 0)
    for members, tokens, q in demands:
        for e in members:
            weights[e] += scale * unit_of(problem) * tokens * q
    told = sorted(rng.permutation(experts)[: rng.integers(0, experts + 1)].tolist())
    full = experts + problem.replicas >= int(np.minimum(problem.cluster.slots_of, experts).sum())
    lowest = -1.0 if full else 0.0
    return Prices(
        scale,
        prices,
        load_prices,
        {e: int(weights[e] * rng.uniform(-0.5, 2)) for e in told},
        [int(weights[e] * rng.uniform(lowest, 1) * rng.integers(0, 2)) for e in range(experts)],
    )


def climbed(problem: Problem, own: Prices, rng: np.random.Generator, *, steps: int) -> Prices:
    """Prices moved at random, kept where the bound does not fall."""
    best = bound_of(problem, own, floors_of(problem, own))
    for _ in range(steps):
        prices = [list(row) for row in own.prices]
        row = prices[rng.integers(len(prices))]
        at = rng.integers(len(row))
        row[at] = max(0, int(row[at] + (sum(row) + own.scale) * rng.normal() / 2))
        sole = {e: price + int((abs(price) + own.scale) * rng.normal() / 3) for e, price in own.sole.items()}
        moved = replace(own, prices=prices, sole=sole if rng.random() < 0.5 else own.sole)
        if (bound := bound_of(problem, moved, floors_of(problem, moved))) >= best:
            own, best = moved, bound
    return own


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(problem=replica_problems(unequal=True, nodes=True), seed=st.integers(0, 2**32 - 1), data=st.data())
def test_it_finds_the_least_share_of_every_number_of_slots(
    problem: Problem, seed: int, data: st.DataObject
) -> None:
    own = drawn_prices(problem, np.random.default_rng(seed))
    floors = floors_of(problem, own)
    bound = bound_of(problem, own, floors)
    assert check_usage(problem, proof_of(problem, bound, numbers_of(own, floors))) == ""
    at = data.draw(st.integers(0, len(floors) - 1))
    for further, words in (
        (1, f"contributes {floors[at]}, below the floor {floors[at] + 1}"),
        (-own.scale, ""),
    ):
        moved = [floor + further * (index == at) for index, floor in enumerate(floors)]
        proof = proof_of(problem, bound_of(problem, own, moved), numbers_of(own, moved))
        refused = check_usage(problem, proof)
        assert words in refused
        assert bool(refused) == bool(words)
    for wrong in (bound - 1, bound + 1):
        refused = check_usage(problem, proof_of(problem, wrong, numbers_of(own, floors)))
        assert refused == f"usage proof: the numbers prove {bound}, the certificate says {wrong}"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(problem=replica_problems(unequal=True, nodes=True), seed=st.integers(0, 2**32 - 1))
def test_no_prices_prove_more_than_the_least_cost(problem: Problem, seed: int) -> None:
    least, _ = brute_force(problem)
    rng = np.random.default_rng(seed)
    own = climbed(problem, drawn_prices(problem, rng), rng, steps=25)
    floors = floors_of(problem, own)
    bound = bound_of(problem, own, floors)
    assert least is None or bound <= least  # any bound holds where nothing can be balanced
    assert check_usage(problem, proof_of(problem, bound, numbers_of(own, floors))) == ""


def two_tokens_move(**changes: Any) -> Problem:
    """Contents {0, 1} and {0, 2} cost nothing, but the first GPU would serve 12 of 16 activations: 10 are allowed."""
    rows = np.array([[0, 1]] * 6 + [[0, 2]] * 2)
    fields = {"replicas": 1, "load_tolerance": "0.25", **changes}
    return Problem.from_trace(Trace(rows[:, None], 3), Cluster(1, 2, 2), **fields)


GOOD: Mapping[str, Any] = {
    "scale": 2,
    "prices": [[12, 12], [6, 8]],
    "load_prices": [0, 1],
    "told_apart": [],
    "sole_prices": [],
    "copy_prices": [0, 0, 0],
    "floors": [-10],
}


def test_prices_of_load_prove_what_balance_costs() -> None:
    """{0, 1} at K = 1: 12 - 2 x (12 - 6) + 4 - (6 - 2) - 10 = -10; (38 - 16 - 2 x 10) / 2 = 1."""
    problem = two_tokens_move()
    assert check_usage(problem, proof_of(problem, 1, GOOD)) == ""
    assert brute_force(problem)[0] == 2
    assert "the numbers prove 1, the certificate says 2" in check_usage(problem, proof_of(problem, 2, GOOD))


def test_the_checker_of_certificates_knows_the_kind() -> None:
    problem = two_tokens_move()
    for bound, accepted in ((1, True), (2, False)):
        certificate = Certificate.of_layer(problem, proof_of(problem, bound, GOOD), placement=None)
        verdict = verify(certificate.to_dict(), problem.workload)
        assert verdict.accepted == accepted, verdict.reason


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scale": 0}, "scale must be at least 1, found 0"),
        ({"scale": 3}, "scale must be a power of two, found 3"),
        ({"scale": True}, "scale must be a whole number, found True"),
        ({"scale": 2.0}, "scale must be a whole number, found 2.0"),
        ({"scale": 1 << 60}, "too large to be checked in 64-bit arithmetic"),
        ({"scale": 1}, "a GPU that holds [0, 1] contributes -18, below the floor -10"),
        ({"scale": 4}, "the numbers prove -3, the certificate says 1"),
        ({"prices": [[12, 12], [6, 6]]}, "the numbers prove 0, the certificate says 1"),
        ({"prices": [[12, 12], [6, 10]]}, "a GPU that holds [0, 2] contributes -12, below the floor -10"),
        ({"prices": [[12, 14], [6, 8]]}, "a GPU that holds [0, 1] contributes -12, below the floor -10"),
        ({"prices": [[12, 12], [8, 6]]}, "a GPU that holds [0, 1] contributes -12, below the floor -10"),
        ({"prices": [[12, 12]]}, "prices must list a row for each of 2 demands"),
        ({"prices": {"0": [1, 2]}}, "prices must list a row for each of 2 demands"),
        ({"prices": [[12, 12], [6]]}, "a row of prices lists 2, found [6]"),
        ({"prices": [[12, 12], (6, 8)]}, "a row of prices lists 2, found (6, 8)"),
        ({"prices": [[12, 12], [6, -1]]}, "a price must be at least 0, found -1"),
        ({"prices": [[12, 12], [6, 8.0]]}, "a price must be a whole number, found 8.0"),
        ({"prices": [[12, 12], [6, False]]}, "a price must be a whole number, found False"),
        ({"prices": [[12, 12], [6, LARGEST]]}, "too large to be checked in 64-bit arithmetic"),
        ({"load_prices": []}, f"load_prices must list 1 to {MOST_LOAD_PRICES}, found []"),
        ({"load_prices": list(range(65))}, f"load_prices must list 1 to {MOST_LOAD_PRICES}"),
        ({"load_prices": None}, f"load_prices must list 1 to {MOST_LOAD_PRICES}, found None"),
        ({"load_prices": [1]}, "load_prices must ascend from 0, found [1]"),
        ({"load_prices": [0, 2, 1]}, "load_prices must ascend from 0, found [0, 2, 1]"),
        ({"load_prices": [0, 1, 1]}, "load_prices must ascend from 0, found [0, 1, 1]"),
        ({"load_prices": [0, -1]}, "a load price must be at least 0, found -1"),
        ({"load_prices": [0, 0.5]}, "a load price must be a whole number, found 0.5"),
        ({"load_prices": [0, LARGEST]}, "too large to be checked in 64-bit arithmetic"),
        ({"load_prices": [0]}, "a GPU that holds [0, 1] contributes -14, below the floor -10"),
        ({"floors": [-9]}, "a GPU that holds [0, 1] contributes -10, below the floor -9"),
        ({"floors": [-11]}, "the numbers prove 0, the certificate says 1"),
        ({"floors": [1 << 200]}, "below the floor"),
        ({"floors": [-(1 << 200)]}, "a floor must be at least"),
        ({"floors": [-10, -10]}, "floors must list one for each of 1 numbers of slots, found [-10, -10]"),
        ({"floors": -10}, "floors must list one for each of 1 numbers of slots, found -10"),
        ({"floors": [-10.0]}, "a floor must be a whole number, found -10.0"),
        ({"told_apart": [0]}, "sole_prices must list 1, found []"),
        ({"told_apart": 0}, "told_apart must be a list, found 0"),
        ({"told_apart": [-1]}, "an expert told apart must be at least 0, found -1"),
        ({"told_apart": [True]}, "an expert told apart must be a whole number, found True"),
        ({"told_apart": [3]}, "told_apart must ascend and be below 3, found [3]"),
        ({"told_apart": [1, 0]}, "told_apart must ascend and be below 3, found [1, 0]"),
        ({"told_apart": [1, 1]}, "told_apart must ascend and be below 3, found [1, 1]"),
        ({"told_apart": [0], "sole_prices": [18.0]}, "one of sole_prices must be a whole number, found 18.0"),
        ({"told_apart": [0], "sole_prices": [16]}, "the numbers prove 0, the certificate says 1"),
        ({"told_apart": [0], "sole_prices": [19]}, "holds [0, 1], alone [0], contributes -11, below"),
        ({"sole_prices": [0]}, "sole_prices must list 0, found [0]"),
        ({"sole_prices": None}, "sole_prices must list 0, found None"),
        ({"copy_prices": [0, 0]}, "copy_prices must list 3, found [0, 0]"),
        ({"copy_prices": [0, 0, 0.0]}, "one of copy_prices must be a whole number, found 0.0"),
        ({"copy_prices": [1, 0, 0]}, "a GPU that holds [0, 1] contributes -11, below the floor -10"),
        ({"copy_prices": [0, 0, -2]}, "the numbers prove -1, the certificate says 1"),
        ({"copy_prices": [0, 0, LARGEST]}, "too large to be checked in 64-bit arithmetic"),
        ({"copy_prices": [0, 0, -LARGEST - 1]}, "one of copy_prices must be at least"),
        (
            {"more": 1},
            "expected ['copy_prices', 'floors', 'load_prices', 'prices', 'scale', 'sole_prices', 'told_apart']",
        ),
    ],
)
def test_an_altered_number_is_refused_with_its_name(change: dict[str, Any], words: str) -> None:
    problem = two_tokens_move()
    assert words in check_usage(problem, proof_of(problem, 1, {**GOOD, **change}))


@pytest.mark.parametrize("name", list(GOOD))
def test_a_missing_number_is_refused(name: str) -> None:
    problem = two_tokens_move()
    numbers = {key: value for key, value in GOOD.items() if key != name}
    for found in (numbers, None):
        refused = check_usage(problem, proof_of(problem, 1, found))
        assert (
            "expected ['copy_prices', 'floors', 'load_prices', 'prices', 'scale', 'sole_prices', 'told_apart']"
            in refused
        )


@pytest.mark.parametrize("bound", [True, 1.0, "1", None])
def test_a_bound_is_a_whole_number(bound: object) -> None:
    problem = two_tokens_move()
    assert "the bound must be a whole number" in check_usage(problem, proof_of(problem, bound, GOOD))


def test_copies_have_no_reward_where_slots_stay_free() -> None:
    """Three experts, four slots, no replicas: a reward for one more copy would pay for what no plan has to have."""
    problem = two_tokens_move(replicas=0, load_tolerance=None)
    free = {**GOOD, "load_prices": [0], "floors": [-14]}
    assert check_usage(problem, proof_of(problem, -3, free)) == ""
    found = check_usage(problem, proof_of(problem, -3, {**free, "copy_prices": [0, 0, -1]}))
    assert found == "usage proof: where slots stay free copy_prices must be at least 0, found -1"


def test_an_only_copy_serves_all_its_tokens_where_it_is() -> None:
    """{0, 1} is touched by 8 tokens, 6 + 2 paid; {0, 2} as well; {1, 2} by 8, 2 + 2 paid. 6 + 2 + 2 - 8 = 2."""
    problem = two_tokens_move(replicas=0, load_tolerance=None)
    own = Prices(1, [[0, 0], [0, 0]], [0], {0: 6, 1: 2, 2: 2})
    assert floors_of(problem, own) == [0]
    assert check_usage(problem, proof_of(problem, 2, numbers_of(own, [0]))) == ""
    assert brute_force(problem)[0] == 2
    dearer = replace(own, sole={0: 7, 1: 2, 2: 2})
    refused = check_usage(problem, proof_of(problem, 3, numbers_of(dearer, [0])))
    assert refused == "usage proof: a GPU that holds [0, 1], alone [0, 1], contributes -1, below the floor 0"


def test_without_a_load_tolerance_load_has_no_price() -> None:
    problem = two_tokens_move(load_tolerance=None)
    assert "without a load tolerance" in check_usage(problem, proof_of(problem, 1, GOOD))
    free = {**GOOD, "load_prices": [0], "floors": [-14]}
    assert check_usage(problem, proof_of(problem, -3, free)) == ""


def test_the_largest_numbers_are_checked_exactly() -> None:
    """Half of the limit each, and a price of all the tokens: sums in Python integers and in 64 bits agree."""
    problem = two_tokens_move()
    half = 1 << 59
    for prices in ([[LARGEST - 3, 0], [1, 1]], [[half, half], [half, half - 1]]):
        own = Prices(1 << 57, prices, [0, (1 << 57) - 1], {0: half}, [half, -half, half - 1])
        floors = floors_of(problem, own)
        bound = bound_of(problem, own, floors)
        assert check_usage(problem, proof_of(problem, bound, numbers_of(own, floors))) == ""
        raised = numbers_of(own, [floors[0] + 1])
        assert f"contributes {floors[0]}, below" in check_usage(problem, proof_of(problem, bound, raised))


def test_families_of_one_multiplier_are_one_demand_and_others_are_apart() -> None:
    """Three families weigh 3, 1 and 1 a token; a fourth, of weight 0, still has to be served."""
    rows = np.array([[0, 1]] * 8 + [[1, 2]] * 4)
    family = np.array([0, 0, 1, 1, 2, 2, 3, 3, 0, 0, 3, 3], np.uint8)
    names = ("a", "b", "c", "d")
    trace = Trace(rows[:, None], 3, families=names, family=family)
    weights = {"a": 6, "b": 1, "c": 1, "d": 0}
    problem = Problem.from_trace(trace, Cluster(1, 2, 2), family_weights=weights, load_tolerance="0.5")
    low, high = int(problem.multipliers[1]), int(problem.multipliers[0])
    assert demands_of(problem) == [
        ([0, 1], 2, 0),
        ([0, 1], 4, low),
        ([0, 1], 2, high),
        ([1, 2], 2, 0),
        ([1, 2], 2, high),
    ]
    prices = [[0, 0], [4 * low] * 2, [2 * high] * 2, [0, 0], [2 * high] * 2]
    own = Prices(1, prices, [0])
    floors = floors_of(problem, own)
    bound = bound_of(problem, own, floors)
    assert check_usage(problem, proof_of(problem, bound, numbers_of(own, floors))) == ""
    merged = numbers_of(replace(own, prices=prices[1:3] + prices[4:]), floors)
    assert "a row for each of 5 demands" in check_usage(problem, proof_of(problem, bound, merged))
    order = [1, 0, 2, 3, 4]  # multipliers do not ascend
    swapped = numbers_of(replace(own, prices=[prices[at] for at in order]), floors)
    assert "below the floor" in check_usage(problem, proof_of(problem, bound, swapped))


def layer_of(experts: int, cluster: Cluster, **fields: Any) -> Problem:
    rows = np.array([[e, (e + 1) % experts] for e in range(experts)])
    return Problem.from_trace(Trace(rows[:, None], experts), cluster, **fields)


def free_numbers(problem: Problem) -> dict[str, Any]:
    """No prices: they prove minus one GPU for every token."""
    sizes = len(set(problem.cluster.slots_of.tolist()))
    return {
        "scale": 1,
        "prices": [[0] * problem.workload.top_k for _ in demands_of(problem)],
        "load_prices": [0],
        "told_apart": [],
        "sole_prices": [],
        "copy_prices": [0] * problem.workload.n_experts,
        "floors": [0] * sizes,
    }


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (layer_of(4, Cluster(1, 2, 3), objective="cut"), "the objective is cut"),
        (layer_of(4, Cluster(1, 2, 3), tail="0"), "the worst of them"),
        (layer_of(4, Cluster(1, 2, 3, speeds=(1, 2)), load_tolerance="1"), "equal speed, speeds are (1, 2)"),
        (layer_of(48, Cluster(1, 8, 6)), "12271512 contents of a GPU, at most 3000000 are checked"),
        (
            Problem.from_trace(Trace(np.array([[[0, 1], [1, 2]]]), 3), Cluster(1, 2, 2)),
            "one layer, the problem has 2",
        ),
    ],
)
def test_problems_outside_of_its_scope_are_refused(problem: Problem, words: str) -> None:
    assert words in check_usage(problem, proof_of(problem, 0, GOOD))


@pytest.mark.parametrize(
    ("cluster", "unit"),
    [
        (Cluster(1, 2, 3, speeds=(1, 2)), 1),
        (Cluster(1, 4, (3, 0, 9, 1)), 1),
        (Cluster(2, 2, 2, gpu_cost=2, node_cost=5), 2),
        (Cluster(4, 1, 2, gpu_cost=2, node_cost=5), 7),
        (Cluster(2, 2, 2, gpu_cost=0, node_cost=5), 0),
        (Cluster(1, 1, 4, gpu_cost=2, node_cost=5), 2),
    ],
)
def test_without_prices_every_token_is_a_gpu_short(cluster: Cluster, unit: int) -> None:
    problem = layer_of(4, cluster)
    assert check_usage(problem, proof_of(problem, -4 * unit, free_numbers(problem))) == ""
