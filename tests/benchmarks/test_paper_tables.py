"""Tables of methods, nodes and partitioners from made rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import node_tables, paper_tables
from benchmarks.paper_tables import attained, by_scheme, chance, interval, spread
from benchmarks.partitioners import RIVALS, SEARCH
from benchmarks.report import table
from moeopt.bench_files import write_rows
from moeopt.bench_rows import Key, Row

GPT = "gpt-oss-20b"


def _figures(reduction: float) -> dict[str, Any]:
    return {
        "comm": 20 * (1 - reduction),
        "reduction": reduction,
        "jain": 0.99,
        "max_violation": 0.25,
        "variation": 0.1,
        "median_layer": 0.5,
        "worst_layer": 0.75,
        "families": {},
    }


def _row(scheme: str, seed: int, reduction: float, *, case: str = GPT, **changed: Any) -> Row:
    found: dict[str, Any] = {
        "scheme": scheme,
        "model": case.removeprefix("null of "),
        "copies": False,
        "status": "feasible",
        "seconds": 3.0,
        "bounds": [None, None],
        "costs": [60, 80],
        "references": [100.0, 100.0],
        "servings": {"cover": _figures(reduction)},
        "extra": 0.0,
    }
    return Key(case, None, f"{scheme}: X()", seed, "Stop()").row("done", **{**found, **changed})


def _cells(text: str, *start: str) -> list[str]:
    """The cells of the only line that begins with these."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    [own] = [line for line in lines if line[: len(start)] == list(start)]
    return own


def _stored(folder: Path, name: str, rows: Sequence[Row]) -> str:
    write_rows(rows, folder / f"{name}.parquet")
    return table(name, folder=folder)


@pytest.mark.parametrize("name", [*paper_tables.TABLES, *node_tables.TABLES])
def test_a_table_without_rows_is_empty(name: str, tmp_path: Path) -> None:
    assert table(name, folder=tmp_path) == ""


def test_single_copies_are_compared_with_the_reference_by_split(tmp_path: Path) -> None:
    rows = []
    for seed in range(6):
        rows.append(_row("search", seed, 0.401 + seed / 1000))
        rows.append(_row("tacg", seed, 0.30))
        rows.append(_row("proved optimum", seed, 0.42, costs=[50, 80], bounds=[50, 79]))
    rows.append(_row("search", 0, 0.01, case=f"null of {GPT}"))
    text = _stored(tmp_path, "papers", rows)
    search = _cells(text, "search")
    assert search[1:5] == ["6", "11.93 ± 0.04", "40.4 ± 0.2 [40.2, 40.5]", "2.0"]
    assert search[5] == "+10.4"
    assert search[6] == "< 0.001, < 0.001, 0.031"
    assert search[7:] == ["0.9900", "0.250", "0.50", "80.0 %", "80.0 %", "1.0 %", "3 s", "–"]
    tacg = _cells(text, "tacg")
    assert tacg[3:7] == ["30.0 ± 0.0 [30.0, 30.0]", "3.0", "–", "–"]
    assert tacg[-1] == "24.23"
    assert _cells(text, "proved optimum")[4] == "1.0"
    order = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| ")]
    assert order[2:] == ["| tacg", "| search", "| proved optimum"]


def test_missing_splits_are_counted_and_only_common_ones_are_compared(tmp_path: Path) -> None:
    rows = [_row("search", 0, 0.5), _row("search", 1, 0.3), _row("tacg", 1, 0.2), _row("lpt", 2, 0.0)]
    text = _stored(tmp_path, "papers", rows)
    assert _cells(text, "search")[1:7] == [
        "2",
        "12.00 ± 2.83",
        "40.0 ± 14.1 [30.0, 50.0]",
        "–",
        "+10.0",
        "–, –, –",
    ]
    assert _cells(text, "lpt")[1:7] == ["1", "20.00", "0.0", "–", "–", "–"]
    assert "–" in _cells(text, "search")[10]


def test_without_the_reference_nothing_is_compared(tmp_path: Path) -> None:
    assert _cells(_stored(tmp_path, "papers", [_row("search", 0, 0.5)]), "search")[5:7] == ["–", "–"]


def test_schemes_that_refused_a_problem_are_named_below_the_table(tmp_path: Path) -> None:
    key = Key(GPT, None, "metis: Metis()", 0, "Stop()")
    rows = [_row("tacg", 0, 0.5), key.row("unsupported", reason="needs the extra metis")]
    assert f"Left out: metis on {GPT} (needs the extra metis)." in _stored(tmp_path, "papers", rows)


def test_shares_sum_the_layers_that_are_proved() -> None:
    optimum = {"costs": [50, 60, 100], "bounds": [50, 60, 100]}
    found = {"costs": [60, 60, 100], "references": [100.0, 80.0, 100.0]}
    assert attained(found, optimum) == pytest.approx((60 / 70, 0.8))
    assert attained(found, {"costs": [50, 60, 100], "bounds": [None, 59, 100]}) is None
    assert attained(found, None) is None
    worse = {"costs": [110, 60, 100], "references": [100.0, 80.0, 100.0]}
    assert attained(worse, optimum) == pytest.approx((10 / 70, -0.2))


