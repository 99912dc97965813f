"""Calls of the command line as tests make them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from moeopt.cli import main


class Answer(NamedTuple):
    """What a call left behind."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Answer]


def caller(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """A function that calls `moeopt` with the given words."""

    def call(*words: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["moeopt", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Answer(ended.value.code, out, err)

    return call


def refused(answer: Answer, *words: str) -> None:
    """Exit code 2, nothing on standard output, and one line that says all the words."""
    assert answer.code == 2
    assert answer.out == ""
    assert answer.err.startswith("moeopt: ")
    assert answer.err.count("\n") == 1
    for word in words:
        assert word in answer.err
