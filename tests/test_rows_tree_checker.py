"""No certificate of a tree survives a change that makes it claim more than its leaves prove."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moeopt.certificate import Proof
from moeopt.cluster import Cluster
from moeopt.problem import Problem
from moeopt.rows import solve_model
from moeopt.rows_tree_checker import check_rows
from moeopt.solvers.door import Session
from moeopt.stop import Stop
from moeopt.testing import brute_force
from moeopt.trace import Trace
from moeopt_formulations.hyperedge import Hyperedge

HUGE = 1 << 159


def problem_of() -> Problem:
    """Named GPUs of unequal slots: the relaxation leaves a gap that the tree closes."""
    chosen = [[0, 1, 2], [0, 1, 3], [2, 3, 4], [1, 2, 4], [0, 3, 4], [0, 2, 4], [0, 1, 4]]
    trace = Trace(np.array(chosen)[:, None], 5)
    return Problem.from_trace(trace, Cluster(1, 2, (3, 2)))


PROBLEM = problem_of()
LEAST = brute_force(PROBLEM)[0] or 0


@pytest.fixture(scope="module")
def proof() -> Proof:
    """A real one, of a tree with several leaves."""
    with Session() as session:
        answer = solve_model(Hyperedge(), PROBLEM, stop=Stop(seconds=None), session=session)
    assert answer.status == "certified-optimal"
    assert answer.proof is not None
    assert answer.proof.kind == "rows"
    assert answer.bound == answer.cost == LEAST
    assert sum("column" in case for case in answer.proof.numbers["tree"]) >= 1
    return answer.proof


def refused(proof: Proof, **numbers: Any) -> str:
    return check_rows(PROBLEM, replace(proof, numbers={**proof.numbers, **numbers}))


def tree_of(proof: Proof) -> list[dict[str, Any]]:
    tree: list[dict[str, Any]] = copy.deepcopy(proof.numbers["tree"])
    return tree


def split_of(tree: list[dict[str, Any]]) -> dict[str, Any]:
    return next(case for case in tree if "column" in case)


def leaf_of(tree: list[dict[str, Any]]) -> dict[str, Any]:
    return next(case for case in tree if case.get("rows"))


def test_an_honest_proof_is_accepted_again_and_from_its_document(proof: Proof) -> None:
    assert check_rows(PROBLEM, proof) == ""
    assert refused(proof, **json.loads(json.dumps(dict(proof.numbers)))) == ""
    assert check_rows(PROBLEM, replace(proof, bound=LEAST - 1)) == ""


def test_a_bound_above_the_tree_is_refused(proof: Proof) -> None:
    broken = check_rows(PROBLEM, replace(proof, bound=LEAST + 1))
    assert broken == f"rows proof: bound is {LEAST + 1}, the tree proves {LEAST}"


def leaves_of(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every number of a document."""
    if isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves_of(part, (*path, key))
    elif isinstance(value, int):
        yield path


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_altered_number_lifts_the_bound(proof: Proof, data: st.DataObject) -> None:
    """Any number becomes any other: the proof is refused, or still says no more than is so."""
    numbers = copy.deepcopy(dict(proof.numbers))
    ways = list(leaves_of(numbers))
    *way, last = data.draw(st.sampled_from(ways))
    place: Any = numbers
    for key in way:
        place = place[key]
    old = place[last]
    change = data.draw(st.sampled_from(["+1", "-1", "negative", "nothing", "double", "any"]))
    new = {"+1": old + 1, "-1": old - 1, "negative": -old, "nothing": 0, "double": 2 * old}.get(
        change, data.draw(st.integers(-HUGE, HUGE))
    )
    place[last] = new
    bound = data.draw(st.sampled_from([LEAST, LEAST + 1, LEAST + 1000]))
    answer = check_rows(PROBLEM, replace(proof, bound=bound, numbers=numbers))
    assert answer or bound <= LEAST
    if new != old and last == "duals":
        assert "together, the certificate says" in answer


