"""Certificates travel as sealed documents and join layer by layer."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from moeopt import storage
from moeopt.certificate import Certificate, Proof, seal
from moeopt.checker import verify
from moeopt.cluster import Cluster
from moeopt.counting_checker import check_counting
from moeopt.dispatch import Plan
from moeopt.exact import Exact
from moeopt.problem import Problem
from moeopt.relaxations.counting import counting_proof
from moeopt.stop import Stop
from moeopt.trace import Trace
from moeopt_formulations.blocks import Blocks

TRACE = Trace(
    np.array([[[0, 1], [2, 3]], [[0, 2], [1, 3]], [[0, 3], [0, 1]], [[1, 2], [0, 1]]]),
    4,
    layer_ids=np.array([3, 8]),
)
PROBLEM = Problem.from_trace(TRACE, Cluster(1, 2, 2))


def part(index: int) -> Certificate:
    result = Exact(Blocks()).solve(PROBLEM.layer(index), stop=Stop(seconds=None), seed=0)
    assert result.certificate is not None
    return result.certificate


@pytest.fixture(scope="module")
def parts() -> list[Certificate]:
    return [part(0), part(1)]


def test_a_certificate_survives_its_document(parts: list[Certificate]) -> None:
    whole = Certificate.join(parts)
    assert whole is not None
    assert whole.layer_ids == (3, 8)
    document = json.loads(json.dumps(whole.to_dict()))
    assert Certificate.from_dict(document) == whole
    assert document["seal"] == seal(document) == whole.to_dict()["seal"]
    assert verify(document, TRACE).accepted


def test_the_seal_is_over_the_content_and_not_its_order(parts: list[Certificate]) -> None:
    document = parts[0].to_dict()
    assert seal(dict(reversed(document.items()))) == document["seal"]
    assert seal({**document, "version": 2}) != document["seal"]
    assert seal({**document, "seal": "anything"}) == document["seal"]


def test_a_joined_certificate_is_accepted_by_every_layer(parts: list[Certificate]) -> None:
    whole = Certificate.join(parts)
    assert whole is not None
    verdict = verify(whole, TRACE)
    assert verdict.accepted
    assert [(layer, claim, reason) for layer, claim, reason in verdict.layers] == [
        (3, "optimal", ""),
        (8, "optimal", ""),
    ]


def test_where_one_layer_has_no_placement_the_bounds_alone_are_claimed(parts: list[Certificate]) -> None:
    alone = Certificate(
        parts[1].fields, (replace(parts[1].proofs[0], cost=None, optimal=False),), placement=None
    )
    whole = Certificate.join([parts[0], alone])
    assert whole is not None
    assert whole.placement is None
    verdict = verify(whole, TRACE)
    assert verdict.accepted, verdict.reason
    assert [claim for _, claim, _ in verdict.layers] == ["bound", "bound"]


def test_nothing_joins_to_nothing() -> None:
    assert Certificate.join([]) is None


def test_the_fields_of_the_problem_travel_along(parts: list[Certificate]) -> None:
    again = Problem.from_fields(dict(parts[0].fields), PROBLEM.workload)
    assert again.fields() == PROBLEM.fields()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": "moeopt-placement"}, "format must be 'moeopt-certificate', found 'moeopt-placement'"),
        ({"version": 0}, "version of moeopt-certificate must be 1, found 0"),
        ({"layers": []}, "the certificate proves nothing"),
        ({"layers": [7]}, "a layer must be an object, found 7"),
        ({"layers": {}}, "field 'layers' must be list"),
        ({"problem": None}, "field 'problem' must be dict"),
        ({"placement": []}, "field 'placement' must be dict or NoneType"),
    ],
)
def test_a_document_of_another_form_is_refused(
    parts: list[Certificate], changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        Certificate.from_dict(parts[0].to_dict() | changes)


@pytest.mark.parametrize("name", ["layer", "digest", "kind", "bound", "cost", "optimal", "numbers"])
@pytest.mark.parametrize("value", [1.5, [1]])
def test_a_layer_of_another_form_is_refused(parts: list[Certificate], name: str, value: Any) -> None:
    document = parts[0].to_dict()
    (layer,) = document["layers"]
    with pytest.raises(ValueError, match=f"field '{name}' must be"):
        Certificate.from_dict(document | {"layers": [layer | {name: value}]})
    without = {key: found for key, found in layer.items() if key != name}
    with pytest.raises(ValueError, match=f"field '{name}' is missing"):
        Certificate.from_dict(document | {"layers": [without]})


def test_a_certificate_of_a_bound_alone_needs_no_placement() -> None:
    (sets,) = PROBLEM.layer(0).workload.layers
    proof = Proof(3, PROBLEM.layer(0).workload.digest, "counting", bound=0)
    assert sets.top_k == 2
    assert check_counting(PROBLEM.layer(0), proof) == ""
    assert verify(Certificate.of_layer(PROBLEM.layer(0), proof, placement=None), TRACE).accepted


def dispatched() -> Certificate:
    """A bound of nothing, and a placement with copies whose dispatch is part of the claim."""
    trace = TRACE.layers([3])
    problem = Problem.from_trace(trace, Cluster(1, 2, 3), replicas=1, load_tolerance="0.25")
    plan = min((p for p in problem.candidates() if isinstance(p, Plan)), key=problem.cost)
    proof = replace(counting_proof(problem, cost=problem.cost(plan)), dispatch=plan.dispatches[0])
    return Certificate.of_layer(problem, proof, placement=plan.placement)


def test_a_dispatch_travels_with_its_layer() -> None:
    certificate = dispatched()
    document = json.loads(json.dumps(certificate.to_dict(), default=storage.plain))
    back = Certificate.from_dict(document)
    given, wanted = back.proofs[0].dispatch, certificate.proofs[0].dispatch
    assert given is not None
    assert wanted is not None
    for name in ("sets", "gpus", "tokens"):
        assert getattr(given, name).tolist() == getattr(wanted, name).tolist()
    assert back.to_dict() == document
    assert "dispatch" not in part(0).to_dict()["layers"][0]


def test_the_checker_judges_the_dispatch_that_came_along() -> None:
    document = json.loads(json.dumps(dispatched().to_dict(), default=storage.plain))
    trace = TRACE.layers([3])
    assert verify(document, trace).accepted

    def altered(change: Any) -> str:
        other = json.loads(json.dumps(document))
        change(other["layers"][0])
        other["seal"] = seal(other)
        return verify(other, trace).reason

    def swap(layer: Any) -> None:
        gpus = layer["dispatch"]["gpus"]
        layer["dispatch"]["gpus"] = [[1 - gpu for gpu in row] for row in gpus]

    def elsewhere(layer: Any) -> None:
        layer["dispatch"]["gpus"][0][0] = 7

    def fewer(layer: Any) -> None:
        layer["dispatch"]["tokens"][0][0] -= 1

    def negative(layer: Any) -> None:
        rows = layer["dispatch"]
        for name in ("sets", "gpus", "tokens"):
            rows[name] += [rows[name][0], rows[name][0]]
        rows["tokens"][-1], rows["tokens"][-2] = [-5], [5]

    def cheaper(layer: Any) -> None:
        layer["cost"] -= 1

    def nothing(layer: Any) -> None:
        layer["dispatch"] = {"sets": [], "gpus": [], "tokens": []}

    assert "does not hold expert" in altered(swap)
    assert "dispatch names GPU 7, there are 2" in altered(elsewhere)
    assert "tokens of family 0" in altered(fewer)
    assert "serves a negative number of tokens" in altered(negative)
    assert "the certificate says" in altered(cheaper)
    with pytest.raises(ValueError, match="a dispatch needs equally many rows"):
        altered(nothing)


def test_a_dispatch_needs_a_placement() -> None:
    certificate = dispatched()
    (proof,) = certificate.proofs
    bare = Certificate(certificate.fields, (proof,), None)
    assert verify(bare, TRACE.layers([3])).reason == "layer 3: a dispatch comes with a placement"


def test_parts_that_are_joined_without_placements_lose_their_dispatch() -> None:
    certificate = dispatched()
    bare = Certificate(certificate.fields, (replace(certificate.proofs[0], cost=None, dispatch=None),), None)
    joined = Certificate.join([certificate, replace(bare, proofs=(replace(bare.proofs[0], layer_id=8),))])
    assert joined is not None
    assert [(proof.cost, proof.dispatch, proof.optimal) for proof in joined.proofs] == [
        (None, None, False)
    ] * 2
