"""Trees of pairs close the gap of the cut, decide only what follows, and are refused when anything is changed."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from functools import cache
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeopt.certificate import Certificate, Proof
from moeopt.checker import check_layer, verify
from moeopt.cluster import Cluster
from moeopt.partition_lines import Level, Lines, partition_levels
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.relaxations.semidefinite import semidefinite_proof
from moeopt.semidefinite import Relaxation
from moeopt.semidefinite_checker import check_semidefinite
from moeopt.semidefinite_rounding import whole_numbers_of
from moeopt.semidefinite_tree_checker import APART, OPEN, TOGETHER, cases_of, decided_pairs
from moeopt.stop import Stop
from moeopt.testing import brute_force
from moeopt.trace import Trace
from tests.problem_strategies import problems

LEVELS = [Level(1, 2, 3), Level(1, 3, 2), Level(1, 2, 2), Level(1, 4, 2), Level(1, 3, 1)]


@cache
def recorded(seed: int, experts: int = 8) -> Trace:
    rng = np.random.default_rng(seed)
    return Trace(
        np.array([rng.choice(experts, 3, replace=False) for _ in range(20 + seed)])[:, None], experts
    )


@cache
def branched() -> tuple[Problem, Proof]:
    """A problem whose root leaves a gap, and the tree that closes it."""
    problem = Problem.from_trace(recorded(7), Cluster(1, 4, 3), objective="cut")
    least, _ = brute_force(problem)
    proof = semidefinite_proof(problem, clock=Stop(seconds=None).start(), seed=0, cost=least)
    assert proof is not None
    assert set(proof.numbers) == {"tree"}
    assert proof.optimal
    return problem, proof


@settings(max_examples=40, deadline=None)
@given(problem=problems(objectives=("cut",), unequal=False), limit=st.integers(1, 1500))
def test_no_placement_costs_less_than_a_tree_says_however_early_it_ends(problem: Problem, limit: int) -> None:
    least, placement = brute_force(problem)
    heard: list[int] = []
    clock = Stop(seconds=None, candidates=limit).start()
    proof = semidefinite_proof(problem, clock=clock, seed=0, cost=least, on_bound=heard.append)
    assert proof is not None
    assert least is None or proof.bound <= least
    assert heard == sorted(set(heard))
    assert heard[-1] == proof.bound
    assert check_layer(problem, proof, placement=placement) == ""


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    "cluster", [Cluster(1, 4, 3), Cluster(1, 3, 3), Cluster(1, 2, 5), Cluster(2, 2, 2, 0, 3)]
)
def test_without_a_limit_the_optimum_is_found_and_proved(cluster: Cluster, known: bool) -> None:
    for seed in range(3):
        problem = Problem.from_trace(recorded(seed), cluster, objective="cut")
        least, placement = brute_force(problem)
        found: list[Placement] = []
        proof = semidefinite_proof(
            problem,
            clock=Stop(seconds=None).start(),
            seed=0,
            cost=least if known else None,
            on_placement=found.append,
        )
        assert proof is not None
        assert (proof.bound, proof.cost, proof.optimal) == (least, least, True)
        assert check_layer(problem, proof, placement=placement if known else found[-1]) == ""


def test_a_load_tolerance_makes_no_bound_wrong() -> None:
    problem = Problem.from_trace(recorded(7), Cluster(1, 4, 3), objective="cut", load_tolerance="0.2")
    least, _ = brute_force(problem)
    free, _ = brute_force(replace(problem, load_tolerance=None))
    proof = semidefinite_proof(problem, clock=Stop(seconds=None).start(), seed=0, cost=None)
    assert proof is not None
    assert least is not None
    assert free is not None
    assert proof.bound == free <= least
    assert proof.cost is None


def test_a_tree_survives_its_document() -> None:
    problem, proof = branched()
    _, placement = brute_force(problem)
    assert isinstance(placement, Placement)
    document = json.loads(json.dumps(Certificate.of_layer(problem, proof, placement=placement).to_dict()))
    verdict = verify(document, recorded(7))
    assert verdict.accepted, verdict.reason


def altered(change: Any) -> str:
    problem, proof = branched()
    numbers = deepcopy(dict(proof.numbers))
    change(numbers["tree"])
    return check_semidefinite(problem, replace(proof, numbers=numbers))


def test_every_changed_leaf_is_refused() -> None:
    problem, proof = branched()
    assert check_semidefinite(problem, proof) == ""
    for change in (-1, 1):
        assert "the tree proves" in check_semidefinite(problem, replace(proof, bound=proof.bound + change))
    tree = proof.numbers["tree"]
    leaves = [index for index, node in enumerate(tree) if "dual" in node]
    assert len(leaves) > 1

    def more(leaf: int, name: str) -> Any:
        return lambda tree: tree[leaf][name].__setitem__(0, tree[leaf][name][0] + 1)

    for leaf in leaves:
        assert altered(more(leaf, "diagonal"))
        assert altered(more(leaf, "slack"))
        assert altered(lambda tree, at=leaf: tree[at].update(dual=tree[at]["dual"] + 1))
        assert altered(lambda tree, at=leaf: tree.__setitem__(at, {}))


def test_a_leaf_holds_for_its_own_pairs_alone() -> None:
    tree = branched()[1].numbers["tree"]
    i, j = tree[0]["pair"]
    others = [list(pair) for pair in combinations(range(12), 2) if pair != (i, j)]
    assert all(altered(lambda tree, pair=pair: tree[0].update(pair=pair)) for pair in others)
    swapped = {"together": tree[0]["apart"], "apart": tree[0]["together"]}
    assert altered(lambda tree: tree[0].update(swapped))


def test_only_decided_pairs_have_negative_multipliers() -> None:
    level, tree = Level(1, 4, 3), branched()[1].numbers["tree"]
    i, j = np.triu_indices(level.seats, 1)
    signs = set()
    for leaf, pairs in cases_of(tree, seats=level.seats):
        decided = decided_pairs(level, pairs)
        assert decided is not None
        slack = np.array(leaf["slack"])
        signs.update(np.sign(slack[decided[i, j] != OPEN]).tolist())
        (at, *_) = np.flatnonzero(decided[i, j] == OPEN).tolist()

        def lowered(tree: list[dict[str, Any]], index: int = tree.index(leaf), at: int = at) -> None:
            tree[index]["slack"][at] = -1

        assert "negative for a pair that is not decided" in altered(lowered)
    assert signs == {-1, 1}


def test_a_leaf_that_proves_less_lowers_the_bound() -> None:
    problem, proof = branched()
    n = 12
    weak = {"scale": 1, "references": [], "slack": [0] * (n * (n - 1) // 2), "cuts": [], "forces": []}
    tree = deepcopy(proof.numbers["tree"])
    (leaf, *_) = [index for index, node in enumerate(tree) if "dual" in node]
    tree[leaf] = {**weak, "diagonal": [10**4] * n, "dual": 0}
    said = check_semidefinite(problem, replace(proof, numbers={"tree": tree}))
    tree[leaf]["dual"] = int(said.split("show ")[1].split(",")[0])
    said = check_semidefinite(problem, replace(proof, numbers={"tree": tree}))
    assert f"the tree proves 0, the certificate says {proof.bound}" in said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tree: tree[0].update(pair=[0, 12]), "a pair is i < j below 12"),
        (lambda tree: tree[0].update(pair=[3, 3]), "a pair is i < j below 12"),
        (lambda tree: tree[0].update(pair=[4, 3]), "a pair is i < j below 12"),
        (lambda tree: tree[0].update(pair=[-1, 3]), "a pair is i < j below 12"),
        (lambda tree: tree[0].update(pair=[False, True]), "a pair is i < j below 12"),
        (lambda tree: tree[0].update(pair="03"), "a pair is i < j below 12"),
        (lambda tree: tree[0].update(together=0), "a later node must be its child together"),
        (lambda tree: tree[0].update(apart=len(tree)), "a later node must be its child apart"),
        (lambda tree: tree[0].update(apart=True), "a later node must be its child apart"),
        (lambda tree: tree[0].update(apart=tree[0]["together"]), "the child of two"),
        (lambda tree: tree[0].pop("apart"), "expected ['apart', 'pair', 'together']"),
        (lambda tree: tree[0].update(other=1), "expected ['apart', 'pair', 'together']"),
        (lambda tree: tree.append(deepcopy(tree[-1])), "nobody's child"),
        (lambda tree: tree.pop(), "a later node must be its child"),
        (lambda tree: tree.clear(), "a tree is a list of 1 to"),
        (lambda tree: tree.__setitem__(0, 5), "found 5"),
    ],
)
def test_malformed_trees_are_named(change: Any, words: str) -> None:
    refusal = altered(change)
    assert refusal.startswith("semidefinite proof: ")
    assert words in refusal


def test_a_tree_is_about_one_level() -> None:
    _, proof = branched()
    both = Problem.from_trace(recorded(7), Cluster(2, 2, 3, 1, 3), objective="cut")
    assert "a tree is about one level" in check_semidefinite(both, proof)


def partitions(level: Level) -> list[np.ndarray[Any, Any]]:
    """Y of all partitions into full groups."""
    found = {}
    for group in product(range(level.groups), repeat=level.seats):
        if (np.bincount(group, minlength=level.groups) == level.slots).all():
            y = np.equal.outer(group, group).astype(np.int8)
            found[y.tobytes()] = y
    return list(found.values())


@settings(max_examples=200, deadline=None)
@given(level=st.sampled_from(LEVELS), data=st.data())
def test_decided_pairs_are_so_in_every_partition_that_is_left(level: Level, data: st.DataObject) -> None:
    pair = st.sampled_from(list(combinations(range(level.seats), 2)))
    given_pairs = data.draw(st.lists(st.tuples(pair, st.sampled_from([APART, TOGETHER])), max_size=7))
    pairs = tuple((i, j, value) for (i, j), value in given_pairs)
    left = [y for y in _all(level) if all(y[i, j] == value for i, j, value in pairs)]
    decided = decided_pairs(level, pairs)
    if decided is None:
        assert not left
        return
    assert (decided == decided.T).all()
    for i, j, value in pairs:
        assert decided[i, j] == value
    for y in left:
        assert (y[decided != OPEN] == decided[decided != OPEN]).all()


@cache
def _all(level: Level) -> list[np.ndarray[Any, Any]]:
    return partitions(level)


@pytest.mark.parametrize(
    ("pairs", "open_pairs"),
    [
        (((0, 1, 1), (1, 2, 1)), 0),  # a full group leaves the other one
        (((0, 1, 1), (1, 2, 0)), 6 + 6),  # expert 2 is in the other group: 3 experts are open, to 0, 1, and 2
        (((0, 1, 0), (1, 2, 0)), 6 + 6),  # 0 and 2 are together, because there are two groups
        (((0, 1, 0), (1, 2, 0), (0, 2, 0)), None),
        (((0, 1, 1), (1, 2, 1), (0, 2, 0)), None),
        (((0, 1, 1), (1, 2, 1), (2, 3, 1)), None),
    ],
)
def test_what_pairs_of_two_groups_of_three_decide(pairs: Any, open_pairs: int | None) -> None:
    decided = decided_pairs(Level(1, 2, 3), pairs)
    assert (None if decided is None else int(np.triu(decided == OPEN).sum())) == open_pairs


def test_pairs_that_contradict_each_other_leave_nothing_to_prove() -> None:
    """Three experts on two groups of two: every complete tree over them has leaves without numbers."""
    tree = [
        {"pair": [0, 1], "together": 1, "apart": 2},
        "together",
        {"pair": [0, 2], "together": 3, "apart": 4},
        "with 2",
        {"pair": [1, 2], "together": 5, "apart": 6},
        "with 1",
        {},
    ]
    cases = {str(leaf): decided_pairs(Level(1, 2, 2), pairs) for leaf, pairs in cases_of(tree, seats=4)}
    assert cases.pop("{}") is None
    assert all(decided is not None and (decided != OPEN).all() for decided in cases.values())


@settings(max_examples=40, deadline=None)
@given(
    problem=problems(objectives=("cut",), unequal=False, nodes=False, most_experts=7),
    seed=st.integers(0, 10_000),
    data=st.data(),
)
def test_whatever_tree_it_accepts_bounds_every_placement(
    problem: Problem, seed: int, data: st.DataObject
) -> None:
    """Multipliers of a few steps, with one of a decided pair changed now and then."""
    least, _ = brute_force(problem)
    levels = partition_levels(problem)
    if not levels or least is None:
        return
    (level,) = levels
    n, rng = level.seats, np.random.default_rng(seed)
    lines = Lines.of(problem, level, references=[])
    pair = st.sampled_from(list(combinations(range(n), 2)))
    first, second = list(data.draw(pair)), list(data.draw(pair))
    tree: list[dict[str, Any]] = [
        {"pair": first, "together": 1, "apart": 2},
        {"pair": second, "together": 3, "apart": 4},
        {},
        {},
        {},
    ]
    for leaf, pairs in cases_of(deepcopy(tree), seats=n):
        assert leaf == {}
        decided = decided_pairs(level, pairs)
        if decided is None:
            continue
        index = 2 if pairs[0][2] == APART else {APART: 4, TOGETHER: 3}[pairs[1][2]]
        relaxation = Relaxation(level.groups, level.slots)
        relaxation.aim(lines.weights.astype(float))
        relaxation.fix(decided)
        for step in range(int(rng.integers(1, 150))):
            relaxation.step()
            if step % 30 == 29:
                relaxation.refine(rng=rng, larger=False)
        _, tree[index] = whole_numbers_of(relaxation, lines, level=level)
        i, j = np.triu_indices(n, 1)
        known = np.flatnonzero(decided[i, j] != OPEN)
        if known.size and rng.random() < 0.5:
            at, change = int(rng.choice(known)), int(rng.integers(-100, 100))
            tree[index]["slack"][at] += change
            tree[index]["diagonal"][i[at]] += abs(change)
            tree[index]["diagonal"][j[at]] += abs(change)
        tree[index]["dual"] = 1 << 99  # the refusals tell the right one

    def refusal(bound: int) -> str:
        digest, layer = problem.workload.digest, problem.workload.layer_ids[0]
        return check_semidefinite(
            problem, Proof(layer, digest, "semidefinite", bound, numbers={"tree": tree})
        )

    said = refusal(0)
    for leaf in (2, 3, 4):
        if tree[leaf] and "the multipliers show" in said:
            tree[leaf]["dual"] = int(said.split("show ")[1].split(",")[0])
            said = refusal(0)
    if "the tree proves" in said:
        bound = int(said.split("proves ")[1].split(",")[0])
        assert refusal(bound) == ""
        assert bound <= least
    else:
        assert not said
