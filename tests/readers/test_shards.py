"""Folders of Parquet files: one workload of all, for every verb that needs no tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import moeopt as mo
from moeopt.readers.shards import Shards
from moeopt.recording import read_recording, read_trace
from moeopt.supplement import Supplement
from moeopt.trace import Trace
from moeopt.workload import Workload
from tests.command_line import Run, refused


@pytest.fixture(scope="module")
def whole() -> Trace:
    return mo.sample("tiny-moe").layers([0, 1])


@pytest.fixture
def folder(whole: Trace, tmp_path: Path) -> Path:
    """Two files, requests parted, beside what other programs leave in such folders."""
    shards = tmp_path / "shards"
    shards.mkdir()
    for name, part in zip(("a", "b"), whole.split(0.3, seed=0), strict=True):
        mo.write_trace(part, shards / f"{name}.parquet")
    (shards / "_SUCCESS").touch()
    return shards


def test_the_workload_of_a_folder_is_that_of_all_its_tokens(folder: Path, whole: Trace) -> None:
    found = read_recording(folder)
    assert isinstance(found, Workload)
    assert found.digest == Workload.from_trace(whole).digest
    only = read_recording(folder, supplement=Supplement(layer_ids=(1,), model="other"))
    assert (list(only.layer_ids), only.model) == ([1], "other")


def test_a_folder_is_no_trace(folder: Path) -> None:
    with pytest.raises(ValueError, match="found a workload without tokens"):
        read_trace(folder)


def test_other_folders_are_left_to_others(tmp_path: Path) -> None:
    assert not Shards().accepts(tmp_path, b"")
    (tmp_path / "a").write_bytes(b"PAR")
    assert not Shards().accepts(tmp_path, b"")
    assert not Shards().accepts(tmp_path / "a", b"PAR")


def test_verbs_take_a_folder(folder: Path, run: Run, tmp_path: Path) -> None:
    out = ("-o", tmp_path / "placement.json", "--certificate", tmp_path / "certificate.json")
    placed = run("place", folder, "--gpus", 8, "--layers", "1", "--workers", 1, *out, "--json")
    assert placed.document["status"] == "certified-optimal"
    assert run("verify", tmp_path / "certificate.json", folder).code == 0
    assert run("profile", folder, "--layers", "1", "--html", tmp_path / "page.html").code == 0
    assert [layer["layer"] for layer in run("profile", folder, "--json").document["layers"]] == [0, 1]
    refused(run("place", folder, "--gpus", 8, "--layers", "7"), "7")


def test_a_damaged_file_of_the_folder_is_named(folder: Path, run: Run) -> None:
    (folder / "b.parquet").write_bytes(b"PAR1 and nothing else")
    refused(run("place", folder, "--gpus", 8), "b.parquet")
    refused(run("profile", folder), "b.parquet")


def test_a_data_set_that_memory_does_not_hold_is_refused_and_not_sampled_in_silence(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    ids = np.argsort(rng.random((30_000, 1, 64)), axis=2)[:, :, :6]
    (tmp_path / "shards").mkdir()
    mo.write_trace(Trace(ids, 64), tmp_path / "shards" / "a.parquet")
    memory = (320 << 20) + (2 << 20)
    with pytest.raises(
        ValueError, match=r"30000 tokens have more expert sets than .* draw a sample and say so"
    ):
        Shards(memory=memory).read(tmp_path / "shards", Supplement())
