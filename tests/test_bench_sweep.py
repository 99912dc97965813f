"""Sweeps: what is stored is not run again, what fails is a row, an interrupt keeps what there is."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from moeopt.bench_rows import Key, Row, Task, machine, versions
from moeopt.bench_runs import Limits
from moeopt.bench_store import Store
from moeopt.bench_sweep import forecast, left, sweep
from tests.bench_tasks import key_of, task

TRIED = "made-up"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "rows.sqlite")


def here(tasks: Sequence[Task], store: Store, **options: Callable[..., object]) -> int:
    """A sweep in this process."""
    return sweep(tasks, store, experiment=TRIED, limits=None, **options)  # type: ignore[arg-type]


def test_a_task_with_a_row_is_not_run_again(store: Store) -> None:
    assert here([task("a")], store) == 1
    assert here([task("a"), task("b")], store) == 1
    assert here([task("a"), task("b")], store) == 0
    assert [row["case"] for row in store.rows(TRIED)] == ["a", "a", "b", "b"]
    assert sweep([task("a")], store, experiment="another", limits=None) == 1


def test_a_row_says_by_what_and_where_it_was_made(store: Store) -> None:
    here([task("a")], store)
    row = store.rows(TRIED)[-1]
    assert row["versions"] == versions()
    assert set(versions()) == {"python", "numpy", "highspy", "pyomo", "numba", "moeopt"}
    assert row["machine"] == machine()
    assert Key.of(row) == key_of("a")


def test_other_versions_do_not_count_as_done_and_the_newest_row_is_reported(store: Store) -> None:
    row = key_of("a").row("done", status="feasible")
    store.append([{**row, "versions": {**versions(), "moeopt": "0.0.0"}}], experiment=TRIED)
    assert here([task("a")], store) == 1
    assert [one["versions"] for one in store.latest(TRIED)] == [versions()] * 2
    assert len(store.rows(TRIED)) == 3


def test_a_task_of_many_rows_is_done_only_with_its_last(store: Store) -> None:
    store.append([key_of("a", layer=0).row("done", cost=7)], experiment=TRIED)
    assert here([task("a")], store) == 1
    assert [row["found"]["cost"] for row in store.rows(TRIED)] == [1, 1]


def test_what_fails_is_a_row_with_its_reason_and_is_tried_again(store: Store) -> None:
    assert here([task("a", "broken"), task("b")], store) == 2
    failed, *done = store.rows(TRIED)
    assert (failed["outcome"], failed["reason"]) == ("failed", "ValueError: top-k exceeds n_experts")
    assert {row["outcome"] for row in done} == {"done"}
    assert here([task("a")], store) == 1
    assert {row["outcome"] for row in store.rows(TRIED)} == {"done"}


def test_what_is_not_there_is_skipped_with_its_reason(store: Store) -> None:
    here([task("a", "absent")], store)
    (row,) = store.rows(TRIED)
    assert (row["outcome"], row["reason"]) == ("skipped", "a.npz is not there")


def test_a_row_that_contradicts_a_stored_one_becomes_a_disagreement(store: Store) -> None:
    def first(row: Row, others: Sequence[Row]) -> str:
        return "" if not others else f"another is {others[0]['case']}"

    assert here([task("a"), task("b"), task("c", "absent")], store, contradiction=first) == 3
    rows = store.rows(TRIED)
    assert [row["found"].get("status") for row in rows] == [None, None, "disagreement", "disagreement", None]
    assert rows[2]["reason"] == "another is a"
    assert rows[4]["reason"] == "c.npz is not there"  # what did not run contradicts nothing


def _processes() -> Executor:
    return ProcessPoolExecutor(2, mp_context=get_context("spawn"))


@pytest.mark.parametrize(
    "started", [lambda: None, lambda: ThreadPoolExecutor(2), _processes], ids=["own", "threads", "processes"]
)
def test_every_run_is_a_process_of_its_own_on_any_executor(
    store: Store, started: Callable[[], Executor | None]
) -> None:
    executor = started()
    cases = ["a", "b", "c"]
    count = sweep([task(one) for one in cases], store, experiment=TRIED, workers=2, executor=executor)
    if executor is not None:
        assert executor.submit(int, 1).result() == 1  # it stays open: it is not ours
        executor.shutdown()
    rows = [row for row in store.rows(TRIED) if row["layer"] is None]
    assert count == 3
    assert sorted(row["case"] for row in rows) == cases
    assert len({row["found"]["pid"] for row in rows} - {os.getpid()}) == 3
    assert all(row["wall_seconds"] > 0 and row["peak_mib"] > 10 for row in rows)


def test_runs_with_no_process_of_their_own_share_those_of_the_executor(store: Store) -> None:
    with ThreadPoolExecutor(2) as executor:
        sweep([task("a"), task("b")], store, experiment=TRIED, executor=executor, limits=None)
    assert {row["found"].get("pid", os.getpid()) for row in store.rows(TRIED)} == {os.getpid()}


def test_an_executor_that_breaks_leaves_rows_that_say_so(store: Store) -> None:
    with _processes() as executor:
        sweep([task("a", "leave")], store, experiment=TRIED, executor=executor, limits=None)
    (row,) = store.rows(TRIED)
    assert row["outcome"] == "failed"
    assert row["reason"].startswith("not run: BrokenProcessPool")


def test_an_interrupt_keeps_what_is_stored_and_ends_the_runs(store: Store, tmp_path: Path) -> None:
    def stop(rows: list[Row]) -> None:
        raise KeyboardInterrupt

    numbers = tmp_path / "numbers"
    tasks = [task("a"), task("b", "endless", str(numbers)), task("c")]
    with pytest.raises(KeyboardInterrupt):
        sweep(tasks, store, experiment=TRIED, workers=2, follow=stop)
    assert {row["case"] for row in store.rows(TRIED)} == {"a"}
    assert left(tasks, store, experiment=TRIED) == tasks[1:]


def test_rows_that_cannot_be_stored_are_a_row_and_the_sweep_goes_on(store: Store) -> None:
    assert here([task("a", "unwritable"), task("b")], store) == 2
    failed, *done = store.rows(TRIED)
    assert failed["reason"].startswith("no rows to store: ValueError: Out of range float")
    assert [row["outcome"] for row in done] == ["done", "done"]


def test_an_executor_that_takes_no_more_leaves_rows_that_say_so(store: Store) -> None:
    with _processes() as executor:
        tasks = [task("a", "leave"), *(task(f"b{number}") for number in range(50))]
        sweep(tasks, store, experiment=TRIED, executor=executor, limits=None)
    rows = store.rows(TRIED)
    assert {row["case"] for row in rows} == {one.key.case for one in tasks}
    assert any(row["reason"].startswith("not run: BrokenProcessPool") for row in rows)


def test_all_of_it_runs_again_when_asked_to(store: Store) -> None:
    here([task("a")], store)
    assert here([task("a", "answer", 5)], store) == 0
    assert here([task("a", "answer", 5)], store, again=True) == 1  # type: ignore[arg-type]
    assert [row["found"]["cost"] for row in store.rows(TRIED)] == [5, 5]


class Elsewhere(ThreadPoolExecutor):
    """Its processes have another Python."""

    def submit(self, call: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        return super().submit(
            lambda: {**versions(), "python": "3.99"} if call is versions else call(*arguments)
        )


def test_an_executor_of_other_versions_is_refused(store: Store) -> None:
    with Elsewhere(1) as executor, pytest.raises(ValueError, match=r"other versions: python 3\.99, here "):
        sweep([task("a")], store, experiment=TRIED, executor=executor)


def test_a_limit_below_what_a_task_may_take_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="may take 120 s by its own clock, the limit is 60 s"):
        sweep([replace(task("a"), seconds=120.0)], store, experiment=TRIED, limits=Limits(seconds=60.0))


def test_fewer_than_one_worker_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="workers must be at least 1, found 0"):
        sweep([task("a")], store, experiment=TRIED, workers=0)


def test_the_forecast_goes_by_stored_runs_of_the_same_case_and_else_by_the_limit(store: Store) -> None:
    tasks = [replace(task(name), seconds=120.0) for name in ("a", "b")]
    limited = "2 runs to go, 2 at a time, at most 2 min, by stored runs 2 min"
    assert forecast(tasks, [], workers=2) == limited
    other = {**replace(tasks[0].key, seed=1).row("done"), "wall_seconds": 60.0}
    assert forecast(tasks, [other]) == "2 runs to go, 1 at a time, at most 4 min, by stored runs 3 min"
    assert forecast([task("a")], [other]) == "1 runs to go, 1 at a time"
