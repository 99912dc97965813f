"""Methods that nobody registered: found by file or module, refused with the reason."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import moeopt as mo
from moeopt import registry
from moeopt.exact import Exact
from tests.command_line import Run

REVERSED = """
from dataclasses import dataclass

import moeopt as mo


@dataclass(frozen=True)
class Reversed(mo.Heuristic):
    name = "reversed"
    summary = "linear, from the other end"

    def search(self, problem, *, clock, rng, start):
        gpus, experts = problem.cluster.gpus, problem.workload.n_experts
        yield problem.partition([gpus - 1 - expert * gpus // experts for expert in range(experts)])


@dataclass(frozen=True)
class Sized(Reversed):
    size: int


class Plain:
    pass


class Bare(mo.Method):
    def solve(self, problem, *, stop, seed, start=None):
        raise NotImplementedError
"""


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file of methods under a name of its own; what its import leaves behind is taken back."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    path = tmp_path / "written_by_hand.py"
    path.write_text(REVERSED)
    yield path
    sys.modules.pop("written_by_hand", None)


def test_a_method_of_a_file_is_compared_like_any_other(written: Path) -> None:
    problem = mo.Problem.from_trace(mo.sample("tiny-moe").layers([0]), mo.Cluster.of(gpus=8, slots=4))
    rows = mo.compare(problem, ["linear", f"{written}:Reversed"])
    assert [row.method for row in rows] == ["linear", "reversed"]
    assert rows[0].cost == rows[1].cost  # GPUs have no names that cost anything


def test_worker_processes_find_it_too(run: Run, written: Path, tmp_path: Path) -> None:
    mo.write_trace(mo.sample("tiny-moe"), tmp_path / "trace.parquet")
    answer = run(
        "compare", tmp_path / "trace.parquet", "--gpus", 8, "--methods", f"linear,{written}:Reversed",
        "--workers", 2, "--json",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert [row["method"] for row in answer.document["rows"]] == ["linear", "reversed"]


def test_a_module_on_the_path_names_methods_and_formulations() -> None:
    assert registry.named_method("moeopt.heuristics.linear:Linear") == registry.named_method("linear")
    exact = registry.named_method("moeopt_formulations.pairs:Pairs")
    assert isinstance(exact, Exact)
    assert exact == registry.named_method("pairs")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (
            "Missing",
            "written_by_hand.py has no class 'Missing'; its classes are Bare, Plain, Reversed, Sized",
        ),
        ("Sized", "has no default settings: TypeError"),
        ("Plain", "written_by_hand.py:Plain is neither a method nor a formulation"),
        ("Bare", "a method is a frozen dataclass with a name"),
    ],
)
def test_what_is_no_method_is_refused_with_the_reason(written: Path, name: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        registry.named_method(f"{written}:{name}")


def test_files_that_cannot_be_imported_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(ValueError, match=r"absent\.py: no such file"):
        registry.named_method(f"{tmp_path}/absent.py:Reversed")
    (tmp_path / "broken_by_hand.py").write_text("one = = two\n")
    with pytest.raises(ValueError, match=r"broken_by_hand\.py cannot be imported: SyntaxError"):
        registry.named_method(f"{tmp_path}/broken_by_hand.py:Reversed")
    (tmp_path / "random.py").write_text(REVERSED)
    with pytest.raises(ValueError, match="a module named random is there already"):
        registry.named_method(f"{tmp_path}/random.py:Reversed")
    with pytest.raises(ValueError, match="no_such_module:Reversed cannot be imported: ModuleNotFoundError"):
        registry.named_method("no_such_module:Reversed")
