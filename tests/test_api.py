"""The verbs: the same answer wherever layers are solved, and no layer without a placement after an interrupt."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import moeopt as mo
from moeopt import evening, registry
from moeopt.heuristics.linear import Linear
from moeopt.heuristics.lpt import Lpt
from moeopt.heuristics.swap import Swap
from moeopt.parallel import Processes
from moeopt.problem import Problem
from moeopt.result import Result
from moeopt.stop import Clock

FREELY = mo.Stop(seconds=None)
TRACE = mo.Generator(layers=3, experts=8, top_k=2, tokens=300, requests=12, groups=3, group_size=3).generate()
PROBLEM = mo.Problem.from_trace(TRACE, mo.Cluster.of(gpus=4, slots=2))


@dataclass(frozen=True)
class Impatient(mo.Heuristic):
    """Meets an interrupt in layer 1, with or without a placement in hand."""

    holds: bool = True
    name = "impatient"
    summary = "interrupted"

    def search(
        self, problem: mo.Problem, *, clock: Clock, rng: np.random.Generator, start: mo.Placement | None
    ) -> Iterator[mo.Placement]:
        interrupted = problem.workload.layer_ids[0] == 1
        if self.holds or not interrupted:
            yield problem.partition(np.arange(problem.workload.n_experts) % problem.cluster.gpus)
        if interrupted:
            raise KeyboardInterrupt


def outcome(result: mo.Result) -> list[object]:
    """Everything but times."""
    own = [result.status, result.cost, result.bound, result.placement, result.method, result.seed]
    return [*own, result.certificate, *(outcome(layer) for layer in result.layers)]


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        (Swap(restarts=2, kicks=20), ThreadPoolExecutor),
        (Swap(restarts=2, kicks=20), Processes),
        ("blocks", ThreadPoolExecutor),
        ("blocks", Processes),
    ],
    ids=str,
)
def test_every_executor_gives_the_serial_answer(
    method: str | mo.Method, kind: Callable[[int], Executor]
) -> None:
    serial = mo.solve(PROBLEM, method, stop=FREELY, seed=3)
    assert serial.placement is not None
    assert [layer.layer_id for layer in serial.layers] == [0, 1, 2]
    heard: list[mo.Result] = []
    with kind(2) as executor:
        parallel = mo.solve(PROBLEM, method, stop=FREELY, seed=3, executor=executor, on_layer=heard.append)
    assert outcome(parallel) == outcome(serial)
    assert sorted(result.layer_id or 0 for result in heard) == [0, 1, 2]


def test_costs_are_those_of_the_whole_problem() -> None:
    result = mo.solve(PROBLEM, "blocks", stop=FREELY)
    assert result.placement is not None
    assert result.cost == PROBLEM.cost(result.placement) == sum(layer.cost or 0 for layer in result.layers)
    assert result.status == "certified-optimal"


def test_a_start_is_never_lost() -> None:
    best = mo.solve(PROBLEM, "blocks", stop=FREELY)
    again = mo.solve(PROBLEM, Linear(), stop=FREELY, start=best.placement)
    assert (again.cost, again.placement) == (best.cost, best.placement)


@pytest.mark.parametrize("holds", [True, False])
def test_layers_left_by_an_interrupt_get_a_placement(holds: bool) -> None:
    heard: list[mo.Result] = []
    result = mo.solve(PROBLEM, Impatient(holds), stop=FREELY, on_layer=heard.append)
    assert result.status == "interrupted"
    assert [layer.status for layer in result.layers] == ["feasible", "interrupted", "interrupted"]
    assert [layer.layer_id for layer in heard] == [0, 1]
    assert result.placement is not None
    assert PROBLEM.violation(result.placement) == ""
    assert result.cost == PROBLEM.cost(result.placement)
    stand_ins = result.layers[2:] if holds else result.layers[1:]
    for layer in stand_ins:
        own = PROBLEM.layer(layer.layer_id or 0)
        quick = {one.name: one.solve(own, stop=FREELY, seed=0) for one in (Lpt(), Linear())}
        name = layer.message.removeprefix("interrupted before anything was found: placed by ")
        assert layer.placement == quick[name].placement
        assert layer.cost == min(found.cost for found in quick.values() if found.cost is not None)
        assert layer.method == repr(Impatient(holds))


def test_a_method_that_does_not_treat_the_problem_is_refused_before_it_runs() -> None:
    copies = mo.Problem.from_trace(TRACE, mo.Cluster.of(gpus=4, slots=3), replicas=1)
    with pytest.raises(ValueError, match=r"method blocks does not treat this problem: .*replicas are 1"):
        mo.solve(copies, "blocks")


def test_verify_takes_objects_documents_and_files(tmp_path: Path) -> None:
    certificate = mo.solve(PROBLEM, "blocks", stop=FREELY).certificate
    assert certificate is not None
    proof, recorded = tmp_path / "proof.json", tmp_path / "trace.parquet"
    proof.write_text(json.dumps(certificate.to_dict()))
    mo.write_trace(TRACE, recorded)
    for given in (certificate, certificate.to_dict(), proof, str(proof)):
        for trace in (TRACE, recorded, str(recorded)):
            verdict = mo.verify(given, trace)
            assert verdict.accepted, verdict.reason
            assert verdict.layers == tuple((layer, "optimal", "") for layer in range(3))
    other = mo.Generator(
        layers=3, experts=8, top_k=2, tokens=300, requests=12, seed=9, group_size=3
    ).generate()
    assert not mo.verify(proof, other).accepted


@pytest.mark.parametrize("engine", ["sglang", "eplb"])
def test_an_engine_loads_what_export_writes(tmp_path: Path, engine: str) -> None:
    placement = mo.solve(PROBLEM, Linear(), stop=FREELY).placement
    assert placement is not None
    path = tmp_path / f"file{registry.named_engine(engine).suffix}"
    with pytest.raises(ValueError, match=rf"a file for {engine} must be named \*\.(json|npz)"):
        mo.export(placement, tmp_path / "file", engine=engine)
    mo.export(placement, path, engine=engine)
    loaded = registry.named_engine(engine).load(path.read_bytes(), gpus=4, model=placement.model)
    assert loaded == placement
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_a_placement_file_is_read_back_or_named(tmp_path: Path) -> None:
    placement = mo.solve(PROBLEM, Linear(), stop=FREELY).placement
    assert placement is not None
    path = tmp_path / "placement.json"
    path.write_text(json.dumps(placement.to_dict()))
    assert mo.read_placement(path) == placement
    path.write_text(json.dumps(placement.to_dict() | {"nodes": 3}))
    with pytest.raises(ValueError, match=r"placement\.json: gpus must be divisible by nodes"):
        mo.read_placement(path)


def test_ctrl_c_while_gpus_are_renamed_keeps_what_was_solved(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(result: Result, problem: Problem) -> Result:
        raise KeyboardInterrupt

    monkeypatch.setattr(evening, "evened", stopped)
    trace = mo.sample("tiny-moe").layers([0, 1])
    problem = Problem.from_trace(trace, mo.Cluster.of(gpus=8, slots=4))
    result = mo.solve(problem, "search", stop=mo.Stop(seconds=0.2))
    assert result.status == "interrupted"
    assert result.placement is not None
