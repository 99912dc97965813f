"""Settings of the published method and of the guards, and fewer training requests."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import sensitivity as module
from benchmarks.placing import Memory
from benchmarks.sensitivity import (
    GUARDS,
    SIZES,
    VARIED,
    calibrated,
    calibration,
    fewer,
    guarded,
    learned,
    rules,
    sensitivity,
    varied,
)
from moeopt import Cluster, Problem, sample, solve
from moeopt.bench_rows import Key, Row
from moeopt.heuristics.gesr import Gesr

SEEN, HELD = (part.layers([0]) for part in sample("tiny-moe").split(0.2, seed=0))
MEMORY = Memory(gpus=8, slots=4, replicas=8)
KEY = Key("sample", None, "", 0, "")


def of(rows: list[Row], setting: str) -> dict:  # type: ignore[type-arg]
    return next(row["found"] for row in rows if row["found"]["setting"] == setting)


@pytest.mark.parametrize("group", ["alpha", "scorers", "ablations"])
def test_every_setting_has_a_row_and_the_last_bears_the_key_of_its_task(group: str) -> None:
    rows = varied(group, SEEN, HELD, memory=MEMORY, key=KEY)
    assert [row["outcome"] for row in rows] == ["done"] * len(list(VARIED[group]()))
    keys = {task.key.method for task in sensitivity()}
    assert rows[-1]["method"] in keys


def test_alpha_zero_is_the_spectral_ablation_and_no_gesr_is_one_copy_each() -> None:
    rows = varied("ablations", SEEN, HELD, memory=MEMORY, key=KEY)
    plain = of(varied("alpha", SEEN, HELD, memory=MEMORY, key=KEY), "alpha 0")
    spectral = of(rows, "no task preference")
    assert plain["servings"]["cover"]["reduction"] == pytest.approx(
        spectral["servings"]["cover"]["reduction"]
    )
    assert list(of(rows, "no GESR")["servings"]) == ["cover"]
    assert of(rows, "full")["servings"]["cover"]["comm"] < of(rows, "no GESR")["servings"]["cover"]["comm"]


def test_centrality_is_generality_with_both_lambdas_zero() -> None:
    rows = varied("scorers", SEEN, HELD, memory=MEMORY, key=KEY)
    first, second = of(rows, "scorer generality"), of(rows, "scorer centrality")
    assert first["servings"] == second["servings"]


def test_the_grid_of_lambdas_is_whole() -> None:
    assert len({name for name, _ in VARIED["lambdas"]()}) == 36


def test_a_looser_guard_costs_no_more_hops() -> None:
    problem = Problem.from_trace(SEEN, Cluster.of(gpus=8, slots=5), replicas=8)
    placement = solve(problem, Gesr(n_rep=4)).placement
    assert placement is not None
    rows = guarded(placement, placement, HELD, key=KEY)
    assert [row["found"]["setting"] for row in rows] == [name for name, _ in rules()]
    assert f"{GUARDS}: {rows[-1]['found']['setting']}" == rows[-1]["method"]
    hops = [row["found"]["served"]["comm"] for row in rows if row["found"]["setting"].startswith("guard,")]
    assert hops == sorted(hops, reverse=True)
    assert all(math.isfinite(one) for one in hops)


def test_fewer_requests_are_nested_and_of_every_family() -> None:
    parts = [fewer(SEEN, size, seed=1) for size in SIZES]
    for small, large in itertools.pairwise(parts):
        assert np.isin(small.request, large.request).all()
    for size, part in zip(SIZES[:-1], parts, strict=False):
        for family in range(len(SEEN.families)):
            assert len(np.unique(part.request[part.family == family])) == size
    assert parts[-1].n_tokens == SEEN.n_tokens


def test_more_requests_serve_those_held_out_better(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUDGETS", {"search": 0.2, "search with copies": 0.5})
    rows = {size: learned(size, SEEN, HELD, memory=MEMORY, key=KEY) for size in (1, None)}
    assert [row["found"]["scheme"] for row in rows[1]] == list(calibrated(0))
    few, many = (
        {
            row["found"]["scheme"]: row["found"]["served"]["cover"]["reduction"]
            for row in part
            if not row["reason"]
        }
        for part in rows.values()
    )
    assert many["search"] > few["search"]
    assert rows[1][0]["found"]["tokens"] < rows[None][0]["found"]["tokens"]


def test_the_search_with_copies_is_for_the_first_seeds() -> None:
    assert "search with copies" in calibrated(1)
    assert "search with copies" not in calibrated(2)


def test_a_task_has_a_key_of_its_own() -> None:
    for tasks, count in ((list(sensitivity()), 11 * 2 * 5), (list(calibration()), 11 * 2 * len(SIZES))):
        assert len({task.key for task in tasks}) == len(tasks) == count
    assert replace(KEY, seed=1) != KEY
