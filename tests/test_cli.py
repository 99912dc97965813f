"""The command line: every verb, the shape of its answers, its exit codes, and nothing half-written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import moeopt as mo
from moeopt.certificate import seal
from tests.command_line import Answer, Run, refused

GENERATOR = mo.Generator(
    layers=2, experts=8, top_k=2, tokens=400, requests=16, groups=3, group_size=3, seed=1
)
FIRST = {"status", "fan_out", "bound", "certified_share", "seconds", "layers"}
PER_LAYER = {
    "layer",
    "status",
    "cost",
    "bound",
    "fan_out",
    "load_max_over_mean",
    "seconds",
    "method",
}
PLACEMENT = {
    "format": "moeopt-placement",
    "version": 1,
    "model": "synthetic",
    "n_experts": 8,
    "gpus": 4,
    "nodes": 1,
    "slots": 2,
    "layer_ids": [0, 1],
}
GENEROUS = 300  # seconds; only a hang takes so long


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with trace.npz as engines record it, and what comes from it: trace, placement, certificate."""
    folder = tmp_path_factory.mktemp("made")
    trace = GENERATOR.generate()
    archive(folder / "trace.npz")
    mo.write_trace(trace, folder / "trace.parquet")
    problem = mo.Problem.from_trace(trace, mo.Cluster.of(gpus=4, slots=2))
    result = mo.solve(problem, "blocks", stop=mo.Stop(seconds=None))
    assert result.placement is not None
    assert result.certificate is not None
    (folder / "placement.json").write_text(json.dumps(result.placement.to_dict()))
    (folder / "certificate.json").write_text(json.dumps(result.certificate.to_dict()))
    return folder


def archive(path: Path, **changes: Any) -> Path:
    """The generated trace as .npz, with some of its arrays replaced."""
    trace = GENERATOR.generate()
    arrays: dict[str, Any] = {
        "experts": trace.experts,
        "n_experts": np.array(trace.n_experts),
        "sequence": trace.request,
        "position": trace.position,
        "phase": trace.phase,
        "family": trace.family,
        "families": np.array(trace.families),
        "layer_ids": trace.layer_ids,
        "model": np.array(trace.model),
    }
    np.savez(path, **(arrays | changes))
    return path


def placed(run: Run, trace: Path, *words: object) -> Answer:
    return run("place", trace, "--gpus", 4, "--workers", 1, "--json", *words)


