"""The multi-node experiment on the packaged sample."""

from __future__ import annotations

from benchmarks.multi_node import LAST, NULL_SEEDS, ONCE, measure_nodes, multi_node
from moeopt.bench_rows import Key


def test_every_method_has_a_row_and_the_last_one_bears_the_key() -> None:
    key = Key("sample, 4 nodes", None, LAST, 0, repr(ONCE))
    rows = {row["method"]: row["found"] for row in measure_nodes("sample", 4, key)}
    assert len(rows) == 12
    assert list(rows)[-1] == LAST
    base = rows["linear, mixed"]
    assert (base["remote"], base["nodes"], base["padded"]) == (1.0, 1.0, 1.0)
    assert rows["joint"]["remote"] < 1.0
    assert rows[LAST]["extra_memory"] == 4 / 32
    assert rows[LAST]["remote"] < rows["joint"]["remote"]
    assert {found["decided_by"] for found in rows.values()} == {"the opening decides"}


def test_a_task_has_a_key_of_its_own() -> None:
    tasks = list(multi_node())
    assert len({task.key for task in tasks}) == len(tasks) == 2 * 3 * (10 + len(NULL_SEEDS))
