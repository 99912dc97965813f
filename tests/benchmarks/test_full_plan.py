"""A whole model from trace to plan, at a small size."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks import full_plan as module
from benchmarks.full_plan import (
    EPLB,
    FULL,
    SEARCH,
    SPECTRAL,
    Size,
    Stopwatch,
    full_plan,
    measure_plan,
    planned,
)
from moeopt.bench_rows import Key
from moeopt.generator import PRESETS

SMALL = Size(
    replace(PRESETS["synthetic-64"], layers=2, tokens=2_000, requests=20), gpus=8, slots=9, replicas=8
)
TRACE = SMALL.generator.generate()


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CORES", 1)
    monkeypatch.setattr(module, "LIMIT", module.RESERVE + 1.0)


@pytest.mark.parametrize("name", [EPLB, SEARCH, SPECTRAL])
def test_a_plan_has_every_layer_and_a_time_for_every_stage(name: str) -> None:
    watch = Stopwatch()
    placement, facts = planned(name, SMALL, TRACE, executor=None, watch=watch)
    assert placement is not None
    assert placement.layer_ids == (0, 1)
    assert list(watch.stages) == ["workload", "one judgement", "solving", "renaming"]
    assert sum(watch.stages.values()) <= facts["total"] + 1e-6
    assert facts["within"]


def test_the_search_touches_fewer_gpus_than_eplb_in_the_same_time() -> None:
    rows = {
        name: measure_plan(name, SMALL, Key("small", None, name, 0, ""))[0]["found"]
        for name in (EPLB, SEARCH, SPECTRAL)
    }
    for name in (SEARCH, SPECTRAL):
        assert rows[name]["fan_out"] < rows[EPLB]["fan_out"]
        assert rows[name]["served"]["guard"]["worst_layer"] <= 0.1 + 1e-9
    assert len({found["linear_fan_out"] for found in rows.values()}) == 1


def test_a_task_has_a_key_of_its_own_and_the_size_is_that_of_a_large_model() -> None:
    tasks = list(full_plan())
    assert len({task.key for task in tasks}) == len(tasks) == 3
    assert (FULL.generator.layers, FULL.generator.experts, FULL.generator.top_k) == (58, 256, 8)
    assert FULL.gpus * FULL.slots == FULL.generator.experts + FULL.replicas
