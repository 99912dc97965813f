"""`moeopt deploy-notes`: what to serve with."""

from __future__ import annotations

import json
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

import moeopt as mo
from moeopt import registry
from moeopt.deploy_cli import deploy_notes as verb
from moeopt.engines.eplb import Eplb
from moeopt.engines.omniplacement import OmniPlacement
from moeopt.engines.plain_map import Plain
from moeopt.engines.sglang import SGLang
from moeopt.engines.tensorrt_llm import TensorRTLLM
from moeopt.engines.vllm import VLLM
from moeopt.engines.vllm_ascend import VLLMAscend
from moeopt.engines.vllm_proposals import VLLMProposedMap, VLLMProposedRanks
from tests.command_line import Run, caller

KINDS = (
    Eplb,
    OmniPlacement,
    Plain,
    SGLang,
    TensorRTLLM,
    VLLM,
    VLLMAscend,
    VLLMProposedMap,
    VLLMProposedRanks,
)
ENGINES: dict[str, Any] = {kind.name: kind() for kind in KINDS}
HOSTS = np.tile(np.array([[1, 0], [1, 1], [0, 1]], bool), (2, 1, 1))
PLACED = mo.Placement(HOSTS, HOSTS.argmax(axis=2), 1, 2, (3, 7))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`moeopt deploy-notes`, in this process, the only verb of the command line."""
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    alone.command()(verb)
    alone.callback()(lambda: None)
    monkeypatch.setattr("moeopt.cli.app", alone)
    monkeypatch.setattr(registry, "named_engine", ENGINES.__getitem__)
    call = caller(monkeypatch, capsys)
    return lambda *words: call("deploy-notes", *words)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "placed.json"
    path.write_text(json.dumps(PLACED.to_dict()))
    return path


def test_sglang_gets_gpus_and_redundant_experts(run: Run, file: Path) -> None:
    answer = run("sglang", "--placement", file, "--file", "map.json", "--json").document
    words = answer["command"]
    flags = dict(pairwise(words))
    assert flags["--ep-size"] == "2"
    assert flags["--ep-num-redundant-experts"] == "1"
    assert flags["--init-expert-location"] == "map.json"
    assert answer["source"] == "sglang 0.5.23"


def test_vllm_gets_the_variable_of_the_plugin(run: Run, file: Path) -> None:
    answer = run("vllm", "--placement", file, "--file", "plan.json", "--json").document
    assert answer["environment"] == {"MOEOPT_VLLM_PLAN": "plan.json"}
    words = answer["command"]
    assert json.loads(words[words.index("--eplb-config") + 1]) == {
        "num_redundant_experts": 1,
        "policy": "default",
    }
    assert "--enable-eplb" in words


def test_vllm_ascend_gets_the_path_in_its_configuration(run: Run) -> None:
    words = run("vllm-ascend", "--file", "map.json", "--json").document["command"]
    config = json.loads(words[words.index("--additional-config") + 1])
    assert config == {"eplb_config": {"expert_map_path": "map.json"}}


def test_tensorrt_llm_gets_an_options_file(run: Run, file: Path) -> None:
    yaml = pytest.importorskip("yaml")
    answer = run("tensorrt-llm", "--placement", file, "--json").document
    assert yaml.safe_load(answer["config"])["moe_config"]["load_balancer"] == "exported.yaml"
    words = answer["command"]
    assert words[words.index("--ep_size") + 1] == "2"


def test_omniplacement_gets_its_configuration(run: Run, file: Path) -> None:
    yaml = pytest.importorskip("yaml")
    config = yaml.safe_load(run("omniplacement", "--placement", file, "--json").document["config"])
    assert config == {
        "pattern_path": "exported.npy",
        "max_moe_layer_num": 2,
        "max_redundant_per_expert": 2,
        "enable_dynamic": False,
    }


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_has_notes_without_a_placement(run: Run, engine: str) -> None:
    answer = run(engine)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith(f"# {engine}: ")
    assert "- " in answer.out
    assert run(engine, "--json").document["file"] == f"exported{ENGINES[engine].suffix}"


def test_shell_lines_can_be_pasted(run: Run, file: Path) -> None:
    out = run("vllm", "--placement", file, "--file", "my plan.json").out
    assert "export MOEOPT_VLLM_PLAN='my plan.json'" in out
    line = next(line for line in out.splitlines() if line.startswith("vllm serve"))
    assert json.loads(shlex.split(line)[-1])["num_redundant_experts"] == 1


def test_free_slots_are_told(run: Run, tmp_path: Path) -> None:
    loose = mo.Placement(HOSTS, HOSTS.argmax(axis=2), 1, 3, (3, 7))
    path = tmp_path / "loose.json"
    path.write_text(json.dumps(loose.to_dict()))
    answer = run("sglang", "--placement", path, "--json").document
    assert answer["remarks"][0] == "Free slots: export with pad, or --pad."
    assert answer["command"][answer["command"].index("--ep-num-redundant-experts") + 1] == "3"


def test_what_the_engine_cannot_hold_is_refused(run: Run, tmp_path: Path, file: Path) -> None:
    path = tmp_path / "uneven.json"
    uneven = mo.Placement(HOSTS, HOSTS.argmax(axis=2), 1, (2, 3), (3, 7))
    path.write_text(json.dumps(uneven.to_dict()))
    answer = run("sglang", "--placement", path)
    assert answer.code == 2
    assert "uneven.json: every GPU must have the same number of slots, found 2, 3" in answer.err
    answer = run("vllm-proposed-ranks", "--placement", file)
    assert "expert 1 has 2 copies" in answer.err
    for engine in ("sglang", "vllm-ascend"):
        answer = run(engine, "--file", "map.txt")
        assert answer.code == 2
        assert "ends in .json, found 'map.txt'" in answer.err
