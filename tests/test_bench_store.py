"""The store: no row is lost or doubled, whoever writes and whatever is killed."""

from __future__ import annotations

import csv
import os
import re
import sqlite3
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.kills import ROWS, TASKS, kill, measured
from moeopt.bench_checks import check_row, check_sweep_row
from moeopt.bench_files import collect, publish, read_rows, write_rows
from moeopt.bench_rows import Key, Row, versions
from moeopt.bench_store import COLUMNS, Store, cells_of
from tests.bench_tasks import key_of
from tests.made_rows import row as made_row

TRIED = "made-up"
OUTCOMES = ("done", "unsupported", "skipped", "failed")
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def stored_rows(draw: st.DrawFn) -> Row:
    layer = draw(st.none() | st.integers(0, 3))
    key = Key(draw(TEXTS), layer, draw(TEXTS), draw(st.integers(0, 2**31)), draw(TEXTS))
    row = key.row(draw(st.sampled_from(OUTCOMES)), reason=draw(TEXTS))
    spent = draw(st.none() | st.floats(0, 1e9))
    return {**row, "found": draw(st.dictionaries(TEXTS, VALUES, max_size=3)), "wall_seconds": spent}


@settings(max_examples=60, deadline=None)
@given(st.lists(stored_rows(), max_size=5, unique_by=Key.of))
def test_rows_come_back_as_they_went_in(tmp_path_factory: pytest.TempPathFactory, rows: list[Row]) -> None:
    folder = tmp_path_factory.mktemp("store")
    store = Store(folder / "rows.sqlite")
    store.append(rows, experiment=TRIED)
    assert store.rows(TRIED) == rows
    for suffix in (".parquet", ".csv"):
        write_rows(rows, folder / f"{TRIED}{suffix}")
        assert read_rows(folder / f"{TRIED}{suffix}") == rows


def test_an_answer_stays_when_a_later_try_fails_and_a_failure_does_not(tmp_path: Path) -> None:
    store, key = Store(tmp_path / "rows.sqlite"), key_of("a")
    for row, kept in (
        (key.row("failed", reason="1"), "1"),
        (key.row("skipped", reason="2"), "2"),
        (key.row("done", reason="3"), "3"),
        (key.row("failed", reason="4"), "3"),
        (key.row("done", reason="5"), "5"),
    ):
        store.append([row], experiment=TRIED)
        assert [one["reason"] for one in store.rows(TRIED)] == [kept]


def test_rows_of_another_machine_or_other_versions_are_rows_of_their_own(tmp_path: Path) -> None:
    store, row = Store(tmp_path / "rows.sqlite"), key_of("a").row("done")
    other = {**row, "machine": {"cpu": "another", "cores": 64}}
    older = {**row, "versions": {**versions(), "numpy": "1.0"}}
    store.append([row, other, older, row, other, older], experiment=TRIED)
    assert store.rows(TRIED) == [row, other, older]
    assert store.latest(TRIED) == [older]


def test_a_failure_elsewhere_does_not_hide_an_answer(tmp_path: Path) -> None:
    store, key = Store(tmp_path / "rows.sqlite"), key_of("a")
    elsewhere = {"cpu": "another", "cores": 64}
    store.append([key.row("failed", reason="here")], experiment=TRIED)
    store.append([{**key.row("failed", reason="there"), "machine": elsewhere}], experiment=TRIED)
    store.append([key.row("done", cost=1)], experiment=TRIED)
    assert [row["outcome"] for row in store.latest(TRIED)] == ["done"]
    store.append([{**key.row("failed", reason="again"), "machine": elsewhere}], experiment=TRIED)
    assert [row["outcome"] for row in store.latest(TRIED)] == ["done"]
    store.append([{**key.row("done", cost=2), "machine": elsewhere}], experiment=TRIED)
    assert [row["found"] for row in store.latest(TRIED)] == [{"cost": 2}]


def test_rows_are_stored_together_or_not_at_all(tmp_path: Path) -> None:
    store = Store(tmp_path / "rows.sqlite")
    with pytest.raises(ValueError, match=r"an outcome is one of done, .*'great'"):
        store.append(
            [key_of("a").row("done"), {**key_of("b").row("done"), "outcome": "great"}], experiment=TRIED
        )
    with pytest.raises(ValueError, match="Out of range float"):
        store.append([key_of("a").row("done", cost=float("inf"))], experiment=TRIED)
    assert store.rows(TRIED) == []
    store.append([key_of("a").row("done", cost=np.int64(3), loads=np.arange(2))], experiment=TRIED)
    assert store.rows(TRIED)[0]["found"] == {"cost": 3, "loads": [0, 1]}


def test_writers_at_the_same_time_wait_for_each_other(tmp_path: Path) -> None:
    store = Store(tmp_path / "rows.sqlite")

    def write(number: int) -> None:
        store.append([key_of(f"{number}, {part}").row("done") for part in range(3)], experiment=TRIED)

    with ThreadPoolExecutor(8) as executor:
        list(executor.map(write, range(40)))
    assert len(store.rows(TRIED)) == 120


