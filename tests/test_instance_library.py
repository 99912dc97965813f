"""The packaged instances: they prove themselves, and their models have the values that the set says."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import highspy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from benchmarks.make_instances import Recipe, certified, recipes
from moeopt import api, checker, instance_library, storage
from moeopt.certificate import Certificate, seal
from moeopt.dispatch import Plan
from moeopt.formulation import Startable
from moeopt.instance_library import (
    INDEX,
    SOLUTIONS,
    entries,
    index_of,
    named_entry,
    read_instance,
    read_solutions,
)
from moeopt.matrix import Matrix
from moeopt.mps import free_mps, full_matrix
from moeopt.relaxations.counting import counting_proof
from moeopt.statements import named_formulation
from tests.command_line import Run, refused

ENTRIES = entries()
NAMES = [entry.name for entry in ENTRIES]
SMALLEST = ("cut-9", "fan-out-12")
PACKAGED = Path(str(files("moeopt"))) / "data" / "instances"


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The index and the smallest instance, to be damaged."""
    for name in (
        INDEX,
        SOLUTIONS,
        *(named_entry(SMALLEST[0]).file(kind) for kind in ("problem", "certificate")),
    ):
        shutil.copy(PACKAGED / name, tmp_path / name)
    return tmp_path


def read_by_highs(path: Path) -> Any:
    highs = highspy.Highs()
    highs.setOptionValue("output_flag", False)
    assert highs.readModel(str(path)) == highspy.HighsStatus.kOk
    return highs


@pytest.mark.parametrize("name", NAMES)
def test_every_certificate_is_proved_again_and_costs_what_it_says(name: str) -> None:
    entry = named_entry(name)
    problem, certificate = read_instance(name)
    verdict = checker.verify(certificate.to_dict(), problem.workload)
    assert verdict.accepted, verdict.reason
    (proof,), placement = certificate.proofs, certificate.placement
    assert placement is not None
    answer = placement if proof.dispatch is None else Plan(placement, (proof.dispatch,))
    assert problem.violation(answer) == ""
    assert problem.cost(answer) == proof.cost == entry.cost
    assert (proof.bound, proof.optimal) == (entry.bound, entry.optimal)
    assert dict(certificate.fields) == problem.fields()
    shape = (entry.experts, entry.gpus, entry.nodes, entry.objective)
    cluster = problem.cluster
    assert shape == (problem.workload.n_experts, cluster.gpus, cluster.nodes, problem.objective)
    assert named_formulation(entry.formulation).supports(problem) == ""


def test_the_set_is_small_and_has_open_problems() -> None:
    assert sum(path.stat().st_size for path in PACKAGED.iterdir()) <= 700_000
    assert {entry.optimal for entry in ENTRIES} == {True, False}
    assert all(entry.bound <= entry.cost < 2**53 for entry in ENTRIES)


def test_the_solution_file_says_what_the_certificates_say() -> None:
    told: dict[str, dict[str, int]] = {}
    for line in read_solutions().splitlines():
        word, name, value = line.split()
        told.setdefault(name, {})[word] = int(value)
    assert list(told) == NAMES
    for name, values in told.items():
        proof = read_instance(name)[1].proofs[0]
        if proof.optimal:
            assert values == {"=opt=": proof.cost}
        else:
            assert values == {"=best=": proof.cost, "=bestdual=": proof.bound}


@pytest.mark.parametrize("name", SMALLEST)
def test_highs_solves_the_written_model_to_the_value_of_the_set(name: str, tmp_path: Path, run: Run) -> None:
    written = run("bench", "instance", name, "-o", tmp_path, "--json").document
    highs = read_by_highs(tmp_path / f"{name}.mps")
    highs.setOptionValue("mip_rel_gap", 0.0)
    assert highs.run() == highspy.HighsStatus.kOk
    lp, x = highs.getLp(), np.round(highs.getSolution().col_value)
    assert (lp.num_col_, lp.num_row_) == (written["columns"], written["rows"])
    assert highs.getModelStatus() == highspy.HighsModelStatus.kOptimal
    value = sum(int(c) * int(at) for c, at in zip(lp.col_cost_, x, strict=True)) + int(lp.offset_)
    assert f"=opt= {name} {value}\n" in (tmp_path / "moeopt.solu").read_text(encoding="utf-8")


