"""The checker of row proofs accepts what holds and refuses everything else, without the prover's modules."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from moeopt.certificate import Proof
from moeopt.cluster import Cluster
from moeopt.multipliers import exact_bound
from moeopt.problem import Problem
from moeopt.rows_checker import check_assignment, check_pairs
from moeopt.testing import brute_force
from moeopt.trace import Trace
from moeopt_formulations.assignment import Assignment
from moeopt_formulations.pairs import Pairs

CHECKS = {"pairs": check_pairs, "assignment": check_assignment}


def problem_of(cluster: Cluster, **fields: Any) -> Problem:
    rng = np.random.default_rng(1)
    chosen = np.array([rng.permutation(7)[:3] for _ in range(50)])
    return Problem.from_trace(
        Trace(experts=chosen[:, None], n_experts=7), cluster, **{"objective": "cut"} | fields
    )


def proof_of(formulation: Pairs | Assignment, problem: Problem, *, seed: int = 0) -> Proof:
    """A proof from random multipliers of the right sign: weak, and true."""
    rng = np.random.default_rng(seed)
    matrix, keys = formulation.matrix(problem), np.zeros((0, 3), np.int32)
    if isinstance(formulation, Pairs):
        lazy = formulation.lazy(problem)
        chosen = rng.permutation(len(lazy.keys))[:6]
        keys = lazy.keys[chosen]
        matrix = matrix.extended(lazy.rows[chosen], lower=lazy.lower[chosen], upper=lazy.upper[chosen])
    size = rng.integers(1, 1 << 24, matrix.row_lower.size)
    down = (matrix.row_lower == -np.inf) | ((matrix.row_upper < np.inf) & (rng.random(size.size) < 0.5))
    if isinstance(formulation, Assignment):  # most of the many rows of z stay out of the proof
        ties = np.flatnonzero(matrix.row_upper == 0)
        size[ties[np.arange(ties.size) % 9 > 0]] = 0
    multipliers = np.where(down, -size, size).tolist()
    costs, offset = formulation.costs(problem)
    bound, sums = exact_bound(matrix, multipliers, costs=costs, offset=offset)
    return Proof(
        layer_id=0,
        digest=problem.workload.digest,
        kind=formulation.name,
        bound=bound,
        numbers={**formulation.proof(problem, multipliers=multipliers, keys=keys), **sums},
    )


CASES: dict[str, tuple[Pairs | Assignment, Problem]] = {
    "pairs": (Pairs(), problem_of(Cluster(1, 3, 3), load_tolerance="0.5")),
    "pairs counted": (Pairs(), problem_of(Cluster(1, 2, 5))),
    "pairs on nodes": (Pairs(), problem_of(Cluster(3, 1, 3, node_cost=2))),
    "assignment": (Assignment(), problem_of(Cluster(1, 3, (4, 2, 2)), load_tolerance="0.5")),
    "assignment on nodes": (Assignment(), problem_of(Cluster(2, 2, 2, gpu_cost=2, node_cost=4))),
}


NO_NUMBERS: tuple[Any, ...] = (1.0, True, None, "1", 1 << 700, -(1 << 700), [1])


def numbers_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every number of a proof."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from numbers_in(part, (*path, name))
    elif isinstance(value, list):
        for at, part in enumerate(value):
            yield from numbers_in(part, (*path, at))
    else:
        yield path


def changed(value: Any, path: tuple[Any, ...], to: Callable[[Any], Any]) -> Any:
    """A copy of nested numbers with one of them replaced by `to` of it."""
    if not path:
        return to(value)
    if isinstance(value, dict):
        return {
            name: changed(part, path[1:], to) if name == path[0] else part for name, part in value.items()
        }
    return [changed(part, path[1:], to) if at == path[0] else part for at, part in enumerate(value)]


def _always(value: Any) -> Callable[[Any], Any]:
    return lambda _: value


@pytest.mark.parametrize("case", CASES)
def test_true_proofs_are_accepted_and_never_exceed_brute_force(case: str) -> None:
    formulation, problem = CASES[case]
    least, _ = brute_force(problem)
    assert least is not None
    for seed in range(5):
        proof = proof_of(formulation, problem, seed=seed)
        assert CHECKS[proof.kind](problem, proof) == ""
        assert proof.bound <= least


@pytest.mark.parametrize("case", CASES)
def test_a_proof_altered_in_any_number_is_refused(case: str) -> None:
    formulation, problem = CASES[case]
    proof = proof_of(formulation, problem)
    paths = list(numbers_in(dict(proof.numbers)))
    assert len(paths) > 20
    for path in paths:
        for to in (lambda n: n + 1, lambda n: n - 1, lambda n: -n - 1, lambda n: 2 * n + 1):
            altered = replace(proof, numbers=changed(dict(proof.numbers), path, to))
            assert CHECKS[proof.kind](problem, altered), f"{path} was not missed"


@pytest.mark.parametrize("case", CASES)
def test_what_is_no_whole_number_of_sensible_size_is_refused(case: str) -> None:
    formulation, problem = CASES[case]
    proof = proof_of(formulation, problem)
    for path in numbers_in(dict(proof.numbers)):
        for wrong in NO_NUMBERS:
            altered = replace(proof, numbers=changed(dict(proof.numbers), path, _always(wrong)))
            assert CHECKS[proof.kind](problem, altered)


@pytest.mark.parametrize("case", CASES)
def test_missing_and_surplus_families_and_shapes_are_refused(case: str) -> None:
    formulation, problem = CASES[case]
    proof = proof_of(formulation, problem)
    numbers = dict(proof.numbers)
    for name, value in numbers.items():
        rest = {other: part for other, part in numbers.items() if other != name}
        assert CHECKS[proof.kind](problem, replace(proof, numbers=rest))
        shapes: tuple[Any, ...] = ({}, [], "x", [*value, 1] if isinstance(value, list) else [value])
        for wrong in shapes:
            assert CHECKS[proof.kind](problem, replace(proof, numbers=numbers | {name: wrong}))
    assert "does not ask for" in CHECKS[proof.kind](problem, replace(proof, numbers=numbers | {"more": 1}))


@pytest.mark.parametrize("case", CASES)
def test_a_claim_that_its_numbers_do_not_make_is_refused(case: str) -> None:
    formulation, problem = CASES[case]
    proof = proof_of(formulation, problem)
    check = CHECKS[proof.kind]
    assert check(problem, replace(proof, cost=10**9)) == ""
    for changes in (
        {"bound": proof.bound + 1},
        {"bound": proof.bound - 1},
        {"bound": True},
        {"layer_id": 1},
        {"digest": "0"},
        {"kind": "blocks"},
        {"optimal": True},
        {"cost": proof.bound - 1},
        {"cost": 1e9},
        {"cost": 10**9, "optimal": True},
    ):
        claim: dict[str, Any] = changes
        assert check(problem, replace(proof, **claim)), changes


@pytest.mark.parametrize("case", ["pairs", "assignment"])
def test_a_multiplier_on_a_side_its_row_lacks_is_refused(case: str) -> None:
    formulation, problem = CASES[case]
    proof = proof_of(formulation, problem)
    family = "triangles" if case == "pairs" else "z"
    path = (family, 0, len(proof.numbers[family][0]) - 1)
    altered = replace(proof, numbers=changed(dict(proof.numbers), path, lambda n: -n))
    assert "a side that its row does not have" in CHECKS[proof.kind](problem, altered)


def test_a_proof_about_another_problem_is_refused() -> None:
    formulation, problem = CASES["pairs"]
    proof = proof_of(formulation, problem)
    fan_out = problem_of(Cluster(1, 3, 3), load_tolerance="0.5", objective="fan-out")
    assert "about the cut" in check_pairs(fan_out, proof)
    unequal = problem_of(Cluster(1, 3, (3, 3, 4)), load_tolerance="0.5")
    assert "not interchangeable" in check_pairs(unequal, proof)
    assert "does not ask for" in check_pairs(problem_of(Cluster(1, 3, 3)), proof)
    assert check_pairs(problem_of(Cluster(1, 3, 3), load_tolerance="0.1"), proof)


def test_the_checker_imports_no_solver_and_no_prover() -> None:
    script = """
        import sys
        import moeopt.rows_checker
        names = {"highspy", "pyomo", "scipy", "numba", "moeopt_formulations"}
        names |= {f"moeopt.{name}" for name in ("rows", "statement", "multipliers", "formulation", "matrix")}
        loaded = names & set(sys.modules)
        assert not loaded, loaded
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True)
