"""A run that goes on from a certificate keeps what was proved, loses nothing, and says when it fits another problem."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import moeopt as mo
from moeopt import registry, storage
from moeopt.certificate import Certificate
from moeopt.resuming import known_layers, no_weaker
from moeopt.samples import sample
from moeopt.stop import Stop
from tests.command_line import Run


def problem(slots: int = 8) -> mo.Problem:
    return mo.Problem.from_trace(sample("tiny-moe").layers([0, 1, 2]), mo.Cluster.of(gpus=4, slots=slots))


@pytest.fixture(scope="module")
def proved() -> mo.Result:
    return mo.solve(problem(), "priced")


def certificate_of(result: mo.Result) -> Certificate:
    assert result.certificate is not None
    return result.certificate


def test_what_was_proved_is_checked_and_kept(proved: mo.Result) -> None:
    again = mo.solve(problem(), "linear", resume=certificate_of(proved))
    assert (again.status, again.cost, again.bound) == ("certified-optimal", proved.cost, proved.bound)
    assert {part.message for part in again.layers} == {"proved by an earlier run, checked again"}
    assert mo.verify(certificate_of(again), sample("tiny-moe")).accepted


def test_layers_that_the_certificate_does_not_know_are_solved(proved: mo.Result) -> None:
    part = certificate_of(proved.layers[1])
    again = mo.solve(problem(), "priced", resume=part)
    assert again.status == "certified-optimal"
    assert [part.message != "" for part in again.layers] == [False, True, False]


def test_no_bound_gets_weaker_and_no_placement_worse(proved: mo.Result) -> None:
    first = proved.layers[0]
    proof = replace(certificate_of(first).proofs[0], cost=None, optimal=False)
    bounded = Certificate(problem().fields(), (proof,), None)
    (known, *_) = known_layers(bounded, problem())
    assert known is not None
    linear = registry.named_method("linear").solve(problem().layer(0), stop=Stop(), seed=0)
    kept = no_weaker(problem().layer(0), linear, known=known)
    assert (kept.status, kept.cost, kept.bound) == ("certified-gap", linear.cost, first.bound)
    assert mo.verify(certificate_of(kept), sample("tiny-moe")).accepted


@pytest.mark.parametrize("name", ["priced", "blocks"])
def test_a_proof_goes_on_from_its_prices(name: str) -> None:
    method = registry.named_method(name)
    layer = mo.Problem.from_trace(sample("tiny-moe").layers([0]), mo.Cluster.of(gpus=8, slots=4))
    first = method.solve(layer, stop=Stop(seconds=None), seed=0)
    proof = certificate_of(first).proofs[0]
    again = method.solve(layer, stop=Stop(seconds=None), seed=0, earlier=proof)  # type: ignore[call-arg]
    assert (again.status, again.cost) == ("certified-optimal", proof.cost)


def test_a_forged_proof_gives_nothing(proved: mo.Result) -> None:
    certificate = certificate_of(proved.layers[0])
    proof = certificate.proofs[0]
    forged = replace(certificate, proofs=(replace(proof, bound=proof.bound + 1, optimal=False),))
    result = mo.solve(problem(), "linear", resume=forged)
    assert result.layers[0].bound is None


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (problem(slots=9), "about another problem: cluster .*'slots': 8.*, here .*'slots': 9"),
        (
            mo.Problem.from_trace(sample("tiny-moe").layers([3]), mo.Cluster.of(gpus=4, slots=8)),
            r"about layers \[0, 1, 2\], the problem has \[3\]",
        ),
    ],
)
def test_another_problem_is_refused(proved: mo.Result, other: mo.Problem, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        known_layers(certificate_of(proved), other)


def test_other_traffic_is_refused(proved: mo.Result) -> None:
    certificate = certificate_of(proved)
    other = tuple(replace(proof, digest="0" * 64) for proof in certificate.proofs)
    with pytest.raises(ValueError, match="about other traffic: layer 0 has another digest"):
        known_layers(replace(certificate, proofs=other), problem())


def test_the_command_line_goes_on_from_a_file(tmp_path: Path, run: Run, proved: mo.Result) -> None:
    path, trace = tmp_path / "earlier.json", tmp_path / "trace.parquet"
    mo.write_trace(sample("tiny-moe"), trace)
    storage.write_json(path, certificate_of(proved).to_dict())
    words = (
        "place",
        trace,
        "--gpus",
        4,
        "--slots",
        8,
        "--layers",
        "0-2",
        "--resume",
        path,
        "--method",
        "linear",
    )
    answer = run(*words, "--json")
    assert (answer.code, answer.document["status"]) == (0, "certified-optimal")
    path.write_text("{}")
    refused = run(*words)
    assert refused.code == 2
    assert str(path) in refused.err
