"""What proofs of single layers say nothing about is not accepted, whatever the certificate states."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import moeopt as mo
from moeopt import storage
from moeopt.certificate import Certificate, seal
from moeopt.testing import brute_force
from moeopt.workload import Workload

Document = dict[str, Any]


def trace_of(layers: int = 2) -> mo.Trace:
    rng = np.random.default_rng(0)
    return mo.Trace(np.array([[rng.permutation(5)[:2] for _ in range(layers)] for _ in range(40)]), 5)


TRACE = trace_of()
PROBLEM = mo.Problem.from_trace(TRACE, mo.Cluster(1, 3, 3), replicas=2)
BUDGETED = replace(PROBLEM, total_replicas=1)


def least_of(problem: mo.Problem, *, total: int) -> int:
    """The least cost of two layers within the budget, by every placement of each."""
    layers = [
        [replace(problem.layer(index), replicas=copies) for copies in range(total + 1)] for index in (0, 1)
    ]
    first, second = ([brute_force(one)[0] or 0 for one in row] for row in layers)
    return min(first[copies] + second[total - copies] for copies in range(total + 1))


@pytest.fixture(scope="module")
def solved() -> mo.Result:
    result = mo.solve(PROBLEM, "covers", stop=mo.Stop(seconds=None))
    assert result.status == "certified-optimal"
    return result


@pytest.fixture
def document(solved: mo.Result) -> Document:
    assert solved.certificate is not None
    found: Document = json.loads(json.dumps(solved.certificate.to_dict()))
    return found


def sealed(document: Document) -> Document:
    return {**document, "seal": seal(document)}


def stating(document: Document, **rules: Any) -> Document:
    return sealed({**document, "problem": {**document["problem"], **rules}})


def files(folder: Path, problem: mo.Problem) -> tuple[Path, Path]:
    """The trace and the document of the problem."""
    storage.write_json(folder / "problem.json", problem.to_dict())
    mo.write_trace(TRACE, folder / "trace.parquet")
    return folder / "trace.parquet", folder / "problem.json"


def test_a_budget_over_all_layers_is_not_proved_layer_by_layer(
    solved: mo.Result, document: Document, tmp_path: Path
) -> None:
    assert solved.placement is not None
    assert solved.cost is not None
    assert solved.cost < least_of(PROBLEM, total=1)  # so that stating the budget makes the claim false
    assert BUDGETED.violation(solved.placement).endswith("replicas over all layers, the budget is 1")
    altered = stating(document, total_replicas=1)
    without = sealed({**altered, "placement": None, "layers": [unplaced(one) for one in altered["layers"]]})
    for claimed in (altered, without):
        for given in (claimed, Certificate.from_dict(claimed)):
            for trace in (TRACE, Workload.from_trace(TRACE), BUDGETED, *files(tmp_path, BUDGETED)):
                verdict = mo.verify(given, trace)
                assert not verdict.accepted
                assert "about a budget over all layers, total_replicas is 1" in verdict.reason


def unplaced(layer: Document) -> Document:
    return {name: part for name, part in layer.items() if name != "dispatch"} | {
        "cost": None,
        "optimal": False,
    }


def test_without_the_budget_the_certificate_is_accepted(document: Document, tmp_path: Path) -> None:
    for trace in (TRACE, PROBLEM, *files(tmp_path, PROBLEM)):
        verdict = mo.verify(document, trace)
        assert verdict.accepted, verdict.reason


def test_the_budget_is_kept_where_an_allocation_proves_it(tmp_path: Path) -> None:
    spent = mo.allocate(BUDGETED, "covers", stop=mo.Stop(seconds=None))
    assert spent.cost == spent.bound == least_of(PROBLEM, total=1)
    found = json.loads(json.dumps(spent.to_dict()))
    for trace in (TRACE, files(tmp_path, BUDGETED)[0]):
        verdict = mo.verify(found, trace)
        assert verdict.accepted, verdict.reason


def test_a_problem_of_one_layer_keeps_every_other_rule() -> None:
    incumbent = PROBLEM.partition(np.array([[0, 0, 1, 1, 2]] * 2))
    problem = mo.Problem.from_trace(
        TRACE,
        mo.Cluster(1, 3, 3),
        replicas=2,
        family_weights={TRACE.families[0]: 2},
        load_tolerance=Fraction(1, 2),
        tail=Fraction(1, 3),
        incumbent=incumbent,
        max_moves=3,
        total_replicas=1,
    )
    assert set(problem.fields()) == {field for field in problem.__dataclass_fields__ if field != "workload"}
    whole, layer = problem.fields(), problem.layer(1).fields()
    assert {name for name in whole if whole[name] != layer.get(name)} == {"incumbent", "total_replicas"}
    assert layer["incumbent"] == incumbent.layer(1).to_dict()


@pytest.mark.parametrize(
    ("rules", "named"),
    [
        ({"experts_per_node": 2}, "experts_per_node"),
        ({"tail": "1"}, "tail"),
        ({"cluster": {**PROBLEM.cluster.to_dict(), "memory": 80}}, "cluster"),
    ],
)
def test_a_rule_that_the_checker_does_not_know_is_refused(
    document: Document, rules: Document, named: str
) -> None:
    verdict = mo.verify(stating(document, **rules), TRACE)
    assert not verdict.accepted
    assert verdict.reason.startswith(f"a rule is not known in this form: {named} ")


def test_a_part_of_the_layers_is_accepted_of_a_trace_but_not_of_a_problem(
    document: Document, tmp_path: Path
) -> None:
    part = copy.deepcopy(document)
    part["layers"] = part["layers"][1:]
    part["placement"] = mo.Placement.from_dict(document["placement"]).layer(1).to_dict()
    part = json.loads(json.dumps(sealed(part), default=storage.plain))
    trace, problem = files(tmp_path, PROBLEM)
    for given in (part, Certificate.from_dict(part)):
        for recorded in (TRACE, trace, Workload.from_trace(TRACE), PROBLEM.layer(1)):
            assert mo.verify(given, recorded).accepted
        for other in (PROBLEM, problem, PROBLEM.layer(0)):
            verdict = mo.verify(given, other)
            assert not verdict.accepted
            wanted = [0] if other not in (PROBLEM, problem) else [0, 1]
            assert verdict.reason == f"the certificate is about layers [1], the problem has {wanted}"