def test_a_trace_goes_all_the_way_from_recording_to_engine(tmp_path: Path) -> None:
    archive(tmp_path / "trace.npz")

    def call(*words: object) -> str:
        found = subprocess.run(
            [sys.executable, "-c", "from moeopt.cli import main; main()", *map(str, words)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=GENEROUS,
        )
        assert (found.returncode, found.stderr) == (0, ""), found.stderr
        return found.stdout

    assert "400 tokens, 2 layers x 8 experts" in call("convert", "trace.npz", "-o", "trace.parquet")
    converted = json.loads(call("convert", "trace.npz", "-o", "trace.parquet", "--json"))
    assert converted == {"file": "trace.parquet", "tokens": 400, "sets": True, "layers": [0, 1], "experts": 8}
    assert "synthetic: layers" in call("profile", "trace.parquet")
    options = ("--gpus", 4, "--workers", 1, "--json", "-o", "placement.json", "--certificate", "proof.json")
    answer = json.loads(call("place", "trace.parquet", *options))
    assert answer["status"] == "certified-optimal"
    assert "accepted: 2 layers, 2 proved optimal" in call("verify", "proof.json", "trace.npz")
    judged = json.loads(call("evaluate", "placement.json", "trace.parquet", "--json"))
    assert judged["fan_out"] == pytest.approx(answer["fan_out"])
    call("export", "placement.json", "--engine", "sglang", "-o", "engine.json")
    document = json.loads((tmp_path / "engine.json").read_text())
    assert [sorted(row) for row in document["physical_to_logical_map"]] == [list(range(8))] * 2
    compared = call(
        "compare", "trace.parquet", "--gpus", 4, "--methods", "linear,blocks", "--workers", 1, "--json"
    )
    linear, blocks = json.loads(compared)["rows"]
    assert linear["bound"] == blocks["bound"] == blocks["cost"] <= linear["cost"]
    assert {path.name for path in tmp_path.iterdir()} == {
        "trace.npz",
        "trace.parquet",
        "placement.json",
        "proof.json",
        "engine.json",
    }


def test_place_answers_with_the_promised_keys(run: Run, made: Path, tmp_path: Path) -> None:
    output = tmp_path / "placement.json"
    code, out, err = placed(run, made / "trace.npz", "-o", output)
    assert (code, err) == (0, "")
    answer = json.loads(out)
    assert answer.keys() >= FIRST
    assert answer["status"] == "certified-optimal"
    assert answer["certified_share"] == 1.0
    assert answer["bound"] == pytest.approx(answer["fan_out"])
    assert [layer["layer"] for layer in answer["layers"]] == [0, 1]
    for layer in answer["layers"]:
        assert layer.keys() >= PER_LAYER
        assert layer["status"] == "certified-optimal"
        assert layer["cost"] == layer["bound"]
        assert layer["fan_out"] == pytest.approx(layer["cost"] / 400)
        assert layer["load_max_over_mean"] >= 1
    document = json.loads(output.read_text())
    assert {key: document[key] for key in PLACEMENT} == PLACEMENT
    assert document.keys() == PLACEMENT.keys() | {"hosts", "primary"}
    for hosts, primary in zip(document["hosts"], document["primary"], strict=True):
        assert sorted(expert for gpu in hosts for expert in gpu) == list(range(8))
        assert all(expert in hosts[gpu] for expert, gpu in enumerate(primary))


def test_the_cut_has_no_bound_per_token(run: Run, made: Path) -> None:
    answer = placed(run, made / "trace.npz", "--objective", "cut").document
    assert answer["bound"] is None
    assert answer["cost"] == answer["cost_bound"]
    assert [layer["fan_out_bound"] for layer in answer["layers"]] == [None, None]


def test_layers_are_named_by_their_absolute_ids(run: Run, tmp_path: Path) -> None:
    source = archive(tmp_path / "trace.npz", layer_ids=np.array([3, 17]))
    answer = placed(run, source, "--layers", "17", "-o", tmp_path / "placement.json").document
    assert [layer["layer"] for layer in answer["layers"]] == [17]
    assert json.loads((tmp_path / "placement.json").read_text())["layer_ids"] == [17]
    refused = placed(run, source, "--layers", "0-1")
    assert refused.code == 2
    assert "layer 0 is not in the trace, whose layers are [3, 17]" in refused.err


def test_families_without_weight_are_named(run: Run, made: Path) -> None:
    answer = placed(run, made / "trace.npz", "--weights", "code=2,math=1,chat=0").document
    assert answer["message"].endswith("families without weight: chat, general")
    answer = placed(run, made / "trace.npz", "--weights", "code=2,math=1,chat=1,general=1").document
    assert "without weight" not in answer["message"]


def uneven(path: Path) -> Path:
    """One expert a token on 2 GPUs of 2 slots: loads 2, 3, 2, 3 in layer 4, and 3, 3, 3, 1 in layer 9."""
    first, second = np.repeat(np.arange(4), [2, 3, 2, 3]), np.repeat(np.arange(4), [3, 3, 3, 1])
    trace = mo.Trace(np.stack([first, second], axis=1)[:, :, None], 4, layer_ids=np.array([4, 9], np.int32))
    mo.write_trace(trace, path)
    return path


def test_a_tolerance_that_only_search_excludes_ends_with_3(run: Run, tmp_path: Path) -> None:
    source, output = uneven(tmp_path / "trace.parquet"), tmp_path / "placement.json"
    options = ("--gpus", 2, "--workers", 1, "--load-tolerance", "0.1", "-o", output, "--json")
    answer = run("place", source, *options)
    assert answer.code == 3
    document = answer.document
    assert document["status"] == "infeasible-claimed"
    assert [layer["status"] for layer in document["layers"]] == ["certified-optimal", "infeasible-claimed"]
    assert document["fan_out"] is None
    assert 0.1 < document["tolerance_reached"] == 0.2
    assert "0.2 can be met" in document["message"]
    assert not output.exists()
    assert (
        run("place", source, "--gpus", 2, "--workers", 1, "--load-tolerance", "0.2", "-o", output).code == 0
    )
    assert output.exists()


def test_without_a_proof_no_certificate_is_written_and_that_is_said(
    run: Run, made: Path, tmp_path: Path
) -> None:
    answer = placed(run, made / "trace.npz", "--method", "linear", "--certificate", tmp_path / "proof.json")
    assert answer.code == 0
    assert answer.err == "moeopt: no certificate written: nothing was proved (feasible)\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("resealed", [False, True])
def test_an_altered_certificate_is_rejected_with_1(
    run: Run, made: Path, tmp_path: Path, resealed: bool
) -> None:
    document = json.loads((made / "certificate.json").read_text())
    document["layers"][0]["bound"] += 1
    if resealed:
        document["seal"] = seal(document)
    altered = tmp_path / "certificate.json"
    altered.write_text(json.dumps(document))
    answer = run("verify", altered, made / "trace.npz", "--json")
    assert answer.code == 1
    assert answer.document["accepted"] is False
    assert answer.document["reason"]
    assert run("verify", altered, made / "trace.npz").out.startswith("rejected: ")
    assert run("verify", made / "certificate.json", made / "trace.npz").code == 0


TRACES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "pickled": ({"experts": np.array([[[0, 1]]], object)}, ("not pickled", "object")),
    "wrong dtype": ({"experts": np.zeros((400, 2, 2))}, ("experts must be integers", "float64")),
    "id out of range": ({"n_experts": np.array(7)}, ("expert id 7 out of range 0..6",)),
    "id repeated": ({"experts": np.zeros((400, 2, 2), np.int32)}, ("expert repeated", "token 0", "[0, 0]")),
    "empty": ({"experts": np.zeros((0, 2, 2), np.int32)}, ("empty trace", "(0, 2, 2)")),
    "no tokens": (
        {name: np.zeros(0, np.int32) for name in ("sequence", "position", "phase", "family")}
        | {"experts": np.zeros((0, 2, 2), np.int32)},
        ("must not be empty", "(0,)"),
    ),
}


