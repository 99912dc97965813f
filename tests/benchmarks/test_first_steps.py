"""The README's first steps: found on the page, timed step by step, and ended where one fails."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import moeopt as mo
from benchmarks import first_steps
from benchmarks.first_steps import ROOT, STEPS, TABLES, commands, record, take, taken
from moeopt.bench_rows import Key


def test_the_readme_has_a_block_of_commands_for_every_step() -> None:
    blocks = commands((ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(blocks) == len(STEPS)
    assert "pip install -e ." in blocks[0]
    assert "moeopt convert requests.csv" in blocks[1]
    assert "own.py:" in blocks[2]
    with pytest.raises(ValueError, match="3 steps are timed, found 1 blocks"):
        commands("```sh\nmake\n```\n")


def test_steps_share_a_shell_and_the_recording_comes_before_the_second(tmp_path: Path) -> None:
    home = tmp_path / "moeopt"
    spent = taken(
        [f"mkdir {home}\ncd {home}\nkept=1", "test $kept = 1\ntest -s requests.csv", "sleep 0.1"], home
    )
    assert len(spent) == 3
    assert spent[2] >= 0.1


def test_a_step_that_fails_is_named_with_what_it_said(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="step 2 failed: it broke"):
        taken([f"mkdir {tmp_path}/m\ncd {tmp_path}/m", "echo it broke\nfalse", "true"], tmp_path / "m")


def test_the_recording_is_the_sample_as_an_engine_hands_it_out(tmp_path: Path) -> None:
    record(tmp_path)
    whole = mo.sample()
    read = mo.read_trace(
        tmp_path / "requests.csv",
        n_experts=whole.n_experts,
        layer_ids=range(whole.n_layers),
        top_k=whole.top_k,
    )
    assert read.n_tokens == whole.n_tokens
    assert sorted(read.families) == sorted(whole.families)
    assert np.array_equal(counted(read), counted(whole))


def counted(trace: mo.Trace) -> NDArray[np.int64]:
    """int64 [phases, experts]: activations in the first layer."""
    chosen = trace.experts[:, 0]
    return np.stack(
        [np.bincount(chosen[trace.phase == phase].ravel(), minlength=trace.n_experts) for phase in (0, 1)]
    )


def test_rows_are_a_step_each_and_the_table_shows_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_steps, "taken", lambda blocks, home: [60.0, 20.0, 10.0])
    rows = take(Key("README", None, STEPS[-1], 0, ""))
    assert [row["method"] for row in rows] == list(STEPS)
    lines = TABLES["first-steps"][1](rows).splitlines()
    assert lines[2] == f"| {STEPS[0]} | 1 | 60 s |"
    assert lines[3] == f"| {STEPS[1]} | 6 | 20 s |"
