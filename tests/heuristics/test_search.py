"""The library's own search: one door, the right search behind it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import moeopt as mo
from moeopt.brute import every_candidate
from moeopt.comparison import served_traffic
from moeopt.heuristics.anneal import Anneal
from moeopt.heuristics.mixture import Mixture
from moeopt.heuristics.search import Search
from moeopt.heuristics.swap import Swap
from moeopt.problem import Problem
from moeopt.seating import Seating
from moeopt.stop import Stop
from moeopt.trace import Trace

BRIEF = Stop(seconds=1)


def problem(slots: int, **rules: Any) -> Problem:
    """One layer of eight experts on four GPUs, two families."""
    rng = np.random.default_rng(3)
    experts = np.argsort(rng.random((60, 1, 8)), axis=2)[:, :, :3].astype(np.uint8)
    family = (np.arange(60) % 3 == 0).astype(np.uint8)
    trace = Trace(experts, 8, family=family, families=("code", "chat"))
    return Problem.from_trace(trace, mo.Cluster.of(gpus=4, slots=slots), **rules)


@pytest.mark.parametrize(
    ("rules", "slots", "method"),
    [
        ({}, 2, Swap()),
        ({"load_tolerance": "0.5"}, 2, Swap()),
        ({"replicas": 2}, 3, Anneal()),
        ({"tail": "0"}, 2, Mixture()),
    ],
    ids=["single", "tolerance", "copies", "tail"],
)
def test_without_a_time_limit_it_is_the_search_that_the_problem_calls_for(
    rules: dict[str, Any], slots: int, method: Any
) -> None:
    asked = problem(slots, **rules)
    for seed in range(2):
        own = Search().solve(asked, stop=Stop(seconds=None), seed=seed)
        other = method.solve(asked, stop=Stop(seconds=None), seed=seed)
        assert (own.cost, own.placement) == (other.cost, other.placement)


@pytest.mark.parametrize("rules", [{}, {"tail": "0"}], ids=["mean", "worst family"])
def test_tiny_problems_are_solved_to_the_optimum(rules: dict[str, Any]) -> None:
    asked = problem(2, **rules)
    least = min(asked.cost(found) for found in every_candidate(asked))
    assert Search().solve(asked, stop=BRIEF, seed=0).cost == least


def test_copies_for_the_worst_family_cost_it_no_more_than_copies_for_the_mean() -> None:
    asked = problem(3, replicas=2, tail="0")
    own = Search().solve(asked, stop=Stop(seconds=3), seed=0)
    mean = Anneal().solve(problem(3, replicas=2), stop=BRIEF, seed=0)
    assert own.cost is not None
    assert mean.placement is not None
    assert own.cost <= asked.cost(mean.placement)


def test_the_time_is_used_and_kept() -> None:
    result = Search().solve(problem(3, replicas=2), stop=BRIEF, seed=0)
    assert 0.5 <= result.seconds <= 3


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [({"rounds": 0}, "rounds must be at least 1"), ({"step": 2}, "step must lie between")],
)
def test_bad_settings_are_named(wrong: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Search(**wrong)


def test_what_no_search_treats_is_declined() -> None:
    experts = np.tile(np.arange(17, dtype=np.uint8), (4, 1, 1))
    asked = Problem.from_trace(Trace(experts, 18), mo.Cluster.of(gpus=3, slots=7), replicas=1)
    assert "top-k must be at most 16, found 17" in Search().supports(asked)


def test_loads_summed_over_layers_come_out_no_less_even_and_costs_hold() -> None:
    rng = np.random.default_rng(5)
    chosen = np.argsort(rng.random((200, 4, 8)) - 0.4 * (np.arange(8) < 3), axis=2)[:, :, :2].astype(np.uint8)
    asked = Problem.from_trace(Trace(chosen, 8), mo.Cluster.of(gpus=4, slots=3), replicas=2)
    own = mo.solve(asked, Search(), stop=BRIEF)
    assert own.placement is not None
    assert asked.cost(own.placement) == own.cost
    heaviest_first = np.argsort(-served_traffic(own.placement, asked.workload).loads, axis=1, kind="stable")
    hosts = np.stack(
        [layer[:, order] for layer, order in zip(own.placement.hosts, heaviest_first, strict=True)]
    )
    stacked = replace(own.placement, hosts=hosts, primary=hosts.argmax(axis=2))
    assert [layer.placement for layer in own.layers] == [own.placement.layer(i) for i in range(4)]
    uneven = mo.evaluate(stacked, asked.workload).max_violation
    assert mo.evaluate(own.placement, asked.workload).max_violation < uneven / 2


@pytest.mark.parametrize("seconds", [1e-4, 0.01])
@pytest.mark.parametrize("tolerance", [None, "0.5"])
def test_no_time_at_all_still_ends_with_a_status(seconds: float, tolerance: str | None) -> None:
    asked = problem(3, replicas=2, load_tolerance=tolerance)
    start = Anneal().solve(asked, stop=Stop(seconds=1), seed=0).placement
    result = Search().solve(asked, stop=Stop(seconds=seconds), seed=0, start=start)
    assert result.placement is not None
    assert result.cost is not None
    assert start is not None
    assert result.cost <= asked.cost(start)


def test_ctrl_c_in_compiled_code_keeps_what_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, met = problem(2), 0
    descend = Seating.descend

    def stopped(self: Seating, order: Any) -> Any:
        nonlocal met
        met += 1
        if met == 3:
            raise SystemError("a result with an exception set") from KeyboardInterrupt()
        return descend(self, order)

    monkeypatch.setattr(Seating, "descend", stopped)
    result = Search().solve(asked, stop=Stop(seconds=5), seed=0)
    assert result.status == "interrupted"
    assert result.placement is not None
