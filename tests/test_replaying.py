"""A replay counts what counting token by token gives, and what the library's one traffic count says."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import moeopt as mo
from moeopt import replay_layers
from moeopt.architectures import Architecture
from moeopt.cluster import Cluster
from moeopt.dispatch import cover_plan
from moeopt.latency import BatchCounts, ExpertWork, Machine, batch_seconds
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.replay_layers import VOLUMES
from moeopt.replay_rules import RULES, Cover
from moeopt.replaying import Replay, replay
from moeopt.trace import Trace
from moeopt.traffic import Traffic
from moeopt.workload import Workload
from tests.strategies import traces

MACHINE = Machine(flops=1e3, memory_bandwidth=1e2, near_bandwidth=50.0, far_bandwidth=10.0)


def shape_of(trace: Trace) -> Architecture:
    """A model with the trace's experts."""
    return Architecture("tiny", 4, 3, trace.n_experts, trace.n_layers, trace.top_k)


@st.composite
def placed_traces(draw: st.DrawFn, *, copies: bool = True) -> tuple[Placement, Trace]:
    """A tiny trace and a placement of some of its layers, on up to 6 GPUs in up to 3 nodes."""
    trace = draw(traces())
    nodes, per_node = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kept = np.sort(rng.choice(trace.n_layers, draw(st.integers(1, trace.n_layers)), replace=False))
    primary = rng.integers(nodes * per_node, size=(len(kept), trace.n_experts), dtype=np.int32)
    hosts = primary[..., None] == np.arange(nodes * per_node)
    if copies:
        hosts |= rng.random(hosts.shape) < rng.random()
    layer_ids = tuple(trace.layer_ids[kept].tolist())
    return Placement(hosts, primary, nodes, trace.n_experts, layer_ids), trace


@dataclass(frozen=True)
class Watched:
    """Cover, or another rule, that leaves what it served in `seen`: (experts, gpus, source) of every slice."""

    inner: Any
    seen: list[Any]
    name: ClassVar[str] = "watched"
    summary: ClassVar[str] = "another rule, watched"

    def remember(self, hosts: NDArray[np.bool_], cluster: Cluster) -> Any:
        return self.inner.remember(hosts, cluster)

    def assign(self, experts: NDArray[np.int32], hosts: NDArray[np.bool_], **rest: Any) -> Any:
        served = self.inner.assign(experts, hosts, **rest)
        self.seen.append((experts, served, rest["source"]))
        return served