@pytest.mark.parametrize(("changes", "words"), TRACES.values(), ids=TRACES.keys())
def test_a_trace_that_makes_no_sense_is_refused(
    run: Run, tmp_path: Path, changes: dict[str, Any], words: tuple[str, ...]
) -> None:
    source = archive(tmp_path / "trace.npz", **changes)
    for verb in (
        ("place", source, "--gpus", 4, "-o", tmp_path / "out"),
        ("convert", source, "-o", tmp_path / "out"),
        ("profile", source),
    ):
        refused(run(*verb), str(source), *words)
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize("name", ["trace.npz", "trace.parquet"])
def test_a_truncated_trace_is_refused(run: Run, made: Path, tmp_path: Path, name: str) -> None:
    source = tmp_path / name
    source.write_bytes((made / name).read_bytes()[:-200])
    refused(placed(run, source, "-o", tmp_path / "placement.json"), str(source))
    refused(run("convert", source, "-o", tmp_path / "again.parquet"), str(source))
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize(
    "words",
    [
        ("place", "{absent}", "--gpus", 4),
        ("compare", "{absent}", "--gpus", 4),
        ("profile", "{absent}"),
        ("convert", "{absent}", "-o", "{absent}.parquet"),
        ("verify", "{absent}", "{made}/trace.npz"),
        ("verify", "{made}/certificate.json", "{absent}"),
        ("evaluate", "{absent}", "{made}/trace.npz"),
        ("evaluate", "{made}/placement.json", "{absent}"),
        ("export", "{absent}", "--engine", "sglang", "-o", "{absent}.json"),
    ],
    ids=lambda words: " ".join(map(str, words[:2])),
)
def test_a_missing_file_is_named(run: Run, made: Path, tmp_path: Path, words: tuple[object, ...]) -> None:
    absent = tmp_path / "absent"
    spelled = [str(word).format(absent=absent, made=made) for word in words]
    refused(run(*spelled), f"{absent}: cannot be read: No such file")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": "moeopt-trace"}', "\x00\x01", "[" * 100_000])
def test_a_document_that_is_none_is_refused(run: Run, made: Path, tmp_path: Path, content: str) -> None:
    path = tmp_path / "document.json"
    path.write_text(content)
    refused(run("verify", path, made / "trace.npz"), str(path))
    refused(run("evaluate", path, made / "trace.npz"), str(path))
    refused(run("export", path, "--engine", "sglang", "-o", tmp_path / "engine.json"), str(path))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--weights", "poetry=1"), ("{trace}", "'poetry'", "code, math, chat, general")),
        (("--weights", "code=-1"), ("{trace}", "'code'", "-1")),
        (("--weights", "code=0,math=0"), ("{trace}", "all zero")),
        (("--weights", "code=nan"), ("'code'", "'nan'")),
        (("--weights", "code=inf"), ("'code'", "'inf'")),
        (("--weights", "code"), ("'code'", "code=2,math=1")),
        (("--slots", 1), ("{trace}", "too few slots: 4 GPUs offer 4 slots", "8 experts")),
        (("--slots", 2, "--replicas", 1), ("{trace}", "replicas 1 cannot be placed")),
        (("--replicas", 99), ("{trace}", "replicas 99 cannot be placed")),
        (("--replicas", -1), ("{trace}", "replicas", "-1")),
        (("--replicas", 1, "--objective", "cut"), ("{trace}", "replicas must be 0, found 1")),
        (("--load-tolerance", "0.01"), ("{trace}", "load tolerance 0.01 cannot be met", "alone serves")),
        (("--load-tolerance", "-1"), ("{trace}", "load tolerance must not be negative, found -1")),
        (("--load-tolerance", "much"), ("{trace}", "'much'")),
        (("--gpus", 0), ("{trace}", "gpus must be at least 1, found 0")),
        (("--gpus", -4), ("{trace}", "gpus must be at least 1, found -4")),
        (("--nodes", 0), ("{trace}", "nodes must be at least 1, found 0")),
        (("--nodes", 3), ("{trace}", "gpus must be divisible by nodes, found 4 GPUs on 3 nodes")),
        (("--method", "magic"), ("'magic'", "known are", "swap")),
        (("--method", "blocks", "--slots", 3, "--replicas", 1), ("blocks", "replicas are 1")),
        (("--objective", "joy"), ("{trace}", "'joy'", "fan-out, cut")),
        (("--layers", "0-"), ("--layers", "'0-'")),
        (("--layers", "1-0"), ("--layers", "'1-0'")),
        (("--layers", "first"), ("--layers", "'first'")),
        (("--layers", "5"), ("{trace}", "layer 5 is not in the trace")),
        (("--seconds", 0), ("seconds must be positive, found 0",)),
        (("--seconds", "nan"), ("seconds must be positive, found nan",)),
        (("--workers", 0), ("--workers must be at least 1, found 0",)),
        (("--seed", -1), ("--seed",)),
        (("--gpus", "four"), ("--gpus",)),
        (("-o", "{folder}/absent/placement.json"), ("{folder}/absent/placement.json", "does not exist")),
        (("--certificate", "{folder}/absent/proof.json"), ("{folder}/absent/proof.json", "does not exist")),
        (("-o", "{folder}"), ("{folder}", "folder")),
        (("--certificate", "{folder}"), ("{folder}", "folder")),
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_refused(
    run: Run, made: Path, tmp_path: Path, options: tuple[object, ...], words: tuple[str, ...]
) -> None:
    trace = made / "trace.npz"
    spelled = [str(option).format(folder=tmp_path) for option in options]
    outputs = ("-o", tmp_path / "placement.json", "--certificate", tmp_path / "proof.json")
    answer = placed(run, trace, *outputs, *spelled)
    refused(answer, *(word.format(trace=trace, folder=tmp_path) for word in words))
    assert list(tmp_path.iterdir()) == []


def test_compare_refuses_what_it_cannot_run(run: Run, made: Path) -> None:
    command = ("compare", made / "trace.npz", "--gpus", 4, "--workers", 1)
    refused(run(*command, "--methods", "linear,magic"), "'magic'", "known are")
    refused(run(*command, "--methods", "linear,,swap"), "'linear,,swap'")
    refused(run(*command, "--held-out", 1), "--held-out must lie between 0 and 1, found 1.0")
    refused(run(*command, "--seeds", 0), "--seeds")
    refused(run(*command, "--nodes", 3), str(made / "trace.npz"), "4 GPUs on 3 nodes")


def test_compare_answers_with_a_row_for_each_method_and_seed(run: Run, made: Path) -> None:
    command = ("compare", made / "trace.npz", "--gpus", 4, "--workers", 1, "--methods", "linear,random")
    answer = run(*command, "--seeds", 2, "--held-out", 0.25, "--null", "--json").document
    assert [(row["method"], row["seed"]) for row in answer["rows"]] == [
        ("linear", 0),
        ("random", 0),
        ("linear", 1),
        ("random", 1),
    ]
    assert all(row["held_out_fan_out"] is not None for row in answer["rows"])
    assert (answer["null"], answer["held_out"]) == (True, 0.25)
    drawn = run(*command, "--weights", "code=1")
    assert "Comparison" in drawn.out
    assert "families without weight: math, chat, general" in drawn.out


def test_export_refuses_what_an_engine_would(run: Run, made: Path, tmp_path: Path) -> None:
    source, output = made / "placement.json", tmp_path / "engine.json"
    refused(
        run("export", source, "--engine", "sglang", "-o", tmp_path / "engine.txt"), "must be named *.json"
    )
    refused(
        run("export", source, "--engine", "eplb", "--hidden-layers", 9, "-o", output),
        "eplb takes no --hidden-layers",
    )
    refused(
        run("export", source, "--engine", "abacus", "-o", output),
        "'abacus'",
        "known are eplb, omniplacement, plain, sglang",
    )
    refused(
        run("export", source, "--engine", "eplb", "-o", tmp_path / "absent" / "engine.npz"), "does not exist"
    )
    loose = json.loads(source.read_text()) | {"slots": 3}
    (tmp_path / "loose.json").write_text(json.dumps(loose))
    answer = run("export", tmp_path / "loose.json", "--engine", "sglang", "-o", output)
    refused(answer, str(tmp_path / "loose.json"), "all 3 slots must be filled")
    assert not output.exists()
    assert run("export", tmp_path / "loose.json", "--engine", "sglang", "-o", output, "--pad").code == 0
    assert output.exists()


def test_evaluate_refuses_a_trace_of_another_model(run: Run, made: Path, tmp_path: Path) -> None:
    other = uneven(tmp_path / "other.parquet")
    answer = run("evaluate", made / "placement.json", other)
    refused(answer, str(made / "placement.json"), str(other), "8 experts a layer, the trace 4")


def test_tables_are_shown_without_json(run: Run, made: Path) -> None:
    shown = run("place", made / "trace.npz", "--gpus", 4, "--workers", 1)
    assert "Placement" in shown.out
    assert "swap search, then proof by priced" in shown.out
    assert "Evaluation" in run("evaluate", made / "placement.json", made / "trace.npz").out
    assert "Families" in run("profile", made / "trace.npz", "--layers", 1).out
    assert [layer["layer"] for layer in run("profile", made / "trace.npz", "--json").document["layers"]] == [
        0,
        1,
    ]


def test_methods_lists_all_of_them(run: Run) -> None:
    listed = run("methods", "--json").document["methods"]
    assert {method["name"] for method in listed} >= {"auto", "blocks", "pairs", "swap", "linear"}
    assert all(method["summary"] for method in listed)
    assert "what it does" in run("methods").out


def test_demo_hands_folder_and_workers_on(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stand_in(folder: Path, *, workers: int | None, follow: object) -> tuple[Any, Any]:
        return {"folder": str(folder), "workers": workers}, lambda: ["drawn", ""]

    monkeypatch.setattr("moeopt.demonstration.demonstrate", stand_in)
    assert run("demo", "-o", tmp_path, "--workers", 1, "--json").document == {
        "folder": str(tmp_path),
        "workers": 1,
    }
    assert run("demo").out == "drawn\n"


def test_help_version_and_unknown_verbs(run: Run) -> None:
    assert run("--version") == Answer(0, f"moeopt {mo.__version__}\n", "")
    assert "Usage" in run("place", "--help").out
    nothing = run()
    assert nothing.code == 2
    assert "Usage" in nothing.out
    refused(run("dance"), "dance")
    refused(run("place"), "trace", "missing".capitalize())


def test_an_interrupt_in_process_ends_with_130(run: Run, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("moeopt.characteristics.profile", interrupted)
    answer = run("profile", made / "trace.npz")
    assert (answer.code, answer.out) == (130, "")


def descendants(pid: int) -> list[bytes]:
    """Command lines of all processes below this one."""
    parents: dict[int, tuple[int, bytes]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it ended meanwhile
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                parents[int(entry.name)] = parent, (entry / "cmdline").read_bytes()
    found, todo = [], [pid]
    while todo:
        above = todo.pop()
        for child, (parent, command) in parents.items():
            if parent == above:
                found.append(command)
                todo.append(child)
    return found


@pytest.mark.skipif(
    not hasattr(os, "killpg") or not Path("/proc/self/stat").exists(), reason="needs process groups and /proc"
)
def test_ctrl_c_writes_the_incumbent_and_ends_with_130(tmp_path: Path) -> None:
    mo.write_trace(mo.PRESETS["synthetic-64"].generate().layers([0, 1]), tmp_path / "trace.parquet")
    options = "--layers 0-1 --gpus 8 --method pairs --objective cut --seconds 600 --workers 2 --json -o placement.json"
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from moeopt.cli import main; main()",
            "place",
            "trace.parquet",
            *options.split(),
        ],
        cwd=tmp_path,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + GENEROUS
        while not any(b"moeopt.solvers.worker" in command for command in descendants(process.pid)):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, "no solver was started"
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=GENEROUS)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert (process.returncode, err) == (130, "")
    answer = json.loads(out)
    assert answer["status"] == "interrupted"
    document = json.loads((tmp_path / "placement.json").read_text())
    assert document["layer_ids"] == [0, 1]
    placement = mo.Placement.from_dict(document)
    assert placement.is_partition
    trace = mo.read_trace(tmp_path / "trace.parquet")
    problem = mo.Problem.from_trace(trace, mo.Cluster.of(gpus=8, slots=8), objective="cut")
    assert problem.violation(placement) == ""
    assert problem.cost(placement) == answer["cost"]
    assert {path.name for path in tmp_path.iterdir()} == {"trace.parquet", "placement.json"}


def test_a_name_cannot_steer_the_terminal(run: Run, tmp_path: Path) -> None:
    name = tmp_path / "two\nlines\x1b[31m.parquet"
    answer = run("profile", name)
    refused(answer, "\\x1b[31m")
    assert "\x1b" not in answer.err


def test_a_missing_extra_is_a_line_not_a_traceback(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mo.write_trace(mo.sample("tiny-moe"), tmp_path / "trace.parquet")
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    monkeypatch.setitem(sys.modules, "sklearn.exceptions", None)
    answer = run("profile", tmp_path / "trace.parquet", "--classify")
    refused(answer, "needs scikit-learn: pip install 'moeopt[profiles]'")