def test_every_single_byte_of_a_document_counts(proof: Proof) -> None:
    """Each digit replaced by the next one: refused, or a claim that is still so."""
    text = json.dumps({**dict(proof.numbers)}, sort_keys=True)
    for at, letter in enumerate(text):
        if not letter.isdigit() or (at % 7 and len(text) > 2_000):
            continue
        changed = text[:at] + str((int(letter) + 1) % 10) + text[at + 1 :]
        try:
            numbers = json.loads(changed)
        except ValueError:  # a number that begins with 0
            continue
        assert check_rows(PROBLEM, replace(proof, bound=LEAST + 1, numbers=numbers))


def test_a_tree_must_be_whole(proof: Proof) -> None:
    tree = tree_of(proof)
    leaves = [case for case in tree if "rows" in case]
    assert "are not proved" in refused(proof, tree=tree[:-1])
    assert "the tree goes on after its last leaf" in refused(proof, tree=[*tree, leaves[-1]])
    assert "are not proved" in refused(proof, tree=[split_of(tree)])
    assert "a tree has 1 to" in refused(proof, tree=[])
    assert "a tree has 1 to" in refused(proof, tree={"rows": []})
    assert refused(proof, tree=list(reversed(tree)))
    alone = [leaves[-1]]
    assert refused(proof, tree=alone)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (7, "a case is an object, found 7"),
        ({}, "a case has column and split, or rows and numbers, found []"),
        ({"rows": [], "numbers": [], "column": 0}, "a case has column and split, or rows and numbers"),
        ({"column": -1, "split": 0}, "expected a whole number from 0 to"),
        ({"column": 10**9, "split": 0}, "expected a whole number from 0 to"),
        ({"column": True, "split": 0}, "found True"),
        ({"column": 0, "split": -1}, "expected a whole number from 0 to 0, found -1"),
        ({"column": 0, "split": 1}, "expected a whole number from 0 to 0, found 1"),
        ({"column": 0, "split": 0.0}, "expected a whole number from 0 to 0, found 0.0"),
        ({"rows": 3, "numbers": []}, "expected a list of whole numbers, found 3"),
        ({"rows": [0, 0], "numbers": [1, 1]}, "a leaf names each row once"),
        ({"rows": [-1], "numbers": [1]}, "a leaf names each row once"),
        ({"rows": [10**9], "numbers": [1]}, "expected a whole number from"),
        ({"rows": [0], "numbers": []}, "0 multipliers for 1 rows"),
        ({"rows": [0], "numbers": [1 << 161]}, "expected a whole number from"),
        ({"rows": [0], "numbers": [1.5]}, "found 1.5"),
        ({"rows": [0], "numbers": ["1"]}, "found '1'"),
    ],
)
def test_a_case_of_another_form_is_refused(proof: Proof, case: Any, words: str) -> None:
    answer = refused(proof, tree=[case])
    assert answer.startswith("rows proof: ")
    assert words in answer


def test_a_multiplier_on_a_side_that_a_row_does_not_have_is_refused(proof: Proof) -> None:
    matrix = Hyperedge().matrix(PROBLEM)
    above = int(np.flatnonzero(np.isinf(matrix.row_lower))[0])
    tree = [{"rows": [above], "numbers": [1]}]
    assert f"presses on a side that row {above} does not have" in refused(proof, tree=tree)
    none = [{"rows": [above], "numbers": [0]}]
    assert "the leaves prove" in refused(proof, tree=none)


def test_continuous_columns_are_not_parted(proof: Proof) -> None:
    matrix = Hyperedge().matrix(PROBLEM)
    continuous = np.flatnonzero(~matrix.integer & (matrix.upper > matrix.lower))
    if not continuous.size:
        pytest.skip("every column of the statement is whole")
    tree = tree_of(proof)
    split_of(tree)["column"] = int(continuous[0])
    assert "is not whole: its points cannot be parted" in refused(proof, tree=tree)


