"""Tiny instances: the same for a number everywhere, small enough for brute force, and into every corner."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import agreement
from benchmarks.instances import GENERATORS, PATIENCE, instances, placements, stated_types
from benchmarks.suite import EXPERIMENTS
from moeopt.bench_rows import Key
from moeopt.judged import Judged
from moeopt.statements import named_formulation
from moeopt.testing import brute_force
from moeopt_formulations.assignment import Assignment
from moeopt_formulations.pairs import Pairs


def test_an_instance_depends_on_its_number_alone() -> None:
    whole = [problem.digest for problem in instances(Pairs(), count=12)]
    parts = [problem.digest for first in (0, 5) for problem in instances(Pairs(), count=7, first=first)]
    assert parts[:7] == whole[:7]
    assert parts[7:] == whole[5:]
    assert len(set(whole)) > 6
    assert whole != [problem.digest for problem in instances(Assignment(), count=12)]


@pytest.mark.parametrize("name", GENERATORS)
def test_every_type_is_small_enough_for_brute_force(name: str) -> None:
    rng = np.random.default_rng(1)
    for _ in range(25):
        problem = GENERATORS[name](rng)
        assert isinstance(problem, Judged)
        assert sum(1 for _ in islice(problem.candidates(), 30_000)) < 30_000
        brute_force(problem)


@pytest.mark.parametrize("name", agreement.formulation_names())
def test_every_formulation_states_some_type(name: str) -> None:
    formulation = named_formulation(name)
    assert stated_types(formulation)  # type: ignore[arg-type]  # frozen dataclasses are hashable
    assert all(not formulation.supports(problem) for problem in instances(formulation, count=3))


def test_placements_reach_every_corner() -> None:
    rng = np.random.default_rng(0)
    drawn = [placements(rng) for _ in range(400)]
    corners: dict[str, Any] = {
        "cut": lambda p: p.objective == "cut",
        "fan-out": lambda p: p.objective == "fan-out",
        "slots": lambda p: not isinstance(p.cluster.slots, int),
        "speeds under a tolerance": lambda p: p.cluster.speeds != 1 and p.load_caps is not None,
        "nodes": lambda p: p.cluster.nodes > 1 and p.cluster.node_cost and p.cluster.gpus_per_node > 1,
        "weights": lambda p: p.family_weights is not None,
        "worst family": lambda p: p.tail == 0,
        "share of families": lambda p: p.tail is not None and p.tail > 0,
        "copies": lambda p: p.replicas > 0 and p.load_caps is None,
        "copies under a tolerance": lambda p: p.replicas > 0 and p.load_caps is not None,
        "moves": lambda p: p.max_moves is not None,
        "moves of copies": lambda p: p.max_moves is not None and not p.incumbent.is_partition,
        "everything free": lambda p: p.load_caps is None and p.max_moves is None and p.tail is None,
        "nothing admissible": lambda p: p.load_caps is not None and brute_force(p)[0] is None,
    }
    missing = [name for name, holds in corners.items() if sum(bool(holds(p)) for p in drawn) < 4]
    assert missing == []


def test_a_formulation_that_states_nothing_is_refused() -> None:
    class Aloof(Pairs):
        name = "aloof"

        def supports(self, problem: Any) -> str:
            return "no"

    with pytest.raises(ValueError, match="aloof states no type of problem that has instances"):
        next(instances(Aloof(), count=1))
    assert PATIENCE > 0


def test_shares_are_even_and_complete() -> None:
    assert agreement.shares(10, ["a", "b", "c"]) == {"a": 4, "b": 3, "c": 3}


def test_every_instance_of_the_experiment_is_asked_once() -> None:
    tasks = list(EXPERIMENTS["agreement"].tasks())
    assert len({task.key for task in tasks}) == len(tasks)
    asked = [
        (task.key.method, number)
        for task in tasks
        for number in range(task.arguments[1], sum(task.arguments[1:3]))
    ]
    assert len(asked) == len(set(asked)) == agreement.TOTAL


def test_a_row_says_how_many_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "KEPT", tmp_path)
    key = Key(agreement.CASE, None, "pairs", 0, "4 instances")
    (row,) = agreement.hold_together("pairs", 0, 4, key)
    assert row["outcome"] == "done"
    found = row["found"]
    assert (found["status"], found["instances"], found["agreed"], found["disagreements"]) == (
        "agreed",
        4,
        4,
        0,
    )
    assert found["seconds"] > 0
    assert Key.of(row) == key
