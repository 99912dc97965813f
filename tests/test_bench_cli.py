"""The verb `bench`: sweeps that go on where they were interrupted, and tables of them."""

from __future__ import annotations

import json
import sqlite3
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import moeopt as mo
from moeopt.bench_files import read_rows, write_rows
from moeopt.bench_page import page_of
from moeopt.bench_rows import Row
from moeopt.bench_solving import Question, measure, tasks
from moeopt.bench_store import Store
from tests import made_rows
from tests.command_line import Run, caller, refused

CASE = {"gpus": 4}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return caller(monkeypatch, capsys)


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trace") / "trace.parquet"
    mo.write_trace(mo.sample("tiny-moe").layers([0, 3]), path)
    return path


def asked(question: Question, *methods: str, seeds: int = 1) -> list[Row]:
    found = tasks(question, methods, seeds=range(seeds), stop=mo.Stop(seconds=60))
    return [row for task in found for row in measure(*task.arguments)]


def test_a_sweep_goes_on_where_it_was_and_shows_the_same(run: Run, trace: Path, tmp_path: Path) -> None:
    store = tmp_path / "rows.sqlite"
    words = ("bench", "run", trace, "--gpus", 4, "--seconds", 2, "--store", store, "--held-out", 0.25)
    first = run(*words, "--methods", "linear,tacg", "--json")
    assert first.code == 0, first.err
    assert (first.document["ran"], first.document["failed"]) == (2, 0)
    more = run(*words, "--methods", "linear,tacg", "--seeds", 2, "--json").document
    assert more["ran"] == 2
    again = run(*words, "--methods", "linear,tacg", "--seeds", 2, "--json").document
    assert (again["ran"], again["methods"]) == (0, more["methods"])
    linear, tacg = more["methods"]
    assert (linear["method"], linear["runs"], linear["layers"], linear["reduction"]) == ("linear", 2, 4, 0.0)
    assert tacg["reduction"] > 0.1
    assert tacg["held_out"] > 0.1
    table = run(*words, "--methods", "linear,tacg", "--seeds", 2)
    assert "proved" in table.out
    exported = run("bench", "export", store, "-o", tmp_path / "rows.csv", "--json").document
    assert exported["rows"] == 12 == len(read_rows(tmp_path / "rows.csv"))
    run("bench", "export", store, "-o", tmp_path / "rows.parquet")
    files = ("--html", tmp_path / "page.html", "--markdown", tmp_path / "table.md")
    told = run("bench", "report", store, *files, "--json").document
    assert told["rows"] == 12
    assert sorted(told["methods"], key=repr) == sorted(more["methods"], key=repr)
    assert page_of(read_rows(tmp_path / "rows.csv")) == (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "| tacg |" in (tmp_path / "table.md").read_text(encoding="utf-8")
    assert run("bench", "report", tmp_path / "rows.parquet", "--json").document == told
    assert read_rows(tmp_path / "rows.parquet") == read_rows(tmp_path / "rows.csv")


def test_a_row_of_all_layers_is_what_moeopt_says_of_the_placement(trace: Path) -> None:
    recorded = mo.read_trace(trace)
    *layers, whole = asked(Question(trace, options={"gpus": 8}), "auto")
    problem = mo.Problem.from_trace(recorded, mo.Cluster.of(gpus=8, slots=4))
    result = mo.solve(problem, "auto", stop=mo.Stop(seconds=60))
    assert result.placement is not None
    judged = mo.evaluate(result.placement, recorded)
    found = whole["found"]
    assert (found["status"], found["cost"], found["bound"]) == (result.status, result.cost, result.bound)
    assert (found["fan_out"], found["linear_fan_out"]) == (judged.fan_out, judged.linear_fan_out)
    assert [row["layer"] for row in layers] == [0, 3]
    for row, part in zip(layers, result.layers, strict=True):
        assert row["found"]["status"] == "certified-optimal"
        assert row["found"]["cost"] == row["found"]["bound"] == part.cost
        assert row["found"]["steps"][-1][1:] == [part.cost, part.bound]
        assert sorted({gpu for gpus in row["found"]["hosts"] for gpu in gpus}) == list(range(8))
        assert row["found"]["verify_seconds"] > 0


def test_held_out_requests_are_others_than_those_placed_for(trace: Path) -> None:
    recorded = mo.read_trace(trace)
    whole = asked(Question(trace, options=CASE, held_out=0.25), "tacg", seeds=2)[-1]
    seen, rest = recorded.split(0.25, seed=1)
    problem = mo.Problem.from_trace(seen, mo.Cluster.of(gpus=4, slots=8))
    placed = mo.solve(problem, "tacg", seed=1).placement
    assert placed is not None
    assert whole["seed"] == 1
    assert whole["found"]["tokens"] == seen.n_tokens
    assert whole["found"]["held_out"]["fan_out"] == mo.evaluate(placed, rest).fan_out


def test_a_case_is_named_by_what_it_holds(trace: Path, tmp_path: Path) -> None:
    one = Question(trace, options=CASE)
    recorded = one.trace()
    other = Question(
        trace,
        layers="3",
        options={"gpus": 4, "nodes": 1, "replicas": 4, "load_tolerance": "0.1"},
        held_out=0.2,
    )
    assert one.name(recorded).startswith("tiny-moe, 4 GPUs x 8 (")
    assert other.name(other.trace()).startswith(
        "tiny-moe, 4 GPUs x 9, replicas 4, load tolerance 0.1, layers 3, 20 % held out ("
    )
    moved = tmp_path / "moved.parquet"
    moved.write_bytes(trace.read_bytes())
    assert Question(moved, options=CASE).name(recorded) == one.name(recorded)
    task = next(tasks(one, ["linear"], seeds=[0], stop=mo.Stop()))
    mo.write_trace(mo.sample("tiny-moe").layers([0, 1]), moved)
    (found,) = task.arguments
    with pytest.raises(
        ValueError, match=r"moved\.parquet: holds tiny-moe, 4 GPUs x 8 \(.*\) now, not tiny-moe"
    ):
        measure(replace(found, question=Question(moved, options=CASE)))
    assert found.question == one


def test_bad_words_are_refused_before_anything_runs(run: Run, trace: Path, tmp_path: Path) -> None:
    store = tmp_path / "rows.sqlite"
    words = ("bench", "run", trace, "--gpus", 4, "--store", store)
    refused(run(*words, "--methods", "nothing"), "'nothing'")
    refused(run(*words, "--methods", "level"), "method level does not treat this problem")
    refused(run(*words, "--held-out", 2), "--held-out must lie between 0 and 1")
    refused(
        run("bench", "run", trace, "--gpus", 4, "--store", tmp_path / "rows.csv"), "a store is a SQLite file"
    )
    refused(run(*words, "--slots", 1), "slots")
    refused(
        run("bench", "run", trace, "--gpus", 4, "--store", tmp_path / "no" / "rows.sqlite"), "does not exist"
    )
    refused(run("bench", "export", store, "-o", tmp_path / "a.csv"), "rows.sqlite: no such file")
    assert not store.exists()
    (tmp_path / "text.sqlite").write_text("something else " * 20)
    refused(run("bench", "export", tmp_path / "text.sqlite", "-o", tmp_path / "a.csv"), "not a database")
    Store(store).append([], experiment="other")
    refused(run("bench", "export", store, "-o", tmp_path / "a.csv"), "no rows of a sweep")
    refused(run("bench", "report", store, "--html", tmp_path / "no" / "a.html"), "does not exist")
    refused(run("bench", "report", tmp_path / "none.parquet"), "no such file")


def test_a_run_that_is_ended_is_a_row_and_exit_code_1(run: Run, trace: Path, tmp_path: Path) -> None:
    store = tmp_path / "rows.sqlite"
    words = ("bench", "run", trace, "--gpus", 4, "--store", store, "--methods", "linear,search")
    refused(run(*words, "--seconds", 60, "--limit", 5), "may take 120 s by its own clock, the limit is 5 s")
    ended = run(*words, "--seconds", 2, "--memory", 40, "--json")
    assert ended.code == 1
    assert ended.document["failed"] == len(ended.document["reasons"]) == 2
    rows = Store(store).latest("sweep")
    assert [row["outcome"] for row in rows] == ["failed"] * 2
    assert "exit code 1" in rows[0]["reason"] or "ended by" in rows[0]["reason"]
    again = run(*words, "--seconds", 2, "--json")
    assert (again.code, again.document["ran"], again.document["reasons"]) == (0, 2, [])
    rows = Store(store).latest("sweep")
    with closing(sqlite3.connect(store)) as database:
        (mode,) = database.execute("PRAGMA journal_mode").fetchone()
    assert mode == "wal"
    assert json.dumps(rows)


def test_shares_held_out_are_told_apart(trace: Path) -> None:
    recorded = mo.read_trace(trace)
    names = {
        Question(trace, options=CASE, held_out=share).name(recorded) for share in (0.12, 0.125, 0.001, 0.004)
    }
    assert len(names) == 4


def test_the_same_rows_twice_count_once_and_other_machines_are_named(
    run: Run, trace: Path, tmp_path: Path
) -> None:
    store = tmp_path / "rows.sqlite"
    run("bench", "run", trace, "--gpus", 4, "--store", store, "--methods", "linear")
    once = run("bench", "report", store, "--json").document
    run("bench", "export", store, "-o", tmp_path / "rows.parquet")
    assert run("bench", "report", store, tmp_path / "rows.parquet", "--json").document == once
    assert once["remarks"] == []
    elsewhere = [
        {**row, "seed": 1, "machine": {"cpu": "another", "cores": 64}} for row in Store(store).rows("sweep")
    ]
    Store(store).append(elsewhere, experiment="sweep")
    told = run("bench", "report", store, "--json").document
    assert "rows come from 2 machines" in told["remarks"][0]
    assert "2 machines" in " ".join(run("bench", "report", store).out.split())


def test_what_the_referee_refutes_is_no_answer(run: Run, trace: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "rows.sqlite")
    run("bench", "run", trace, "--gpus", 4, "--store", store.path, "--methods", "linear")
    whole = store.rows("sweep")[-1]
    lied = {
        **whole,
        "reason": "costs 7, the result says 6",
        "found": {**whole["found"], "status": "disagreement"},
    }
    store.append([lied], experiment="sweep")
    (linear,) = run("bench", "report", store.path, "--json").document["methods"]
    assert (linear["runs"], linear["failed"], linear["seconds"]) == (1, 1, None)
    again = run("bench", "run", trace, "--gpus", 4, "--store", store.path, "--methods", "linear", "--json")
    assert (again.code, again.document["reasons"]) == (1, ["linear, seed 0: costs 7, the result says 6"])


OWN = """
from dataclasses import dataclass

import moeopt as mo


@dataclass(frozen=True)
class Grown(mo.Heuristic):
    name = "grown"
    summary = "as made by a test"

    def search(self, problem, *, clock, rng, start):
        yield problem.partition([expert % problem.cluster.gpus for expert in range(problem.workload.n_experts)])
"""


def test_methods_of_one_s_own_are_run_again_when_edited_and_not_taken_for_others(
    trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    files = [tmp_path / f"{name}_grown_by_hand.py" for name in ("one", "other")]
    for path in files:
        path.write_text(OWN)
    names = [f"{path}:Grown" for path in files]

    def keys() -> list[str]:
        asked = tasks(Question(trace, options=CASE), names, seeds=[0], stop=mo.Stop(seconds=1))
        return [task.key.method for task in asked]

    first = keys()
    assert len(set(first)) == 2
    files[0].write_text(OWN.replace("expert %", "-expert %"))
    again = keys()
    assert (again[0] != first[0], again[1]) == (True, first[1])
    (task,) = tasks(Question(trace, options=CASE), names[1:], seeds=[0], stop=mo.Stop(seconds=1))
    assert task.name == names[1]
    files[1].write_text(OWN + "# edited\n")
    with pytest.raises(ValueError, match="has changed: it is"):
        measure(*task.arguments)


def test_reports_of_two_stores_keep_the_rows_of_both_machines(trace: Path, run: Run, tmp_path: Path) -> None:
    rows = asked(Question(trace, options=CASE), "linear")
    for name, machine in (("a", {"cpu": "A", "cores": 2}), ("b", {"cpu": "B", "cores": 4})):
        Store(tmp_path / f"{name}.sqlite").append(
            [{**row, "machine": machine} for row in rows], experiment="sweep"
        )
    stores = [tmp_path / "a.sqlite", tmp_path / "b.sqlite"]
    told = run("bench", "report", *stores, "--markdown", tmp_path / "a.md", "--json").document
    assert told["rows"] == 2 * len(rows)
    assert [one["method"] for one in told["methods"]] == ["linear, A, 2 cores", "linear, B, 4 cores"]
    assert [one["case"] for one in told["methods"]] == [rows[0]["case"]] * 2
    assert "| linear, B, 4 cores | 1 |" in (tmp_path / "a.md").read_text()
    Store(stores[0]).append(Store(stores[1]).rows("sweep"), experiment="sweep")
    assert run("bench", "export", stores[0], "-o", tmp_path / "a.csv", "--json").document["rows"] == 2 * len(
        rows
    )
    assert run("bench", "report", tmp_path / "a.csv", "--json").document == told


def test_reports_refuse_odd_files_by_name_and_leave_them_as_they_are(run: Run, tmp_path: Path) -> None:
    (tmp_path / "README.md").touch()
    for words in (
        ("report", tmp_path / "README.md"),
        ("export", tmp_path / "README.md", "-o", tmp_path / "a.csv"),
    ):
        refused(run("bench", *words), "README.md: no rows of a sweep")
    assert (tmp_path / "README.md").read_bytes() == b""
    odd = made_rows.row("a", cost=5)
    del odd["found"]["reference"]
    write_rows([made_rows.row("a", cost=5), odd], tmp_path / "odd.csv")
    refused(
        run("bench", "report", tmp_path / "odd.csv"),
        "odd.csv: row 2: found with a cost must have 'reference'",
    )


def test_more_memory_than_systems_count_is_refused(run: Run, trace: Path, tmp_path: Path) -> None:
    words = ("bench", "run", trace, "--gpus", 4, "--store", tmp_path / "rows.sqlite")
    refused(run(*words, "--memory", 99999999999999999), "--memory", "less than or equal to 1099511627776")


def test_the_table_fits_a_terminal_whatever_a_method_is_called(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    long = "Anneal(moves=10000, coolings=5, start=None, " + "x" * 90 + ")"
    found: dict[str, Any] = {
        "fan_out": 1.0,
        "linear_fan_out": 2.0,
        "held_out": {"fan_out": 1.1, "linear_fan_out": 2.0},
    }
    rows = [made_rows.row("a", layer=None, cost=5, seconds=1234.5, max_violation=12.34, **found)]
    rows += [made_rows.row("a", cost=5, seed=seed) for seed in range(12)]
    rows.append(made_rows.row("b", layer=None, outcome="failed", reason="ended by SIGKILL", settings=long))
    Store(tmp_path / "rows.sqlite").append(rows, experiment="sweep")
    answer = run("bench", "report", tmp_path / "rows.sqlite")
    assert max(map(len, answer.out.splitlines())) <= 80
    (line,) = [line for line in answer.out.splitlines() if line.startswith(" a ")]
    assert line.split() == ["a", "1", "0/12", "–", "-50.0%", "-45.0%", "12.34", "1234.50"]
    assert "0 of 1" in answer.out