def test_copies_are_compared_way_by_way_of_serving(tmp_path: Path) -> None:
    rows = []
    for seed in range(2):
        for scheme, gain in (("TACG + GESR", 0.0), ("search with copies", 0.1)):
            servings = {"cover": _figures(0.4 + gain + seed / 10), "priced": _figures(0.3 + gain)}
            rows.append(_row(scheme, seed, 0.0, servings=servings, extra=7.75))
    servings = {"published guard": _figures(0.2)}
    rows.append(_row("TACG + GESR", 2, 0.0, servings=servings, extra=7.75))
    text = _stored(tmp_path, "papers-copies", rows)
    assert _cells(text, "cover", "search with copies")[2:7] == [
        "2",
        "55.0 ± 7.1 [50.0, 60.0]",
        "1.0",
        "+10.0",
        "–, –, –",
    ]
    assert _cells(text, "priced", "search with copies")[3] == "40.0 ± 0.0 [40.0, 40.0]"
    assert _cells(text, "priced", "search with copies")[10:] == ["7.8", "–", "–"]
    assert _cells(text, "published guard", "TACG + GESR")[2:4] == ["1", "20.0"]
    assert _cells(text, "published guard", "TACG + GESR")[-1] == "31.39"
    assert _cells(text, "cover", "TACG + GESR")[-1] == "–"
    assert "| guard |" not in text
    short = _cells(table("copies-in-short", folder=tmp_path), GPT, "search with copies")
    assert short == [
        *(GPT, "search with copies", "2"),
        *("55.0 ± 7.1 %", "–", "–", "40.0 ± 0.0 %"),
        *("–", "–"),
    ]


def test_rows_are_sorted_as_the_schemes_and_by_seed() -> None:
    rows = [_row("unheard of", 0, 0.1), _row("tacg", 1, 0.1), _row("tacg", 0, 0.1), _row("linear", 3, 0.1)]
    found = by_scheme(rows, GPT)
    assert list(found) == ["linear", "tacg", "unheard of"]
    assert list(found["tacg"]) == [0, 1]
    assert by_scheme(rows, "another") == {}


def test_cells_of_few_values_say_less() -> None:
    assert (interval([]), spread([])) == ("–", "–")
    assert (interval([0.25]), spread([0.25])) == ("25.0", "0.2")
    assert spread([-0.01, -0.02]) == "0.0 ± 0.0"
    assert [chance(p) for p in (None, 0.0004, 0.05)] == ["–", "< 0.001", "0.050"]


def _node_row(case: str, method: str, seed: int, volume: float | None) -> Row:
    found: dict[str, Any] = {
        "remote": volume,
        "nodes": 0.5,
        "padded": 0.6,
        "busiest": 1.25,
        "extra_memory": 0.0,
    }
    return Key(case, None, method, seed, "Stop()").row("done", **found)


def test_nodes_are_columns_and_missing_ones_are_dashes(tmp_path: Path) -> None:
    rows = [
        _node_row(f"{GPT}, 4 nodes", "joint", 0, 0.7),
        _node_row(f"{GPT}, 4 nodes", "joint", 1, 0.8),
        _node_row(f"{GPT}, 16 nodes", "joint", 0, 0.9),
        _node_row(f"{GPT}, 16 nodes", "linear, mixed", 0, None),
        _node_row(f"null of {GPT}, 4 nodes", "joint", 0, 1.0),
    ]
    text = _stored(tmp_path, "multi-node", rows)
    assert _cells(text, "joint") == [
        "joint",
        "2, 1",
        "0.750 ± 0.071",
        "0.900",
        "0.500, 0.500",
        "0.600, 0.600",
        "1.25, 1.25",
        "0.000, 0.000",
        "1.000, –",
    ]
    assert _cells(text, "linear, mixed")[1:5] == ["0, 1", "–", "–", "–, 0.500"]


def _run(case: str, method: object, seed: int, cost: int | None) -> Row:
    key = Key(case, 0, repr(method), seed, "Stop()")
    return key.row("done", status="feasible", cost=cost, seconds=0.5)


def test_the_search_is_paired_with_its_rival_seed_by_seed(tmp_path: Path) -> None:
    rows = []
    for seed, (own, rival) in enumerate([(100, 110), (100, 100), (102, 101), (100, 120)]):
        rows += [_run("layer", SEARCH, seed, own), _run("layer", RIVALS[0], seed, rival)]
    rows.append(_run("layer", RIVALS[0], 4, 100))
    rows.append(_run("layer", RIVALS[1], 1, 99))
    rows.append(_run("empty", RIVALS[0], 0, None))
    text = _stored(tmp_path, "partitioners", rows)
    cells = _cells(text, "layer")
    assert cells[1] == "5"
    assert cells[2] == "–"
    assert cells[-4:-1] == ["1.0727, 0.5 s", "1.0000, 0.5 s", "1.0152, 0.5 s"]
    assert cells[-1].startswith("2, 0, 2 (0.2")
    assert "cheaper 2, equal 0, dearer 2; Wilcoxon over the 1 cases, one mean log ratio each: p –." in text
    assert "| empty |" not in text
