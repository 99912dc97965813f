import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.cases import Absent, case
from benchmarks.run import Key, Row, Store, Task, judge, machine, perform, perform_all, versions
from benchmarks.sizes import paired
from benchmarks.suite import EXPERIMENTS, trouble
from moeopt.api import solve
from moeopt.heuristics.swap import pair_sets
from moeopt.problem import Problem
from moeopt.stop import Stop
from moeopt.workload import Workload


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


def test_pairs_of_all_experts_have_the_cut_of_the_layer() -> None:
    one = replace(case("sample, cut"), layers=(2,))
    recorded = one.trace()
    whole, pairs = one.problem(recorded), one.problem(paired(recorded, experts=recorded.n_experts))
    placement = solve(whole, "linear").placement
    assert placement is not None
    assert pairs.cost(placement) == whole.cost(placement)


def test_pairs_of_the_most_loaded_experts_are_the_heaviest_part_of_the_co_activation() -> None:
    recorded = case("sample").trace().layers([3])
    (sets,) = Workload.from_trace(recorded).layers
    small = paired(recorded, experts=12)
    (kept,) = Workload.from_trace(small).layers
    heaviest = sorted(sets.load.argsort(kind="stable")[::-1][:12].tolist())
    _, weights = pair_sets(sets, sets.counts.sum(axis=1))
    affinity = sets.affinity(sets.counts.sum(axis=1))[heaviest][:, heaviest]
    assert kept.counts.sum() == affinity.sum() // 2 < weights.sum()
    assert (small.n_experts, small.top_k) == (12, 2)
    Problem(Workload.from_trace(small), replace(case("sample"), gpus=3).cluster, objective="cut")


def test_tasks_of_an_experiment_have_distinct_keys() -> None:
    for experiment in EXPERIMENTS.values():
        keys = [task.key for task in experiment.tasks()]
        assert len(set(keys)) == len(keys) > 0, experiment.name
        assert experiment.summary
