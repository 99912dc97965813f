import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.cases import Absent, case
from benchmarks.run import (
    Key,
    Row,
    Store,
    Task,
    disputed,
    forecast,
    judge,
    left,
    machine,
    perform,
    perform_all,
    versions,
)
from benchmarks.suite import EXPERIMENTS, Experiment, trouble
from benchmarks.trials import contradiction
from moeopt.api import solve
from moeopt.stop import Stop


def _task(name: str, measure: Callable[[], list[Row]] | None = None) -> Task:
    key = Key(name, None, "Linear()", 0, "Stop()")
    return Task(key, measure or (lambda: [key.row("done", status="feasible")]), ())


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "rows.jsonl")


def test_a_task_with_a_row_is_not_run_again(store: Store) -> None:
    assert perform_all([_task("a"), _task("b")], store, workers=1, limit=1) == 1
    assert perform_all([_task("a"), _task("b")], store, workers=1) == 1
    assert perform_all([_task("a"), _task("b")], store, workers=1) == 0
    assert [row["case"] for row in store.rows()] == ["a", "b"]


def test_a_row_says_by_what_and_where_it_was_made(store: Store) -> None:
    perform_all([_task("a")], store, workers=1)
    (row,) = store.rows()
    assert row["versions"] == versions()
    assert set(versions()) == {"python", "numpy", "highspy", "pyomo", "numba", "moeopt"}
    assert row["machine"] == machine()
    assert Key.of(row) == _task("a").key


def test_other_versions_do_not_count_as_done_and_the_newest_row_is_reported(store: Store) -> None:
    row = _task("a").key.row("done", status="feasible")
    store.append([{**row, "versions": {**versions(), "moeopt": "0.0.0"}}])
    assert perform_all([_task("a")], store, workers=1) == 1
    assert [one["versions"] for one in store.latest()] == [versions()]
    assert len(store.rows()) == 2


def test_a_torn_last_line_is_ignored_and_cut_off_by_the_next_row(store: Store) -> None:
    perform_all([_task("a")], store, workers=1)
    with store.path.open("ab") as file:
        file.write(b'{"case": "b", "lay')
    assert [row["case"] for row in store.rows()] == ["a"]
    perform_all([_task("b")], store, workers=1)
    assert [json.loads(line)["case"] for line in store.path.read_text().splitlines()] == ["a", "b"]


def test_a_task_of_many_rows_is_done_only_with_its_last(store: Store) -> None:
    rows = [replace(_task("a").key, layer=layer).row("done") for layer in (0, 1, None)]
    store.append(rows[:2])
    assert perform_all([_task("a", lambda: rows)], store, workers=1) == 1
    assert len(store.latest()) == 3


def _broken() -> list[Row]:
    raise ValueError("top-k exceeds n_experts")


def _absent() -> list[Row]:
    raise Absent("trace.npz is not there")


def test_what_fails_is_a_row_with_its_reason_and_is_tried_again(store: Store) -> None:
    assert perform_all([_task("a", _broken), _task("b")], store, workers=1) == 2
    failed, done = store.rows()
    assert (failed["outcome"], failed["reason"]) == ("failed", "ValueError: top-k exceeds n_experts")
    assert done["outcome"] == "done"
    assert trouble([failed, done]) == ["a, layer None, Linear(): failed: ValueError: top-k exceeds n_experts"]
    assert perform_all([_task("a")], store, workers=1) == 1


def test_a_missing_trace_is_skipped_and_is_no_failure() -> None:
    (row,) = perform(_task("a", _absent))
    assert (row["outcome"], row["reason"]) == ("skipped", "trace.npz is not there")
    assert trouble([row]) == []


def test_the_judge_passes_a_proved_placement_and_names_what_was_tampered_with() -> None:
    one = replace(case("sample"), layers=(0,))
    recorded = one.trace()
    problem = one.problem(recorded)
    result = solve(problem, "blocks", stop=Stop(seconds=None))
    assert result.cost is not None
    fine = judge(problem, result, recorded)
    assert (fine.status, fine.cost, fine.bound) == ("certified-optimal", result.cost, result.cost)
    cheaper = replace(result, cost=result.cost - 1)
    assert judge(problem, cheaper, recorded).status == "disagreement"
    other = case("sample").trace().layers([1])
    assert judge(problem, result, replace(other, layer_ids=recorded.layer_ids)).status == "rejected"
    unproved = replace(result, certificate=None, bound=None)
    assert judge(problem, unproved, recorded).status == "disagreement"


def test_a_row_that_contradicts_a_stored_one_becomes_a_disagreement(store: Store) -> None:
    def first(row: Row, others: Sequence[Row]) -> str:
        return "" if not others else f"another is {others[0]['case']}"

    assert perform_all([_task("a"), _task("b")], store, workers=1, contradiction=first) == 2
    assert [row["found"]["status"] for row in store.rows()] == ["feasible", "disagreement"]
    assert trouble(store.rows()) == ["b, layer None, Linear(): disagreement: another is a"]
    assert perform_all([_task("c")], store, workers=1, contradiction=first) == 1
    assert store.rows()[-1]["reason"] == "another is a"


def test_a_disagreement_ends_the_run_with_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def proved(name: str, seed: int, cost: int) -> Task:
        key = Key(name, None, "blocks() by highs", seed, "Stop()")
        found: dict[str, Any] = {"status": "certified-optimal", "cost": cost, "bound": cost}
        return Task(key, lambda: [key.row("done", **found)], ())

    made: list[Task] = [proved("a", 0, 5), proved("b", 0, 9)]
    one = Experiment("made-up", "two problems", lambda: made, workers=1, contradiction=contradiction)
    monkeypatch.setitem(EXPERIMENTS, "made-up", one)
    options = ["run", "made-up", "--folder", str(tmp_path)]
    assert CliRunner().invoke(app, options).exit_code == 0
    made.append(proved("a", 1, 6))
    ended = CliRunner().invoke(app, options)
    assert ended.exit_code == 1
    assert "made-up: 1 runs to go" in ended.output
    assert "disagreement: bound 6 of blocks() by highs, seed 1, is above the cost 5" in ended.output


def test_what_did_not_run_contradicts_nothing() -> None:
    row = _task("a").key.row("skipped", reason="no trace")
    assert disputed(row, "its bound is above a cost") == row


def test_the_forecast_goes_by_stored_runs_of_the_same_case_and_else_by_the_limit(store: Store) -> None:
    tasks = [replace(_task(name), seconds=120.0) for name in ("a", "b")]
    assert (
        forecast(tasks, store, workers=2) == "2 runs to go, 2 at a time, at most 2 min, by stored runs 2 min"
    )
    other = replace(tasks[0].key, seed=1)
    store.append([other.row("done", wall_seconds=60.0)])
    assert forecast(tasks, store) == "2 runs to go, 1 at a time, at most 4 min, by stored runs 3 min"
    assert forecast([_task("a")], store) == "1 runs to go, 1 at a time"
    store.append([tasks[0].key.row("done")])
    assert left(tasks, store) == tasks[1:]


def test_tasks_of_an_experiment_have_distinct_keys() -> None:
    for experiment in EXPERIMENTS.values():
        keys = [task.key for task in experiment.tasks()]
        assert len(set(keys)) == len(keys) > 0, experiment.name
        assert experiment.summary
