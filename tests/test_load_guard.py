"""The load guard: the rule as stated, token by token, and a plan that the problem can judge."""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from moeopt.cluster import Cluster
from moeopt.dispatch import touched
from moeopt.load_guard import ANCHORS, ORDERS, PICKS, LoadGuard
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.trace import Trace
from moeopt.workload import Workload
from tests.problem_strategies import copies_of
from tests.strategies import traces


def as_stated(
    guard: LoadGuard, experts: NDArray[Any], hosts: NDArray[np.bool_], primary: NDArray[Any]
) -> NDArray[np.int32]:
    """The rule of the class docstring, word by word."""
    gpus = hosts.shape[1]
    loads, brought = [0.0] * gpus, [0.0] * gpus
    served = np.empty(experts.shape, np.int32)
    for token, chosen in enumerate(experts):
        if token and token % guard.batch == 0:
            loads = [guard.rho * load + more for load, more in zip(loads, brought, strict=True)]
            brought = [0.0] * gpus
        limit = inf if guard.theta == inf else (1 + guard.theta) * (sum(loads) / gpus)
        anchor = -1
        if guard.anchor == "first":
            anchor = primary[chosen[0]]
        elif guard.anchor == "most":
            anchor = int(hosts[chosen].sum(axis=0).argmax())
        order = list(range(len(chosen)))
        if guard.order == "single-first":
            order.sort(key=lambda column: hosts[chosen[column]].sum() > 1)
        reached: set[int] = set()
        for column in order:
            held = [int(gpu) for gpu in np.flatnonzero(hosts[chosen[column]])]
            feasible = [gpu for gpu in held if loads[gpu] <= limit] or held
            home = guard.pick == "primary"
            best = min(
                (
                    gpu not in reached,
                    gpu != anchor,
                    home and gpu != primary[chosen[column]],
                    loads[gpu],
                    gpu,
                )
                for gpu in feasible
            )[-1]
            served[token, column] = best
            reached.add(int(best))
            brought[best] += 1
    return served


def copied(trace: Trace, *, gpus: int, replicas: int, seed: int) -> Placement:
    """Random copies of every layer, a random one of them primary."""
    rng = np.random.default_rng(seed)
    slots = np.full(gpus, trace.n_experts)
    layers = [
        copies_of(rng, slots, experts=trace.n_experts, replicas=replicas) for _ in range(trace.n_layers)
    ]
    hosts = np.stack(layers)
    primary = (rng.random(hosts.shape) * hosts).argmax(axis=2).astype(np.int32)
    return Placement(hosts, primary, 1, trace.n_experts, tuple(trace.layer_ids.tolist()), trace.model)


@settings(max_examples=80, deadline=None)
@given(
    trace=traces(max_layers=1, max_k=4),
    gpus=st.integers(1, 4),
    replicas=st.integers(0, 8),
    seed=st.integers(0, 1000),
    theta=st.sampled_from([0.0, 0.15, 1.0, inf]),
    rho=st.sampled_from([0.0, 0.5, 0.995, 1.0]),
    batch=st.sampled_from([1, 1, 3]),
    order=st.sampled_from(ORDERS),
    anchor=st.sampled_from(ANCHORS),
    pick=st.sampled_from(PICKS),
)
def test_the_kernel_does_what_the_rule_says(
    trace: Trace,
    gpus: int,
    replicas: int,
    seed: int,
    theta: float,
    rho: float,
    batch: int,
    order: str,
    anchor: str,
    pick: str,
) -> None:
    guard = LoadGuard(theta, rho, batch, order, anchor, pick)
    placement = copied(trace, gpus=gpus, replicas=replicas, seed=seed)
    experts, hosts, primary = trace.experts[:, 0], placement.hosts[0], placement.primary[0]
    served = guard.gpus(experts, hosts=hosts, primary=primary)
    assert served.dtype == np.int32
    assert hosts[experts, served].all()
    assert served.tolist() == as_stated(guard, experts, hosts, primary).tolist()


@settings(max_examples=40, deadline=None)
@given(trace=traces(), gpus=st.integers(1, 4), replicas=st.integers(0, 6), seed=st.integers(0, 1000))
def test_the_plan_serves_every_token_and_costs_no_less_than_the_cheapest(
    trace: Trace, gpus: int, replicas: int, seed: int
) -> None:
    placement = copied(trace, gpus=gpus, replicas=replicas, seed=seed)
    room = (gpus - 1) * trace.n_experts
    problem = Problem.from_trace(trace, Cluster(1, gpus, trace.n_experts), replicas=min(replicas, room))
    plan = LoadGuard().plan(placement, trace)
    assert problem.violation(plan) == ""
    assert problem.cost(plan) >= problem.cost(placement)
    by_token = 0
    for layer in range(trace.n_layers):
        served = LoadGuard().gpus(
            trace.experts[:, layer], hosts=placement.hosts[layer], primary=placement.primary[layer]
        )
        by_token += int((touched(served) - 1).sum())
    assert problem.cost(plan) == by_token