def test_a_part_cannot_be_parted_where_nothing_is_left(proof: Proof) -> None:
    nothing: dict[str, Any] = {"rows": [], "numbers": []}
    twice = {"column": 0, "split": 0}
    answer = refused(proof, tree=[twice, twice, nothing, nothing, nothing])
    assert "expected a whole number from 0 to -1, found 0" in answer


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"formulation": "guess"}, "no formulation is named 'guess'"),
        ({"formulation": 3}, "a formulation has a name, found 3"),
        ({"formulation": "pairs"}, "pairs does not state the problem"),
        ({"formulation": "assignment"}, "assignment does not state the problem"),
        ({"scale": 0}, "expected a whole number from 1 to"),
        ({"scale": 1 << 65}, "expected a whole number from 1 to"),
        ({"scale": True}, "found True"),
        ({"duals": "many"}, "the certificate says 'many'"),
        ({"extra": 1}, "rows proof: expected ['duals', "),
        ({"keys": 3}, "keys must list rows, found 3"),
        ({"keys": [[1], [1]]}, "keys must be of one length, and name each row once"),
        ({"keys": [[1], [1, 2]]}, "keys must be of one length, and name each row once"),
        ({"keys": [[1.5]]}, "found 1.5"),
        ({"keys": [[1, 2]]}, "has no rows that are found on demand, 1 are named"),
    ],
)
def test_the_numbers_around_the_tree_are_checked(proof: Proof, numbers: dict[str, Any], words: str) -> None:
    assert words in refused(proof, **numbers)


def test_a_sum_of_another_type_than_whole_is_refused(proof: Proof) -> None:
    duals = float(proof.numbers["duals"])
    assert duals == proof.numbers["duals"]
    assert f"the certificate says {duals!r}" in refused(proof, duals=duals)


def test_missing_fields_are_refused(proof: Proof) -> None:
    for name in proof.numbers:
        less = {key: value for key, value in proof.numbers.items() if key != name}
        assert "rows proof: expected" in check_rows(PROBLEM, replace(proof, numbers=less))


def test_another_problem_is_not_proved_by_it(proof: Proof) -> None:
    """Twice the traffic has other rows or costs; the sum of what the leaves prove gives it away."""
    chosen = PROBLEM.workload.layers[0].members[:4]
    other = Problem.from_trace(Trace(chosen[:, None], 5), PROBLEM.cluster)
    assert check_rows(other, proof)
    dearer = replace(PROBLEM, cluster=replace(PROBLEM.cluster, gpu_cost=2))
    assert check_rows(dearer, proof)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(rng=st.integers(0, 2**32 - 1).map(np.random.default_rng), scale=st.sampled_from([1, 3, 1 << 64]))
def test_no_tree_made_up_at_random_lifts_the_bound(proof: Proof, rng: Any, scale: int) -> None:
    """Multipliers of any size on any rows of a tree of any shape."""
    height = Hyperedge().matrix(PROBLEM).row_lower.size

    def grow(depth: int) -> list[dict[str, Any]]:
        if depth and rng.random() < 0.6:
            column = int(rng.integers(0, 10))
            return [{"column": column, "split": 0}, *grow(depth - 1), *grow(depth - 1)]
        rows = rng.permutation(height)[: rng.integers(0, 6)].tolist()
        numbers = [int(rng.integers(-9, 10)) << int(rng.integers(0, 140)) for _ in rows]
        return [{"rows": rows, "numbers": numbers}]

    tree = grow(3)
    answer = refused(replace(proof, bound=LEAST + 1), scale=scale, tree=tree)
    assert answer
    if "the leaves prove" in answer:
        duals = int(answer.partition("the leaves prove ")[2].partition(" ")[0])
        answer = refused(replace(proof, bound=LEAST + 1), scale=scale, tree=tree, duals=duals)
        assert "the tree proves" in answer
