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
from moeopt.load_guard import (
    ANCHORS,
    COUNTED,
    DECAYS,
    ORDERS,
    PREFERENCES,
    SCOPES,
    UPDATES,
    LoadGuard,
)
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.trace import Trace
from moeopt.workload import Workload
from tests.problem_strategies import copies_of
from tests.strategies import traces


def as_stated(
    guard: LoadGuard,
    experts: NDArray[Any],
    hosts: NDArray[np.bool_],
    primary: NDArray[Any],
    *,
    family: NDArray[Any],
    families: int,
    source: NDArray[Any],
) -> NDArray[np.int32]:
    """The rule of the class docstring, word by word: experts [tokens, layers, k], hosts [layers, experts, gpus]."""
    tokens, layers, _ = experts.shape
    gpus = hosts.shape[2]
    own = [[0.0] * gpus for _ in range(layers)]
    loads_of = [own[0]] * layers if guard.scope == "model" else own
    served = np.empty(experts.shape, np.int32)
    for first in range(0, tokens, guard.batch):
        batch = range(first, min(tokens, first + guard.batch))
        for layer in range(layers):
            loads, brought = loads_of[layer], [0.0] * gpus
            last = guard.scope == "layer" or layer == layers - 1
            for token in batch:
                reached: set[int] = set()
                for column in in_order(guard, experts[token, layer], hosts[layer]):
                    expert = experts[token, layer, column]
                    best = chosen_gpu(
                        guard,
                        loads,
                        reached,
                        held=[int(gpu) for gpu in np.flatnonzero(hosts[layer, expert])],
                        anchor=anchor_of(
                            guard, experts[token, layer], hosts[layer], primary[layer], source[token]
                        ),
                        reserved={gpu for gpu in range(gpus) if gpu * families // gpus == family[token]},
                        primary=int(primary[layer, expert]),
                    )
                    served[token, layer, column] = best
                    if guard.counted == "activations" or best not in reached:
                        brought[best] += 1
                    reached.add(best)
                    if guard.update == "expert":
                        factor = guard.rho if guard.decay == "update" else 1.0
                        loads[:] = [factor * load + more for load, more in zip(loads, brought, strict=True)]
                        brought = [0.0] * gpus
                if guard.update == "expert" and guard.decay == "token" and last:
                    loads[:] = [guard.rho * load for load in loads]
            if guard.update == "batch" and len(batch) == guard.batch:
                factor = guard.rho
                if guard.decay == "token":
                    factor = guard.rho**guard.batch if last else 1.0
                loads[:] = [factor * load + more for load, more in zip(loads, brought, strict=True)]
    return served


def in_order(guard: LoadGuard, chosen: NDArray[Any], hosts: NDArray[np.bool_]) -> list[int]:
    """Columns of a token as its experts are served."""
    order = list(range(len(chosen)))
    if guard.order == "single-first":
        order.sort(key=lambda column: hosts[chosen[column]].sum() > 1)
    return order


def anchor_of(
    guard: LoadGuard, chosen: NDArray[Any], hosts: NDArray[np.bool_], primary: NDArray[Any], source: int
) -> int:
    """The anchor GPU of a token, -1 for none."""
    return {
        "none": -1,
        "first": int(primary[chosen[0]]),
        "most": int(hosts[chosen].sum(axis=0).argmax()),
        "source": int(source),
    }[guard.anchor]


def chosen_gpu(
    guard: LoadGuard,
    loads: list[float],
    reached: set[int],
    *,
    held: list[int],
    anchor: int,
    reserved: set[int],
    primary: int,
) -> int:
    """The GPU that serves one expert."""
    limit = inf if guard.theta == inf else (1 + guard.theta) * (sum(loads) / len(loads))
    feasible = [gpu for gpu in held if loads[gpu] <= limit] or held
    liked = {"touched": reached, "anchor": {anchor}, "family": reserved, "primary": {primary}}
    return min(feasible, key=lambda gpu: ([gpu not in liked[name] for name in guard.prefer], loads[gpu], gpu))


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


@st.composite
def guards(draw: st.DrawFn, *, scopes: tuple[str, ...] = SCOPES) -> LoadGuard:
    """Every setting, now and then."""
    update = draw(st.sampled_from(UPDATES))
    prefer = draw(st.permutations(PREFERENCES))[: draw(st.integers(0, len(PREFERENCES)))]
    return LoadGuard(
        theta=draw(st.sampled_from([0.0, 0.15, 1.0, inf])),
        rho=draw(st.sampled_from([0.0, 0.5, 0.995, 1.0])),
        batch=1 if update == "expert" else draw(st.sampled_from([1, 1, 3])),
        order=draw(st.sampled_from(ORDERS)),
        anchor=draw(st.sampled_from(ANCHORS)),
        prefer=tuple(prefer),
        update=update,
        decay=draw(st.sampled_from(DECAYS)),
        counted=draw(st.sampled_from(COUNTED)),
        scope=draw(st.sampled_from(scopes)),
    )


@settings(max_examples=150, deadline=None)
@given(
    trace=traces(max_layers=1, max_k=4),
    gpus=st.integers(1, 4),
    replicas=st.integers(0, 8),
    seed=st.integers(0, 1000),
    guard=guards(scopes=("layer",)),
    cut=st.integers(0, 30),
)
def test_the_kernel_does_what_the_rule_says_however_tokens_are_sliced(
    trace: Trace, gpus: int, replicas: int, seed: int, guard: LoadGuard, cut: int
) -> None:
    placement = copied(trace, gpus=gpus, replicas=replicas, seed=seed)
    experts, hosts, primary = trace.experts[:, 0], placement.hosts[0], placement.primary[0]
    source = np.random.default_rng(seed).integers(0, gpus, trace.n_tokens)
    columns: dict[str, Any] = {"families": len(trace.families)}
    served = guard.gpus(experts, hosts=hosts, primary=primary, family=trace.family, source=source, **columns)
    assert served.dtype == np.int32
    assert hosts[experts, served].all()
    wanted = as_stated(
        guard,
        trace.experts,
        placement.hosts,
        placement.primary,
        family=trace.family,
        source=source,
        **columns,
    )
    assert served.tolist() == wanted[:, 0].tolist()
    state = np.zeros(2 * gpus + 1)
    parts = [
        guard.gpus(
            experts[part],
            hosts=hosts,
            primary=primary,
            family=trace.family[part],
            source=source[part],
            state=state,
            **columns,
        )
        for part in (slice(None, cut), slice(cut, None))
    ]
    assert np.concatenate(parts).tolist() == served.tolist()


@settings(max_examples=100, deadline=None)
@given(
    trace=traces(max_k=4),
    gpus=st.integers(1, 4),
    replicas=st.integers(0, 8),
    seed=st.integers(0, 1000),
    guard=guards(),
)
def test_loads_are_of_each_layer_or_of_the_model_that_a_batch_passes_through(
    trace: Trace, gpus: int, replicas: int, seed: int, guard: LoadGuard
) -> None:
    placement = copied(trace, gpus=gpus, replicas=replicas, seed=seed)
    source = np.random.default_rng(seed).integers(0, gpus, trace.n_tokens)
    plan = guard.plan(placement, trace, source=source)
    wanted = as_stated(
        guard,
        trace.experts,
        placement.hosts,
        placement.primary,
        family=trace.family,
        families=len(trace.families),
        source=source,
    )
    for layer, part in enumerate(plan.dispatches):
        assert part.gpu_loads(gpus).tolist() == np.bincount(wanted[:, layer].ravel(), minlength=gpus).tolist()
        assert int((touched(part.gpus) - 1) @ part.tokens.sum(axis=1)) == int(
            (touched(wanted[:, layer]) - 1).sum()
        )


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
        ({"anchor": "last"}, "anchor must be one of none, first, most, source, found 'last'"),
        (
            {"prefer": ("lightest",)},
            r"prefer must name each at most once of touched, .*found \('lightest',\)",
        ),
        ({"prefer": ("anchor", "anchor")}, "prefer must name each at most once of touched, anchor, family"),
        ({"update": "token"}, "update must be one of batch, expert, found 'token'"),
        ({"update": "expert", "batch": 4}, "update 'expert' needs batch 1, found 4"),
        ({"decay": "never"}, "decay must be one of update, token, found 'never'"),
        ({"counted": "bytes"}, "counted must be one of activations, tokens, found 'bytes'"),
        ({"scope": "node"}, "scope must be one of layer, model, found 'node'"),
    ],
)
def test_bad_settings_are_named(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LoadGuard(**asked)


ONE: dict[str, Any] = {"hosts": np.array([[True, True]]), "primary": np.array([0])}  # expert 0, on both GPUs


def test_decay_by_token_forgets_a_batch_as_one_token_after_the_other() -> None:
    """Two batches of two tokens, all on GPU 0: rho once or twice for the first, nothing yet for the second."""
    tokens, state = np.zeros((4, 1), int), np.zeros(5)
    by_update = LoadGuard(theta=inf, rho=0.5, batch=2)
    by_update.gpus(tokens, **ONE, state=state)
    assert state[:2].tolist() == [0.5 * 2 + 2, 0]
    state = np.zeros(5)
    by_token = LoadGuard(theta=inf, rho=0.5, batch=2, decay="token")
    by_token.gpus(tokens, **ONE, state=state)
    assert state[:2].tolist() == [0.25 * 2 + 2, 0]


def test_updated_after_every_expert_the_second_of_a_token_sees_what_the_first_brought() -> None:
    """Experts 0 and 1 both on both GPUs, primary on 0."""
    hosts, primary, token = np.ones((2, 2), bool), np.zeros(2, int), np.array([[0, 1]])
    by_token = LoadGuard().gpus(token, hosts=hosts, primary=primary)
    assert by_token.tolist() == [[0, 0]]
    by_expert = LoadGuard(update="expert").gpus(token, hosts=hosts, primary=primary)
    assert by_expert.tolist() == [[0, 1]]


def test_a_token_counts_once_on_a_gpu_or_once_for_each_of_its_experts() -> None:
    hosts, primary, state = np.array([[True, False], [True, False]]), np.zeros(2, int), np.zeros(5)
    LoadGuard(rho=1.0).gpus(np.array([[0, 1]]), hosts=hosts, primary=primary, state=state)
    assert state[0] == 2
    state = np.zeros(5)
    LoadGuard(rho=1.0, counted="tokens").gpus(np.array([[0, 1]]), hosts=hosts, primary=primary, state=state)
    assert state[0] == 1


def test_loads_of_the_model_send_the_next_layer_elsewhere() -> None:
    """One token, one expert a layer, on both GPUs in both layers."""
    trace = Trace(np.zeros((1, 2, 1), int), 1)
    placement = Placement(np.ones((2, 1, 2), bool), np.zeros((2, 1), int), 1, 1, (0, 1))
    served = [
        [
            int(part.gpus[0, 0])
            for part in LoadGuard(scope=scope, anchor="none").plan(placement, trace).dispatches
        ]
        for scope in SCOPES
    ]
    assert served == [[0, 0], [0, 1]]


def test_preferences_lead_to_the_home_the_family_or_the_lightest() -> None:
    token: NDArray[Any] = np.zeros((1, 1), int)
    home = LoadGuard(anchor="source", prefer=("anchor",))
    assert home.gpus(token, **ONE, source=np.array([1])).tolist() == [[1]]
    family = LoadGuard(prefer=("family",))
    assert family.gpus(token, **ONE, family=np.array([1]), families=2).tolist() == [[1]]
    state = np.array([1.0, 0.0, 0, 0, 0])
    assert LoadGuard(theta=inf, prefer=()).gpus(token, **ONE, state=state).tolist() == [[1]]
    state = np.array([1.0, 0.0, 0, 0, 0])
    assert LoadGuard(theta=inf, anchor="none").gpus(token, **ONE, state=state).tolist() == [[0]]


@pytest.mark.parametrize(
    ("asked", "given", "message"),
    [
        ({"scope": "model"}, {}, "loads of the model are kept by plan: gpus sees one layer"),
        ({"anchor": "source"}, {}, "this guard needs the source of each token"),
        ({"prefer": ("family",)}, {}, "this guard needs the family of each token"),
        ({"anchor": "source"}, {"source": np.array([2])}, "source must be ids below 2, found 2 to 2"),
        (
            {"anchor": "source"},
            {"source": np.array([0, 0])},
            r"source must be integers \[1\], found int64 \(2,\)",
        ),
        ({"prefer": ("family",)}, {"family": np.array([1])}, "family must be ids below 1, found 1 to 1"),
        (
            {"prefer": ("family",)},
            {"family": np.array([0.5])},
            r"family must be integers \[1\], found float64",
        ),
    ],
)
def test_columns_that_a_guard_needs_are_asked_for(
    asked: dict[str, Any], given: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        LoadGuard(**asked).gpus(np.zeros((1, 1), int), **ONE, **given)


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
