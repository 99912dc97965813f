"""The search against proved optima, on the packaged sample."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import own_search
from benchmarks.cases import case
from benchmarks.own_search import measure_model
from benchmarks.report import table
from moeopt.bench_files import write_rows
from moeopt.bench_rows import Key
from moeopt.stop import Stop


def test_a_row_a_layer_and_one_of_all_whose_shares_are_at_most_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_search, "LIMIT", Stop(seconds=0.3))
    one = replace(case("sample"), layers=(0, 1))
    *layers, whole = measure_model(one, Key("sample", None, "Search()", 0, "Stop()"))
    assert [row["layer"] for row in layers] == [0, 1]
    assert whole["found"]["cost"] == sum(row["found"]["cost"] for row in layers)
    assert whole["found"]["worst"] == min(row["found"]["share"] for row in layers)
    assert 0.5 < whole["found"]["worst"] <= whole["found"]["share"] <= 1
    write_rows([*layers, whole], tmp_path / "search.parquet")
    assert "| sample | 1 | " in table("search", folder=tmp_path)
