"""`moeopt moves` prints what the library says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from moeopt import storage
from moeopt.cluster import Cluster
from moeopt.generator import Generator
from moeopt.migration_cli import moves
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.recording import write_trace

RUN = CliRunner()
APP = typer.Typer()
APP.command()(moves)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("moves")
    trace = Generator(
        layers=2, experts=8, top_k=2, tokens=300, requests=24, groups=3, group_size=3
    ).generate()
    problem = Problem.from_trace(trace, Cluster.of(gpus=4, slots=2))
    write_trace(trace, folder / "trace.parquet")
    linear = problem.partition([[0, 0, 1, 1, 2, 2, 3, 3]] * 2)  # type: ignore[arg-type]
    storage.write_json(folder / "used.json", linear.to_dict())
    return folder / "trace.parquet", folder / "used.json"


def test_the_front_is_printed_written_and_drawn(files: tuple[Path, Path], tmp_path: Path) -> None:
    trace, used = files
    placed, picture = tmp_path / "placement.json", tmp_path / "front.png"
    options = ["--incumbent", str(used), "--max-moves", "5", "--method", "migrate", "--json"]
    done = RUN.invoke(
        APP, [str(trace), *options, "-o", str(placed), "--figure", str(picture)], catch_exceptions=False
    )
    assert done.exit_code == 0
    steps = json.loads(done.stdout)["steps"]
    assert [step["budget"] for step in steps] == [0, 2, 4, 5]
    assert steps[0]["moves"] == 0
    assert steps[-1]["cost"] <= steps[0]["cost"]
    found = Placement.from_dict(storage.read_json(placed, kind="moeopt-placement"))
    incumbent = Placement.from_dict(storage.read_json(used, kind="moeopt-placement"))
    assert (found.hosts & ~incumbent.hosts).sum() == steps[-1]["moves"]
    assert picture.read_bytes()[:4] == b"\x89PNG"


def test_a_table_shows_every_budget(files: tuple[Path, Path]) -> None:
    trace, used = files
    options = ["--incumbent", str(used), "--max-moves", "2", "--every", "1", "--method", "migrate"]
    done = RUN.invoke(APP, [str(trace), *options], catch_exceptions=False)
    assert done.exit_code == 0
    assert "budget" in done.stdout
    assert sum("feasible" in line for line in done.stdout.splitlines()) == 3


def test_bad_input_is_said(files: tuple[Path, Path], tmp_path: Path) -> None:
    trace, used = files
    options = ["--incumbent", str(used), "-o", str(tmp_path / "missing" / "x.json")]
    with pytest.raises(ValueError, match="does not exist"):
        RUN.invoke(APP, [str(trace), *options], catch_exceptions=False)
