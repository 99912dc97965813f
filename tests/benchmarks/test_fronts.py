"""Replicas and load tolerances against hops and loads."""

from __future__ import annotations

import pytest

from benchmarks.fronts import LAST, Point, case_name, front, replica_fronts
from moeopt import sample
from moeopt.bench_rows import Key, Row
from moeopt.stop import Stop

SEEN, HELD = sample("tiny-moe").split(0.2, seed=0)
KEY = Key("sample", None, LAST, 0, "")


def rows_of(replicas: int, tolerance: str | None) -> dict[str, Row]:
    point = Point(8, replicas, tolerance)
    rows = front("sample", SEEN, HELD, point=point, key=KEY, stop=Stop(seconds=0.4))
    return {row["method"]: row for row in rows}


def test_every_method_has_a_row_on_every_fourth_layer_and_the_last_bears_the_key() -> None:
    rows = rows_of(8, None)
    assert list(rows) == ["search", "tacg-gesr", LAST]
    assert rows[LAST]["method"] == KEY.method
    assert all(row["found"]["layers"] == [0, 4] for row in rows.values())
    assert all(set(row["found"]["served"]) == {"cover", "guard 0.05", "guard 0.15"} for row in rows.values())
    assert all(row["found"]["extra"] == 8 for row in rows.values())


def test_replicas_save_hops_and_one_copy_each_leaves_no_choice() -> None:
    none, some = rows_of(0, None), rows_of(8, None)
    for name in ("search", "tacg-gesr"):
        assert list(none[name]["found"]["served"]) == ["cover"]
        before = none[name]["found"]["served"]["cover"]["reduction"]
        assert some[name]["found"]["served"]["cover"]["reduction"] > before
    assert (none["search"]["found"]["slots"], some["search"]["found"]["slots"]) == (4, 5)


def test_a_tolerance_evens_loads_out() -> None:
    free, held = rows_of(8, None)["search"], rows_of(8, "0.05")["search"]
    assert held["found"]["tolerance"] == pytest.approx(0.05)
    load = [row["found"]["served"]["guard 0.05"]["worst_layer"] for row in (held, free)]
    assert load[0] <= load[1]


def test_a_method_without_a_placement_gives_the_reason() -> None:
    rows = rows_of(0, "0")
    assert all(row["found"]["served"] is None and "0 of 2 layers" in row["reason"] for row in rows.values())


def test_a_task_has_a_key_of_its_own() -> None:
    tasks = list(replica_fronts())
    assert len({task.key for task in tasks}) == len(tasks) == (10 * 3 + 1) * (6 + 4)
    assert case_name("m", Point(8, 4, "0.05")) == "m, 4 replicas, load 5%"