def test_a_partition_leaves_no_choice() -> None:
    rng = np.random.default_rng(0)
    experts = np.array([rng.choice(8, 3, replace=False) for _ in range(50)])
    primary = rng.integers(0, 4, 8)
    served = LoadGuard().gpus(experts, hosts=primary[:, None] == np.arange(4), primary=primary)
    assert (served == primary[experts]).all()


def test_a_gpu_above_the_mean_is_left_alone_until_its_load_decays() -> None:
    """Expert 0 on both GPUs, primary on 0; alone in every token."""
    hosts, primary = np.array([[True, True]]), np.array([0])
    tokens = np.zeros((6, 1), int)
    alternating = LoadGuard(rho=1.0, anchor="none").gpus(tokens, hosts=hosts, primary=primary)
    assert alternating[:, 0].tolist() == [0, 1, 0, 1, 0, 1]
    unguarded = LoadGuard(theta=inf).gpus(tokens, hosts=hosts, primary=primary)
    assert unguarded[:, 0].tolist() == [0] * 6
    in_pairs = LoadGuard(rho=1.0, anchor="none", batch=2).gpus(tokens, hosts=hosts, primary=primary)
    assert in_pairs[:, 0].tolist() == [0, 0, 1, 1, 0, 0]


def test_a_touched_gpu_is_reused_and_the_order_decides_what_is_touched() -> None:
    """Expert 0 on GPUs 0 and 1, expert 1 on GPU 1 alone."""
    hosts, primary = np.array([[True, True], [False, True]]), np.array([0, 1])
    token = np.array([[0, 1]])
    assert LoadGuard(anchor="none").gpus(token, hosts=hosts, primary=primary).tolist() == [[1, 1]]
    given_order = LoadGuard(anchor="none", order="given")
    assert given_order.gpus(token, hosts=hosts, primary=primary).tolist() == [[0, 1]]
    anchored = LoadGuard(anchor="most", order="given")
    assert anchored.gpus(token, hosts=hosts, primary=primary).tolist() == [[1, 1]]


def test_a_plan_needs_the_layers_and_the_experts() -> None:
    trace = Trace(np.array([[[0, 1]], [[1, 2]]]), 3)
    placement = copied(trace, gpus=2, replicas=1, seed=0)
    with pytest.raises(ValueError, match="the placement has 3 experts a layer, the trace 4"):
        LoadGuard().plan(placement, Trace(trace.experts, 4))
    elsewhere = Trace(trace.experts, 3, layer_ids=np.array([7], np.int32))
    with pytest.raises(ValueError, match="layer 0 is not in the trace"):
        LoadGuard().plan(placement, elsewhere)
    assert (
        LoadGuard()
        .plan(placement, trace)
        .dispatches[0]
        .violation(Workload.from_trace(trace).layers[0], placement.hosts[0])
        == ""
    )


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"theta": -0.1}, r"theta must not be negative, found -0\.1"),
        ({"theta": float("nan")}, "theta must not be negative, found nan"),
        ({"rho": 1.5}, r"rho must lie between 0 and 1, found 1\.5"),
        ({"batch": 0}, "batch must be at least 1, found 0"),
        ({"order": "last"}, "order must be one of single-first, given, found 'last'"),
        ({"anchor": "source"}, "anchor must be one of none, first, most, found 'source'"),
        ({"pick": "random"}, "pick must be one of primary, lightest, found 'random'"),
    ],
)
def test_bad_settings_are_named(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LoadGuard(**asked)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"experts": np.zeros((2, 1))}, r"experts must be integers \[tokens, k\], found float64 \(2, 1\)"),
        ({"experts": np.array([[3]])}, "experts must be ids below 2, found 3 to 3"),
        ({"experts": np.array([[-1]])}, "experts must be ids below 2, found -1 to -1"),
        ({"hosts": np.array([[1, 1], [1, 1]])}, r"hosts bool \[experts, gpus\] and primary \[experts\]"),
        ({"hosts": np.array([[True, False], [False, False]])}, "expert 1 is on no GPU"),
        ({"primary": np.array([0, 2])}, "expert 1 has primary GPU 2, which does not hold it"),
        ({"primary": np.array([1, 1])}, "expert 0 has primary GPU 1, which does not hold it"),
        ({"primary": np.array([0])}, r"do not fit: bool \(2, 2\), \(1,\)"),
    ],
)
def test_bad_input_is_named(change: dict[str, Any], message: str) -> None:
    fields: dict[str, Any] = {
        "experts": np.array([[0, 1]]),
        "hosts": np.array([[True, False], [True, True]]),
        "primary": np.array([0, 1]),
    }
    fields |= change
    with pytest.raises(ValueError, match=message):
        LoadGuard().gpus(fields["experts"], hosts=fields["hosts"], primary=fields["primary"])


def test_no_tokens_are_served_by_nothing() -> None:
    empty = LoadGuard().gpus(np.zeros((0, 2), int), hosts=np.ones((3, 2), bool), primary=np.zeros(3, int))
    assert empty.shape == (0, 2)
