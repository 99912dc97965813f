"""The verb `convert`: what a recording does not say is asked for, and counts stay counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from moeopt.load_counts import load_workload
from moeopt.recording import read_recording, read_trace, write_recording
from moeopt.trace import Trace
from tests.command_line import Run, refused


def test_a_recording_of_hidden_layers_needs_its_moe_layers(run: Run, tmp_path: Path) -> None:
    experts = np.zeros((5, 3, 2), np.uint8)
    experts[:, 1:] = [[1, 3], [2, 0]]
    source, out = tmp_path / "request.npy", tmp_path / "trace.parquet"
    np.save(source, experts)
    refused(run("convert", source, "-o", out), str(source), "--moe-layers")
    refused(run("convert", source, "-o", out, "--moe-layers", "1-2"), str(source), "--experts")
    refused(run("convert", source, "-o", out, "--moe-layers", "1-x"), "--moe-layers must look like")
    assert not out.exists()
    answer = run("convert", source, "-o", out, "--moe-layers", "1-2", "--experts", 4, "--model", "small")
    assert answer.code == 0
    assert "5 tokens, 2 layers x 4 experts" in answer.out
    trace = read_trace(out)
    assert (trace.layer_ids.tolist(), trace.n_experts, trace.model) == ([1, 2], 4, "small")
    assert (trace.experts == experts[:, 1:]).all()


def test_counts_are_placed_for_even_loads(run: Run, tmp_path: Path) -> None:
    source, out = tmp_path / "loads.npy", tmp_path / "loads.json"
    np.save(source, np.array([[40, 30, 20, 10], [1, 1, 1, 97]]))
    answer = run("convert", source, "-o", out)
    assert (answer.code, "counts alone" in answer.out) == (0, True)
    refused(run("place", out, "--gpus", 2), str(out), "only the loads of the experts are recorded")
    placed = run("place", out, "--gpus", 2, "--objective", "load", "--replicas", 2, "--workers", 1, "--json")
    assert placed.document["status"] == "certified-optimal"
    assert placed.document["cost"] == 100
    assert run("place", out, "--gpus", 2, "--objective", "load", "--workers", 1).code == 0


def test_loads_have_a_profile_and_no_comparison_on_tokens(run: Run, tmp_path: Path) -> None:
    write_recording(load_workload([[3, 4]], layer_ids=[0]), tmp_path / "loads.json")
    assert run("profile", tmp_path / "loads.json").code == 0
    refused(run("compare", tmp_path / "loads.json", "--gpus", 2), "found a workload without tokens")


def test_a_manifest_of_another_recording_is_refused(run: Run, tmp_path: Path) -> None:
    write_recording(Trace(np.array([[[0, 1]], [[2, 1]]]), 3), tmp_path / "trace.parquet")
    (tmp_path / "manifest.csv").write_text("request,family\n7,code\n")
    answer = run(
        "convert", tmp_path / "trace.parquet", "-o", tmp_path / "out", "--manifest", tmp_path / "manifest.csv"
    )
    refused(answer, str(tmp_path / "manifest.csv"))
    (tmp_path / "manifest.csv").write_text("request,family\n0,code\n")
    assert (
        run(
            *("convert", tmp_path / "trace.parquet", "-o", tmp_path / "out"),
            *("--manifest", tmp_path / "manifest.csv"),
        ).code
        == 0
    )
    found = read_recording(tmp_path / "out")
    assert found.families == ("code",)
