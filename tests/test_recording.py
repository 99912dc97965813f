import os
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings

from moeopt.recording import read_trace, write_trace
from moeopt.supplement import Supplement
from moeopt.trace import Trace
from tests.strategies import same, traces

TINY = Trace(np.array([[[0, 1]], [[2, 1]]]), 3)


@settings(max_examples=40, deadline=None)
@given(trace=traces())
def test_a_trace_read_back_is_the_trace_written(
    trace: Trace, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "trace.parquet"
    write_trace(trace, path)
    assert same(read_trace(path), trace)


def test_more_experts_than_a_byte_and_more_rows_than_a_group_come_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    experts = np.sort(rng.integers(0, 100, (40_000, 2, 3)), axis=2) + np.array([0, 100, 200])
    trace = Trace(experts, 300, model="größer")
    write_trace(trace, tmp_path / "trace")
    assert same(read_trace(tmp_path / "trace"), trace)


def test_the_format_is_told_from_the_content_and_not_from_the_name(tmp_path: Path) -> None:
    write_trace(TINY, tmp_path / "trace.npz")
    np.savez(
        tmp_path / "other",
        experts=TINY.experts,
        n_experts=3,
        sequence=TINY.request,
        position=TINY.position,
        phase=TINY.phase,
        family=TINY.family,
        families=np.array(TINY.families),
        layer_ids=TINY.layer_ids,
        model=np.array(""),
    )
    (tmp_path / "other.npz").rename(tmp_path / "trace.parquet")
    assert same(read_trace(tmp_path / "trace.npz"), TINY)
    assert same(read_trace(str(tmp_path / "trace.parquet")), TINY)


def test_writing_the_same_trace_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_trace(TINY, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_write_that_fails_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "trace.parquet"
    write_trace(TINY, path)
    before = path.read_bytes()

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(ValueError, match=r"trace\.parquet: cannot be written: No space left on device"):
        write_trace(TINY, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("target", "message"),
    [("absent/trace.parquet", "folder .*absent does not exist"), (".", "cannot be written: ")],
)
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, target: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        write_trace(TINY, tmp_path / target)
    assert str(tmp_path / target) in str(error.value)


@pytest.mark.parametrize(
    ("content", "found"),
    [(b"", "found b''"), (b"token,layer\n0,1\n", "found b'token,la'"), (b"\x93NUMPY", "NUMPY")],
)
def test_an_unknown_format_is_refused(tmp_path: Path, content: bytes, found: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="content must be of a known format") as error:
        read_trace(path)
    assert str(error.value).startswith(f"{path}: ")
    assert found in str(error.value)
    assert "npz, parquet" in str(error.value)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="absent: cannot be read: No such file"):
        read_trace(tmp_path / "absent")
    with pytest.raises(ValueError, match="a folder must be of a known format"):
        read_trace(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe: a trace is a regular file"):
        read_trace(tmp_path / "pipe")


class Guest:
    """A reader of another package, for files that look like Parquet."""

    name: ClassVar[str] = "guest"

    def accepts(self, path: Path, head: bytes) -> bool:
        return head == b"PAR1 guest"

    def read(self, path: Path, supplement: Supplement) -> Trace:
        return TINY


def test_readers_of_other_packages_are_asked_before_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Entry:
        name, value = "zz", "guest:Guest"

        def load(self) -> type[Guest]:
            return Guest

    def with_guest(**query: Any) -> list[Any]:
        return [*entry_points(**query), Entry()]

    monkeypatch.setattr("moeopt.recording.entry_points", with_guest)
    (tmp_path / "trace").write_bytes(b"PAR1 guest")
    assert read_trace(tmp_path / "trace") is TINY
    write_trace(TINY, tmp_path / "ours")
    assert same(read_trace(tmp_path / "ours"), TINY)
