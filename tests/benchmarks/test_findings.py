from pathlib import Path
from typing import Any

import pytest

from benchmarks.findings import shifted_mean, solved_seconds
from benchmarks.report import table
from moeopt.bench_files import write_rows
from moeopt.bench_rows import Key, Row

STOP = "Stop(seconds=20, candidates=None, gap=0.0)"


def _row(case: str, solver: str, seed: int, **changed: Any) -> Row:
    found: dict[str, Any] = {
        "formulation": "blocks",
        "solver": solver,
        "size": "8 experts",
        "rows": 1234,
        "columns": 29,
        "nonzeros": 85,
        "lazy": False,
        "build_seconds": 0.01,
        "pyomo_seconds": 0.5 if seed == 0 else None,
        "status": "certified-optimal",
        "cost": 100,
        "bound": 100,
        "gap": 0.0,
        "seconds": 1.0,
        "solved_seconds": 1.0,
        "nodes": 3,
    }
    return Key(case, None, f"blocks() by {solver}", seed, STOP).row("done", **{**found, **changed})


def test_the_shifted_mean_of_equal_times_is_that_time_and_zeros_do_not_break_it() -> None:
    assert shifted_mean([3.0, 3.0, 3.0]) == pytest.approx(3)
    assert shifted_mean([0.0, 3.0]) == pytest.approx(1)
    assert shifted_mean([0.0, 0.0]) == pytest.approx(0)


def test_a_run_without_an_optimum_counts_with_its_limit_at_least() -> None:
    assert solved_seconds(_row("a", "highs", 0)) == 1.0
    open_end: dict[str, Any] = {"status": "certified-gap", "solved_seconds": None}
    assert solved_seconds(_row("a", "highs", 0, **open_end, seconds=2.0)) == 20.0
    assert solved_seconds(_row("a", "highs", 0, **open_end, seconds=21.5)) == 21.5
    claimed = _row("a", "highs", 0, status="solver-claimed", solved_seconds=4.0, seconds=20.1)
    assert solved_seconds(claimed) == 4.0


def test_solvers_are_columns_and_claims_stand_beside_certificates(tmp_path: Path) -> None:
    rows = [
        _row("a", solver, seed, solved_seconds=0.0) for solver in ("highs", "prices") for seed in range(2)
    ]
    rows += [
        _row("b", "highs", 0, status="solver-claimed", bound=90, solved_seconds=3.0),
        _row("b", "highs", 1, status="certified-gap", bound=80, solved_seconds=None, seconds=20.0),
    ]
    write_rows(rows, tmp_path / "formulations.parquet")
    text = table("formulations", folder=tmp_path)
    assert "| formulation | problems | prices | highs |" in text
    mean = shifted_mean([0.0, 0.0, 3.0, 20.0])
    assert f"| `blocks` | 2 | 2/2 (2), < 1 ms | 3/4 (2), {mean:.2g} s |" in text
    assert "Limit: 20 s a run" in text
    text = table("sizes", folder=tmp_path)
    assert "| b | `blocks` | 1,234 × 29, 85 | 0.01 s | 0.5 s | 10.0 % |" in text


def test_the_spread_over_names_is_told_where_it_can_be_noticed(tmp_path: Path) -> None:
    quick = [_row("a", "highs", seed, solved_seconds=0.01 * (1 + seed)) for seed in range(3)]
    slow = [_row("b", "highs", seed, solved_seconds=1.0 + seed) for seed in range(3)]
    unsolved = [_row("c", "highs", 0, solved_seconds=1.0), _row("c", "highs", 1, status="feasible")]
    write_rows([*quick, *slow, *unsolved], tmp_path / "formulations.parquet")
    assert "| `blocks` | 3.0, 3.0 (1) |" in table("seeds", folder=tmp_path)


