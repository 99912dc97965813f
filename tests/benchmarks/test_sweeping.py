"""Sweeps about sweeps: what kills leave, what two workers take, and their tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import cases, races, sweeping
from benchmarks.sweep_tables import TABLES
from moeopt.bench_rows import Absent, Key, Row


def test_kills_are_one_row_that_says_what_was_lost() -> None:
    (row,) = sweeping.count_kills(Key("6 kills", None, "sweep", 0, ""), 6)
    found = row["found"]
    assert found["kills"] == 6
    assert found["clean"] == (found["lost"] == found["torn"] == found["doubled"] == found["unsound"] == 0)
    assert TABLES["kills"][1]([row]).splitlines()[-1].startswith("| 6 | ")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_timed_sweep_does_every_task_once(workers: int) -> None:
    found = sweeping.timed("processes", "nothing", count=3, workers=workers)
    assert (found["tasks"], found["failed"], found["workers"], found["own_seconds"]) == (3, 0, workers, 0.0)
    assert found["seconds"] > 0


def test_the_work_of_a_task_is_its_own_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "KICKS", 2)
    (row,) = sweeping.search(3)
    assert row["found"]["seconds"] > 0
    assert set(sweeping.WORK) == set(sweeping.WORKS)


def _scaled(workers: int, seconds: float) -> Row:
    found: dict[str, Any] = {
        "engine": "processes",
        "work": "nothing",
        "tasks": 10,
        "failed": 0,
        "own_seconds": 5.0,
    }
    return Key("nothing", None, f"processes, {workers}", 0, "").row(
        "done", workers=workers, seconds=seconds, **found
    )


def test_what_a_task_costs_beside_its_work_counts_every_worker() -> None:
    line = TABLES["scaling"][1]([_scaled(1, 15.0), _scaled(2, 10.0)]).splitlines()[2]
    assert line == "| processes | nothing | 10 | 15 s | 10 s | 1.50 | 1 s | 1.5 s |"


def test_races_without_recordings_are_skipped_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOEOPT_TRACES", str(tmp_path))
    made = list(races.races())
    assert len({task.key for task in made}) == len(made) == len(races.RACES)
    with pytest.raises(Absent, match="is not there"):
        made[0].measure(*made[0].arguments)


@pytest.mark.skipif(not cases.folder().exists(), reason="the recorded traces are not there")
def test_every_race_has_a_task_for_every_method_and_split() -> None:
    made = list(races.races())
    wanted = len(races.SEEDS) * sum(len(methods) for _, _, _, methods in races.RACES)
    assert len({task.key for task in made}) == len(made) == wanted