@pytest.mark.parametrize("formulation", ["assignment", "pairs", "blocks"])
def test_the_best_placement_costs_the_same_in_the_written_model(formulation: str, tmp_path: Path) -> None:
    problem, certificate = read_instance("cut-9")
    model: Any = named_formulation(formulation)
    path = tmp_path / "model.mps"
    path.write_bytes(free_mps(full_matrix(model, problem), name="model"))
    lp = read_by_highs(path).getLp()
    x = model.values(problem, certificate.placement)
    assert float(np.array(lp.col_cost_) @ x + lp.offset_) == certificate.proofs[0].cost


@pytest.mark.parametrize("name", NAMES)
def test_the_best_placement_is_a_point_of_the_listed_model(name: str) -> None:
    entry = named_entry(name)
    problem, certificate = read_instance(name)
    model, (proof,), placement = (
        named_formulation(entry.formulation),
        certificate.proofs,
        certificate.placement,
    )
    assert placement is not None
    if not isinstance(model, Startable):
        pytest.skip(f"{model.name} does not turn placements into points")
    matrix = full_matrix(model, problem)
    point = model.values(problem, placement if proof.dispatch is None else Plan(placement, (proof.dispatch,)))
    assert matrix.value(point) == entry.cost
    assert matrix.violation(point) == 0.0


@pytest.mark.parametrize("recipe", list(recipes()), ids=lambda recipe: recipe.name)
def test_a_recipe_gives_the_packaged_problem(recipe: Recipe) -> None:
    entry = named_entry(recipe.name)
    assert (entry.about, entry.formulation) == (recipe.about, recipe.formulation)
    assert recipe.problem().digest == read_instance(recipe.name)[0].digest