def counted(experts: Any, served: Any, source: Any, *, per_node: int, gpus: int, batch: int) -> Any:
    """Volumes, loads, most activated summed over batches, and the largest, near and far messages of one layer."""
    volumes = dict.fromkeys(VOLUMES, 0)
    loads, active, messages = np.zeros(gpus, int), 0, []
    for begin in range(0, len(experts), batch):
        sent = np.zeros((gpus, gpus), int)
        used: list[set[int]] = [set() for _ in range(gpus)]
        for t in range(begin, min(begin + batch, len(experts))):
            home = int(source[t])
            chosen = [int(g) for g in served[t]]
            there, beyond = set(chosen), {g // per_node for g in chosen}
            volumes["experts"] += len(chosen)
            volumes["gpus"] += len(there)
            volumes["nodes"] += len(beyond)
            volumes["remote_experts"] += sum(g != home for g in chosen)
            volumes["remote_gpus"] += len(there - {home})
            volumes["remote_nodes"] += len(beyond - {home // per_node})
            volumes["off_node_experts"] += sum(g // per_node != home // per_node for g in chosen)
            volumes["off_node_gpus"] += sum(g // per_node != home // per_node for g in there)
            for e, g in zip(experts[t].tolist(), chosen, strict=True):
                loads[g] += 1
                used[g].add(e)
            for g in there - {home}:
                sent[home, g] += 1
        volumes["padded"] += gpus * (gpus - 1) * int(sent.max())
        active += max(map(len, used))
        node = np.arange(gpus) // per_node
        near = np.where(node[:, None] == node, sent, 0)
        sums = [np.maximum(part.sum(axis=0), part.sum(axis=1)).max() for part in (near, sent - near)]
        messages.append([sent.max(), *sums])
    return list(volumes.values()), loads, active, np.array(messages)


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=40, deadline=None)
@given(pair=placed_traces(), batch=st.integers(1, 40), order=st.sampled_from(["steps", "recorded"]))
def test_counts_are_those_of_counting_token_by_token(
    rule: str, pair: tuple[Placement, Trace], batch: int, order: str
) -> None:
    placement, trace = pair
    watched = Watched(RULES[rule], [])
    found = replay(placement, trace, rule=watched, batch=batch, order=order)
    assert found.batches == -(-trace.n_tokens // batch)
    assert len(watched.seen) == len(placement.layer_ids)
    rows = sorted(
        range(trace.n_tokens),
        key=lambda t: (trace.phase[t], trace.position[t], trace.request[t], t) if order == "steps" else t,
    )
    per_node = placement.gpus // placement.nodes
    for index, (experts, served, source) in enumerate(watched.seen):
        at = trace.layer_ids.tolist().index(placement.layer_ids[index])
        assert (experts == trace.experts[rows, at]).all()
        assert (source == trace.request[rows] % placement.gpus).all()
        assert placement.hosts[index][experts, served].all()
        volumes, loads, active, _ = counted(
            experts, served, source, per_node=per_node, gpus=placement.gpus, batch=batch
        )
        assert found.volumes[index].tolist() == volumes
        assert (found.traffic.loads[index] == loads).all()
        assert found.activated[index] == pytest.approx(active / found.batches)
    assert (found.batch_volumes.sum(axis=0) == found.volumes.sum(axis=0)).all()
    assert (found.traffic.loads.sum(axis=1) == trace.n_tokens * trace.top_k).all()
    assert (found.traffic.gpus_touched.sum(axis=1) == found.vectors("gpus")).all()
    assert (found.traffic.nodes_touched.sum(axis=1) == found.vectors("nodes")).all()


@settings(max_examples=60, deadline=None)
@given(pair=placed_traces(), batch=st.integers(1, 40), node_cost=st.integers(0, 2))
def test_cover_is_the_traffic_of_the_cheapest_plan(
    pair: tuple[Placement, Trace], batch: int, node_cost: int
) -> None:
    placement, trace = pair
    per_node = placement.gpus // placement.nodes
    workload = Workload.from_layers(trace, placement.layer_ids)
    plan = cover_plan(placement, workload, node_cost=node_cost)
    cluster = Cluster(placement.nodes, per_node, trace.n_experts, 1, node_cost)
    wanted = Traffic.of(Problem(workload, cluster), plan)
    found = replay(placement, trace, batch=batch, node_cost=node_cost).traffic
    assert (found.layer_ids, found.families) == (wanted.layer_ids, wanted.families)
    for name in ("tokens", "gpus_touched", "nodes_touched", "loads"):
        assert (getattr(found, name) == getattr(wanted, name)).all(), name


@settings(max_examples=30, deadline=None)
@given(pair=placed_traces(copies=False), batch=st.integers(1, 40))
def test_a_partition_is_served_alike_by_every_rule(pair: tuple[Placement, Trace], batch: int) -> None:
    answers = [replay(*pair, rule=rule, batch=batch).to_dict() for rule in RULES]
    for other in answers:
        assert {**other, "rule": ""} == {**answers[0], "rule": ""}


@settings(max_examples=40, deadline=None)
@given(pair=placed_traces(), rule=st.sampled_from(list(RULES)), batch=st.integers(1, 40))
def test_volumes_order_as_they_must(pair: tuple[Placement, Trace], rule: str, batch: int) -> None:
    found = replay(*pair, rule=rule, batch=batch)
    for less, more in (
        ("nodes", "gpus"),
        ("gpus", "experts"),
        ("remote_nodes", "off_node_gpus"),
        ("off_node_gpus", "remote_gpus"),
        ("off_node_gpus", "off_node_experts"),
        ("off_node_experts", "remote_experts"),
        ("remote_gpus", "remote_experts"),
        ("remote_gpus", "padded"),
    ):
        assert (found.vectors(less) <= found.vectors(more)).all(), (less, more)


@settings(max_examples=25, deadline=None)
@given(pair=placed_traces(), rule=st.sampled_from(list(RULES)), batch=st.integers(1, 8))
def test_slices_do_not_show(pair: tuple[Placement, Trace], rule: str, batch: int) -> None:
    placement, trace = pair
    settings_of: dict[str, Any] = {"rule": rule, "batch": batch, "model": shape_of(trace), "machine": MACHINE}
    whole = replay(placement, trace, **settings_of)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replay_layers, "SLICE", 4)
        sliced = replay(placement, trace, **settings_of)
    assert whole.batch_seconds is not None
    assert sliced.batch_seconds is not None
    assert (whole.batch_seconds.total == sliced.batch_seconds.total).all()
    for name in ("volumes", "batch_volumes", "activated"):
        assert (getattr(whole, name) == getattr(sliced, name)).all()
    assert (whole.traffic.loads == sliced.traffic.loads).all()


@settings(max_examples=25, deadline=None)
@given(pair=placed_traces(), batch=st.integers(1, 12), padded=st.booleans())
def test_seconds_are_the_model_of_the_counts(pair: tuple[Placement, Trace], batch: int, padded: bool) -> None:
    placement, trace = pair
    shape, machine = shape_of(trace), replace(MACHINE, padded=padded)
    watched = Watched(RULES["nearest"], [])
    found = replay(placement, trace, rule=watched, batch=batch, model=shape, machine=machine)
    assert found.vector_bytes == 8
    assert found.batch_seconds is not None
    assert found.layer_seconds is not None
    work, per_node = ExpertWork.of(shape, vector_bytes=8), placement.gpus // placement.nodes
    total = np.zeros(found.batches)
    for index, (experts, served, source) in enumerate(watched.seen):
        loads, activated = np.zeros((2, found.batches, placement.gpus), int)
        for t, gpus in enumerate(served):
            np.add.at(loads[t // batch], gpus, 1)
        for b in range(found.batches):
            part = slice(b * batch, (b + 1) * batch)
            pairs = np.unique(np.stack([served[part].ravel(), experts[part].ravel()]), axis=1)
            activated[b] = np.bincount(pairs[0], minlength=placement.gpus)
        messages = counted(experts, served, source, per_node=per_node, gpus=placement.gpus, batch=batch)[3]
        largest, near, far = messages.T
        counts = BatchCounts(loads, activated, largest, near, far, per_node)
        wanted = batch_seconds(counts, machine, work=work)
        assert found.layer_seconds.only(index).to_dict() == pytest.approx(wanted.to_dict())
        total = total + wanted.total
    assert found.batch_seconds.total == pytest.approx(total)
    assert found.to_dict()["seconds"] == pytest.approx(found.batch_seconds.to_dict())


def tiny(**settings: Any) -> Replay:
    """Two layers of 4 experts on 2 GPUs, 6 tokens."""
    trace = Trace(np.array([[[0, 1], [2, 3]]] * 6), 4, request=np.arange(6, dtype=np.int32))
    placement = Placement.partition([[0, 0, 1, 1], [0, 1, 0, 1]], Cluster(1, 2, 2), layer_ids=(0, 1))
    return replay(placement, trace, **settings)


def test_homes_are_free_and_may_be_given() -> None:
    found = tiny(batch=2)
    assert found.traffic.gpus_touched.tolist() == [[6], [12]]
    assert found.vectors("remote_gpus").tolist() == [3, 6]
    assert found.vectors("remote_experts").tolist() == [6, 6]
    assert found.vectors("padded").tolist() == [6, 6]
    assert found.local_share == 0.5
    assert found.batch_volumes[:, list(VOLUMES).index("remote_gpus")].tolist() == [3, 3, 3]
    assert tiny(batch=10**30).to_dict()["median_batch"]["gpus"] == 18
    assert tiny(ranks=[0] * 6).vectors("remote_gpus").tolist() == [0, 6]
    assert tiny(ranks=[1] * 6).vectors("remote_gpus").tolist() == [6, 6]
    assert tiny(vector_bytes=10).dispatched_bytes("remote_gpus").tolist() == [30, 60]
    assert [row["fan_out"] for row in found.to_dict()["layers"]] == [0.0, 1.0]


def test_layers_come_in_the_order_of_the_placement() -> None:
    trace = mo.Generator(
        layers=3, experts=8, top_k=2, tokens=200, requests=9, group_size=3, seed=2
    ).generate()
    gpu_of = np.stack([np.arange(8) // 2, np.arange(8) % 4])
    placement = Placement.partition(gpu_of, Cluster(2, 2, 2), layer_ids=(2, 0))
    both = replay(placement, trace)
    for index in range(2):
        alone = replay(placement.layer(index), trace)
        assert both.to_dict()["layers"][index] == alone.to_dict()["layers"][0]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rule": "nearby"}, "no dispatch rule is named 'nearby'"),
        ({"batch": 0}, "batch must be a whole number, at least 1, found 0"),
        ({"batch": 2.5}, "batch must be a whole number, at least 1, found 2.5"),
        ({"order": "shuffled"}, "order must be one of steps, recorded, found 'shuffled'"),
        ({"ranks": [0, 1]}, r"one for each of 6 tokens, found shape \(2,\)"),
        ({"ranks": [0.5] * 6}, "float64"),
        ({"ranks": [0, 1, 2, 0, 0, 0]}, r"ranks must be GPUs 0\.\.1, found 2"),
        ({"model": "magic"}, "no model is named 'magic'"),
        ({"model": "mixtral-8x7b"}, "mixtral-8x7b has 8 experts a layer, the trace 4"),
        ({"machine": MACHINE}, "seconds need the model's experts"),
        ({"vector_bytes": 0}, "vector_bytes must be a whole number, at least 1, found 0"),
        ({"node_cost": -1}, "node_cost must be at least 0, found -1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        tiny(**settings)


def test_a_placement_that_does_not_fit_is_refused() -> None:
    trace = Trace(np.array([[[0, 1]]]), 4, layer_ids=np.array([3], np.int32))
    with pytest.raises(ValueError, match="the placement has 5 experts a layer, the trace 4"):
        replay(Placement.partition([[0] * 5], Cluster(1, 2, 5), layer_ids=(3,)), trace)
    with pytest.raises(ValueError, match=r"layer 2 is not in the trace, whose layers are \[3\]"):
        replay(Placement.partition([[0] * 4], Cluster(1, 2, 4), layer_ids=(2,)), trace)
    many = Placement.partition([[0] * 4], Cluster(1, 4097, 4), layer_ids=(3,))
    with pytest.raises(ValueError, match="at most 4096, found 4097"):
        replay(many, trace)
    with pytest.raises(ValueError, match="bytes of a vector are not known"):
        tiny().dispatched_bytes("padded")


@dataclass(frozen=True)
class Wrong(Cover):
    """Serves whatever it was made with."""

    served: Any = None

    def assign(self, experts: NDArray[np.int32], hosts: NDArray[np.bool_], **_: Any) -> Any:
        return self.served


@pytest.mark.parametrize(
    ("served", "words"),
    [
        (np.zeros((6, 2), np.int32), "GPU 0 does not hold expert 3"),
        (np.full((6, 2), -1, np.int32), "GPU -1 does not hold expert 0"),
        (np.full((6, 2), 2, np.int32), "GPU 2 does not hold expert 0"),
        (np.zeros((6, 1), np.int32), r"must serve int32 \(6, 2\), found int32 \(6, 1\)"),
        (np.zeros((6, 2)), "found float64"),
    ],
)
def test_a_rule_is_not_trusted(served: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        tiny(rule=Wrong(served))
