"""A placement is a value: checked, read-only, equal by content."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeopt.cluster import Cluster
from moeopt.placement import Placement

CLUSTER = Cluster(2, 2, 3)


@st.composite
def placements(draw: st.DrawFn) -> Placement:
    """Any placement of up to 3 layers, 5 experts and 4 GPUs, copies included."""
    layers, experts = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    nodes, per_node = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    gpus = nodes * per_node
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    hosts = rng.random((layers, experts, gpus)) < draw(st.sampled_from([0.0, 0.3, 0.9]))
    primary = rng.integers(0, gpus, (layers, experts), dtype=np.int32)
    np.put_along_axis(hosts, primary[..., None], True, axis=2)
    slots = draw(st.one_of(st.integers(1, 4), st.tuples(*[st.integers(0, 4)] * gpus)))
    ids = tuple(sorted(draw(st.sets(st.integers(0, 50), min_size=layers, max_size=layers))))
    return Placement(hosts, primary, nodes, slots, ids, draw(st.text(max_size=5)))


@given(placement=placements())
def test_a_placement_survives_its_document(placement: Placement) -> None:
    again = Placement.from_dict(json.loads(json.dumps(placement.to_dict())))
    assert again == placement
    assert hash(again) == hash(placement)


@given(placement=placements())
def test_layers_joined_again_are_the_placement(placement: Placement) -> None:
    parts = [placement.layer(index) for index in range(len(placement.layer_ids))]
    assert Placement.join(parts) == placement


@given(first=placements(), second=placements())
def test_placements_are_equal_when_their_content_is(first: Placement, second: Placement) -> None:
    assert (first == second) == (first.to_dict() == second.to_dict())
    assert first != first.to_dict()


def test_a_partition_has_one_copy_of_each_expert() -> None:
    placement = Placement.partition([[0, 3, 1]], CLUSTER, layer_ids=(4,))
    assert placement.is_partition
    assert placement.hosts[0].argmax(axis=1).tolist() == [0, 3, 1]
    assert (placement.n_experts, placement.gpus, placement.nodes, placement.slots) == (3, 4, 2, 3)
    copies = placement.hosts.copy()
    copies[0, 0, 1] = True
    assert not Placement(copies, placement.primary, 2, 3, (4,)).is_partition


def test_arrays_are_read_only_copies() -> None:
    hosts = np.ones((1, 2, 2), bool)
    placement = Placement(hosts, np.zeros((1, 2), np.int32), 1, 2, (0,))
    hosts[:] = False
    assert placement.hosts.all()
    for array in (placement.hosts, placement.primary):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hosts": np.ones((1, 2), bool)}, "do not fit"),
        ({"layer_ids": (1, 2)}, r"do not fit: \(1, 2, 2\), \(1, 2\), 2"),
        ({"hosts": np.ones((1, 2, 0), bool)}, "needs layers, experts and GPUs, found 1, 2, 0"),
        ({"nodes": 3}, "gpus must be divisible by nodes, found 2 GPUs on 3 nodes"),
        ({"nodes": 0}, "found 2 GPUs on 0 nodes"),
        ({"hosts": np.array([[[True, False], [False, False]]])}, "layer 7: expert 1 is on no GPU"),
        (
            {"hosts": np.array([[[True, False], [False, True]]])},
            "expert 1 has primary GPU 0, which does not hold",
        ),
        ({"primary": np.array([[0, 2]])}, "layer 7: expert 1 has primary GPU 2"),
        ({"primary": np.array([[-1, 0]])}, "layer 7: expert 0 has primary GPU -1"),
    ],
)
def test_what_is_no_placement_is_refused_with_rule_and_value(changes: dict[str, Any], words: str) -> None:
    fields: dict[str, Any] = {
        "hosts": np.ones((1, 2, 2), bool),
        "primary": np.zeros((1, 2), np.int32),
        "nodes": 1,
        "slots": 2,
        "layer_ids": (7,),
    }
    with pytest.raises(ValueError, match=words):
        Placement(**(fields | changes))


@pytest.mark.parametrize("gpu_of", [[0, 1], [[0, 4]], [[-1, 0]], [[]]])
def test_a_partition_over_other_gpus_is_refused(gpu_of: Any) -> None:
    with pytest.raises(ValueError, match=r"gpu_of must be \[layers, experts\] with GPUs 0\.\.3"):
        Placement.partition(gpu_of, CLUSTER, layer_ids=(0,))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("format", "moeopt-plan", "format must be 'moeopt-placement'"),
        ("version", 2, "version of moeopt-placement must be 1, found 2"),
        ("n_experts", 0, "1 layers of 4 GPUs and 0 experts"),
        ("gpus", 2**40, "hosts must list 1 layers"),
        ("layer_ids", [0.5], "layer_ids must be whole numbers"),
        ("layer_ids", [0, 1], "hosts must list 2 layers"),
        ("hosts", [[[0, 1], [2], []]], "hosts of layer 4 must list 4 GPUs"),
        ("hosts", [[[0, 9], [2], [], []]], r"layer 4, GPU 0: expert 9 out of range 0\.\.2"),
        ("hosts", [[[0, True], [2], [], []]], "experts must be a list of whole numbers"),
        ("hosts", [[[0, 0], [1], [2], []]], r"an expert is listed twice: \[0, 0\]"),
        ("primary", [[0, 3]], "do not fit"),
        ("primary", [[0, 3], [1]], "primary must be"),
        ("primary", [[0, 3.0, 1]], "primary must hold whole numbers.*float64"),
        ("primary", [[0, 3, 2**40]], "primary must hold whole numbers"),
        ("slots", 2.5, "field 'slots' must be int or list"),
        ("slots", [1, "2", 3, 4], "slots must be whole numbers"),
    ],
)
def test_a_document_that_makes_no_sense_is_refused(name: str, value: Any, words: str) -> None:
    document = Placement.partition([[0, 3, 1]], CLUSTER, layer_ids=(4,)).to_dict()
    with pytest.raises(ValueError, match=words):
        Placement.from_dict(document | {name: value})
    with pytest.raises(ValueError, match=name):
        Placement.from_dict({key: found for key, found in document.items() if key != name})
