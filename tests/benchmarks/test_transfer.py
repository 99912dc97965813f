"""Placements made for one family, judged on the others."""

from __future__ import annotations

import pytest

from benchmarks.placing import Memory
from benchmarks.transfer import EQUAL, POOLED, WORST, problems, reductions, transfer, transferred
from moeopt import Cluster, Problem, sample, solve
from moeopt.bench_rows import Key
from moeopt.control import null
from moeopt.stop import Stop

SEEN, HELD = (part.layers([0, 3]) for part in sample("tiny-moe").split(0.2, seed=0))
MEMORY = Memory(gpus=8, slots=4, replicas=8)
FAMILIES = HELD.families
KEY = Key("sample", None, f"search: {WORST}", 0, "")


def test_a_placement_serves_the_family_best_that_it_was_made_from() -> None:
    rows = transferred(SEEN, HELD, memory=MEMORY, key=KEY, stop=Stop(seconds=0.3))
    found = {row["found"]["source"]: row["found"]["reduction"] for row in rows}
    assert list(found) == [*FAMILIES, POOLED, EQUAL, WORST]
    assert rows[-1]["method"] == KEY.method
    for name in FAMILIES:
        assert found[name][name] > max(found[other][name] for other in FAMILIES if other != name)
        assert found[name][name] > 0.1


def test_a_placement_of_one_family_is_made_from_its_requests_alone() -> None:
    made = {
        name: problem.workload.tokens.tolist() for name, problem in problems(SEEN, FAMILIES, memory=MEMORY)
    }
    for index, name in enumerate(FAMILIES):
        own = int((SEEN.family == index).sum())
        assert made[name] == [own if at == index else 0 for at in range(len(FAMILIES))]
    assert sum(made[POOLED]) == SEEN.n_tokens


def test_linear_reduces_nothing_and_nothing_transfers_without_co_activation() -> None:
    linear = solve(Problem.from_trace(SEEN, Cluster.of(gpus=8, slots=4)), "linear").placement
    assert linear is not None
    found = reductions(linear, HELD, FAMILIES)
    assert all(value == pytest.approx(0) for value in found["reduction"].values())
    control = [part.layers([0]) for part in null(sample("tiny-moe").layers([0]), seed=0).split(0.2, seed=0)]
    rows = transferred(control[0], control[1], memory=MEMORY, key=KEY, stop=Stop(seconds=0.1))
    assert all(abs(row["found"]["pooled"]) < 0.06 for row in rows)


def test_a_task_has_a_key_of_its_own() -> None:
    tasks = list(transfer())
    assert len({task.key for task in tasks}) == len(tasks) == 2 * 10 + 2 * 3
