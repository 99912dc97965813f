"""`moeopt certify`: what it answers, writes and refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import moeopt as mo
from moeopt import registry
from moeopt.method import Heuristic
from moeopt.problem import Problem
from moeopt.stop import Clock
from tests.command_line import Run, caller

TRACE = mo.Generator(
    layers=2, experts=8, top_k=2, tokens=400, requests=16, groups=3, group_size=3, seed=1
).generate()
PROBLEM = mo.Problem.from_trace(TRACE, mo.Cluster.of(gpus=4, slots=2))
LINEAR = PROBLEM.partition(np.tile(np.arange(8) // 2, (2, 1)))
BLOCKS = registry.named_method("blocks")
KEYS = {
    *("status", "fan_out", "bound", "certified_share", "seconds", "objective", "cost", "cost_bound"),
    *("distance", "best_cost", "best_status", "cost_unit", "broken", "tolerance", "method", "seed"),
    *("message", "source", "duplicates", "left_out", "layers"),
}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`moeopt certify`, in this process."""
    call = caller(monkeypatch, capsys)
    return lambda *words: call("certify", *words, "--workers", "1")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with trace.parquet, linear.json, and the linear placement as both engines hold it."""
    folder = tmp_path_factory.mktemp("made")
    mo.write_trace(TRACE, folder / "trace.parquet")
    (folder / "linear.json").write_text(json.dumps(LINEAR.to_dict()))
    mo.export(LINEAR, folder / "sglang.json", engine="sglang")
    mo.export(LINEAR, folder / "eplb.npz", engine="eplb")
    return folder


def test_the_distance_is_told_proved_and_closed(run: Run, made: Path, tmp_path: Path) -> None:
    proof, better = tmp_path / "proof.json", tmp_path / "better.json"
    code, out, err = run(
        made / "linear.json", made / "trace.parquet", "--json", "-o", proof, "--better", better
    )
    assert (code, err) == (0, "")
    answer = json.loads(out)
    assert answer.keys() == KEYS
    assert answer["cost"] == PROBLEM.cost(LINEAR)
    assert answer["distance"] == answer["cost"] - answer["cost_bound"] > 0
    assert (answer["status"], answer["best_status"]) == ("certified-gap", "certified-optimal")
    assert answer["best_cost"] == answer["cost_bound"]
    assert answer["fan_out"] == pytest.approx(answer["cost"] / (2 * answer["cost_unit"]))
    assert answer["bound"] == pytest.approx(answer["cost_bound"] / (2 * answer["cost_unit"]))
    assert answer["certified_share"] < 1
    for name in ("cost", "bound", "distance", "best_cost"):
        total = answer["cost_bound" if name == "bound" else name]
        assert sum(layer[name] for layer in answer["layers"]) == total
    assert [layer["layer"] for layer in answer["layers"]] == [0, 1]
    assert answer["message"].startswith(
        "moeopt-placement; 4 GPUs of 2 slots as in the placement; swap search"
    )
    assert mo.verify(proof, TRACE).accepted
    assert PROBLEM.cost(mo.read_placement(better)) == answer["cost_bound"]
    again = run(better, made / "trace.parquet", "--json", "--better", tmp_path / "none.json")
    assert again.code == 0
    assert again.err == "moeopt: no better placement written: none was found\n"
    assert again.document["status"] == "certified-optimal"
    assert again.document["distance"] == 0
    assert again.document["certified_share"] == 1.0
    assert run(proof, made / "trace.parquet", "--json").document["source"] == "moeopt-certificate"
    assert {path.name for path in tmp_path.iterdir()} == {"proof.json", "better.json"}


@pytest.mark.parametrize(("name", "engine"), [("sglang.json", "sglang"), ("eplb.npz", "eplb")])
def test_the_map_of_an_engine_is_certified_like_the_placement(
    run: Run, made: Path, tmp_path: Path, name: str, engine: str
) -> None:
    plain = run(made / "linear.json", made / "trace.parquet", "--json", "--layers", 1).document
    disguised = tmp_path / "plan"
    disguised.write_bytes((made / name).read_bytes())
    answer = run(disguised, made / "trace.parquet", "--json", "--layers", 1, "--gpus", 4).document
    for key in ("cost", "cost_bound", "distance", "best_cost", "status"):
        assert answer[key] == plain[key]
    assert (answer["source"], answer["left_out"]) == (f"map of {engine}", [0])
    assert answer["message"].startswith(f"map of {engine}, without its layers 0; ")


def test_duplicates_are_counted_and_said(run: Run, made: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "map.npy", [[0, 1, 1, 2, 3, 3, 4, 5, 0, 6, 7, 0]] * 2)
    answer = run(
        tmp_path / "map.npy", made / "trace.parquet", "--gpus", 4, "--method", "replicate", "--json"
    ).document
    assert answer["duplicates"] == 4
    assert "map of eplb: 4 duplicates dropped (an expert twice on one GPU is one copy)" in answer["message"]
    assert "4 GPUs of 3 slots as in the placement, 2 copies a layer" in answer["message"]
    assert answer["best_cost"] <= answer["cost"]


def test_a_broken_tolerance_is_said_with_its_size(run: Run, made: Path) -> None:
    command = (made / "linear.json", made / "trace.parquet", "--load-tolerance", "0.3")
    answer = run(*command, "--json")
    assert answer.code == 0
    document = answer.document
    assert (document["status"], document["distance"], document["certified_share"]) == (
        "inadmissible",
        None,
        None,
    )
    assert document["tolerance"] > 0.3
    assert "load tolerance 0.3 allows" in document["broken"]
    assert document["cost_bound"] == document["best_cost"]
    drawn = " ".join(run(*command).out.split())
    assert f"{document['tolerance']:g} would allow it" in drawn
    none = run(*command[:-1], "0.2", "--json")
    assert none.code == 3
    assert none.document["status"] == "infeasible-claimed"
    assert "0.3 can be met" in none.document["message"]


def test_a_table_and_one_sentence_are_shown_without_json(run: Run, made: Path, tmp_path: Path) -> None:
    shown = run(made / "linear.json", made / "trace.parquet", "--better", tmp_path / "better.json").out
    assert "Placement in use" in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert "proved least" in " ".join(shown.split())
    drawn = " ".join(run(tmp_path / "better.json", made / "trace.parquet", "--seed", 3).out.split())
    assert "no placement is better: cost" in drawn
    unproved = run(
        made / "linear.json", made / "trace.parquet", "--method", "linear", "-o", tmp_path / "proof.json"
    )
    assert "no bound for 2 of 2 layers; nothing better was found" in " ".join(unproved.out.split())
    assert unproved.err == "moeopt: no certificate written: nothing was proved (feasible)\n"
    assert not (tmp_path / "proof.json").exists()


def test_weights_the_cut_and_prices_are_those_of_place(run: Run, made: Path) -> None:
    command = (made / "linear.json", made / "trace.parquet", "--json")
    cut = run(*command, "--objective", "cut").document
    assert (cut["objective"], cut["bound"]) == ("cut", None)
    assert cut["fan_out"] == pytest.approx(mo.evaluate(LINEAR, TRACE).fan_out)
    weighted = run(*command, "--weights", "code=1", "--seconds", 5).document
    assert weighted["message"].endswith("families without weight: math, chat, general")
    dear = run(*command, "--gpu-cost", 3, "--tail", 0, "--method", "mixture", "--seconds", 5).document
    assert dear["cost_bound"] is None


@dataclass(frozen=True)
class Impatient(Heuristic):
    """Holds the best partition it was told of when the interrupt comes."""

    name = "impatient"
    summary = "interrupted"

    def search(
        self, problem: Problem, *, clock: Clock, rng: np.random.Generator, start: mo.Placement | None
    ) -> Iterator[mo.Placement]:
        if problem.workload.n_experts == 8:
            found = BLOCKS.solve(problem, stop=mo.Stop(seconds=None), seed=0).placement
            assert found is not None
            yield found
        raise KeyboardInterrupt


def test_an_interrupt_writes_what_is_known_and_ends_with_130(
    run: Run, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moeopt.registry.named_method", lambda name: Impatient())
    better = tmp_path / "better.json"
    answer = run(made / "linear.json", made / "trace.parquet", "--json", "--better", better)
    assert answer.code == 130
    assert answer.document["status"] == "interrupted"
    assert answer.document["distance"] is None
    assert PROBLEM.cost(mo.read_placement(better)) == answer.document["best_cost"]
    assert answer.document["best_cost"] < answer.document["cost"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("{made}/absent", "{made}/trace.parquet"), ("{made}/absent: cannot be read",)),
        (("{made}/linear.json", "{made}/absent"), ("{made}/absent: cannot be read",)),
        (("{made}/trace.parquet", "{made}/trace.parquet"), ("{made}/trace.parquet: content must be",)),
        (("{made}/eplb.npz", "{made}/trace.parquet"), ("{made}/eplb.npz", "gpus is needed")),
        (("{made}/eplb.npz", "{made}/trace.parquet", "--gpus", 3), ("8 slots on 3 GPUs",)),
        (("{made}/linear.json", "{made}/trace.parquet", "--gpus", 8), ("gpus are 4 in the placement",)),
        (("{made}/linear.json", "{made}/trace.parquet", "--layers", 7), ("layer 7 is not in the trace",)),
        (("{made}/linear.json", "{made}/trace.parquet", "--layers", "x"), ("--layers", "'x'")),
        (("{made}/linear.json", "{made}/trace.parquet", "--replicas", -1), ("replicas must be at least",)),
        (("{made}/linear.json", "{made}/trace.parquet", "--replicas", 1), ("replicas 1 cannot be placed",)),
        (("{made}/linear.json", "{made}/trace.parquet", "--load-tolerance", "0.01"), ("cannot be met",)),
        (("{made}/linear.json", "{made}/trace.parquet", "--weights", "poetry=1"), ("'poetry'",)),
        (("{made}/linear.json", "{made}/trace.parquet", "--method", "magic"), ("'magic'", "known are")),
        (("{made}/linear.json", "{made}/trace.parquet", "--seconds", 0), ("seconds must be positive",)),
        (("{made}/linear.json", "{made}/trace.parquet", "-o", "{made}/no/x"), ("does not exist",)),
        (
            ("{made}/linear.json", "{made}/trace.parquet", "-o", "{made}/linear.json"),
            ("does not use otherwise",),
        ),
        (("{made}/linear.json", "{made}/trace.parquet", "-o", "{new}", "--better", "{new}"), ("{new}",)),
    ],
    ids=str,
)
def test_bad_input_is_refused_with_2(
    run: Run, made: Path, tmp_path: Path, words: tuple[object, ...], said: tuple[str, ...]
) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in made.iterdir()}
    places = {"made": made, "new": tmp_path / "new"}
    answer = run(*(str(word).format(**places) for word in words))
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("moeopt: ")
    assert answer.err.count("\n") == 1
    for part in said:
        assert part.format(**places) in answer.err
    assert {path.name: path.stat().st_mtime_ns for path in made.iterdir()} == before
    assert list(tmp_path.iterdir()) == []
