"""Swap search: the kernel's tables stay those of the definition, and its answer is never worse than its start."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moeopt.cluster import Cluster
from moeopt.heuristics.lpt import Lpt
from moeopt.heuristics.swap import RANDOM, Swap, SwapCut, _mixing, pair_sets
from moeopt.problem import Problem
from moeopt.seating import Seating
from moeopt.stop import Stop
from moeopt.testing import brute_force
from moeopt.trace import Trace
from tests.problem_strategies import any_problems, problems

FREELY = Stop(seconds=None)
SHORT = Swap(restarts=2, kicks=30)


def seating_of(problem: Problem, seats: Any, *, cap: float, penalty: float) -> Seating:
    (sets,) = problem.workload.layers
    cluster = problem.cluster
    return Seating.of(
        sets,
        weights=problem.set_weights(sets).astype(float),
        labels=np.stack([seats, cluster.node_of[seats]]).astype(np.int32),
        prices=np.array([cluster.gpu_cost, cluster.node_cost], float),
        load=sets.load.astype(float),
        cap=cap,
        penalty=penalty,
    )


def value(problem: Problem, seating: Seating) -> float:
    """Cost of the placement and of its load above the cap, by definition."""
    gpu_of = seating.labels[0, : problem.workload.n_experts]
    carried = np.bincount(gpu_of, weights=seating.room.load, minlength=problem.cluster.gpus)
    return problem.cost(problem.partition(gpu_of)) + seating.room.penalty * float(
        np.maximum(carried - seating.room.cap, 0).sum()
    )


def by_definition(problem: Problem, seating: Seating) -> dict[str, Any]:
    """What the kernel maintains, counted set by set."""
    (sets,) = problem.workload.layers
    tally, room = seating.tally, seating.room
    found = {name: np.zeros_like(getattr(tally, name)) for name in ("held", "arrive", "leave", "carried")}
    for expert, load in enumerate(room.load):
        found["carried"][seating.labels[0, expert]] += load
    for level, labels in enumerate(seating.labels):
        for s, members in enumerate(sets.members.tolist()):
            held = [int(labels[e]) for e in members]
            for label in held:
                found["held"][level, s, label] += 1
            for e in members:
                elsewhere = [label for label in range(tally.held.shape[2]) if label not in held]
                found["arrive"][level, elsewhere, e] += room.weights[s]
                found["leave"][level, e] += room.weights[s] * (held.count(int(labels[e])) == 1)
    return found


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(problem=problems(objectives=("fan-out",)), seed=st.integers(0, 999), kick=st.integers(1, 4))
def test_the_running_value_is_the_exact_difference_of_costs(problem: Problem, seed: int, kick: int) -> None:
    problem = replace(problem, load_tolerance=None, family_weights=None)
    rng = np.random.default_rng(seed)
    seats = SHORT._seats(problem, rng, None)
    mean = problem.load_total / problem.cluster.gpus
    seating = seating_of(problem, seats, cap=mean, penalty=3.0)
    for _ in range(4):
        before = value(problem, seating)
        change = seating.exchange(rng.integers(0, len(seats), (kick, 2)))
        assert value(problem, seating) - before == pytest.approx(change)
        fallen, made = seating.descend(rng.permutation(len(seats)))
        assert fallen <= 0
        assert bool(len(made)) == (fallen < 0)
        assert value(problem, seating) - before == pytest.approx(change + fallen)
        assert (seating.labels[1] == problem.cluster.node_of[seating.labels[0]]).all()
        assert sorted(seating.labels[0].tolist()) == sorted(seats.tolist())  # nobody gains or loses a slot
        for name, wanted in by_definition(problem, seating).items():
            assert (getattr(seating.tally, name) == wanted).all(), name


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(problem=problems(objectives=("fan-out",)), seed=st.integers(0, 999))
def test_the_value_of_new_seats_is_their_cost(problem: Problem, seed: int) -> None:
    problem = replace(problem, load_tolerance=None, family_weights=None)
    rng = np.random.default_rng(seed)
    first, second = (SHORT._seats(problem, rng, None) for _ in range(2))
    seating = seating_of(problem, first, cap=problem.load_total / problem.cluster.gpus, penalty=2.0)
    assert seating.cost == pytest.approx(value(problem, seating))
    moved = seating.reseated(np.stack([second, problem.cluster.node_of[second]]).astype(np.int32))
    assert moved.cost == pytest.approx(value(problem, moved))


@given(seed=st.integers(0, 99), sizes=st.lists(st.integers(1, 8), min_size=1, max_size=5))
def test_a_kick_is_three_swaps_or_half_of_two_gpus(seed: int, sizes: list[int]) -> None:
    gpu = np.repeat(np.arange(len(sizes), dtype=np.int32) * 2, sizes)
    kick = _mixing(gpu, np.random.default_rng(seed))
    assert ((kick >= 0) & (kick < len(gpu))).all()
    pairs = {(int(gpu[e]), int(gpu[f])) for e, f in kick}
    if len(kick) != RANDOM:
        ((g, h),) = pairs
        assert g != h
        assert len(kick) == (min(sizes[g // 2], sizes[h // 2]) + 1) // 2
        assert len(set(kick.ravel().tolist())) == kick.size


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(problem=problems(objectives=("fan-out",)), seed=st.integers(0, 999))
def test_exchanges_in_reverse_lead_back(problem: Problem, seed: int) -> None:
    problem = replace(problem, load_tolerance=None, family_weights=None)
    rng = np.random.default_rng(seed)
    seats = SHORT._seats(problem, rng, None)
    seating = seating_of(problem, seats, cap=problem.load_total / 2, penalty=1.0)
    pairs = rng.integers(0, len(seats), (5, 2))
    there = seating.exchange(pairs)
    fallen, made = seating.descend(rng.permutation(len(seats)))
    back = seating.exchange(np.concatenate([pairs, made])[::-1])
    assert there + fallen + back == pytest.approx(0.0, abs=1e-6)
    assert (seating.labels[0] == seats).all()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(problem=problems(objectives=("fan-out",)), seed=st.integers(0, 999))
def test_no_swap_improves_on_where_a_descent_ends(problem: Problem, seed: int) -> None:
    problem = replace(problem, load_tolerance=None, family_weights=None)
    rng = np.random.default_rng(seed)
    seating = seating_of(problem, SHORT._seats(problem, rng, None), cap=problem.load_total / 2, penalty=1.0)
    seats = seating.labels.shape[1]
    seating.descend(rng.permutation(seats))
    for e, f in combinations(range(seats), 2):
        change = seating.exchange(np.array([[e, f]]))
        assert change >= -1e-6
        seating.exchange(np.array([[e, f]]))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(problem=problems(), seed=st.integers(0, 99))
@pytest.mark.parametrize("method", [SHORT, SwapCut(restarts=2, kicks=30)], ids=["swap", "swap-cut"])
def test_the_result_is_never_worse_than_the_start(method: Swap, problem: Problem, seed: int) -> None:
    rng = np.random.default_rng(seed)
    slots = problem.cluster.slots_of
    seats = np.repeat(np.arange(len(slots)), slots)
    start = problem.partition(rng.permutation(seats)[: problem.workload.n_experts])
    result = method.solve(problem, stop=FREELY, seed=seed, start=start)
    if result.placement is None:
        assert result.status == "none-found"
        assert problem.violation(start)
        return
    assert problem.violation(result.placement) == ""
    assert result.cost == problem.cost(result.placement)
    if not problem.violation(start):
        assert result.cost <= problem.cost(start)
    least, _ = brute_force(problem)
    assert least is not None
    assert result.cost >= least


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(problem=problems(), seed=st.integers(0, 99))
def test_the_same_seed_gives_the_same_answer(problem: Problem, seed: int) -> None:
    first, second = (SHORT.solve(problem, stop=FREELY, seed=seed) for _ in range(2))
    assert (first.status, first.cost, first.placement) == (second.status, second.cost, second.placement)


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(problem=problems(most_experts=6))
def test_tiny_problems_without_a_load_cap_are_solved_to_the_optimum(problem: Problem) -> None:
    free = replace(problem, load_tolerance=None)
    result = Swap(restarts=6, kicks=50).solve(free, stop=FREELY, seed=0)
    assert result.cost == brute_force(free)[0]


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(problem=problems(most_experts=6), tolerance=st.sampled_from(["0.05", "0.1", "0.3"]))
def test_a_load_cap_that_can_be_met_on_a_tiny_problem_is_met(problem: Problem, tolerance: str) -> None:
    try:
        tight = replace(problem, load_tolerance=tolerance)
    except ValueError:
        return
    least, _ = brute_force(tight)
    result = Swap(restarts=6, kicks=50).solve(tight, stop=FREELY, seed=0)
    if least is None:
        assert (result.status, result.placement) == ("none-found", None)
        assert result.tolerance_reached is not None
    else:
        assert result.status == "feasible"
        assert result.cost is not None
        assert result.cost >= least


def grouped(cluster: Cluster, **fields: Any) -> Problem:
    """Eight experts in four pairs that always go together, pairs 0-1 and 2-3 on the same requests."""
    ids = np.array([[[0, 4]], [[1, 5]], [[2, 6]], [[3, 7]]] * 5 + [[[0, 1]], [[2, 3]]])
    return Problem.from_trace(Trace(ids, 8), cluster, **fields)


def test_dear_nodes_keep_groups_on_one_node() -> None:
    result = Swap(restarts=2, kicks=50).solve(grouped(Cluster(2, 2, 2, node_cost=9)), stop=FREELY, seed=0)
    assert result.cost == 2  # 0-1 and 2-3 cross GPUs, nothing crosses nodes
    cheap = Swap(restarts=2, kicks=50).solve(grouped(Cluster(2, 2, 2, 0, 1)), stop=FREELY, seed=0)
    assert cheap.cost == 0


def test_free_slots_are_used() -> None:
    problem = grouped(Cluster(1, 4, 4))
    start = problem.partition(np.arange(8) // 2)
    result = Swap(restarts=1, kicks=50).solve(problem, stop=FREELY, seed=0, start=start)
    assert result.cost == 0  # moves to four on a GPU; no exchange of equals gets there


def test_candidates_end_the_search_after_each_batch() -> None:
    problem = grouped(Cluster(1, 4, 2))
    few = Swap(restarts=1, kicks=200).solve(problem, stop=Stop(seconds=None, candidates=1), seed=0)
    assert len(few.history) == 1


def test_tokens_of_one_expert_leave_nothing_to_save() -> None:
    problem = Problem.from_trace(Trace(np.arange(4)[:, None, None], 4), Cluster(1, 2, 2))
    for method in (SHORT, SwapCut(restarts=1, kicks=5)):
        assert method.solve(problem, stop=FREELY, seed=0).cost == 0


@settings(max_examples=30, deadline=None)
@given(problem=problems(objectives=("cut",)))
def test_the_fan_out_of_pairs_is_the_cut(problem: Problem) -> None:
    (sets,) = problem.workload.layers
    pairs, weights = pair_sets(sets, problem.set_weights(sets))
    rng = np.random.default_rng(0)
    slots = problem.cluster.slots_of
    gpu_of = rng.permutation(np.repeat(np.arange(len(slots)), slots))[: sets.n_experts]
    total = 0
    for (e, f), weight in zip(pairs.members.tolist(), weights.tolist(), strict=True):
        total += weight * problem.cluster.gpu_cost * int(gpu_of[e] != gpu_of[f])
        nodes = problem.cluster.node_of[gpu_of]
        total += weight * problem.cluster.node_cost * int(nodes[e] != nodes[f])
    assert total == problem.cost(problem.partition(gpu_of))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(problem=any_problems(extras=("speeds", "tail")), seed=st.integers(0, 9))
@pytest.mark.parametrize("method", [SHORT, SwapCut(restarts=2, kicks=30), Lpt()], ids=lambda m: str(m.name))
def test_gpus_of_unequal_speed_keep_their_own_caps(method: Any, problem: Problem, seed: int) -> None:
    """By the loads of every GPU and the caps that its speed gives it; none found says how close it came."""
    result = method.solve(problem, stop=FREELY, seed=seed)
    least = brute_force(problem)[0]
    if result.placement is None:
        assert problem.load_caps is not None
        assert result.tolerance_reached is None or result.tolerance_reached >= problem.load_tolerance
        return
    assert least is not None
    assert result.cost >= least
    if problem.load_caps is not None:
        (sets,) = problem.workload.layers
        gpu_of = result.placement.primary[0]
        loads = np.bincount(gpu_of, weights=sets.load, minlength=problem.cluster.gpus)
        assert (loads <= problem.load_caps).all()


def test_heavy_experts_find_the_fast_gpu() -> None:
    """Three quarters of the load fit the fast GPU alone."""
    chosen = [[0]] * 6 + [[1]] * 3 + [[2]] * 2 + [[3]]
    trace = Trace(np.array(chosen)[:, None], 4)
    problem = Problem.from_trace(trace, Cluster(1, 2, 3, speeds=(1, 3)), load_tolerance="0")
    for method in (SHORT, Lpt()):
        placement = method.solve(problem, stop=FREELY, seed=0).placement
        assert placement is not None
        loads = np.bincount(placement.primary[0], weights=problem.workload.layers[0].load)
        assert loads.tolist() == [3, 9]