def test_a_worse_run_changes_nothing_and_a_wrong_one_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    (recipe,) = (one for one in recipes() if one.name == "fan-out-12")
    problem, known = read_instance(recipe.name)
    linear = problem.partition(np.arange(12) // 3)
    for surplus, outcome in ((0, "kept"), (1, "refused")):
        proof = counting_proof(problem, cost=problem.cost(linear) + surplus)
        found = SimpleNamespace(
            status="", message="", certificate=Certificate.of_layer(problem, proof, placement=linear)
        )
        monkeypatch.setattr(api, "solve", lambda *_, found=found, **__: found)
        if outcome == "kept":
            assert certified(recipe, problem, known) is known
            assert certified(recipe, problem, None) is found.certificate
        else:
            with pytest.raises(RuntimeError, match="fan-out-12: layer 0: the placement costs"):
                certified(recipe, problem, known)


WHOLE = st.integers(-9, 9).map(float)
NUMBERS = st.one_of(WHOLE, st.sampled_from([0.1, -1 / 3, 2.0**52, 1e-7, 12345.678]))


@st.composite
def matrices(draw: st.DrawFn) -> dict[str, Any]:
    """The fields of small ones, every kind of side and of bound."""
    width, count = draw(st.integers(1, 5)), draw(st.integers(0, 5))

    def sides(size: int, numbers: st.SearchStrategy[float]) -> tuple[list[float], list[float]]:
        pairs = []
        for _ in range(size):
            low, high = sorted((draw(numbers), draw(numbers)))
            kind = draw(st.sampled_from(["both", "low", "high", "fixed", "free", "binary", "positive"]))
            pairs.append(
                {
                    "both": (low, high),
                    "low": (low, np.inf),
                    "high": (-np.inf, high),
                    "fixed": (low, low),
                    "free": (-np.inf, np.inf),
                    "binary": (0.0, 1.0),
                    "positive": (0.0, np.inf),
                }[kind]
            )
        return [low for low, _ in pairs], [high for _, high in pairs]

    lower, upper = sides(width, NUMBERS)
    row_lower, row_upper = sides(count, WHOLE)  # two sides are one and a range
    return {
        "cost": draw(st.lists(NUMBERS, min_size=width, max_size=width)),
        "offset": draw(NUMBERS),
        "lower": lower,
        "upper": upper,
        "integer": draw(st.lists(st.booleans(), min_size=width, max_size=width)),
        "rows": draw(st.lists(WHOLE, min_size=width * count, max_size=width * count)),
        "row_lower": row_lower,
        "row_upper": row_upper,
    }


@given(matrices())
@settings(deadline=None)  # a file is written and read
def test_what_highs_reads_is_the_matrix_that_was_written(
    tmp_path_factory: Any, drawn: dict[str, Any]
) -> None:
    shape = (len(drawn["row_lower"]), len(drawn["cost"]))
    matrix = Matrix(**drawn | {"rows": csr_array(np.reshape(drawn["rows"], shape))})
    path = tmp_path_factory.mktemp("mps") / "model.mps"
    path.write_bytes(free_mps(matrix, name="model"))
    lp = read_by_highs(path).getLp()
    stated = np.isfinite(matrix.row_lower) | np.isfinite(matrix.row_upper)
    wanted = (matrix.cost, matrix.lower, matrix.upper, matrix.row_lower[stated], matrix.row_upper[stated])
    for given_, found in zip(
        wanted, (lp.col_cost_, lp.col_lower_, lp.col_upper_, lp.row_lower_, lp.row_upper_), strict=True
    ):
        np.testing.assert_allclose(np.array(found), given_, rtol=1e-15, atol=0)
    assert lp.offset_ == matrix.offset
    whole = [kind == highspy.HighsVarType.kInteger for kind in lp.integrality_] or [False] * lp.num_col_
    assert whole == matrix.integer.tolist()
    rows = np.zeros((lp.num_row_, lp.num_col_))
    starts, places, values = lp.a_matrix_.start_, lp.a_matrix_.index_, lp.a_matrix_.value_
    for column in range(lp.num_col_):
        for at in range(starts[column], starts[column + 1]):
            rows[places[at], column] = values[at]
    assert (rows == matrix.rows.toarray()[stated]).all()


def test_names_that_a_file_cannot_hold_are_refused() -> None:
    matrix = Matrix(
        cost=np.ones(2),
        lower=np.zeros(2),
        upper=np.ones(2),
        integer=np.ones(2, bool),
        rows=csr_array(np.ones((1, 2))),
        row_lower=np.ones(1),
        row_upper=np.ones(1),
    )
    for names, reason in (
        (("a b", "c"), "single words, found column 'a b'"),
        (("a", "a"), "found 1 for 2 columns"),
    ):
        with pytest.raises(ValueError, match=reason):
            free_mps(replace(matrix, column_names=names), name="model")
    with pytest.raises(ValueError, match="a row is named 'cost'"):
        free_mps(replace(matrix, row_names=("cost",)), name="model")
    with pytest.raises(ValueError, match="is one word, found 'two words'"):
        free_mps(matrix, name="two words")


def test_a_written_instance_is_verified_against_its_problem(tmp_path: Path, run: Run) -> None:
    for name in ("cut-12", "fan-out-12"):
        told = run("bench", "instance", name, "-o", tmp_path / "new", "--formulation", "blocks")
        assert told.code == 0, told.err
        assert "moeopt verify" in told.out
    cut, fan_out = (tmp_path / "new" / f"{name}.certificate.json" for name in ("cut-12", "fan-out-12"))
    problem = tmp_path / "new" / "cut-12.problem.json"
    assert {path.name for path in problem.parent.iterdir()} == {SOLUTIONS} | {
        f"{name}.{kind}"
        for name in ("cut-12", "fan-out-12")
        for kind in ("mps", "problem.json", "certificate.json")
    }
    accepted = run("verify", cut, problem)
    assert (accepted.code, accepted.err) == (0, "")
    assert accepted.out.startswith("accepted: 1 layers")
    other = run("verify", fan_out, problem, "--json")  # the same traffic, another objective
    assert other.code == 1
    assert (
        other.document["reason"]
        == "the certificate is about another problem: objective 'fan-out', here 'cut'"
    )


def test_a_problem_that_is_damaged_is_named(tmp_path: Path, run: Run) -> None:
    problem, certificate = read_instance("cut-9")
    storage.write_json(tmp_path / "certificate.json", certificate.to_dict())
    storage.write_json(tmp_path / "problem.json", problem.to_dict() | {"fields": {}})
    answer = run("verify", tmp_path / "certificate.json", tmp_path / "problem.json")
    refused(answer, "problem.json: field 'family_weights' is missing")
    assert api.verify(certificate, problem).accepted


def test_the_list_names_every_instance(run: Run) -> None:
    document = run("bench", "instance", "--json").document
    assert document["set"] == instance_library.VERSION
    assert [one["name"] for one in document["instances"]] == NAMES
    assert {one["status"] for one in document["instances"]} == {"certified-optimal", "certified-gap"}
    shown = run("bench", "instance")
    assert shown.code == 0
    assert all(f" {name} " in shown.out for name in NAMES)
    one = run("bench", "instance", NAMES[0])
    assert f"=opt= {NAMES[0]} {ENTRIES[0].cost}" in one.out


def test_unknown_names_and_words_that_do_not_go_together_are_refused(tmp_path: Path, run: Run) -> None:
    refused(run("bench", "instance", "cut-13"), "no instance is named 'cut-13'", "did you mean", *NAMES)
    refused(run("bench", "instance", "zzz", "-o", tmp_path), "no instance is named 'zzz'; known are cut-9")
    refused(run("bench", "instance", "-o", tmp_path), "give its name")
    refused(run("bench", "instance", "cut-9", "--formulation", "pairs"), "give a folder")
    words = ("bench", "instance", "cut-9", "-o", tmp_path / "none", "--formulation")
    refused(run(*words, "hyperedge"), "hyperedge does not state this problem", 'use objective="fan-out"')
    refused(run(*words, "nothing"), "no formulation is named 'nothing'")
    assert not (tmp_path / "none").exists()
    (tmp_path / "file").write_text("")
    refused(run("bench", "instance", "cut-9", "-o", tmp_path / "file"), "a folder is wanted, found a file")


@pytest.mark.parametrize("kind", ["problem", "certificate"])
def test_a_damaged_file_is_named(kind: str, copied: Path) -> None:
    path = copied / named_entry("cut-9").file(kind)
    assert read_instance("cut-9", folder=copied)[0].digest == read_instance("cut-9")[0].digest
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"cut-9.{kind}.json.xz: sha-256 must be"):
        read_instance("cut-9", folder=copied)
    path.unlink()
    with pytest.raises(ValueError, match=f"cut-9.{kind}.json.xz: cannot be read"):
        read_instance("cut-9", folder=copied)


