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
from moeopt.own_methods import method_identity
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


@pytest.mark.parametrize("place", [":", ":X", "..own:Grown", "a b:X", "a:b:X", "/:X"])
def test_places_that_are_neither_module_nor_file_are_refused(place: str) -> None:
    source = place.rpartition(":")[0]
    with pytest.raises(
        ValueError, match=re.escape(f"{place}: a module or file.py is wanted, found {source!r}")
    ):
        registry.named_method(place)


def test_a_file_without_its_suffix_is_told_what_was_meant(
    written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(written.parent)
    meant = r"found './written_by_hand'; did you mean \./written_by_hand\.py:Reversed\?"
    with pytest.raises(ValueError, match=meant):
        registry.named_method("./written_by_hand:Reversed")
    dotted = written.with_name("written.twice.py")
    dotted.write_text(REVERSED)
    with pytest.raises(ValueError, match="the name of a module has no dots, the file needs another name"):
        registry.named_method(f"{dotted}:Reversed")


@pytest.mark.parametrize(
    ("line", "reason"),
    [("raise ValueError('inner')", "ValueError: inner"), ("raise SystemExit(3)", "SystemExit: 3")],
)
def test_a_module_that_raises_or_ends_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, reason: str
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "ends_by_hand.py").write_text(f"{line}\n")
    with pytest.raises(ValueError, match=re.escape(f"ends_by_hand.py cannot be imported: {reason}")):
        registry.named_method(f"{tmp_path}/ends_by_hand.py:Any")


def test_a_method_is_told_from_others_by_its_place_and_its_source(written: Path) -> None:
    place = f"{written}:Reversed"
    method = registry.named_method(place)
    told = method_identity(place, method)
    assert re.fullmatch(re.escape(f"{place} Reversed() ") + r"\[[0-9a-f]{8}\]", told)
    assert method_identity(f"./{place}", method) != told
    written.write_text(REVERSED + "\n# edited\n")
    assert method_identity(place, method) != told
    swap = registry.named_method("swap")
    assert method_identity("swap", swap) == repr(swap)
    own = method_identity("moeopt_formulations.pairs:Pairs", registry.named_method("pairs"))
    assert own.startswith("moeopt_formulations.pairs:Pairs Exact(formulation=Pairs(")


def test_methods_that_share_a_name_are_compared_under_what_was_asked_for(written: Path) -> None:
    problem = mo.Problem.from_trace(mo.sample("tiny-moe").layers([0]), mo.Cluster.of(gpus=8, slots=4))
    other = written.with_name("written_again_by_hand.py")
    other.write_text(REVERSED)
    rows = mo.compare(problem, ["linear", f"{written}:Reversed", f"{other}:Reversed"])
    assert [row.method for row in rows] == ["linear", f"{written}:Reversed", f"{other}:Reversed"]
