"""No allocation is accepted that claims more than what is proved of each layer with each number of copies."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import moeopt as mo
from moeopt import storage
from moeopt.allocation_checker import verify_allocation
from moeopt.checker import Verdict
from moeopt.testing import brute_force

Document = dict[str, Any]
EXACT = mo.Stop(seconds=None)
SLOW = mo.Cluster(1, 3, 3, gpu_cost=9)


def trace_of(seed: int = 0) -> mo.Trace:
    rng = np.random.default_rng(seed)
    return mo.Trace(np.array([[rng.permutation(5)[:2] for _ in range(2)] for _ in range(40)]), 5)


TRACE = trace_of()
PROBLEM = mo.Problem.from_trace(TRACE, mo.Cluster(1, 3, 3), replicas=2, total_replicas=2)


def plain(document: Any) -> Any:
    return json.loads(json.dumps(document, default=storage.plain))


def least_of(problem: mo.Problem) -> int:
    """The least cost within the budget, by every placement of every layer."""
    budget = problem.total_replicas or 0
    rows = []
    for index in range(len(problem.workload.layers)):
        layers = [
            replace(problem.layer(index), replicas=copies)
            for copies in range(min(problem.replicas, budget) + 1)
        ]
        rows.append([brute_force(layer)[0] or 0 for layer in layers])
    splits = [split for split in product(*(range(len(row)) for row in rows)) if sum(split) <= budget]
    return min(sum(row[at] for row, at in zip(rows, split, strict=True)) for split in splits)


LEAST = least_of(PROBLEM)


@cache
def _honest() -> str:
    return json.dumps(mo.allocate(PROBLEM, "covers", stop=EXACT).to_dict(), default=storage.plain)


def honest() -> Document:
    found: Document = json.loads(_honest())
    return found


@cache
def _solved(layer: int, copies: int, gpu_cost: int) -> mo.Result:
    cluster = PROBLEM.cluster if gpu_cost == 1 else SLOW
    return mo.solve(replace(PROBLEM.layer(layer), replicas=copies, cluster=cluster), "covers", stop=EXACT)


def certificate(layer: int, copies: int, gpu_cost: int = 1) -> Document:
    found = _solved(layer, copies, gpu_cost).certificate
    assert found is not None
    return dict(plain(found.to_dict()))


def without_copies(rows: list[list[Document]]) -> Document:
    """What the file of somebody says who never tried a copy: both layers as they are without one."""
    results = [_solved(layer, 0, 1) for layer in (0, 1)]
    cost = sum(result.cost or 0 for result in results)
    assert cost > LEAST  # so that calling it optimal is false
    bounds = [[part["layers"][0]["bound"] for part in row] for row in rows]
    costs = [np.minimum.accumulate([part["layers"][0]["cost"] for part in row]).tolist() for row in rows]
    placement = mo.Placement.join([result.placement for result in results if result.placement is not None])
    claims = {"replicas": [0, 0], "certificates": rows, "cost": cost, "bound": cost, "bounds": bounds}
    more = {"costs": costs, "placement": plain(placement.to_dict()), "status": "certified-optimal"}
    return {**honest(), **claims, **more}


def refusal(document: Document) -> str:
    verdict = verify_allocation(document, TRACE)
    assert not verdict.accepted
    assert verdict == mo.verify(document, PROBLEM) or "another problem" in mo.verify(document, PROBLEM).reason
    return verdict.reason


def put(*path: Any) -> Callable[[Document], None]:
    """Change what is found along the path, all but its last part, to the last part."""

    def change(document: Any) -> None:
        *way, last, value = path
        for part in way:
            document = document[part]
        document[last] = value

    return change


def test_an_honest_allocation_is_accepted_as_optimal_and_is() -> None:
    document = honest()
    assert document["problem"] == PROBLEM.fields()
    assert document["cost"] == document["bound"] == LEAST
    verdict = verify_allocation(document, TRACE)
    assert verdict == Verdict(True, "", ((0, "optimal", ""), (1, "optimal", "")))


def test_a_table_without_the_columns_of_more_copies_is_refused() -> None:
    cut = without_copies([[certificate(layer, 0)] for layer in (0, 1)])
    assert refusal(cut) == "layer 0 needs certificates with 0 to 2 copies, found 1 of them"
    document = honest()
    document["certificates"][1].pop()
    assert refusal(document) == "layer 1 needs certificates with 0 to 2 copies, found 2 of them"
    document["certificates"][1] = {"0": 1}
    assert refusal(document).startswith("layer 1 needs certificates with 0 to 2 copies, found {'0': 1}")
    document = honest()
    document["certificates"][0].append(certificate(0, 2))
    assert "found 4 of them" in refusal(document)


def test_a_smaller_budget_that_is_not_the_stated_one_is_refused() -> None:
    cut = without_copies([[certificate(layer, 0)] for layer in (0, 1)])
    cut["total_replicas"] = 0
    assert refusal(cut) == "the budget of the problem is 2, the file says 0"
    cut["problem"]["total_replicas"] = 0
    assert verify_allocation(cut, TRACE).accepted  # of the problem without copies it is true
    assert mo.verify(cut, PROBLEM).reason == (
        "the allocation is about another problem: total_replicas 0, here 2"
    )
    cut["problem"].pop("total_replicas")
    assert refusal(cut) == "the budget of the problem is None, the file says 0"


def test_other_rules_for_the_choices_that_are_not_taken_are_refused() -> None:
    rows = [[certificate(layer, 0), certificate(layer, 1, 9), certificate(layer, 2, 9)] for layer in (0, 1)]
    assert refusal(without_copies(rows)).startswith(
        "layer 0 with 1 copies: the certificate is about another problem: cluster "
    )


def test_rules_that_are_not_those_of_the_certificates_are_refused() -> None:
    document = honest()
    document["problem"]["cluster"]["gpu_cost"] = 9
    assert "layer 0 with 0 copies: the certificate is about another problem: cluster " in refusal(document)
    document = honest()
    document["problem"]["memory"] = 80
    assert refusal(document) == "a rule is not known in this form: memory 80, here None"
    document["problem"] = {**honest()["problem"], "replicas": 90}
    assert refusal(document).startswith("the problem cannot be rebuilt from this trace: replicas 90 cannot")


def test_a_certificate_of_another_choice_or_layer_is_refused() -> None:
    document = honest()
    document["certificates"][1][1] = certificate(1, 0)
    assert refusal(document) == (
        "layer 1 with 1 copies: the certificate is about another problem: replicas 0, here 1"
    )
    document["certificates"][1][1] = certificate(0, 1)
    assert refusal(document) == "layer 1 with 1 copies: the certificate is about layers [0]"
    document["certificates"][1][1] = None
    assert refusal(document) == "layer 1 with 1 copies: the bound rests on a layer without a certificate"
    document["certificates"][1][1] = 5
    assert refusal(document) == "layer 1 with 1 copies: a certificate must be an object, found 5"


def test_a_certificate_that_does_not_hold_is_refused() -> None:
    document = honest()
    document["certificates"][0][2]["layers"][0]["bound"] += 1
    assert refusal(document).startswith("layer 0 with 2 copies: the seal does not fit")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (put("replicas", [-1, 3]), "layer 0 may get 0 to 2 copies, the file says -1"),
        (put("replicas", [1, 3]), "layer 1 may get 0 to 2 copies, the file says 3"),
        (put("replicas", [1, True]), "layer 1 may get 0 to 2 copies, the file says True"),
        (put("replicas", [1.0, 1]), "layer 0 may get 0 to 2 copies, the file says 1.0"),
        (put("replicas", [1, 2]), "3 copies are spent, the budget is 2"),
        (put("replicas", [1]), "1 choices and 2 layers for 2 placed"),
        (put("replicas", [0, 0]), "layer 0 is placed otherwise than certified with 0 copies"),
        (put("bound", LEAST + 1), f"the certificates allow {LEAST}, the file says {LEAST + 1}"),
        (put("cost", LEAST - 1), f"the layers cost {LEAST} together, the file says {LEAST - 1}"),
        (put("bounds", 0, 2, 10), "the certificates have bounds "),
        (put("costs", 0, 2, 10), "the certificates have costs "),
        (put("status", "feasible"), "the status 'feasible' does not follow from cost "),
        (put("bound", LEAST - 1), "the status 'certified-optimal' does not follow from cost "),
    ],
)
def test_a_changed_claim_is_refused(change: Callable[[Document], None], words: str) -> None:
    document = honest()
    change(document)
    assert refusal(document).startswith(words)


def test_a_weaker_bound_is_accepted_as_a_bound() -> None:
    verdict = verify_allocation({**honest(), "bound": LEAST - 1, "status": "certified-gap"}, TRACE)
    assert verdict == Verdict(True, "", ((0, "bound", ""), (1, "bound", "")))


def test_layers_out_of_order_are_refused() -> None:
    document = honest()
    document["placement"]["layer_ids"] = [1, 0]
    assert refusal(document) == "layers must be distinct and ascending, found [1, 0]"


def test_a_file_that_states_no_problem_says_what_is_missing() -> None:
    document = honest()
    document.pop("problem")
    with pytest.raises(ValueError, match=r"field 'problem' is missing: .* allocate again"):
        verify_allocation(document, TRACE)


def test_an_allocation_is_verified_against_the_document_of_its_problem(tmp_path: Path) -> None:
    files = {name: tmp_path / f"{name}.json" for name in ("allocation", "problem", "other", "layer", "wide")}
    document = honest()
    storage.write_json(files["allocation"], document)
    longer = mo.Trace(np.concatenate([TRACE.experts, TRACE.experts[:, :1]], axis=1), 5)
    storage.write_json(files["problem"], PROBLEM.to_dict())
    storage.write_json(files["other"], replace(PROBLEM, cluster=SLOW).to_dict())
    layer = mo.Problem.from_trace(TRACE.layers([1]), PROBLEM.cluster, replicas=2, total_replicas=2)
    storage.write_json(files["layer"], layer.to_dict())
    wide = mo.Problem.from_trace(longer, PROBLEM.cluster, replicas=2, total_replicas=2)
    storage.write_json(files["wide"], wide.to_dict())
    assert mo.verify(files["allocation"], files["problem"]).accepted
    assert mo.verify(document, PROBLEM).accepted
    assert mo.verify(document, longer).accepted  # of a trace it may be about some layers
    reasons = {
        name: mo.verify(files["allocation"], files[name]).reason for name in ("other", "layer", "wide")
    }
    assert reasons["other"].startswith("the allocation is about another problem: cluster ")
    assert "layer 0 is not recorded" in reasons["layer"]
    assert reasons["wide"] == "the allocation is about layers [0, 1], the problem has [0, 1, 2]"


def test_the_incumbent_of_a_certificate_is_that_of_its_layer() -> None:
    incumbent = PROBLEM.partition(np.array([[0, 0, 1, 1, 2], [0, 1, 1, 2, 2]]))
    problem = replace(PROBLEM, incumbent=incumbent, max_moves=2, total_replicas=0)
    document = plain(mo.allocate(problem, "migration", stop=EXACT).to_dict())
    assert mo.verify(document, problem).accepted
    assert document["cost"] == document["bound"] == least_of(problem)
    other = PROBLEM.partition(np.array([[0, 0, 1, 1, 2]] * 2))
    document["problem"]["incumbent"] = plain(other.to_dict())
    assert verify_allocation(document, TRACE).reason.startswith(
        "layer 1 with 0 copies: the certificate is about another problem: incumbent "
    )


@pytest.mark.parametrize(
    ("rules", "cluster"),
    [
        ({"load_tolerance": "0.5"}, mo.Cluster(1, 3, 3)),
        ({"tail": "1/2", "family_weights": {TRACE.families[0]: 2}}, mo.Cluster(1, 3, (3, 3, 2))),
        ({}, mo.Cluster(2, 2, 2, gpu_cost=1, node_cost=3)),
    ],
)
def test_an_allocation_under_further_rules_is_accepted(rules: dict[str, Any], cluster: mo.Cluster) -> None:
    problem = mo.Problem.from_trace(TRACE, cluster, replicas=1, total_replicas=1, **rules)
    stop = mo.Stop(seconds=None, candidates=3)
    document = plain(mo.allocate(problem, "auto", stop=stop).to_dict())
    verdict = mo.verify(document, problem)
    assert verdict.accepted, verdict.reason
    assert document["bound"] <= document["cost"]


@pytest.mark.parametrize(("seed", "replicas", "total"), [(1, 1, 0), (2, 1, 3), (3, 2, 1)])
def test_what_an_honest_allocation_claims_agrees_with_brute_force(
    seed: int, replicas: int, total: int
) -> None:
    trace = trace_of(seed)
    problem = mo.Problem.from_trace(trace, mo.Cluster(1, 2, 4), replicas=replicas, total_replicas=total)
    document = plain(mo.allocate(problem, "covers", stop=EXACT).to_dict())
    assert mo.verify(document, problem).accepted
    assert document["cost"] == document["bound"] == least_of(problem)


POOL = [(layer, copies, price) for layer in (0, 1) for copies in (0, 1, 2) for price in (1, 9)]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_however_true_certificates_are_put_together_nothing_false_is_accepted(data: st.DataObject) -> None:
    rows = [[(layer, copies, 1) for copies in (0, 1, 2)] for layer in (0, 1)]
    for _ in range(data.draw(st.integers(0, 2))):
        rows[data.draw(st.sampled_from([0, 1]))][data.draw(st.integers(0, 2))] = data.draw(
            st.sampled_from(POOL)
        )
    rows = [row[: data.draw(st.integers(1, 3))] for row in rows]
    chosen = [data.draw(st.integers(0, len(row) - 1)) for row in rows]
    results = [_solved(*row[at]) for row, at in zip(rows, chosen, strict=True)]
    parts = [result.placement for result in results if result.placement is not None]
    if [part.layer_ids for part in parts] != [(0,), (1,)]:
        return
    document = copy.deepcopy(without_copies([[certificate(*one) for one in row] for row in rows]))
    bound = cost = sum(result.cost or 0 for result in results)
    document |= {"replicas": chosen, "cost": cost, "bound": bound}
    document["placement"] = plain(mo.Placement.join(parts).to_dict())
    if verify_allocation(document, TRACE).accepted:
        assert cost == bound == LEAST
