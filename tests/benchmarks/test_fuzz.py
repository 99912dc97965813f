"""Fuzz targets take a few hundred inputs of the built-in engine; a reader that fails is caught with its input."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import fuzz as page
from benchmarks.fuzz import _tried, fuzz, replayed
from benchmarks.fuzz_targets import TARGETS, Read, Target, seeds
from benchmarks.mutations import LONGEST, mended, mutated

RUNS = 300


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_reads_its_valid_files_and_changes_of_them(target: str, tmp_path: Path) -> None:
    tried = _tried(target, tmp_path / "input")
    starts = seeds(target)
    for content in starts:
        (tmp_path / "valid").write_bytes(content)
        replayed(target, tmp_path / "valid")
    rng = np.random.default_rng(0)
    for _ in range(RUNS):
        tried(mutated(starts[int(rng.integers(len(starts)))], rng))


def test_a_run_in_its_own_process_gives_a_row_and_keeps_its_corpus(tmp_path: Path) -> None:
    row = fuzz("safetensors", runs=50, engine="builtin", corpus=tmp_path / "corpus", seed=3)
    assert (row.target, row.engine, row.runs, row.seed, row.crash) == ("safetensors", "builtin", 50, 3, "")
    assert json.loads(json.dumps(row.to_dict()))["per_second"] > 0
    assert (tmp_path / "corpus" / "valid-0").read_bytes() == seeds("safetensors")[0]


def test_what_is_no_value_error_is_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing() -> Read:
        def read(path: Path) -> None:
            if b"bad" in path.read_bytes():
                raise KeyError("bad")
            raise ValueError("good")

        return read

    monkeypatch.setitem(TARGETS, "npy", Target(failing, ("routed experts",)))
    tried = _tried("npy", tmp_path / "input")
    tried(b"well")
    with pytest.raises(KeyError):
        tried(b"bad")
    assert (tmp_path / "input").read_bytes() == b"bad", "what failed stays"


def test_a_child_that_dies_leaves_its_input(tmp_path: Path) -> None:
    (tmp_path / "input").write_bytes(b"last")
    crash = page._crash("npz", tmp_path / "input", tmp_path)
    assert crash.parent == tmp_path
    assert crash.read_bytes() == b"last"


@pytest.mark.parametrize(
    ("target", "engine", "message"),
    [
        ("nothing", "builtin", "no target is named 'nothing'; known are parquet"),
        ("npz", "afl", "found 'afl'"),
    ],
)
def test_unknown_words_are_refused(target: str, engine: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fuzz(target, runs=1, engine=engine)


def test_without_atheris_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install atheris, or choose --engine builtin"):
        fuzz("npz", runs=1)


@given(content=st.binary(max_size=200), seed=st.integers(0, 99))
def test_changes_are_the_same_for_the_same_seed_and_stay_within_bounds(content: bytes, seed: int) -> None:
    first, again = (mutated(content, np.random.default_rng(seed)) for _ in range(2))
    assert first == again
    assert len(first) <= LONGEST


@given(at=st.integers(0, 19), value=st.integers(0, 255))
def test_a_changed_member_is_read_once_its_checksum_is_mended(at: int, value: int) -> None:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("a", bytes(20))
        archive.writestr("b", b"other")
    content = bytearray(sink.getvalue())
    begin = content.index(bytes(20), 30)
    content[begin + at] = value
    with zipfile.ZipFile(io.BytesIO(mended(bytes(content)))) as archive:
        assert archive.read("a")[at] == value
        assert archive.read("b") == b"other"


@given(content=st.binary(max_size=100))
def test_what_is_no_archive_has_nothing_to_mend(content: bytes) -> None:
    assert mended(content) == content
