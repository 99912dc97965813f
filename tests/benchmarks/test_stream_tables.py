"""Tables of streams, families, settings, sizes, replicas and whole plans from made rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import front_tables, setting_tables, stream_tables
from benchmarks.cases import NULL
from benchmarks.report import table
from moeopt.bench_files import write_rows
from moeopt.bench_rows import Key, Row

GPT = "gpt-oss-20b"
STREAMS = ("balanced", "law 60%", "law 80%", "phases, slow", "phases, fast", "bursts of law")


def _served(reduction: float, load: float) -> dict[str, Any]:
    return {"reduction": reduction, "max_violation": load, "median_layer": 2 * load, "worst_layer": 3 * load}


def _row(method: str, seed: int, *, case: str = GPT, **found: Any) -> Row:
    return Key(case, None, method, seed, "Stop()").row("done", **found)


def _stored(folder: Path, name: str, rows: Sequence[Row]) -> str:
    write_rows(rows, folder / f"{name}.parquet")
    return table(name, folder=folder)


def _cells(text: str, *start: str) -> list[str]:
    """The cells of the only line that begins with these."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    [own] = [line for line in lines if line[: len(start)] == list(start)]
    return own


@pytest.mark.parametrize("name", [*stream_tables.TABLES, *setting_tables.TABLES, *front_tables.TABLES])
def test_a_table_without_rows_is_empty(name: str, tmp_path: Path) -> None:
    assert table(name, folder=tmp_path) == ""


def _stream_row(scheme: str, seed: int, figures: Mapping[str, tuple[float, float]], *serving: str) -> Row:
    streams = {name: {way: _served(*own) for way in serving} for name, own in figures.items()}
    return _row(scheme, seed, scheme=scheme, model=GPT, streams=streams)


def test_streams_are_grouped_and_the_heavy_ones_show_their_worst(tmp_path: Path) -> None:
    saved = dict(
        zip(STREAMS, [(0.3, 0.1), (0.2, 0.4), (0.25, 0.5), (0.3, 0.2), (0.4, 0.4), (0.1, 0.3)], strict=True)
    )
    rows = [_stream_row("tacg", 0, saved, "cover")]
    rows.append(on_null(_stream_row("tacg", 0, {"balanced": (0.05, 0.2)}, "cover")))
    text = _stored(tmp_path, "shifts", rows)
    shown = ["30.0 %, 0.100", "20.0 %, 0.500", "35.0 %, 0.300", "10.0 %, 0.300"]
    assert _cells(text, "tacg") == [
        "tacg",
        "1",
        *shown,
        *shown,
        "5.0 %, 0.200",
    ]  # one copy each: any serving is cover
    assert _cells(text, GPT, "guard")[2:] == ["0", "0", "0", "0", "0"]


def test_the_search_is_held_against_every_baseline_stream_by_stream(tmp_path: Path) -> None:
    tacg = {"balanced": (0.30, 0.10), "law 60%": (0.30, 0.10), "bursts of law": (0.30, 0.10)}
    eplb = {"balanced": (0.10, 0.01), "law 60%": (0.10, 0.20), "bursts of law": (0.10, 0.20)}
    mine = {"balanced": (0.40, 0.05), "law 60%": (0.30, 0.10), "bursts of law": (0.20, 0.05)}
    rows = [
        _stream_row("tacg", 0, tacg, "cover"),
        _stream_row("eplb + copies", 0, eplb, "cover", "guard", "priced"),
        _stream_row("search + GESR", 0, dict.fromkeys(mine, (0.9, 0.0)), "cover", "guard", "priced"),
        _stream_row("search with copies", 0, mine, "cover", "guard", "priced"),
        _stream_row("search with copies", 1, mine, "cover", "guard", "priced"),  # no baseline yet
    ]
    text = _stored(tmp_path, "shifts", rows)
    assert _cells(text, GPT, "guard") == [GPT, "guard", "3", "2", "2", "1", "2"]
    assert _cells(text, GPT, "priced")[2:] == ["3", "2", "2", "1", "2"]
    assert _cells(text, "search with copies")[1] == "2"


def test_families_that_a_split_lacks_are_left_out_of_their_mean(tmp_path: Path) -> None:
    def row(seed: int, reduction: Mapping[str, float], case: str = GPT) -> Row:
        values = list(reduction.values())
        figures = {"mean": sum(values) / len(values), "worst": min(values), "pooled": 0.5}
        return _row("search: law", seed, case=case, source="law", reduction=reduction, **figures)

    rows = [row(0, {"law": 0.4, "code": 0.2}), row(1, {"law": 0.2}), row(0, {"law": 0.0}, f"null of {GPT}")]
    text = _stored(tmp_path, "transfer", rows)
    assert _cells(text, "law") == [
        "law",
        "2",
        "30.0 ± 14.1",
        "20.0",
        "25.0 ± 7.1",
        "20.0 ± 0.0",
        "50.0 ± 0.0",
        "50.0",
    ]


def on_null(row: Row) -> Row:
    return {**row, "case": NULL + row["case"]}


def _setting(group: str, setting: str, seed: int, saved: float, *, serving: str = "published guard") -> Row:
    servings = {"cover": _served(saved + 0.1, 0.5), serving: _served(saved, 0.25)}
    return _row(f"{group}: {setting}", seed, group=group, setting=setting, servings=servings)


