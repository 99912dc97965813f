"""The commands of the benchmarks, and the rows they leave."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.__main__ import app, unshown
from benchmarks.cases import FILES, folder
from benchmarks.run import shown, store_in
from benchmarks.suite import EXPERIMENTS, Experiment, trouble
from benchmarks.trials import contradiction
from moeopt.bench_files import read_rows
from moeopt.bench_rows import Key, Row, Task
from tests.bench_tasks import key_of


def proved(name: str, seed: int, cost: int) -> list[Row]:
    key = Key(name, None, "blocks() by highs", seed, "Stop()")
    return [key.row("done", status="certified-optimal", cost=cost, bound=cost)]


def task(name: str, seed: int, cost: int) -> Task:
    return Task(Key(name, None, "blocks() by highs", seed, "Stop()"), proved, (name, seed, cost))


def test_a_disagreement_ends_the_run_with_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [task("a", 0, 5), task("b", 0, 9)]
    one = Experiment("made-up", "two problems", lambda: made, contradiction=contradiction)
    monkeypatch.setitem(EXPERIMENTS, "made-up", one)
    options = ["run", "made-up", "--folder", str(tmp_path)]
    assert CliRunner().invoke(app, options).exit_code == 0
    assert [row["case"] for row in shown("made-up", folder=tmp_path)] == ["a", "b"]
    made.append(task("a", 1, 6))
    for name in tmp_path.glob("rows.sqlite*"):
        name.unlink()  # what is shown is enough to go on from
    ended = CliRunner().invoke(app, options)
    assert ended.exit_code == 1
    assert "made-up: 1 runs to go" in ended.output
    assert "disagreement: bound 6 of blocks() by highs, seed 1, is above the cost 5" in ended.output
    assert shown("made-up", folder=tmp_path) == store_in(tmp_path).latest("made-up")
    assert len(shown("made-up", folder=tmp_path)) == 3
    assert (
        CliRunner()
        .invoke(app, ["show", "--csv", str(tmp_path / "tables"), "--folder", str(tmp_path)])
        .exit_code
        == 0
    )
    assert read_rows(tmp_path / "tables" / "made-up.csv") == shown("made-up", folder=tmp_path)


def test_what_is_forgotten_runs_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Experiment("made-up", "one problem", lambda: [task("a", 0, 5)])
    monkeypatch.setitem(EXPERIMENTS, "made-up", one)
    options = ["run", "made-up", "--folder", str(tmp_path)]
    counts = ("1 runs to go", "0 runs to go", "1 runs to go")
    for more, count in zip(([], [], ["--again"]), counts, strict=True):
        assert f"made-up: {count}" in CliRunner().invoke(app, [*options, *more]).output


def test_tasks_without_rows_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [task("a", 0, 5)]
    one = Experiment("made-up", "two problems", lambda: made)
    monkeypatch.setitem(EXPERIMENTS, "made-up", one)
    CliRunner().invoke(app, ["run", "made-up", "--folder", str(tmp_path)])
    assert unshown(one, folder=tmp_path) == []
    made.append(task("b", 0, 9))
    assert unshown(one, folder=tmp_path) == [made[1].key]
    assert "two problems (2 tasks to go)" in CliRunner().invoke(app, ["list"]).output


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_task_of_an_experiment_has_its_rows_shown(name: str) -> None:
    missing = [path.name for path in map(folder().joinpath, FILES.values()) if not path.exists()]
    if missing and name == "races":
        pytest.skip(f"{missing[0]} is not there: its tasks are named by the content")
    assert unshown(EXPERIMENTS[name]) == []


def test_an_unknown_experiment_is_named_with_those_there_are() -> None:
    ended = CliRunner().invoke(app, ["run", "nothing"])
    assert ended.exit_code == 2
    assert "'nothing'; known are " in ended.output


def test_only_failures_and_disagreements_are_trouble() -> None:
    key = key_of("a")
    rows = [key.row("done", status="feasible"), key.row("skipped", reason="no trace"), key.row("unsupported")]
    assert trouble(rows) == []
    assert trouble([key.row("failed", reason="ValueError: k")]) == [
        "a, layer None, Linear(): failed: ValueError: k"
    ]


def test_tasks_of_an_experiment_have_distinct_keys() -> None:
    for experiment in EXPERIMENTS.values():
        keys = [task.key for task in experiment.tasks()]
        assert len(set(keys)) == len(keys) > 0, experiment.name
        assert experiment.summary
