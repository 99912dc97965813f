"""Fixtures of more than one file."""

from __future__ import annotations

import pytest

from tests.command_line import Run, caller


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Calls the command line in this process: run("place", path, "--gpus", 4)."""
    return caller(monkeypatch, capsys)
