"""The guard: every cap that copies can keep is kept, exactly, at nearly the least cost."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import linprog

from moeopt.cluster import Cluster
from moeopt.dispatch import Plan, cover_plan, touched
from moeopt.expert_sets import ExpertSets
from moeopt.guard import guarded, guarded_plan, least_peak, shortfall
from moeopt.placement import Placement
from moeopt.workload import Workload

Case = tuple[Workload, Cluster, Placement, NDArray[np.int64]]


@st.composite
def cases(draw: st.DrawFn, *, experts: int = 8, most_sets: int = 25) -> Case:
    """A workload of one layer, copies of some experts, a weight for each family."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    k, gpus = draw(st.integers(1, 4)), draw(st.sampled_from([2, 3, 4, 6]))
    nodes = draw(st.sampled_from([n for n in (1, 2, 3) if gpus % n == 0]))
    cluster = Cluster(nodes, gpus // nodes, experts, 1, draw(st.sampled_from([0, 4])))
    members = np.array(
        [rng.choice(experts, k, replace=False) for _ in range(draw(st.integers(1, most_sets)))], np.int32
    )
    sets = ExpertSets.of(members, rng.integers([1, 0], 9, (len(members), 2)), n_experts=experts)
    workload = Workload((sets,), (3,), ("a", "b"), sets.counts.sum(axis=0))
    hosts = rng.random((1, experts, gpus)) < draw(st.sampled_from([0.1, 0.3, 0.8]))
    hosts[0, np.arange(experts), rng.integers(0, gpus, experts)] = True
    placement = Placement(hosts, hosts.argmax(axis=2), nodes, experts, (3,))
    return workload, cluster, placement, np.array(draw(st.sampled_from([[1, 1], [3, 1], [0, 2]])))


def cheapest(case: Case) -> Plan:
    workload, cluster, placement, _ = case
    return cover_plan(placement, workload, gpu_cost=cluster.gpu_cost, node_cost=cluster.node_cost)


def cost(plan: Plan, cluster: Cluster, weights: NDArray[np.int64]) -> int:
    (part,) = plan.dispatches
    hops = cluster.gpu_cost * (touched(part.gpus) - 1)
    hops += cluster.node_cost * (touched(cluster.node_of[part.gpus]) - 1)
    return int(hops @ (part.tokens @ weights))


def relaxation(case: Case, cap: int) -> float | None:
    """The least cost when tokens may be divided; None when the cap cannot be kept even so."""
    workload, cluster, placement, weights = case
    (sets,), (hosts,) = workload.layers, placement.hosts
    prices, rows, owners = [], [], []
    for group, (s, family) in enumerate(np.argwhere(sets.counts)):
        for served in product(*(np.flatnonzero(hosts[e]) for e in sets.members[s])):
            nodes = {int(cluster.node_of[g]) for g in served}
            hops = cluster.gpu_cost * (len(set(served)) - 1) + cluster.node_cost * (len(nodes) - 1)
            prices.append(hops * weights[family])
            rows.append(np.bincount(served, minlength=cluster.gpus))
            owners.append(group)
    counts = sets.counts[sets.counts > 0]
    answer = linprog(
        prices,
        A_ub=np.array(rows).T,
        b_ub=np.full(cluster.gpus, cap),
        A_eq=np.arange(len(counts))[:, None] == owners,
        b_eq=counts,
        method="highs",
    )
    return float(answer.fun) if answer.status == 0 else None


@settings(max_examples=60, deadline=None)
@given(case=cases(), slack=st.sampled_from([-3, 0, 1, 4, 20]))
def test_every_token_is_served_and_the_cap_kept_whenever_it_can_be(case: Case, slack: int) -> None:
    workload, cluster, placement, weights = case
    (sets,), (hosts,) = workload.layers, placement.hosts
    peak = least_peak(sets.load, hosts)
    plan = guarded_plan(cheapest(case), workload, cluster=cluster, weights=weights, cap=peak + slack)
    (part,) = plan.dispatches
    assert part.violation(sets, hosts) == ""
    assert part.gpu_loads(cluster.gpus).max() <= max(peak, peak + slack)
    assert (part.tokens.sum(axis=1) > 0).all()
    rows = np.column_stack([part.sets, part.gpus])
    assert len(np.unique(rows, axis=0)) == len(rows)
    assert cost(plan, cluster, weights) >= cost(cheapest(case), cluster, weights)


@settings(max_examples=40, deadline=None)
@given(case=cases(experts=5, most_sets=8), cap=st.integers(1, 80))
def test_the_least_peak_is_where_fractional_dispatches_begin(case: Case, cap: int) -> None:
    workload, _, placement, _ = case
    peak = least_peak(workload.layers[0].load, placement.hosts[0])
    assert (relaxation(case, cap) is None) == (cap < peak)
    missing, stuck = shortfall(workload.layers[0].load, placement.hosts[0], cap=cap)
    assert (missing > 0) == (cap < peak) == stuck.any()


@settings(max_examples=40, deadline=None)
@given(case=cases(experts=6, most_sets=12), slack=st.integers(0, 6))
def test_no_dispatch_costs_less_than_the_linear_relaxation_says(case: Case, slack: int) -> None:
    workload, cluster, placement, weights = case
    cap = least_peak(workload.layers[0].load, placement.hosts[0]) + slack
    plan = guarded_plan(cheapest(case), workload, cluster=cluster, weights=weights, cap=cap)
    least = relaxation(case, cap)
    assert least is not None
    assert cost(plan, cluster, weights) >= least - 1e-6


def test_on_random_instances_the_guard_is_close_to_the_linear_relaxation() -> None:
    found, least, free = 0.0, 0.0, 0.0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        cluster = Cluster(1, 4, 4)
        members = np.array(
            [rng.choice(12, 3, replace=False, p=_popularity(12)) for _ in range(150)], np.int32
        )
        sets = ExpertSets.of(members, rng.integers(1, 4, (150, 1)), n_experts=12)
        hosts = np.arange(12)[:, None] % 4 == np.arange(4)
        hosts[:4] |= hosts[[1, 2, 3, 0]]
        placement = Placement(hosts[None], hosts.argmax(axis=1)[None], 1, 4, (0,))
        workload = Workload((sets,), (0,), ("a",), sets.counts.sum(axis=0))
        case = workload, cluster, placement, np.array([1])
        cap = least_peak(sets.load, hosts) + 5
        plan = guarded_plan(cheapest(case), workload, cluster=cluster, weights=np.array([1]), cap=cap)
        bound = relaxation(case, cap)
        assert bound is not None
        found += cost(plan, cluster, case[3])
        least += bound
        free += cost(cheapest(case), cluster, case[3])
    assert least > 1.01 * free  # the cap binds
    assert found <= 1.01 * least


def _popularity(experts: int) -> NDArray[Any]:
    share: NDArray[Any] = 1.0 / np.arange(1, experts + 1)
    return np.asarray(share / share.sum())


def test_a_plan_within_the_cap_stays_as_it_is() -> None:
    case = _two_gpus(copies=True)
    plan = cheapest(case)
    assert (
        guarded_plan(plan, case[0], cluster=case[1], weights=case[3], cap=20).dispatches[0]
        is plan.dispatches[0]
    )


def _two_gpus(*, copies: bool) -> Case:
    """Ten tokens of experts 0 and 1, both on GPU 0; expert 1 also on GPU 1 when there are copies."""
    sets = ExpertSets.of(np.array([[0, 1]]), np.array([[4, 6]]), n_experts=2)
    hosts = np.array([[[True, False], [True, copies]]])
    placement = Placement(hosts, hosts.argmax(axis=2), 1, 2, (0,))
    workload = Workload((sets,), (0,), ("a", "b"), np.array([4, 6]))
    return workload, Cluster(1, 2, 2), placement, np.array([5, 1])


def test_a_row_is_split_and_the_tokens_of_least_weight_leave() -> None:
    workload, cluster, _, weights = case = _two_gpus(copies=True)
    plan = guarded_plan(cheapest(case), workload, cluster=cluster, weights=weights, cap=17)
    (part,) = plan.dispatches
    assert part.gpus.tolist() == [[0, 0], [0, 1]]
    assert part.tokens.tolist() == [[4, 3], [0, 3]]
    assert cost(plan, cluster, weights) == 3


def test_without_copies_or_with_too_few_the_least_overload_is_returned() -> None:
    case = _two_gpus(copies=False)
    plan = cheapest(case)
    assert (
        guarded_plan(plan, case[0], cluster=case[1], weights=case[3], cap=5).dispatches[0]
        is plan.dispatches[0]
    )
    case = _two_gpus(copies=True)
    (part,) = guarded_plan(cheapest(case), case[0], cluster=case[1], weights=case[3], cap=5).dispatches
    assert part.gpu_loads(2).tolist() == [10, 10]
    missing, stuck = shortfall(case[0].layers[0].load, case[2].hosts[0], cap=9)
    assert (missing, stuck.tolist()) == (2, [True, True])


def test_sets_of_very_many_assignments_are_served_too() -> None:
    rng = np.random.default_rng(0)
    sets = ExpertSets.of(
        np.array([rng.choice(10, 6, replace=False) for _ in range(40)]), np.full((40, 1), 5), n_experts=10
    )
    hosts = np.ones((1, 10, 6), bool)
    placement = Placement(hosts, hosts.argmax(axis=2), 2, 10, (0,))
    workload = Workload((sets,), (0,), ("a",), np.array([sets.counts.sum()]))
    case = workload, Cluster(2, 3, 10, 1, 2), placement, np.array([1])
    cap = least_peak(sets.load, hosts[0])
    plan = guarded_plan(cheapest(case), workload, cluster=case[1], weights=case[3], cap=cap)
    assert plan.dispatches[0].violation(sets, hosts[0]) == ""
    assert plan.dispatches[0].gpu_loads(6).max() == cap == 200


@pytest.mark.parametrize("cap", [12, 15, 19])
def test_the_same_plan_gives_the_same_dispatch_and_prices_only_where_the_cap_binds(cap: int) -> None:
    workload, cluster, placement, weights = case = _two_gpus(copies=True)
    (part,) = cheapest(case).dispatches
    first, second = (
        guarded(part, workload.layers[0], hosts=placement.hosts[0], cluster=cluster, weights=weights, cap=cap)
        for _ in range(2)
    )
    assert first[0].tokens.tolist() == second[0].tokens.tolist()
    assert first[1].tolist() == second[1].tolist()
    assert first[1][0] > 0 == first[1][1]


@pytest.mark.parametrize("cap", [-2, 0])
def test_a_cap_below_every_load_gives_the_least_peak(cap: int) -> None:
    workload, cluster, placement, weights = case = _two_gpus(copies=True)
    plan = guarded_plan(cheapest(case), workload, cluster=cluster, weights=weights, cap=cap)
    assert (
        plan.dispatches[0].gpu_loads(2).max() == least_peak(workload.layers[0].load, placement.hosts[0]) == 10
    )