def test_a_file_of_somebody_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE notes (text TEXT)")
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"other\.sqlite: a database, but not of benchmark rows"):
        Store(path).append([key_of("a").row("done")], experiment=TRIED)
    assert path.read_bytes() == before
    (tmp_path / "text").write_text("no database at all, but long enough to have a header of one " * 4)
    with pytest.raises(ValueError, match="text: file is not a database"):
        Store(tmp_path / "text").rows(TRIED)
    Store(tmp_path / "new").append([], experiment=TRIED)
    with closing(sqlite3.connect(tmp_path / "new")) as database:
        database.execute("PRAGMA user_version = 2")
    with pytest.raises(ValueError, match="a store of version 2, this moeopt knows 1"):
        Store(tmp_path / "new").rows(TRIED)


def test_what_is_shown_makes_a_store_that_shows_the_same_bytes(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    store = Store(first / "rows.sqlite")
    store.append([key_of(name).row("done", cost=1.5) for name in "ab"], experiment="one")
    store.append([key_of("c").row("failed", reason="no")], experiment="two")
    publish(store, first)
    other = Store(second / "rows.sqlite")
    collect(first, other)
    collect(first, other)
    publish(other, second)
    assert store.experiments() == other.experiments() == ["one", "two"]
    for name in ("one.parquet", "two.parquet"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    publish(store, first, experiments=["two"], suffix=".csv")
    assert sorted(path.suffix for path in first.iterdir()).count(".csv") == 1


def test_rows_shown_fill_what_the_store_has_no_answer_to_and_no_more(tmp_path: Path) -> None:
    store, (a, b, c) = Store(tmp_path / "rows.sqlite"), map(key_of, "abc")
    older = {**versions(), "numpy": "1.0"}
    shown = [
        {**a.row("done", cost=1), "versions": older},
        b.row("done", cost=2),
        c.row("failed", reason="no"),
    ]
    write_rows(shown, tmp_path / "one.parquet")
    store.append([a.row("done", cost=3), b.row("failed", reason="here")], experiment="one")
    collect(tmp_path, store)
    assert [row["found"] for row in store.latest("one")] == [{"cost": 3}, {"cost": 2}, {}]
    mark = store.last()
    store.append([a.row("done", cost=4)], experiment="one")
    store.append([a.row("done", cost=5)], experiment="two")
    store.forget("one", until=mark)
    assert [row["found"] for row in store.rows("one")] == [{"cost": 4}]
    assert len(store.rows("two")) == 1


def test_names_that_are_no_text_and_long_cells_come_back(tmp_path: Path) -> None:
    store, row = Store(tmp_path / "rows.sqlite"), key_of("a").row("failed", reason="file \udcff.parquet")
    store.append([{**row, "found": {"steps": [0.5] * 100_000}}], experiment=TRIED)
    (kept,) = store.rows(TRIED)
    assert kept["reason"] == "file \\udcff.parquet"
    write_rows([kept], tmp_path / f"{TRIED}.csv")
    assert read_rows(tmp_path / f"{TRIED}.csv") == [kept]


def test_files_that_are_no_rows_are_refused_by_name(tmp_path: Path) -> None:
    for name, content in (("a.csv", "case,seed\nx,1\n"), ("b.csv", ""), ("c.parquet", "PAR1")):
        (tmp_path / name).write_text(content)
        with pytest.raises(ValueError, match=f"{name}: no rows of a benchmark"):
            read_rows(tmp_path / name)
    with pytest.raises(ValueError, match=r"are written as \.parquet or \.csv"):
        write_rows([], tmp_path / "rows.json")


def test_a_hundred_kills_lose_tear_and_double_nothing(tmp_path: Path) -> None:
    tally = kill(100, Store(tmp_path / "rows.sqlite"), seed=0)
    assert tally.clean, tally
    assert tally.amid > 50
    assert tally.reported > 20


class Careless(Store):
    """Stores the rows of a task one by one."""

    def append(self, rows: Iterable[Row], *, experiment: str) -> None:
        for row in rows:
            super().append([row], experiment=experiment)


class Forgetful(Store):
    """Says that rows are stored which are not."""

    def append(self, rows: Iterable[Row], *, experiment: str) -> None:
        return


def test_kills_find_a_store_that_is_careless_or_forgetful(tmp_path: Path) -> None:
    assert kill(40, Careless(tmp_path / "careless"), seed=0).torn
    assert kill(4, Forgetful(tmp_path / "forgetful"), seed=0).lost


def test_the_tasks_of_a_kill_are_what_it_counts() -> None:
    assert [row["layer"] for row in measured("a")] == [*range(ROWS - 1), None]
    assert TASKS > 1


def test_reading_writes_nothing_and_leaves_nothing_beside_the_file(tmp_path: Path) -> None:
    store = Store(tmp_path / "rows.sqlite")
    (tmp_path / "empty").touch()
    assert Store(tmp_path / "empty").rows(TRIED) == []
    assert (tmp_path / "empty").read_bytes() == b""
    assert (store.rows(TRIED), store.last(), store.experiments()) == ([], 0, [])
    assert not store.path.exists()
    store.append([key_of("a").row("done")], experiment=TRIED)
    before = store.path.read_bytes()
    assert (len(store.rows(TRIED)), store.last(), store.experiments()) == (1, 1, [TRIED])
    assert store.path.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "rows.sqlite"]


def test_rows_that_are_only_in_the_log_are_read(tmp_path: Path) -> None:
    store = Store(tmp_path / "rows.sqlite")
    store.append([key_of("a").row("done")], experiment=TRIED)
    with closing(sqlite3.connect(store.path)) as database:
        database.execute("SELECT * FROM rows").fetchall()  # the log stays while somebody has it open
        store.append([key_of("b").row("done")], experiment=TRIED)
        assert (tmp_path / "rows.sqlite-wal").exists()
        assert [row["case"] for row in store.rows(TRIED)] == ["a", "b"]


def test_a_store_in_a_folder_that_may_not_be_written_to_is_read() -> None:
    with TemporaryDirectory() as name:
        folder, user = Path(name), os.geteuid()
        store = Store(folder / "rows.sqlite")
        store.append([key_of("a").row("done")], experiment=TRIED)
        folder.chmod(0o555)
        if user == 0:  # who may write everywhere
            os.seteuid(65534)
        try:
            assert len(store.rows(TRIED)) == 1
        finally:
            os.seteuid(user)
            folder.chmod(0o755)


def _odd(**changed: Any) -> list[Any]:
    row = key_of("a").row("done", method="linear", status="feasible", seconds=1.0, max_violation=0.5)
    cells = dict(zip(COLUMNS, cells_of(row, TRIED), strict=True))
    return list((cells | changed).values())


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({"found": "[]"}, "found must be an object, found []"),
        ({"found": "{"}, "found must be JSON, found '{'"),
        ({"found": '{"cost":NaN}'}, "found must be JSON, found '{\"cost\":NaN}': NaN is no number"),
        ({"found": "[" * 100_000}, "found must be JSON"),
        ({"versions": "3"}, "versions must be an object of texts, found 3"),
        ({"machine": "null"}, "machine must be an object, found None"),
        ({"outcome": "what"}, "outcome must be one of done, unsupported, skipped, failed, found 'what'"),
        ({"wall_seconds": "nan"}, "wall_seconds must be a finite number from 0 on or nothing, found nan"),
        ({"peak_mib": "much"}, "peak_mib must be a number or nothing, found 'much'"),
        ({"seed": "1e5"}, "seed must be a whole number, found '1e5'"),
        ({"layer": "-2"}, "layer must be a whole number from 0 on, -1 for all layers or nothing, found -2"),
    ],
)
def test_odd_cells_are_refused_by_file_row_and_rule(
    tmp_path: Path, changed: dict[str, Any], rule: str
) -> None:
    path = tmp_path / "odd.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, _odd(), _odd(**changed)])
    with pytest.raises(ValueError, match=re.escape(f"odd.csv: no rows of a benchmark: row 2: {rule}")):
        read_rows(path)


