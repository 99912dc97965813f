"""The document of a problem is told however it is laid out, and named where traffic is wanted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import moeopt as mo
from moeopt import storage
from moeopt.problem_files import holds_problem, read_problem
from tests.command_line import Run, refused

PROBLEM, CERTIFICATE = mo.read_instance("cut-9")


def written(**layout: Any) -> bytes:
    return json.dumps(PROBLEM.to_dict(), default=storage.plain, **layout).encode()


LAYOUTS = {
    "plain": written(),
    "indented": written(indent=2),
    "sorted": written(sort_keys=True),
    "sorted and indented": written(indent=1, sort_keys=True),
    "after blanks": b" " * 63 + b"\n" * 200 + written(),
    "after a byte order mark": b"\xef\xbb\xbf" + written(),
    "sorted, after a byte order mark and blanks": b"\xef\xbb\xbf" + b"\n" * 100 + written(sort_keys=True),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "problem.json"


@pytest.mark.parametrize("content", LAYOUTS.values(), ids=LAYOUTS)
def test_a_problem_is_told_however_its_document_is_laid_out(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert holds_problem(path)
    assert read_problem(path).digest == PROBLEM.digest
    verdict = mo.verify(CERTIFICATE, path)
    assert verdict.accepted, verdict.reason


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b" " * 1_000,
        b"{",
        b"[]",
        b'{"about": "moeopt-problem"}',
        b'{"workload": {"format": "moeopt-problem"}}',
        b'{"about": ' + b"[" * 100_000 + b', "format": "moeopt-problem"}',
        b'PAR1 {"format": "moeopt-problem"}',
        b'{"about": "\xff", "format": "moeopt-problem"}',
    ],
)
def test_nothing_else_is_taken_for_one(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert not holds_problem(path)


def test_a_folder_and_what_is_absent_hold_none(tmp_path: Path) -> None:
    assert not holds_problem(tmp_path)
    assert not holds_problem(tmp_path / "absent")
    for place in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ValueError, match=f"{place}: "):
            read_problem(place)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"format": "moeopt-problem", "version": ' + b"[" * 100_000, "not JSON: "),
        (b'{"format": "moeopt-problem", "version": 2}', "version of moeopt-problem must be 1, found 2"),
        (b'{"format": "moeopt-problem", "version": 1}', "field 'workload' is missing"),
        (b'{"format": "moeopt-problem", "version": 1, "about": "\xff"}', "not JSON: "),
    ],
)
def test_a_broken_problem_is_named(path: Path, content: bytes, words: str) -> None:
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words) as error:
        mo.verify(CERTIFICATE, path)
    assert str(error.value).startswith(f"{path}: ")


@pytest.mark.parametrize("beyond", ["format first", "format last"])
def test_a_document_beyond_the_limit_is_refused(
    path: Path, beyond: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_bytes(LAYOUTS["plain" if beyond == "format first" else "sorted"])
    monkeypatch.setattr(storage, "LIMIT", 100)
    with pytest.raises(ValueError, match=r"a document may have 100 bytes|content must be of a known format"):
        mo.verify(CERTIFICATE, path)


def test_verify_names_the_problem_among_what_it_knows(path: Path) -> None:
    path.write_bytes(b"who knows")
    with pytest.raises(ValueError, match=r"content must be of a known format \(.*, moeopt-problem\)"):
        mo.verify(CERTIFICATE, path)
    with pytest.raises(ValueError, match="content must be of a known format") as error:
        mo.read_trace(path)
    assert "moeopt-problem" not in str(error.value)


@pytest.mark.parametrize("layout", ["plain", "sorted", "after a byte order mark"])
@pytest.mark.parametrize("verb", ["place", "compare", "profile"])
def test_verbs_that_want_traffic_say_what_takes_a_problem(
    verb: str, layout: str, path: Path, run: Run
) -> None:
    path.write_bytes(LAYOUTS[layout])
    words = () if verb == "profile" else ("--gpus", "3")
    refused(
        run(verb, path, *words),
        f"{path}: traffic is wanted, found the document of a problem",
        "moeopt verify",
        "mo.read_instance",
    )
