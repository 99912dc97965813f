"""The example plug-in, installed as a stranger would install it, is a method like any other."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import moeopt as mo
from moeopt.trace import Trace

FOLDER = Path(__file__).parents[1] / "formulations" / "examples" / "representatives"
MOEOPT = "from moeopt.cli import main; main()"
GENEROUS = 300  # seconds; only a hang takes so long


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH with the plug-in and its entry point; built offline where the builder is at hand."""
    folder = tmp_path_factory.mktemp("plug-in")
    source = shutil.copytree(FOLDER, folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
    built_here = ["--no-build-isolation"] if find_spec("hatchling") else []
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", *built_here]
    subprocess.run([*command, "--target", str(folder / "site"), str(source)], check=True, timeout=GENEROUS)
    return folder / "site"


def call(installed: Path, *words: object) -> str:
    path = os.pathsep.join(filter(None, [str(installed), os.environ.get("PYTHONPATH", "")]))
    found = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=installed.parent,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=GENEROUS,
    )
    assert found.returncode == 0, found.stderr + found.stdout
    return found.stdout


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tokens of one layer of the packaged trace whose experts are all among the first 16."""
    experts = mo.sample("tiny-moe").experts[:, :1]
    path = tmp_path_factory.mktemp("trace") / "trace.parquet"
    mo.write_trace(Trace(experts[np.all(experts < 16, axis=(1, 2))], 16), path)
    return path


def place(installed: Path, trace: Path, method: str) -> Any:
    words = ("--gpus", 4, "--objective", "cut", "--method", method, "--workers", 1, "--json")
    return json.loads(call(installed, "-c", MOEOPT, "place", trace, *words))


def test_it_is_listed_with_the_methods(installed: Path) -> None:
    known = json.loads(call(installed, "-c", MOEOPT, "methods", "--json"))["methods"]
    (own,) = (method for method in known if method["name"] == "representatives")
    assert own["summary"].startswith("groups named after their smallest expert")


def test_it_finds_the_optimum_that_blocks_proves(installed: Path, trace: Path) -> None:
    proved, found = place(installed, trace, "blocks"), place(installed, trace, "representatives")
    assert proved["status"] == "certified-optimal"
    assert found["status"] in ("solver-claimed", "certified-optimal")
    assert found["cost"] == proved["cost"]


def test_its_own_test_passes_outside_the_checkout(installed: Path) -> None:
    own = installed.parent / "source" / "test_moeopt_representatives.py"
    shown = call(installed, "-m", "pytest", "-q", "-p", "no:cacheprovider", own)
    assert "passed" in shown


def test_without_it_nobody_knows_the_name() -> None:
    with pytest.raises(ValueError, match="no method is named 'representatives'"):
        mo.solve(
            mo.Problem.from_trace(mo.sample("tiny-moe"), mo.Cluster(1, 8, 4), objective="cut"),
            "representatives",
        )