def test_settings_are_paired_with_the_default_of_their_group(tmp_path: Path) -> None:
    rows = [_setting("alpha", "alpha 0.25", seed, 0.3) for seed in range(3)]
    rows += [_setting("alpha", "alpha 1", seed, 0.29 - seed / 1000) for seed in range(2)]
    rows.append(on_null(_setting("alpha", "alpha 1", 0, 0.125)))
    rows.append(_setting("ablations", "no GESR", 0, 0.2, serving="cover"))
    rows += [_setting("lambdas", "lambda1 0, lambda2 0", seed, 0.3 + seed / 10) for seed in range(2)]
    rows.append(_setting("lambdas", "lambda1 1, lambda2 0.5", 0, 0.25))
    text = _stored(tmp_path, "sensitivity", rows)
    assert _cells(text, "alpha 0.25, default")[1:5] == ["3", "30.00 ± 0.00", "–", "–"]
    worse = _cells(text, "alpha 1")
    assert worse[1:4] == ["2", "28.95 ± 0.07", "-1.05"]
    assert worse[4].startswith("0.030, 0.0")
    assert worse[4].endswith(", –")
    assert worse[5:] == ["0.250 ± 0.000", "38.95 ± 0.07", "12.50"]
    assert _cells(text, "no GESR")[2:5] == ["20.00", "–", "–"]
    assert _cells(text, "lambda1 0") == ["lambda1 0", "35.00", "–"]
    assert _cells(text, "lambda1 1") == ["lambda1 1", "–", "25.00"]


def test_rules_of_serving_are_lines_of_their_own(tmp_path: Path) -> None:
    rows = [
        _row(
            "guards: priced, width 1",
            seed,
            group="guards",
            setting="priced, width 1",
            scheme="search with copies",
            served=_served(0.4, 0.1),
        )
        for seed in range(2)
    ]
    text = _stored(tmp_path, "sensitivity", rows)
    assert _cells(text, "priced, width 1") == [
        "priced, width 1",
        "search with copies",
        "2",
        "40.0 ± 0.0",
        "0.100 ± 0.000",
        "0.20 ± 0.00",
        "–",
    ]
    assert "lambda2" not in text
    assert "default |" not in text


def test_sizes_are_columns_and_all_requests_the_last(tmp_path: Path) -> None:
    def row(scheme: str, size: int | None, seed: int, served: object) -> Row:
        requests = 100 if size is None else size
        return _row(f"{scheme}: {size}", seed, scheme=scheme, size=size, requests=requests, served=served)

    plain, copies = {"cover": _served(0.2, 0.1)}, {"cover": _served(0.5, 0.1), "guard": _served(0.4, 0.1)}
    rows = [row("tacg", None, 0, plain), row("tacg", 16, 0, plain), row("tacg", 2, 0, plain)]
    rows += [row("search with copies", None, seed, copies) for seed in range(2)]
    rows.append(row("search with copies", 2, 0, None))
    text = _stored(tmp_path, "calibration", rows)
    assert "| scheme | 2 a family | 16 a family | all requests |" in text
    assert _cells(text, "tacg") == ["tacg", "20.0 (1)", "20.0 (1)", "20.0 (1)"]
    assert _cells(text, "search with copies")[1:] == ["–", "–", "40.0 ± 0.0 (2)"]
    assert _cells(text, "requests in all")[1:] == ["2", "16", "100"]


def test_fronts_have_a_line_a_tolerance_and_a_column_a_number_of_replicas(tmp_path: Path) -> None:
    def row(tolerance: float | None, replicas: int, served: object, seed: int = 0) -> Row:
        found = {
            "model": GPT,
            "scheme": "eplb",
            "tolerance": tolerance,
            "replicas": replicas,
            "served": served,
        }
        return _row("eplb", seed, case=f"{tolerance} {replicas}", **found)

    plain, copies = (
        {"cover": _served(0.2, 0.1)},
        {"cover": _served(0.5, 0.3), "guard 0.15": _served(0.4, 0.15)},
    )
    rows = [row(0.15, 8, None), row(None, 8, copies), row(None, 0, plain), row(None, 0, plain, seed=1)]
    rows += [row(0.05, 0, plain)]
    text = _stored(tmp_path, "replica-fronts", rows)
    assert "| placed within | scheme | served | 0 replicas | 8 replicas |" in text
    assert _cells(text, "any load", "eplb", "cover")[3:] == ["20.0 %, 0.100 (2)", "50.0 %, 0.300 (1)"]
    assert _cells(text, "any load", "eplb", "guard 0.15")[3:] == ["20.0 %, 0.100 (2)", "40.0 %, 0.150 (1)"]
    assert _cells(text, "5 %", "eplb", "cover")[3:] == ["20.0 %, 0.100 (1)", "–"]
    assert "| 15 % |" not in text


def test_a_plan_shows_its_stages_and_one_that_failed_its_time(tmp_path: Path) -> None:
    found: dict[str, Any] = {"wall_seconds": 55.0, "stages": {"workload": 4.0, "solving": 46.0}}
    found |= {"peak_mib": 1200.4, "peak_worker_mib": 800.0}
    served = {"guard": _served(0.4, 0.1), "cover": _served(0.5, 0.2)}
    rows = [
        _row("eplb", 0, case="big", scheme="eplb", served=served, **found),
        _row("search", 0, case="big", scheme="search", **found),
    ]
    text = _stored(tmp_path, "full-plan", rows)
    assert _cells(text, "big", "eplb")[2:] == [
        "55 s",
        "workload 4 s, solving 46 s",
        "1,200 + 2 × 800",
        "40.0 %",
        "0.100",
        "0.200",
        "0.300",
        "50.0 %",
    ]
    assert _cells(text, "big", "search")[5:] == ["–"] * 5
