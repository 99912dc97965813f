"""Documents on disk: whole or not at all, and every error names its file."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moeopt import storage


def test_a_document_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "document.json"
    document = {"format": "shelf", "version": 1, "big": 2**60 + 1, "text": "größer"}
    storage.write_json(path, document | {"array": np.arange(2), "number": np.int64(3)})
    assert storage.read_json(path, kind="shelf") == document | {"array": [0, 1], "number": 3}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float64("nan")])
def test_what_json_cannot_hold_leaves_no_file(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        storage.write_json(tmp_path / "document.json", {"value": value})
    with pytest.raises(TypeError, match="set has no JSON form"):
        storage.write_json(tmp_path / "document.json", {"value": set()})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("step", ["fsync", "replace", "chmod"])
def test_a_write_that_fails_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "file"
    storage.write_bytes(path, b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(ValueError, match="file: cannot be written: No space left on device"):
        storage.write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupt_while_writing_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        storage.write_bytes(tmp_path / "file", b"new")
    assert list(tmp_path.iterdir()) == []


def test_files_have_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    storage.write_bytes(tmp_path / "ours", b"")
    (tmp_path / "plain").touch()
    ours, plain = (stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ours", "plain"))
    assert ours == plain


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"absent/file: folder .*absent does not exist"):
        storage.write_bytes(tmp_path / "absent" / "file", b"")
    with pytest.raises(ValueError, match="cannot be written: ") as error:
        storage.write_bytes(tmp_path, b"")
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "expected a JSON object of format 'shelf', found list"),
        (b"{}", "format must be 'shelf', found None"),
        (b'{"format": "shelf"}', "version of shelf must be 1, found None"),
        (b'{"format": "shelf", "version": true}', "version of shelf must be 1, found True"),
        (b'{"format": "shelf", "version": 2}', "version of shelf must be 1, found 2"),
    ],
)
def test_a_document_of_another_kind_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "document.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words) as error:
        storage.read_json(path, kind="shelf")
    assert str(error.value).startswith(f"{path}: ")


def test_a_missing_document_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="absent: cannot be read: No such file"):
        storage.read_json(tmp_path / "absent", kind="shelf")
    with pytest.raises(ValueError, match="cannot be read: Is a directory"):
        storage.read_json(tmp_path, kind="shelf")


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({}, "'n' is missing"),
        ({"n": "1"}, "must be int, found '1'"),
        ({"n": True}, "must be int, found True"),
    ],
)
def test_a_field_has_its_type(document: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        storage.field(document, "n", kind=int)
    assert storage.field({"n": True}, "n", kind=bool) is True


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([1.0], "whole numbers of 8 bits, found dtype float64"),
        ([300], "whole numbers of 8 bits"),
        ([2**70], "whole numbers of 8 bits"),
        ([[1], [1, 2]], "lists of one length"),
        ([1, True], "found true or false"),
        (1, "must be list, found 1"),
    ],
)
def test_lists_of_other_things_are_refused(value: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        storage.whole_numbers({"n": value}, "n", dtype=np.int8)
    assert storage.whole_numbers({"n": [[1, -2]]}, "n", dtype=np.int8).tolist() == [[1, -2]]
