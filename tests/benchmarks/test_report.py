from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmarks.__main__ import app
from benchmarks.report import PAGES, TABLES, table, update
from benchmarks.run import RESULTS, shown
from benchmarks.suite import METHODS
from moeopt.bench_files import write_rows
from moeopt.bench_rows import Key

README = "before\n" + "".join(f"<!-- table:{name} -->\nold\n<!-- /table -->\n" for name in TABLES) + "after\n"


@pytest.fixture
def readme(tmp_path: Path) -> Path:
    path = tmp_path / "README.md"
    path.write_text(README, encoding="utf-8")
    return path


def _presets(folder: Path, **changed: Any) -> None:
    found: dict[str, Any] = {
        "status": "feasible",
        "experts": 64,
        "top_k": 6,
        "gpus": 16,
        "max_over_mean": 3.14159,
        "family_correlation": 0.5,
        "linear_fan_out": 4.25,
        "reduction": 0.3,
        "null_reduction": 0.04,
    }
    key = Key("synthetic-64", None, "Swap()", 0, "Stop()")
    write_rows([key.row("done", **{**found, **changed})], folder / "presets.parquet")


def test_a_stale_readme_is_detected_and_brought_up_to_date(readme: Path, tmp_path: Path) -> None:
    _presets(tmp_path)
    options = ["report", "--page", str(readme), "--folder", str(tmp_path)]
    runner = CliRunner()
    assert runner.invoke(app, [*options, "--check"]).exit_code == 1
    assert readme.read_text(encoding="utf-8") == README
    assert runner.invoke(app, options).exit_code == 0
    assert runner.invoke(app, [*options, "--check"]).exit_code == 0
    text = readme.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "| synthetic-64 | 64, 6 | 16 | 3.1 | 0.50 | 4.25 | 30.0 % | 4.0 % |" in text
    assert "`python -m benchmarks run presets`" in text
    _presets(tmp_path, reduction=0.25)
    assert update([readme], folder=tmp_path, write=False) == ["presets"]


def test_the_pages_show_the_stored_rows() -> None:
    stale = update(PAGES, folder=RESULTS, write=False)
    assert not stale, f"python -m benchmarks report brings {', '.join(stale)} up to date"


def test_a_table_without_rows_is_empty(readme: Path, tmp_path: Path) -> None:
    assert set(update([readme], folder=tmp_path)) == set(TABLES)
    assert "old" not in readme.read_text(encoding="utf-8")
    assert all(table(name, folder=tmp_path) == "" for name in TABLES)


def test_markers_and_tables_answer_to_each_other(readme: Path, tmp_path: Path) -> None:
    _presets(tmp_path)
    readme.write_text("<!-- table:unheard-of -->\n<!-- /table -->\n", encoding="utf-8")
    with pytest.raises(ValueError, match="unheard-of"):
        update([readme], folder=tmp_path)
    readme.write_text("no markers\n", encoding="utf-8")
    with pytest.raises(ValueError, match="no marker <!-- table:presets -->"):
        update([readme], folder=tmp_path)


def test_a_table_with_rows_has_a_marker_on_some_page(readme: Path, tmp_path: Path) -> None:
    _presets(tmp_path)
    other = tmp_path / "FINDINGS.md"
    other.write_text("<!-- table:presets -->\nold\n<!-- /table -->\n", encoding="utf-8")
    readme.write_text("no markers\n", encoding="utf-8")
    assert update([readme, other], folder=tmp_path) == ["presets"]
    assert "| synthetic-64 |" in other.read_text(encoding="utf-8")


def test_rows_that_contradict_themselves_are_named_below_the_table(tmp_path: Path) -> None:
    _presets(tmp_path)
    key = Key("synthetic-512", None, "Swap()", 0, "Stop()")
    rows = [*shown("presets", folder=tmp_path), key.row("failed", reason="ValueError: seed")]
    write_rows(rows, tmp_path / "presets.parquet")
    text = table("presets", folder=tmp_path)
    assert "| synthetic-512 |" not in text
    assert "Left out: synthetic-512 (ValueError: seed)." in text


def _held_out(folder: Path, name: str, seeds: list[float]) -> None:
    rows = shown("held-out", folder=folder)
    for seed, value in enumerate(seeds):
        for method in METHODS:
            key = Key(name, None, method, seed, "Stop()")
            found: dict[str, Any] = {
                "method": method,
                "status": "feasible",
                "held_out_fan_out": 1 + value,
                "held_out_reduction": value,
                "certified_share": None if method == "linear" else value,
                "max_violation": value,
            }
            rows.append(key.row("done", **found))
    write_rows(rows, folder / "held-out.parquet")


def test_held_out_rows_become_means_and_deviations_with_the_null_beside_them(tmp_path: Path) -> None:
    _held_out(tmp_path, "sample", [0.2, 0.3, 0.4])
    _held_out(tmp_path, "null of sample", [0.01, 0.01, 0.01])
    text = table("held-out", folder=tmp_path)
    assert (
        "| sample | swap | 1.300 ± 0.100 | 30.0 ± 10.0 % | 30.0 ± 10.0 % | 0.30 ± 0.10 | "
        "1.0 ± 0.0 % | 1.0 ± 0.0 % |" in text
    )
    assert "| sample | linear | 1.300 ± 0.100 | 30.0 ± 10.0 % | – |" in text
    assert "null of" not in text
    assert "over 3 splits" in text


def test_a_certified_run_is_one_line_and_its_layers_give_the_times(tmp_path: Path) -> None:
    key = Key("sample", None, "Auto()", 0, "Stop()")
    layer: dict[str, Any] = {"status": "certified-optimal"}
    rows = [
        Key("sample", at, "Auto()", 0, "Stop()").row("done", **layer, seconds=seconds)
        for at, seconds in enumerate((0.5, 1.0, 9.0))
    ]
    run: dict[str, Any] = {
        "status": "certified-optimal",
        "layers": 3,
        "layers_optimal": 3,
        "fan_out": 1.5,
        "linear_fan_out": 2.0,
        "certified_share": 1.0,
        "seconds": 12.6,
        "verify_seconds": 2.22,
        "peak_mib": 300.4,
        "peak_worker_mib": 250.0,
    }
    write_rows([*rows, key.row("done", **run)], tmp_path / "certified.parquet")
    text = table("certified", folder=tmp_path)
    assert (
        "| sample | 3 of 3 | 1.500 | 2.000 | 25.0 % | 100.0 % | 1 s, 9 s | 13 s | 2.2 s | 300 + 2 × 250 |"
        in text
    )