def test_an_altered_index_or_list_of_values_is_named(copied: Path) -> None:
    index = copied / INDEX
    document = json.loads(index.read_text(encoding="utf-8"))
    document["instances"][0]["bound"] -= 1
    index.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(ValueError, match=f"{INDEX}: the seal does not fit"):
        entries(copied)
    storage.write_json(index, index_of([replace(ENTRIES[0], cost=ENTRIES[0].cost + 1)]))
    with pytest.raises(ValueError, match=r"certificate\.json\.xz: cost and bound must be"):
        read_instance("cut-9", folder=copied)
    with pytest.raises(ValueError, match=f"{SOLUTIONS}: the values must be those of {INDEX}"):
        read_solutions(copied)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[" * 100_000, "recursion"),
        (json.dumps(dict(index_of([]), instances=[7])).encode(), "an instance must be an object, found 7"),
        (
            json.dumps(dict(index_of([]), instances=[[7]])).encode(),
            "an instance must be an object, found [7]",
        ),
    ],
    ids=["too deep", "a number", "a list"],
)
def test_an_index_of_another_form_is_named(copied: Path, content: bytes, words: str) -> None:
    if content.startswith(b"{"):
        document = json.loads(content)
        content = json.dumps({**document, "seal": seal(document)}).encode()
    (copied / INDEX).write_bytes(content)
    with pytest.raises(ValueError, match=f"{INDEX}: ") as error:
        entries(copied)
    assert words in str(error.value)


def test_what_unpacks_to_more_than_the_limit_is_refused(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instance_library, "LARGEST", 1_000)
    with pytest.raises(
        ValueError, match=r"cut-9.problem.json.xz: a document may have 1000 bytes, found more"
    ):
        read_instance("cut-9", folder=copied)