def test_tables_without_rows_cells_or_columns_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "odd.csv"
    for lines, rule in (
        ([], "columns must be"),
        ([COLUMNS, ["short"]], "row 1: 13 cells are wanted, found 1"),
    ):
        with path.open("w", newline="") as file:
            csv.writer(file).writerows(lines)
        with pytest.raises(ValueError, match=re.escape(f"odd.csv: no rows of a benchmark: {rule}")):
            read_rows(path)


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({"reference": None}, "reference of found must be a finite number from 0 on, found None"),
        ({"cost": "x"}, "cost of found must be a whole number from 0 on or nothing, found 'x'"),
        ({"cost": True}, "cost of found"),
        ({"steps": [[1]]}, "steps of found must be a list of [seconds, cost, bound]"),
        ({"hosts": [[-1]]}, "hosts of found must be a list of the GPUs of each expert"),
        ({"gpus": 10**12}, "gpus of found must be a whole number from 0 to 1,000,000"),
        ({"seconds": -11}, "seconds of found must be a finite number from 0 on"),
        ({"held_out": 3}, "held_out of found must be an object with two fan-outs or nothing, found 3"),
    ],
)
def test_what_reports_read_of_a_sweep_has_rules_of_its_own(changed: dict[str, Any], rule: str) -> None:
    row = made_row("a", cost=5)
    check_row(row)
    check_sweep_row(row)
    with pytest.raises(ValueError, match=re.escape(rule)):
        check_sweep_row({**row, "found": {**row["found"], **changed}})
    for name in ("reference", "seconds", "status"):
        less = {key: value for key, value in row["found"].items() if key != name}
        with pytest.raises(ValueError, match=f"must have '{name}'"):
            check_sweep_row({**row, "found": less})
    check_sweep_row(key_of("a").row("failed"))
