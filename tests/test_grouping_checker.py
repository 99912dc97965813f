"""The checker of grouping bounds accepts what holds and refuses every changed number."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeopt.certificate import Proof
from moeopt.grouping import GroupingProblem
from moeopt.grouping_checker import check_grouping, layer_value, positive_layer, seated
from moeopt.relaxations.grouping import grouping_bound
from moeopt.stop import Stop


@cache
def proved() -> tuple[GroupingProblem, Proof]:
    problem = GroupingProblem(np.random.default_rng(4).integers(0, 9, (7, 2, 4)), 2)
    proof = grouping_bound(problem, clock=Stop(seconds=None, candidates=400).start(), seed=0)
    assert proof is not None
    assert any(layer["cuts"] for layer in proof.numbers["layers"])
    return problem, proof


def verdict(change: Callable[[dict[str, Any]], object]) -> str:
    problem, proof = proved()
    numbers = deepcopy(dict(proof.numbers))
    change(numbers)
    return check_grouping(problem, replace(proof, numbers=numbers))


def put(*path: Any) -> Callable[[dict[str, Any]], object]:
    """Change what is found along the path, all but its last part, to the last part."""

    def change(numbers: Any) -> None:
        *way, last, value = path
        for part in way:
            numbers = numbers[part]
        numbers[last] = value

    return change


def test_what_holds_is_accepted_and_a_lower_bound_as_well() -> None:
    problem, proof = proved()
    assert check_grouping(problem, proof) == ""
    assert check_grouping(problem, replace(proof, bound=proof.bound - 1)) == ""


def test_a_higher_bound_and_another_problem_are_refused() -> None:
    problem, proof = proved()
    assert "bound is" in check_grouping(problem, replace(proof, bound=proof.bound + 1))
    other = replace(problem, activations=problem.activations[::-1])
    assert "it is about the problem" in check_grouping(other, proof)
    assert check_grouping(other, replace(proof, digest=other.digest))


@given(data=st.data())
def test_every_changed_number_is_refused(data: st.DataObject) -> None:
    _, proof = proved()
    layer = data.draw(st.sampled_from([0, 1]))
    name = data.draw(st.sampled_from(["diagonal", "slack", "forces"]))
    count = len(proof.numbers["layers"][layer][name])
    at = data.draw(st.integers(0, count - 1))
    by = data.draw(st.integers(-1000, 1000).filter(bool))
    value = proof.numbers["layers"][layer][name][at] + by
    assert verdict(put("layers", layer, name, at, value))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (put("scale", 0), "scale: a whole number from 1"),
        (put("scale", True), "scale: a whole number from 1"),
        (put("scale", 1 << 47), "activations at scale"),
        (put("dual", 0), "the certificate says 0"),
        (put("more", 0), "expected scale, layers and dual"),
        (put("layers", []), "expected numbers of 2 layers"),
        (put("layers", 0, {}), "a layer has"),
        (put("layers", 0, "more", 0), "a layer has"),
        (put("layers", 0, "slack", []), "slack must be a list of 66 whole numbers"),
        (put("layers", 0, "slack", 65, -1), "slack is negative only between requests, found -1"),
        (put("layers", 0, "diagonal", 0, 1.0), "diagonal: a whole number"),
        (put("layers", 0, "diagonal", 0, -(1 << 47)), "not surely positive definite"),
        (put("layers", 0, "slack", 7, 1 << 48), "an entry of the slack matrix exceeds"),
        (put("layers", 0, "slack", 0, -(1 << 30)), "not surely positive definite"),
        (put("layers", 0, "cuts", 0), "cuts must be a list"),
        (put("layers", 0, "cuts", 0, [1]), "a cut lists 2 to 10 seats"),
        (put("layers", 0, "cuts", 0, [1, -1]), "a cut lists 2 to 10 seats"),
        (put("layers", 0, "cuts", 0, [0, 1]), "a cut lists 2 to 10 seats"),
        (put("layers", 0, "cuts", 0, [1, 13]), "a cut lists 2 to 10 seats"),
        (put("layers", 0, "cuts", 0, [1, -13]), "a cut: a whole number"),
        (put("layers", 0, "forces", 0, -1), "forces: a whole number from 0"),
        (put("layers", 0, "forces", []), "forces must be a list"),
    ],
)
def test_wrong_numbers_are_named(change: Callable[[dict[str, Any]], object], words: str) -> None:
    assert words in verdict(change)


def test_the_dual_is_a_whole_number() -> None:
    equal = float(proved()[1].numbers["dual"])
    assert verdict(put("dual", equal)).endswith(f"the certificate says {equal!r:.40}")


def test_slack_between_requests_may_not_be_negative_over_the_layers() -> None:
    def lower(numbers: dict[str, Any]) -> None:
        for layer in numbers["layers"]:
            layer["slack"][0] = -5
            layer["diagonal"] = [value + 100_000 for value in layer["diagonal"]]

    assert "slack between requests sums to -10 over the layers" in verdict(lower)


def test_free_seats_fill_every_group() -> None:
    problem = GroupingProblem(np.ones((5, 2, 3), int), 2)
    assert seated(problem).shape == (2, 6, 4)
    assert seated(problem).sum() == 30
    with pytest.raises(ValueError, match="rows of one request each are needed, found one of 2"):
        seated(replace(problem, sizes=np.array([1, 1, 1, 1, 2])))
    with pytest.raises(
        ValueError, match="at most 8192 seats and 4096 layers can be bounded, found 9004 and 1"
    ):
        seated(GroupingProblem(np.ones((9000, 1, 4), int), 2))


@given(seed=st.integers(0, 2**32 - 1), groups=st.integers(2, 3))
def test_the_value_of_a_layer_is_what_any_grouping_leaves(seed: int, groups: int) -> None:
    """value - 1'S1 + 2 G scale local = -G (<N, Y> + <S, Y> + sum of t (b'Yb - least(b))) for the Y of a grouping."""
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 9, (2 * groups, groups))
    seats = 3 * groups
    slack = np.triu(rng.integers(0, 9, (seats, seats)), 1)
    slack += slack.T
    diagonal = rng.integers(-9, 9, seats)
    cuts, forces = [[1, -2, 3], [1, 2, 3, seats]], [2, 5]
    value, matrix = layer_value(a, groups, scale=3, diagonal=diagonal, slack=slack, cuts=cuts, forces=forces)
    group = np.concatenate(
        [rng.permutation(np.repeat(np.arange(groups), 2)), rng.permutation(np.arange(groups))]
    )
    y = (group[:, None] == group).astype(int)
    beyond = 0
    for cut, force in zip(cuts, forces, strict=True):
        b = np.zeros(seats, int)
        for place in cut:
            b[abs(place) - 1] = np.sign(place)
        total = int(b.sum())
        least = min(
            sum(part * part for part in parts)
            for parts in product(range(-4, 5), repeat=groups)
            if sum(parts) == total
        )
        beyond += force * (int(b @ y @ b) - least)
    local = int((a * y[: 2 * groups, 2 * groups :]).sum())
    left = int((slack * y).sum()) + beyond + int((matrix * y).sum())
    assert value + groups * left - int(matrix.sum()) == -2 * groups * 3 * local


@given(seed=st.integers(0, 2**32 - 1))
def test_a_positive_layer_is_positive_where_both_sums_are_zero(seed: int) -> None:
    rng = np.random.default_rng(seed)
    half = rng.integers(-9, 10, (6, 6))
    slack = half @ half.T + np.diag(rng.integers(-20, 20, 6))
    basis = np.zeros((6, 4))
    basis[:4, :3] = np.eye(4)[:, :3] - np.eye(4)[:, [3]]
    basis[4:, 3] = 1, -1
    least = np.linalg.eigvalsh(basis.T @ slack @ basis)[0]
    if positive_layer(slack, requests=4):
        assert least > 0
    else:
        assert least < 4  # the error that is granted to rounding
