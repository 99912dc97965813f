"""Dispatch rules: each does token by token what its docstring says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from moeopt.cluster import Cluster
from moeopt.expert_sets import ExpertSets
from moeopt.replay_rules import RULES, Rule, named_rule

Served = tuple[Cluster, NDArray[np.bool_], NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]


@st.composite
def served_layers(draw: st.DrawFn, *, copies: bool = True) -> Served:
    """(cluster, hosts, primary, experts, source) of one small layer; contents follow a seed."""
    cluster = Cluster(draw(st.integers(1, 3)), draw(st.integers(1, 3)), 9, 1, draw(st.integers(0, 2)))
    experts, tokens = draw(st.integers(1, 7)), draw(st.integers(1, 25))
    k = draw(st.integers(1, min(3, experts)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    primary = rng.integers(cluster.gpus, size=experts).astype(np.int32)
    hosts = primary[:, None] == np.arange(cluster.gpus)
    if copies:
        hosts |= rng.random(hosts.shape) < rng.random()
    chosen = np.argsort(rng.random((tokens, experts)), axis=1)[:, :k].astype(np.int32)
    return cluster, hosts, primary, chosen, rng.integers(cluster.gpus, size=tokens).astype(np.int32)


def answer(rule: Rule, layer: Served, *, parts: int = 1) -> NDArray[np.int32]:
    """What the rule serves, tokens handed over in so many slices."""
    cluster, hosts, primary, experts, source = layer
    memory = rule.remember(hosts, cluster)
    slices = zip(np.array_split(experts, parts), np.array_split(source, parts), strict=True)
    return np.concatenate(
        [
            rule.assign(own, hosts, primary=primary, cluster=cluster, source=homes, memory=memory)
            for own, homes in slices
        ]
    )


def costs(served: NDArray[np.int32], cluster: Cluster) -> list[int]:
    """What each token costs: GPUs and nodes that serve it, at their prices."""
    gpus = (set(row.tolist()) for row in served)
    return [
        cluster.gpu_cost * len(own) + cluster.node_cost * len({g // cluster.gpus_per_node for g in own})
        for own in gpus
    ]


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
@settings(max_examples=40, deadline=None)
@given(layer=served_layers(), parts=st.integers(1, 4))
def test_every_activation_is_served_by_a_host_however_tokens_are_sliced(
    rule: Rule, layer: Served, parts: int
) -> None:
    _, hosts, _, experts, _ = layer
    served = answer(rule, layer)
    assert served.shape == experts.shape
    assert served.dtype == np.int32
    assert hosts[experts, served].all()
    assert (answer(rule, layer, parts=parts) == served).all()


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
@settings(max_examples=20, deadline=None)
@given(layer=served_layers(copies=False))
def test_a_partition_leaves_no_choice(rule: Rule, layer: Served) -> None:
    _, _, primary, experts, _ = layer
    assert (answer(rule, layer) == primary[experts]).all()


@settings(max_examples=60, deadline=None)
@given(layer=served_layers())
def test_no_rule_costs_a_token_less_than_cover(layer: Served) -> None:
    least = costs(answer(RULES["cover"], layer), layer[0])
    for rule in RULES.values():
        own = costs(answer(rule, layer), layer[0])
        assert all(low <= cost for low, cost in zip(least, own, strict=True))


@settings(max_examples=60, deadline=None)
@given(layer=served_layers())
def test_equal_goes_round_the_copies(layer: Served) -> None:
    _, hosts, _, experts, _ = layer
    served = answer(RULES["equal"], layer)
    for expert in range(len(hosts)):
        copies = np.flatnonzero(hosts[expert])
        own = served[experts == expert]
        assert (own == copies[np.arange(len(own)) % len(copies)]).all()


@settings(max_examples=60, deadline=None)
@given(layer=served_layers())
def test_nearest_and_static_keep_tokens_near(layer: Served) -> None:
    cluster, hosts, _, experts, source = layer
    turns: dict[tuple[int, int], int] = {}
    nearest, static = answer(RULES["nearest"], layer), answer(RULES["static"], layer)
    spread = {int(e): spread_of(hosts[e], cluster) for e in np.unique(experts)}
    for t, home in enumerate(source.tolist()):
        for j, expert in enumerate(experts[t].tolist()):
            copies = np.flatnonzero(hosts[expert])
            near = copies[copies // cluster.gpus_per_node == home // cluster.gpus_per_node]
            assert static[t, j] == spread[expert][home]
            if home in copies:
                assert nearest[t, j] == home
                continue
            turn = turns.setdefault((home, expert), home)
            turns[home, expert] += 1
            tier = near if len(near) else copies
            assert nearest[t, j] == tier[turn % len(tier)]


def spread_of(hosts: NDArray[np.bool_], cluster: Cluster) -> list[int]:
    """The fixed copy of every GPU: its own, its node's lowest, else copies in turn."""
    copies, far, found = np.flatnonzero(hosts).tolist(), 0, []
    for rank in range(cluster.gpus):
        near = [g for g in copies if g // cluster.gpus_per_node == rank // cluster.gpus_per_node]
        if rank in copies or near:
            found.append(rank if rank in copies else near[0])
        else:
            found.append(copies[far % len(copies)])
            far += 1
    return found


def test_cover_is_the_cheapest_dispatch_of_the_library() -> None:
    from moeopt.dispatch import cover

    rng = np.random.default_rng(0)
    members = np.sort(np.argsort(rng.random((40, 8)), axis=1)[:, :3], axis=1).astype(np.int32)
    members = np.unique(members, axis=0)
    hosts = rng.random((8, 4)) < 0.5
    hosts[:, 1] = True
    counts = np.ones((len(members), 1), np.int64)
    sets = ExpertSets(members, counts, 8)
    wanted = cover(sets, hosts, gpus_per_node=2, gpu_cost=1, node_cost=3).gpus
    layer = (
        Cluster(2, 2, 8, 1, 3),
        hosts,
        np.full(8, 1, np.int32),
        members,
        np.zeros(len(members), np.int32),
    )
    assert (answer(RULES["cover"], layer) == wanted).all()


def test_what_no_rule_can_do_is_named() -> None:
    with pytest.raises(ValueError, match=r"'nearby'; known are cover, equal"):
        named_rule("nearby")
    wide: Any = np.arange(17, dtype=np.int32)[None]
    hosts = np.ones((17, 2), bool)
    primary, source = np.zeros(17, np.int32), np.zeros(1, np.int32)
    layer = (Cluster(1, 2, 17), hosts, primary, wide, source)
    with pytest.raises(ValueError, match="top-k up to 16, found 17"):
        answer(RULES["cover"], layer)
    hosts[:, 1] = False
    assert (answer(RULES["cover"], layer) == 0).all()