def test_symmetry_has_both_sides_in_a_line(tmp_path: Path) -> None:
    rows = [
        _row(
            "a", "highs", seed, formulation="replicated", symmetry=broken, nodes=10 if broken else 100 + seed
        )
        for broken in (True, False)
        for seed in range(2)
    ]
    for row in rows:
        row["method"] = f"replicated(symmetry={row['found']['symmetry']}) by highs"
    write_rows(rows, tmp_path / "symmetry.parquet")
    text = table("symmetry", folder=tmp_path)
    assert "| a | highs | 2/2 (2), 1 s | 10 to 10 | 2/2 (2), 1 s | 100 to 101 |" in text


def test_a_run_that_was_ended_counts_as_unsolved_in_every_table(tmp_path: Path) -> None:
    row = _row("a", "highs", 0, symmetry=True)
    for name in ("cost", "bound", "gap", "nodes", "solved_seconds"):
        del row["found"][name]
    row["found"] |= {"status": "overran", "seconds": 20.0}
    for experiment in ("formulations", "symmetry", "replicas"):
        write_rows([row], tmp_path / f"{experiment}.parquet")
    for name in ("formulations", "sizes", "symmetry"):
        assert "0/1 (0), 20 s" in table(name, folder=tmp_path)
    assert "| a | –, overran, 20 s |" in table("replicas", folder=tmp_path)


def test_replicas_have_a_formulation_a_column_and_refusals_are_named(tmp_path: Path) -> None:
    rows = [
        _row("a", "highs", 0, formulation="covers", status="solver-claimed", gap=0.1),
        _row(
            "a",
            "highs",
            0,
            formulation="replicated",
            status="certified-gap",
            gap=0.25,
            seconds=60.0,
            solved_seconds=None,
        ),
        _row(
            "b",
            "highs",
            0,
            formulation="covers",
            status="none-found",
            cost=None,
            bound=None,
            solved_seconds=None,
        ),
    ]
    rows[1]["method"] = "replicated() by highs"
    refused = Key("b", None, "replicated() by highs", 0, STOP).row("unsupported", reason="too many rows")
    write_rows([*rows, refused], tmp_path / "replicas.parquet")
    text = table("replicas", folder=tmp_path)
    assert "| a | 100 claimed, 1 s; gap 10.0 % | 100, gap 25.0 %, 60 s |" in text
    assert "| b | –, none-found, 1 s | – |" in text
    assert "Left out: b (too many rows)." in text


def test_builders_say_what_pyomo_was_spared(tmp_path: Path) -> None:
    found: dict[str, Any] = {
        "status": "built",
        "formulation": "pairs",
        "rows": 64,
        "columns": 2016,
        "nonzeros": 4032,
        "lazy_rows": 124992,
        "build_seconds": 0.001,
        "hand_seconds": 0.002,
        "pyomo_build_seconds": 10.0,
        "pyomo_compile_seconds": 8.0,
        "pyomo_seconds": 18.0,
        "ratio": 6000.4,
    }
    key = Key("all pairs, 64 experts x 8 GPUs", None, "pairs()", 0, "none")
    large = Key("all pairs, 128 experts x 16 GPUs", None, "pairs()", 0, "none")
    rows = [key.row("done", **found), large.row("done", **{**found, "pyomo_seconds": None, "ratio": None})]
    write_rows(rows, tmp_path / "builders.parquet")
    text = table("builders", folder=tmp_path)
    assert "| 64 + 124,992 on demand × 2,016, 4,032 | 0.001 s | 0.002 s | 10 s + 8 s | 6,000 |" in text
    assert "| 0.001 s | 0.002 s | – | – |" in text


def test_agreement_sums_the_chunks_of_a_formulation(tmp_path: Path) -> None:
    counts: dict[str, Any] = {"agreed": 99, "disagreements": 0, "infeasible": 1, "certified_optimal": 98}
    rows = [
        Key("tiny instances", None, "hops", first, "100 instances").row(
            "done", status="agreed", formulation="hops", instances=100, **counts
        )
        for first in (0, 100)
    ]
    write_rows(rows, tmp_path / "agreement.parquet")
    assert "| `hops` | 200 | 198 | 0 | 2 | 196 |" in table("agreement", folder=tmp_path)
