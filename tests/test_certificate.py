"""Certificates travel as sealed documents and join layer by layer."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from moeopt.certificate import Certificate, Proof, seal
from moeopt.checker import verify
from moeopt.cluster import Cluster
from moeopt.counting_checker import check_counting
from moeopt.exact import Exact
from moeopt.problem import Problem
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
