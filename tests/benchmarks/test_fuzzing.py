"""Rows and table of the fuzzing of readers."""

from __future__ import annotations

import pytest

from benchmarks import fuzz as engine
from benchmarks import fuzzing
from benchmarks.fuzz_targets import TARGETS
from benchmarks.fuzzing import TABLES, throw
from benchmarks.suite import trouble
from moeopt.bench_rows import Absent, Key, Row


def thrown(target: str) -> list[Row]:
    return throw(Key(target, None, "builtin", 0, "50 runs"), runs=50, engine="builtin")


def test_every_reader_is_a_task_of_its_own() -> None:
    assert [task.key.case for task in fuzzing.fuzzing()] == list(TARGETS)


def test_inputs_are_counted_and_shown() -> None:
    (row,) = thrown("safetensors")
    assert (row["outcome"], row["found"]["runs"]) == ("done", 50)
    line = TABLES["fuzz"][1]([row]).splitlines()[2]
    assert line.startswith("| `safetensors` | 50 | ")
    assert line.endswith("| none |")


def test_a_crash_is_a_wrong_row_that_names_its_input(monkeypatch: pytest.MonkeyPatch) -> None:
    crashed = engine.Row("npz", "builtin", 7, 0.1, 0, crash="crash-npz-01", reason="exit code 1")
    monkeypatch.setattr(fuzzing, "fuzz", lambda *words, **options: crashed)
    assert trouble(thrown("npz")) == ["npz, layer None, builtin: failed: crash-npz-01: exit code 1"]


def test_without_atheris_the_case_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzzing, "find_spec", lambda name: None)
    with pytest.raises(Absent, match="the extra fuzz is not installed"):
        throw(Key("npz", None, "atheris", 0, ""))
