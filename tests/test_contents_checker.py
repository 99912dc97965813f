"""The check of proofs by contents: exact on every tiny placement, deaf to any prices that show too much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from itertools import combinations, combinations_with_replacement, product
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from moeopt.certificate import Proof
from moeopt.cluster import Cluster
from moeopt.contents_checker import cheap_contents, check_contents
from moeopt.contents_recount import cover_cost
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.testing import brute_force
from moeopt.trace import Trace
from tests.replica_strategies import replica_problems

Contents = tuple[int, ...]
NOTHING: Mapping[str, Any] = {"scale": 1, "leaves": [], "shown": 0}


def proof_of(problem: Problem, bound: Any, numbers: Any = NOTHING) -> Proof:
    return Proof(problem.workload.layer_ids[0], problem.workload.digest, "contents", bound, numbers=numbers)


def masks_of(problem: Problem) -> list[int]:
    return [sum(1 << e for e in row) for row in problem.workload.layers[0].members.tolist()]


def unit_of(problem: Problem) -> int:
    cluster = problem.cluster
    return cluster.gpu_cost + (cluster.node_cost if cluster.nodes == cluster.gpus > 1 else 0)


def placements_of(problem: Problem) -> list[Contents]:
    """Every placement with all E + R copies, as ascending contents, by trying all multisets."""
    experts, gpus = problem.workload.n_experts, problem.cluster.gpus
    slots = min(int(problem.cluster.slots_of[0]), experts)
    listed = [mask for mask in range(1 << experts) if mask.bit_count() <= slots]
    found = []
    for contents in combinations_with_replacement(listed, gpus):
        if sum(map(int.bit_count, contents)) == experts + problem.replicas:
            union = 0
            for content in contents:
                union |= content
            if union == (1 << experts) - 1:
                found.append(contents)
    return found


def cost_before_dispatch(problem: Problem, contents: Contents) -> int:
    """By the definition: the fewest GPUs that hold every set together."""

    @cache
    def fewest(members: int) -> int:
        for count in range(1, len(contents) + 1):
            for group in combinations(contents, count):
                union = 0
                for content in group:
                    union |= content
                if members & ~union == 0:
                    return count
        raise ValueError(f"{members:b} is not covered by {contents}")

    weights = problem.set_weights(problem.workload.layers[0]).tolist()
    pairs = zip(weights, masks_of(problem), strict=True)
    return int(unit_of(problem) * sum(weight * (fewest(members) - 1) for weight, members in pairs))


def can_be_balanced(problem: Problem, contents: Contents) -> bool:
    """Hall's condition over sets of experts (the checker's is over sets of GPUs)."""
    if problem.load_cap is None:
        return True
    load = problem.workload.layers[0].load.tolist()
    for group in range(1, 1 << len(load)):
        wanted = sum(load[e] for e in range(len(load)) if group >> e & 1)
        if wanted > problem.load_cap * sum(content & group > 0 for content in contents):
            return False
    return True


def shown_by(problem: Problem, leaf: list[int], scale: int) -> int:
    """What a leaf shows, by trying every assignment of the experts of every set."""
    gpus, (sets,) = problem.cluster.gpus, problem.workload.layers
    contents, prices = leaf[:gpus], leaf[gpus:]
    total = -sum(prices) * (problem.load_cap or 0)
    for members, counts in zip(sets.members.tolist(), sets.counts.tolist(), strict=True):
        hosts = [[gpu for gpu in range(gpus) if contents[gpu] >> e & 1] for e in members]
        ways = {(len(set(way)) - 1, sum(prices[gpu] for gpu in way)) for way in product(*hosts)}
        for tokens, multiplier in zip(counts, problem.multipliers.tolist(), strict=True):
            further = scale * unit_of(problem) * multiplier
            total += tokens * min(further * more + paid for more, paid in ways)
    return int(total)


def numbers_of(problem: Problem, leaves: list[list[int]], *, scale: int) -> dict[str, Any]:
    shown = sum(shown_by(problem, leaf, scale) for leaf in leaves)
    return {"scale": scale, "leaves": leaves, "shown": shown}


@st.composite
def layers(draw: st.DrawFn, *, gpus: tuple[int, ...] = (2, 3, 4)) -> Problem:
    """One layer on 2 to 4 GPUs, 0 to 4 replicas, any slots; a load tolerance and family weights now and then."""
    count = draw(st.sampled_from(gpus))
    experts = draw(st.integers(2, {2: 7, 3: 5, 4: 5}[count]))
    least = -(-experts // count)
    slots = draw(st.integers(least, {2: 7, 3: 4, 4: 3}[count]))
    nodes, price = draw(st.sampled_from([(1, 0), (count, 2)]))
    cluster = Cluster(nodes, count // nodes, slots, draw(st.integers(1, 2)), price)
    replicas = draw(st.integers(0, min(4, count * min(slots, experts) - experts)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    k, tokens = draw(st.integers(1, min(experts, 4))), draw(st.integers(1, 40))
    chances = rng.dirichlet(np.ones(experts)) + 1e-2
    rows = [rng.choice(experts, k, replace=False, p=chances / chances.sum()) for _ in range(tokens)]
    family = rng.integers(0, 2, tokens).astype(np.uint8)
    family[0] = 0
    trace = Trace(np.array(rows)[:, None], experts, families=("code", "math"), family=family)
    weights = draw(st.sampled_from([None, {"code": 3, "math": 1}])) if family.any() else None
    tolerance = draw(st.sampled_from([None, "0", "0.1", "0.4"]))
    fields: dict[str, Any] = {"replicas": replicas, "family_weights": weights}
    try:
        return Problem.from_trace(trace, cluster, load_tolerance=tolerance, **fields)
    except ValueError:  # one expert alone is too heavy
        return Problem.from_trace(trace, cluster, **fields)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(problem=layers(), share=st.floats(0, 1.1))
def test_it_finds_every_cheap_placement_that_can_be_balanced_once(problem: Problem, share: float) -> None:
    costs = {contents: cost_before_dispatch(problem, contents) for contents in placements_of(problem)}
    limit = min(costs.values()) + round(share * (max(costs.values()) - min(costs.values()) + 1))
    expected = sorted(
        contents for contents, cost in costs.items() if cost < limit and can_be_balanced(problem, contents)
    )
    assert sorted(cheap_contents(problem, limit=limit, room=len(costs) + 1)) == expected
    assert len(cheap_contents(problem, limit=limit, room=1)) == min(1, len(expected))


@settings(max_examples=60, deadline=None)
@given(problem=layers(), seed=st.integers(0, 2**32 - 1))
def test_its_costs_are_those_of_the_definition(problem: Problem, seed: int) -> None:
    experts, gpus = problem.workload.n_experts, problem.cluster.gpus
    rng = np.random.default_rng(seed)
    contents = rng.integers(0, 1 << experts, gpus)
    contents[0] |= ((1 << experts) - 1) & ~np.bitwise_or.reduce(contents)
    weights = unit_of(problem) * problem.set_weights(problem.workload.layers[0])
    inside = np.array(
        [
            sum(int(w) for w, s in zip(weights, masks_of(problem), strict=True) if s & ~mask == 0)
            for mask in range(1 << experts)
        ]
    )
    assert cover_cost(contents, inside) == cost_before_dispatch(problem, tuple(contents.tolist()))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(problem=layers(gpus=(2, 3)))
def test_without_a_tolerance_the_least_cost_is_accepted_and_no_more(problem: Problem) -> None:
    problem = replace(problem, load_tolerance=None)
    assume(problem.workload.n_experts <= 5)
    least, _ = brute_force(problem)
    assert least is not None
    assert check_contents(problem, proof_of(problem, least)) == ""
    assert check_contents(problem, proof_of(problem, least - 1)) == ""
    assert "no leaf shows" in check_contents(problem, proof_of(problem, least + 1))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(problem=replica_problems(tolerances=("0", "0.2", "0.5", "1")), data=st.data())
def test_no_prices_show_more_than_the_least_cost(problem: Problem, data: st.DataObject) -> None:
    least, _ = brute_force(problem)
    assume(problem.load_cap is not None)
    if least is None:
        assert check_contents(problem, proof_of(problem, 1 << 60)) == ""  # nothing can be balanced
        return
    gpus, scale = problem.cluster.gpus, data.draw(st.integers(1, 5))
    bound = least + 1 - data.draw(st.integers(0, 2))
    listed = cheap_contents(problem, limit=bound, room=300)
    peak = data.draw(st.sampled_from([0, 3, 50])) * int(problem.multipliers.max())
    price = st.lists(st.integers(0, peak), min_size=gpus, max_size=gpus)
    leaves = [[*contents, *data.draw(price)] for contents in listed]
    numbers = numbers_of(problem, leaves, scale=scale)
    proved = all(-(-shown_by(problem, leaf, scale) // scale) >= bound for leaf in leaves)
    refused = check_contents(problem, proof_of(problem, bound, numbers))
    assert (refused == "") == proved
    assert refused or bound <= least


def two_tokens_move() -> Problem:
    """Contents {0, 1} and {0, 2} cost nothing, but the first GPU would serve 12 of 16 activations: 10 are allowed."""
    rows = np.array([[0, 1]] * 6 + [[0, 2]] * 2)
    return Problem.from_trace(Trace(rows[:, None], 3), Cluster(1, 2, 2), replicas=1, load_tolerance="0.25")


LEAF = [0b011, 0b101, 1, 0]
GOOD: Mapping[str, Any] = {"scale": 1, "leaves": [LEAF], "shown": 2}


def test_prices_prove_what_balance_costs() -> None:
    problem = two_tokens_move()
    assert brute_force(problem)[0] == 2
    assert check_contents(problem, proof_of(problem, 2, GOOD)) == ""
    swapped = {"scale": 1, "leaves": [[0b101, 0b011, 0, 1]], "shown": 2}
    assert check_contents(problem, proof_of(problem, 2, swapped)) == ""
    halves = {"scale": 2, "leaves": [[*LEAF[:2], 2, 0], [0b011, 0b110, 0, 0]], "shown": 8}
    assert check_contents(problem, proof_of(problem, 2, halves)) == ""
    assert "[[0, 1], [0, 2]] costs 3" in check_contents(problem, proof_of(problem, 3, GOOD))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"shown": 3}, "the leaves show 2 together, the certificate says 3"),
        ({"shown": 2.0}, "shown must be a whole number, found 2.0"),
        ({"shown": None}, "shown must be a whole number, found None"),
        ({"shown": 1 << 200}, "shown must be from"),
        ({"scale": 0}, "scale must be from 1"),
        ({"scale": True}, "scale must be a whole number, found True"),
        ({"scale": 1.0}, "scale must be a whole number, found 1.0"),
        ({"scale": 1 << 60}, "too large to be checked in 64-bit arithmetic"),
        ({"scale": 1 << 70}, "scale must be from 1"),
        ({"leaves": [], "shown": 0}, "no leaf shows that the placement [[0, 1], [0, 2]] costs 2 or more"),
        ({"leaves": []}, "no leaf shows 0, the certificate says 2"),
        ({"leaves": [[*LEAF[:2], 0, 0]], "shown": 0}, "no leaf shows that the placement"),
        ({"leaves": None}, "leaves must be a list"),
        ({"leaves": "abcd"}, "leaves must be a list"),
        ({"leaves": [LEAF[:3]]}, "a leaf lists 2 contents and 2 prices"),
        ({"leaves": [(3, 5, 1, 0)]}, "a leaf lists 2 contents and 2 prices"),
        ({"leaves": [[3, 5, -1, 0]]}, "a price must be from 0"),
        ({"leaves": [[3, 5, True, 0]]}, "a price must be a whole number, found True"),
        ({"leaves": [[3, 5, 1.0, 0]]}, "a price must be a whole number, found 1.0"),
        ({"leaves": [[3, 5, 1 << 59, 0]]}, "too large to be checked in 64-bit arithmetic"),
        ({"leaves": [[3, 5, 1 << 99, 0]]}, "a price must be from 0"),
        ({"leaves": [[3, "5", 1, 0]]}, "a content must be a whole number, found '5'"),
        ({"leaves": [[3, 8, 1, 0]]}, "a content must be from 0 to 7"),
        ({"leaves": [[3, -1, 1, 0]]}, "a content must be from 0 to 7"),
        ({"leaves": [[7, 1, 1, 0]]}, "holds 3 experts, slots are 2"),
        ({"leaves": [[3, 3, 1, 0]]}, "covers 2 of 3 experts"),
        ({"leaves": [[3, 4, 1, 0]]}, "has 3 copies, not 3 + 1"),
        ({"more": 1}, "expected ['leaves', 'scale', 'shown']"),
    ],
)
def test_a_malformed_number_is_refused_with_its_name(change: dict[str, Any], words: str) -> None:
    problem = two_tokens_move()
    assert words in check_contents(problem, proof_of(problem, 2, {**GOOD, **change}))


@pytest.mark.parametrize("name", ["scale", "leaves", "shown"])
def test_a_missing_number_is_refused(name: str) -> None:
    problem = two_tokens_move()
    numbers = {key: value for key, value in GOOD.items() if key != name}
    assert "expected ['leaves', 'scale', 'shown']" in check_contents(problem, proof_of(problem, 2, numbers))
    assert "expected ['leaves', 'scale', 'shown']" in check_contents(problem, proof_of(problem, 2, None))


@pytest.mark.parametrize("bound", [True, 2.0, "2", None])
def test_a_bound_is_a_whole_number(bound: object) -> None:
    problem = two_tokens_move()
    assert "the bound must be a whole number" in check_contents(problem, proof_of(problem, bound, GOOD))


@pytest.mark.parametrize("bound", [-(1 << 200), -1, 0])
def test_any_placement_costs_nothing_or_more(bound: int) -> None:
    problem = two_tokens_move()
    assert check_contents(problem, proof_of(problem, bound)) == ""


def test_no_bound_is_too_large_to_be_refused() -> None:
    for problem in (two_tokens_move(), replace(two_tokens_move(), load_tolerance=None)):
        assert "no leaf shows" in check_contents(problem, proof_of(problem, 1 << 200))
    assert "no leaf shows" in check_contents(two_tokens_move(), proof_of(two_tokens_move(), 1 << 200, GOOD))


def test_without_a_tolerance_there_are_no_leaves() -> None:
    problem = replace(two_tokens_move(), load_tolerance=None)
    assert check_contents(problem, proof_of(problem, 0)) == ""
    for numbers in (GOOD, {**NOTHING, "scale": 2}):
        assert "without a load tolerance" in check_contents(problem, proof_of(problem, 0, numbers))
    assert "no leaf shows 0" in check_contents(problem, proof_of(problem, 0, {**NOTHING, "shown": 1}))


def layer_of(experts: int, cluster: Cluster, **fields: Any) -> Problem:
    rows = np.array([[e, (e + 1) % experts] for e in range(experts)])
    return Problem.from_trace(Trace(rows[:, None], experts), cluster, **fields)


def two_layers(**fields: Any) -> Problem:
    rows = np.array([[[0, 1], [1, 2]], [[2, 3], [0, 3]]])
    return Problem.from_trace(Trace(rows, 4), Cluster(1, 2, 3), **fields)


INCUMBENT = Placement.partition([[0, 0, 1, 1]], Cluster(1, 2, 3), layer_ids=(0,))


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (two_layers(), "one layer, the problem has 2"),
        (two_layers(replicas=1, total_replicas=1), "one layer, the problem has 2"),
        (layer_of(4, Cluster(1, 2, 3), replicas=1, total_replicas=1), "a budget over all layers"),
        (layer_of(4, Cluster(1, 2, 3), objective="cut"), "the objective is cut"),
        (layer_of(4, Cluster(1, 2, 3), tail="0"), "the worst of them"),
        (layer_of(4, Cluster(1, 2, 3), incumbent=INCUMBENT, max_moves=1), "1 copies may move"),
        (layer_of(4, Cluster(1, 2, (3, 2))), "equal slots and speeds"),
        (layer_of(4, Cluster(1, 2, 3, speeds=(1, 2))), "equal slots and speeds"),
        (layer_of(4, Cluster(2, 2, 2, node_cost=1)), "cannot see nodes, the node cost is 1"),
        (layer_of(6, Cluster(1, 5, 2)), "2 to 4 GPUs, found 5"),
        (layer_of(4, Cluster(1, 1, 4)), "2 to 4 GPUs, found 1"),
        (layer_of(19, Cluster(1, 4, 5)), "at most 18 experts, found 19"),
    ],
)
def test_problems_outside_of_its_scope_are_refused(problem: Problem, words: str) -> None:
    assert words in check_contents(problem, proof_of(problem, 0))


def test_nodes_without_a_price_and_idle_incumbents_are_nothing_to_it() -> None:
    problem = layer_of(4, Cluster(2, 2, 2), replicas=1)
    least, _ = brute_force(problem)
    assert least is not None
    assert check_contents(problem, proof_of(problem, least)) == ""
    assert "no leaf shows" in check_contents(problem, proof_of(problem, least + 1))
    idle = layer_of(4, Cluster(1, 2, 3), incumbent=INCUMBENT)
    assert check_contents(idle, proof_of(idle, brute_force(idle)[0])) == ""
