"""The checker accepts what holds, refuses every changed number, and never trusts a rounded factor."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from moeopt.certificate import Proof
from moeopt.cluster import Cluster
from moeopt.generator import Generator
from moeopt.partition_lines import partition_levels
from moeopt.problem import Problem
from moeopt.relaxations.semidefinite import semidefinite_proof
from moeopt.semidefinite_checker import ALPHABET, check_semidefinite, surely_positive
from moeopt.stop import Stop
from moeopt.testing import brute_force
from tests.problem_strategies import problems


@cache
def proved(objective: str) -> tuple[Problem, Proof]:
    trace = Generator(layers=1, experts=8, top_k=3, tokens=200, group_size=4, seed=1).generate()
    problem = Problem.from_trace(trace, Cluster(1, 4, 2), objective=objective)
    clock = Stop(seconds=None, candidates=700).start()
    proof = semidefinite_proof(problem, clock=clock, seed=0, cost=None)
    assert proof is not None
    return problem, proof


def positive(matrix: NDArray[np.int64]) -> bool:
    """Exactly, by elimination in fractions."""
    rest = [[Fraction(int(x)) for x in row] for row in matrix]
    for k in range(len(rest)):
        if rest[k][k] <= 0:
            return False
        for i in range(k + 1, len(rest)):
            factor = rest[i][k] / rest[k][k]
            rest[i] = [a - factor * b for a, b in zip(rest[i], rest[k], strict=True)]
    return True


@settings(max_examples=100, deadline=None)
@given(
    n=st.integers(1, 7),
    seed=st.integers(0, 10_000),
    bits=st.integers(1, 45),
    shift=st.integers(-3, 3),
)
def test_surely_positive_is_never_wrong(n: int, seed: int, bits: int, shift: int) -> None:
    rng = np.random.default_rng(seed)
    half = rng.integers(-(1 << bits), (1 << bits) + 1, (n, n))
    square = np.triu(half) + np.triu(half, 1).T
    lowest = int(np.floor(np.linalg.eigvalsh(square.astype(float))[0]))
    near = square - (lowest - shift) * np.eye(n, dtype=np.int64)
    if surely_positive(near):
        assert positive(near)


def test_a_clearly_positive_matrix_is_seen_and_a_singular_one_is_not() -> None:
    assert surely_positive(100 * np.eye(5, dtype=np.int64) - 10)
    ones = np.ones((4, 4), np.int64)
    assert not surely_positive(ones << 20)
    assert not surely_positive(-np.eye(3, dtype=np.int64))
    assert not surely_positive((1 << 53) * np.eye(3, dtype=np.int64))


@pytest.mark.parametrize("objective", ["cut", "fan-out"])
def test_every_changed_number_is_refused(objective: str) -> None:
    problem, proof = proved(objective)
    assert check_semidefinite(problem, proof) == ""
    for change in (-1, 1):
        refusal = check_semidefinite(problem, replace(proof, bound=proof.bound + change))
        assert refusal.startswith(f"semidefinite proof: the numbers prove {proof.bound}")

    def altered(change: Any) -> str:
        numbers = deepcopy(dict(proof.numbers))
        change(numbers["levels"][0])
        return check_semidefinite(problem, replace(proof, numbers=numbers))

    def more(name: str, at: int) -> Any:
        def change(level: dict[str, Any]) -> None:
            level[name][at] += 1

        return change

    (level,) = proof.numbers["levels"]
    for name in ("diagonal", "slack", "forces"):
        for at in (0, len(level[name]) - 1) if level[name] else ():
            assert altered(more(name, at))
    assert altered(lambda level: level.update(dual=level["dual"] + 1)).endswith(str(level["dual"] + 1))
    assert altered(lambda level: level.update(dual=float(level["dual"]))).endswith(
        f"says {float(level['dual'])}"
    )
    assert altered(lambda level: level.update(scale=2 * level["scale"]))
    if level["references"]:
        changed = "/" * len(level["references"][0])  # everybody together: other lines
        assert altered(lambda level: level["references"].__setitem__(0, changed))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scale": 0}, "scale"),
        ({"scale": 1 << 50}, "too large"),
        ({"diagonal": [1]}, "diagonal must be a list of 8"),
        ({"diagonal": [0.5] * 8}, "diagonal: a whole number"),
        ({"slack": [-1] * 28}, "slack: a whole number"),
        ({"slack": [True] * 28}, "slack: a whole number"),
        ({"forces": [-1], "cuts": [[1, 2, -3]]}, "forces: a whole number"),
        ({"forces": [1], "cuts": [[1, 2, -2]]}, "a cut lists"),
        ({"forces": [1], "cuts": [[1, 2, 9]]}, "a cut lists"),
        ({"forces": [1], "cuts": [[1, 0]]}, "a cut lists"),
        ({"forces": [1], "cuts": [1]}, "a cut"),
        ({"forces": [1], "cuts": []}, "forces must be a list of 0"),
        ({"references": ["A" * 28]}, "the cut cannot be bounded with 1 references"),
        ({"references": 3}, "references must be a list"),
        ({"further": 3}, "expected"),
    ],
)
def test_malformed_numbers_are_named(change: dict[str, Any], words: str) -> None:
    problem, proof = proved("cut")
    level = {**proof.numbers["levels"][0], **change}
    refusal = check_semidefinite(problem, replace(proof, numbers={"levels": [level]}))
    assert words in refusal


@pytest.mark.parametrize("text", ["A" * 27, "A" * 27 + "!", 5])
def test_malformed_references_are_named(text: object) -> None:
    problem, proof = proved("fan-out")
    level = {**proof.numbers["levels"][0], "references": [text]}
    refusal = check_semidefinite(problem, replace(proof, numbers={"levels": [level]}))
    assert "a text of 28 digits in base 64" in refusal
    level = {**level, "references": []}
    refusal = check_semidefinite(problem, replace(proof, numbers={"levels": [level]}))
    assert "the fan-out cannot be bounded with 0 references" in refusal


def test_a_slack_matrix_that_is_not_psd_is_refused() -> None:
    problem, proof = proved("cut")
    numbers = deepcopy(dict(proof.numbers))
    level = numbers["levels"][0]
    level["diagonal"] = [value - 2 * level["scale"] for value in level["diagonal"]]
    groups, n = problem.cluster.gpus, len(level["diagonal"])
    level["dual"] += 2 * level["scale"] * n * (groups - 1)
    assert "not surely positive definite" in check_semidefinite(problem, replace(proof, numbers=numbers))


def test_levels_must_be_those_of_the_problem() -> None:
    problem, proof = proved("cut")
    level = proof.numbers["levels"][0]
    wrong: list[dict[str, Any]] = [{}, {"levels": []}, {"levels": [level, level]}, {"levels": 3}]
    for numbers in [*wrong, {"levels": [level], "x": 1}]:
        refusal = check_semidefinite(problem, replace(proof, numbers=numbers))
        assert "expected 1 levels and nothing else" in refusal
    unequal = replace(problem, cluster=Cluster(1, 2, (4, 5)))
    assert "equal slots" in check_semidefinite(unequal, proof)


@settings(max_examples=60, deadline=None)
@given(
    problem=problems(unequal=False, nodes=False, most_experts=5), seed=st.integers(0, 10_000), data=st.data()
)
def test_whatever_multipliers_it_accepts_bound_every_placement(
    problem: Problem, seed: int, data: st.DataObject
) -> None:
    """Multipliers at random; the diagonal near the least that leaves the slack matrix positive, on either side."""
    least, _ = brute_force(problem)
    levels = partition_levels(problem)
    if not levels or least is None:
        return
    (level,) = levels
    n, rng = level.seats, np.random.default_rng(seed)
    fan_out = problem.objective == "fan-out"
    texts = ["".join(rng.choice(list(ALPHABET), n * (n - 1) // 2)) for _ in range(2 if fan_out else 0)]
    numbers: dict[str, Any] = {
        "scale": 4,
        "references": texts,
        "diagonal": [0] * n,
        "slack": rng.integers(0, 20, n * (n - 1) // 2).tolist(),
        "cuts": [],
        "forces": [],
        "dual": 0,
    }
    for _ in range(data.draw(st.integers(0, 4))):
        chosen = rng.choice(n, min(n, 3), replace=False) + 1
        numbers["cuts"].append((chosen * rng.choice([-1, 1], len(chosen))).tolist())
        numbers["forces"].append(int(rng.integers(0, 200)))

    def refusal(bound: int) -> str:
        digest, layer = problem.workload.digest, problem.workload.layer_ids[0]
        proof = Proof(layer, digest, "semidefinite", bound, numbers={"levels": [numbers]})
        return check_semidefinite(problem, proof)

    for height in (10**7, int(rng.integers(0, 5000)), int(rng.integers(0, 500))):
        numbers["diagonal"] = [height] * n
        numbers["dual"] = 0
        said = refusal(0)
        if "the multipliers show" in said:
            numbers["dual"] = int(said.split("show ")[1].split(",")[0])
            said = refusal(0)
        if "the numbers prove" in said:
            bound = int(said.split("prove ")[1].split(",")[0])
            assert refusal(bound) == ""
            assert bound <= least
        else:
            assert not said or "not surely positive definite" in said
