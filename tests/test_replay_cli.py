"""`moeopt replay`: what it answers and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer

import moeopt as mo
from moeopt.latency import Machine
from moeopt.replay_cli import replay as verb
from moeopt.replaying import replay
from tests.command_line import Run, caller

TRACE = mo.Generator(
    layers=2, experts=8, top_k=2, tokens=400, requests=16, groups=3, group_size=3, seed=1
).generate()
PLACEMENT = mo.Placement.partition(
    np.tile(np.arange(8) // 2, (2, 1)), mo.Cluster(2, 2, 2), layer_ids=TRACE.layer_ids.tolist()
)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`moeopt replay`, in this process, the only verb of the command line."""
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    alone.command()(verb)
    alone.callback()(lambda: None)
    monkeypatch.setattr("moeopt.cli.app", alone)
    call = caller(monkeypatch, capsys)
    return lambda *words: call("replay", *words)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with trace.parquet, placement.json, and the placement as an engine holds it."""
    folder = tmp_path_factory.mktemp("made")
    mo.write_trace(TRACE, folder / "trace.parquet")
    (folder / "placement.json").write_text(json.dumps(PLACEMENT.to_dict()))
    mo.export(PLACEMENT, folder / "sglang.json", engine="sglang")
    return folder


def test_the_answer_is_that_of_the_library(run: Run, made: Path) -> None:
    answer = run(made / "placement.json", made / "trace.parquet", "--batch", 64, "--rule", "static", "--json")
    assert (answer.code, answer.err) == (0, "")
    found = replay(PLACEMENT, TRACE, batch=64, rule="static")
    extra = {"source": "moeopt-placement", "model": None, "machine": None}
    assert answer.document == json.loads(json.dumps({**found.to_dict(), **extra}))
    assert found.to_dict()["vector_bytes"] is None


def test_a_model_gives_bytes_and_seconds(run: Run, made: Path) -> None:
    options = ("--model", "mixtral-8x7b", "--gpu", "h200", "--link", "nvlink-roce-400", "--compute", "fp8")
    answer = run(made / "placement.json", made / "trace.parquet", *options, "--hidden", 10, "--json").document
    machine = Machine.of("h200", "nvlink-roce-400", compute="fp8")
    found = replay(PLACEMENT, TRACE, model="mixtral-8x7b", vector_bytes=20, machine=machine).to_dict()
    assert answer["seconds"] == found["seconds"]
    assert answer["vector_bytes"] == 20
    assert (answer["model"], answer["machine"]) == ("mixtral-8x7b", "h200, nvlink-roce-400, fp8")


def test_a_trace_that_names_a_known_model_needs_no_option(run: Run, made: Path, tmp_path: Path) -> None:
    trace = mo.Trace(TRACE.experts, 8, layer_ids=TRACE.layer_ids, model="mistralai/Mixtral-8x7B")
    mo.write_trace(trace, tmp_path / "trace.parquet")
    answer = run(made / "placement.json", tmp_path / "trace.parquet", "--json").document
    assert answer["model"] == "mixtral-8x7b"
    assert answer["vector_bytes"] == 2 * 4096


def test_tables_are_shown_without_json(run: Run, made: Path) -> None:
    bare = run(made / "placement.json", made / "trace.parquet")
    assert bare.code == 0
    for word in ("Replay", "Volumes, one way", "remote_gpus", "4 GPUs", "--model is needed"):
        assert word in bare.out
    assert "GB in all" not in bare.out
    assert "Modelled" not in bare.out
    assert "…" not in bare.out
    timed = run(made / "placement.json", made / "trace.parquet", "--model", "mixtral-8x7b")
    for word in ("GB in all", "Modelled µs a batch", "(modelled)"):
        assert word in timed.out


def test_an_engines_map_and_some_layers_are_replayed(run: Run, made: Path) -> None:
    shape = ("--gpus", 4, "--nodes", 2, "--json")
    own = run(made / "placement.json", made / "trace.parquet", "--json").document
    engine = run(made / "sglang.json", made / "trace.parquet", *shape).document
    assert engine["source"] == "map of sglang"
    assert engine["layers"] == own["layers"]
    one = run(made / "placement.json", made / "trace.parquet", "--layers", 1, "--json").document
    assert one["layers"] == own["layers"][1:]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--rule", "nearby"), ("'nearby'", "known are cover, equal")),
        (("--batch", 0), ("placement.json", "trace.parquet", "batch must be a whole number, at least 1")),
        (("--order", "shuffled"), ("order must be one of steps, recorded", "'shuffled'")),
        (("--gpu", "tpu"), ("no GPU is named 'tpu'", "h100-sxm")),
        (("--link", "string"), ("no link is named 'string'",)),
        (("--gpu", "mi300x"), ("mi300x has no nvlink", "xgmi, pcie")),
        (("--compute", "fp4"), ("compute must be bf16 or fp8",)),
        (("--model", "magic"), ("no model is named 'magic'",)),
        (("--model", "olmoe-1b-7b"), ("olmoe-1b-7b has 64 experts a layer, the trace 8",)),
        (("--model", "mixtral-8x7b", "--precision", "int3"), ("int3",)),
        (("--layers", "7"), ("placement.json", "layer 7 is not in the trace")),
        (("--gpus", 8), ("gpus are 4 in the placement, asked for were 8",)),
        (("--hidden", 0), ("--hidden",)),
        (("--node-cost", -1), ("node_cost must be at least 0, found -1",)),
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_refused(
    run: Run, made: Path, options: tuple[object, ...], words: tuple[str, ...]
) -> None:
    answer = run(made / "placement.json", made / "trace.parquet", *options)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("moeopt: ")
    assert answer.err.count("\n") == 1
    for word in words:
        assert word in answer.err


def test_a_trace_of_another_model_is_refused(run: Run, made: Path, tmp_path: Path) -> None:
    mo.write_trace(mo.Trace(np.array([[[0, 1], [0, 1]]]), 4), tmp_path / "other.parquet")
    answer = run(made / "placement.json", tmp_path / "other.parquet")
    assert answer.code == 2
    assert "8 experts a layer, the trace 4" in answer.err
