"""The cheapest dispatch is the one that enumeration finds, and its pieces keep their tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moeopt import dispatching
from moeopt.cluster import Cluster
from moeopt.dispatch import Plan
from moeopt.dispatching import cap_prices, cheapest_plan, filled, interleaved, matched, spread_out
from moeopt.enumeration import best_dispatch
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.solvers.door import Session
from moeopt.trace import Trace
from tests.replica_strategies import replica_problems


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with Session() as session:
        yield session


def some_placement(problem: Problem, seed: int) -> Placement:
    """A random partition with all its further copies."""
    rng, cluster = np.random.default_rng(seed), problem.cluster
    seats = np.repeat(np.arange(cluster.gpus), cluster.slots_of)
    experts = problem.workload.n_experts
    hosts = np.zeros((experts, cluster.gpus), bool)
    hosts[np.arange(experts), rng.permutation(seats)[:experts]] = True
    hosts = filled(hosts, slots=cluster.slots_of, copies=experts + problem.replicas)
    return Placement(
        hosts[None], hosts.argmax(axis=1)[None], cluster.nodes, cluster.slots, problem.workload.layer_ids
    )


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    problem=replica_problems(unequal=True, nodes=True, tolerances=("0", "0.2", "0.5")),
    seed=st.integers(0, 2**32 - 1),
)
def test_no_dispatch_is_cheaper(session: Session, problem: Problem, seed: int) -> None:
    placement = some_placement(problem, seed)
    plan = cheapest_plan(problem, placement, session=session)
    if problem.load_caps is None:
        assert plan is not None
        assert problem.cost(plan) == problem.cost(placement)
        return
    best = best_dispatch(problem, placement.hosts[0])
    if best is None:
        assert plan is None
    else:
        assert plan is not None
        assert problem.violation(plan) == ""
        assert problem.cost(plan) == problem.cost(Plan(placement, (best,)))


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(problem=replica_problems(tolerances=("0", "0.2", "0.5")), seed=st.integers(0, 2**32 - 1))
def test_prices_of_the_caps_bound_every_dispatch(session: Session, problem: Problem, seed: int) -> None:
    if problem.load_cap is None:
        return
    placement = some_placement(problem, seed)
    prices = cap_prices(problem, placement, session=session)
    plan = cheapest_plan(problem, placement, session=session)
    if prices is None:
        assert plan is None
        return
    assert (prices >= 0).all()
    (sets,) = problem.workload.layers
    host_of = [np.flatnonzero(row).tolist() for row in placement.hosts[0]]
    shown = -problem.load_cap * prices.sum()
    for members, counts in zip(sets.members.tolist(), sets.counts, strict=True):
        ways = list(product(*(host_of[e] for e in members)))
        for tokens, weight in zip(counts.tolist(), problem.multipliers.tolist(), strict=True):
            unit = problem.cluster.gpu_cost * weight
            shown += tokens * min(unit * (len(set(way)) - 1) + prices[list(way)].sum() for way in ways)
    if plan is not None:
        assert shown <= problem.cost(plan) * (1 + 1e-9) + 1e-6
        if not prices.any():  # the caps cost nothing
            assert shown == pytest.approx(problem.cost(plan))


def test_a_dispatch_within_the_caps_needs_no_solver() -> None:
    problem = Problem.from_trace(
        Trace(np.array([[[0, 1]], [[2, 3]]]), 4), Cluster(1, 2, 3), replicas=2, load_tolerance="0"
    )
    hosts = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], bool)
    placement = Placement(hosts[None], hosts.argmax(axis=1)[None], 1, 3, (0,))
    plan = cheapest_plan(problem, placement)
    assert plan is not None
    assert problem.cost(plan) == 0
    swapped = Placement(hosts[None, [0, 2, 1, 3]], hosts[[0, 2, 1, 3]].argmax(axis=1)[None], 1, 3, (0,))
    assert cheapest_plan(replace(problem, replicas=0), swapped) is not None


def test_it_refuses_a_tail_and_too_many_assignments(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = Trace(
        np.array([[[0, 1]], [[0, 1]], [[0, 2]]]), 3, families=("a", "b"), family=np.array([0, 1, 1], np.uint8)
    )
    cluster = Cluster(1, 2, 3)
    placement = Placement(np.array([[[1, 1], [1, 0], [1, 0]]], bool), np.zeros((1, 3), np.int32), 1, 3, (0,))
    with pytest.raises(ValueError, match="the tail is 0"):
        cheapest_plan(Problem.from_trace(trace, cluster, tail=0), placement)
    monkeypatch.setattr(dispatching, "MOST_OPTIONS", 1)
    with pytest.raises(ValueError, match="more than 1 assignments"):
        cheapest_plan(Problem.from_trace(trace, cluster, replicas=1, load_tolerance="0.5"), placement)


def test_copies_are_filled_up_to_the_slots_and_no_further() -> None:
    hosts = np.array([[1, 0], [0, 1], [0, 1]], bool)
    assert filled(hosts, slots=np.array([2, 3]), copies=3).tolist() == hosts.tolist()
    assert filled(hosts, slots=np.array([2, 2]), copies=6).sum() == 4
    assert filled(hosts, slots=np.array([3, 3]), copies=6).all()


def test_queues_are_read_side_by_side() -> None:
    found = list(interleaved([[(0, 2), (1, 3)], [(2, 4), (0, 1)]]))
    assert found == [((0, 2), 2), ((1, 2), 2), ((1, 0), 1)]
    assert list(interleaved([[], []])) == []


def test_tokens_of_families_are_dealt_out_in_their_order() -> None:
    rows = list(spread_out([((0,), 2), ((1,), 3)], np.array([1, 0, 4])))
    assert [(gpus, tokens.tolist()) for gpus, tokens in rows] == [((0,), [1, 0, 1]), ((1,), [0, 0, 3])]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_matching_moves_as_many_tokens_as_every_part_of_the_targets_allows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sources, targets = rng.integers(1, 5), rng.integers(1, 4)
    supply, room = rng.integers(0, 9, sources), rng.integers(0, 9, targets)
    allowed = rng.random((sources, targets)) < 0.6
    flow = matched(supply, room, allowed=allowed)
    assert (flow >= 0).all()
    assert (flow.sum(axis=1) <= supply).all()
    assert (flow.sum(axis=0) <= room).all()
    assert not flow[~allowed].any()
    cuts = [
        int(room[list(chosen)].sum())
        + int(supply[allowed[:, [t not in chosen for t in range(targets)]].any(axis=1)].sum())
        for chosen in ([t for t in range(targets) if mask >> t & 1] for mask in range(1 << targets))
    ]
    assert flow.sum() == min(cuts)
