"""Prices and search close every set partition, whatever happens to patience, rows and clock."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from moeopt import set_partition
from moeopt.cluster import Cluster
from moeopt.exact import Exact
from moeopt.method import Incumbent
from moeopt.pricing import Prices, Relaxation, shared_session
from moeopt.problem import Problem
from moeopt.set_partition import prove
from moeopt.stop import Clock, Stop, interrupt_when
from moeopt.testing import brute_force
from moeopt.trace import Trace
from moeopt_formulations.blocks import Blocks
from tests.problem_strategies import problems

FREELY = Stop(seconds=None)
BLOCKS = Exact(Blocks())


def random_problem(seed: int, *, experts: int = 8, cluster: Cluster | None = None) -> Problem:
    rng = np.random.default_rng(seed)
    ids = np.array([[rng.permutation(experts)[:3]] for _ in range(60)])
    return Problem.from_trace(Trace(ids, experts), cluster or Cluster(1, 3, 3))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(problem=problems(unequal=False, nodes=False))
def test_what_is_proved_is_what_brute_force_finds(problem: Problem) -> None:
    columns = Blocks().columns(problem)
    incumbent = Incumbent(problem, FREELY.start())
    least, _ = brute_force(problem)
    if not len(columns):
        assert least is None
        return
    prices, closing = prove(columns, incumbent=incumbent, clock=FREELY.start(), seed=0)
    assert closing.finished
    assert incumbent.cost == least
    if least is not None:
        assert prices.bound(columns, searched=closing.searched) == least


@pytest.mark.parametrize("patience", [0, 1, 10])
def test_without_patience_rows_are_added_and_the_answer_is_the_same(
    monkeypatch: pytest.MonkeyPatch, patience: int
) -> None:
    monkeypatch.setattr(set_partition, "PATIENCE", patience)
    monkeypatch.setattr(set_partition, "SLICE", 1)
    monkeypatch.setattr(set_partition, "FIRST_CANDIDATES", 5)
    with_rows = 0
    for seed in range(8):
        problem = random_problem(seed)
        result = BLOCKS.solve(problem, stop=FREELY, seed=0)
        assert result.status == "certified-optimal", result.message
        assert result.cost == result.bound == brute_force(problem)[0]
        assert result.certificate is not None
        with_rows += bool(result.certificate.proofs[0].numbers["triples"])
    assert with_rows or patience == 10


def test_an_expired_clock_leaves_a_valid_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(set_partition, "SLICE", 1)
    gaps = 0
    for seed in range(4):
        problem = random_problem(seed)
        start = problem.partition(np.arange(8) // 3)
        try:
            interrupt_when(lambda: True)
            result = BLOCKS.solve(problem, stop=FREELY, seed=0, start=start)
        finally:
            interrupt_when(bool)
        least, _ = brute_force(problem)
        assert least is not None
        assert result.status == "interrupted"
        assert result.placement is not None
        assert result.cost == problem.cost(result.placement)
        assert result.bound is None or result.bound <= least <= result.cost
        gaps += result.bound is not None and result.bound < result.cost
    assert gaps


def test_a_gap_that_is_allowed_ends_the_proof_early() -> None:
    problem = random_problem(1)
    least, best = brute_force(problem)
    assert least is not None
    close = BLOCKS.solve(problem, stop=Stop(seconds=None, gap=0.5), seed=0, start=best)
    assert close.bound is not None
    assert close.status in ("certified-gap", "certified-optimal")
    assert least - close.bound <= 0.5 * least


def test_a_tight_load_cap_that_can_be_met_is_met() -> None:
    # Skewed loads, so that few of the blocks are admissible and a fractional cover is easily missed.
    checked = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        popularity = rng.dirichlet(np.full(8, 2.0)) + 0.02
        popularity /= popularity.sum()
        ids = np.array([[rng.choice(8, 2, replace=False, p=popularity)] for _ in range(200)])
        free = Problem.from_trace(Trace(ids, 8), Cluster(1, 4, 2))
        for tolerance in ("0.02", "0.05", "0.1", "0.2"):
            try:
                problem = replace(free, load_tolerance=tolerance)
            except ValueError:
                continue
            least, _ = brute_force(problem)
            result = BLOCKS.solve(problem, stop=FREELY, seed=0)
            wanted = "infeasible-claimed" if least is None else "certified-optimal"
            assert (result.status, result.cost) == (wanted, least)
            checked += least is not None
    assert checked > 5


def test_an_optimum_handed_in_is_proved() -> None:
    problem = random_problem(5)
    least, best = brute_force(problem)
    result = BLOCKS.solve(problem, stop=FREELY, seed=0, start=best)
    assert (result.status, result.cost, result.placement) == ("certified-optimal", least, best)


@pytest.mark.parametrize("seed", range(3))
def test_another_seed_proves_the_same_cost(seed: int) -> None:
    problem = random_problem(7)
    assert BLOCKS.solve(problem, stop=FREELY, seed=seed).cost == brute_force(problem)[0]


@pytest.mark.parametrize("started", [True, False])
def test_a_worker_that_dies_keeps_the_start_and_says_why(
    monkeypatch: pytest.MonkeyPatch, started: bool
) -> None:
    problem = random_problem(3)
    start = problem.partition(np.arange(8) // 3) if started else None
    honest = Relaxation.solve

    def die(relaxation: Relaxation, clock: Clock) -> Prices:
        pid = shared_session().pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        return honest(relaxation, clock)

    with monkeypatch.context() as context:
        context.setattr(Relaxation, "solve", die)
        result = BLOCKS.solve(problem, stop=FREELY, seed=0, start=start)
    assert (result.status, result.placement) == ("feasible" if started else "none-found", start)
    assert (result.bound, result.certificate) == (None, None)
    assert result.message.startswith("the solver died: ")
    assert BLOCKS.solve(problem, stop=FREELY, seed=0).status == "certified-optimal"  # by a new worker
