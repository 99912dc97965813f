"""A cluster refuses what is no cluster, and has one spelling for what is equal."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeopt.cluster import Cluster


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"nodes": 0}, "nodes must be at least 1, found 0"),
        ({"nodes": 1.0}, r"nodes must be a whole number, found 1\.0"),
        ({"nodes": True}, "nodes must be a whole number, found True"),
        ({"gpus_per_node": 0}, "gpus_per_node must be at least 1, found 0"),
        (
            {"nodes": 10_000, "gpus_per_node": 10_000},
            "nodes x gpus_per_node must be at most 65536, found 10000",
        ),
        ({"slots": 0}, "slots must be at least 1, found 0"),
        ({"slots": 2.5}, r"slots must be one whole number or one for each GPU, found 2\.5"),
        ({"slots": 10**30}, "slots must be at most"),
        ({"slots": True}, "slots must be a whole number, found True"),
        ({"gpus_per_node": 2, "slots": (1, 2, 3)}, "one number or 2 numbers, found 3"),
        ({"gpus_per_node": 2, "slots": (1, -1)}, "slots of GPU 1 must be at least 0, found -1"),
        ({"gpus_per_node": 2, "slots": "22"}, "slots of GPU 0 must be a whole number, found '2'"),
        ({"gpu_cost": -1}, "gpu_cost must be at least 0, found -1"),
        ({"gpu_cost": 0.5}, r"gpu_cost must be a whole number, found 0\.5"),
        ({"gpu_cost": 0}, "gpu_cost and node_cost are both 0"),
        ({"gpu_cost": 600, "node_cost": 401}, r"gpu_cost \+ node_cost must be at most 1000, found 1001"),
    ],
)
def test_what_is_no_cluster_is_refused_with_rule_and_value(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Cluster(**fields)


def test_equal_slots_have_one_spelling() -> None:
    assert Cluster(1, 2, (3, 3)) == Cluster(1, 2, 3)
    assert hash(Cluster(1, 2, (3, 3))) == hash(Cluster(1, 2, np.int64(3)))  # type: ignore[arg-type]
    assert Cluster(1, 2, (3, 3)).equal
    assert not Cluster(1, 2, (3, 4)).equal
    assert not Cluster(1, 2, (0, 0)).equal  # 0 is no number of slots for all


def test_gpus_belong_to_nodes_in_order() -> None:
    cluster = Cluster(2, 3, (1, 2, 3, 4, 5, 6))
    assert cluster.gpus == 6
    assert cluster.node_of.tolist() == [0, 0, 0, 1, 1, 1]
    assert cluster.slots_of.tolist() == [1, 2, 3, 4, 5, 6]


def test_a_cluster_from_its_number_of_gpus() -> None:
    assert Cluster.of(gpus=8, nodes=2, slots=3, gpu_cost=2, node_cost=9) == Cluster(2, 4, 3, 2, 9)
    with pytest.raises(ValueError, match="gpus must be divisible by nodes, found 7 GPUs on 2 nodes"):
        Cluster.of(gpus=7, nodes=2, slots=1)


@given(
    nodes=st.integers(1, 4),
    per_node=st.integers(1, 4),
    data=st.data(),
    gpu_cost=st.integers(1, 5),
    node_cost=st.integers(0, 5),
)
def test_a_cluster_survives_its_document(
    nodes: int, per_node: int, data: st.DataObject, gpu_cost: int, node_cost: int
) -> None:
    count = nodes * per_node
    slots = data.draw(st.one_of(st.integers(1, 9), st.tuples(*[st.integers(0, 9)] * count)))
    cluster = Cluster(nodes, per_node, slots, gpu_cost, node_cost)
    assert Cluster.from_dict(cluster.to_dict()) == cluster


@pytest.mark.parametrize("value", [None, "4", 4.0, True, [1.5]])
def test_a_document_with_a_wrong_type_is_refused(value: Any) -> None:
    document = Cluster(1, 1, 4).to_dict()
    for name in document:
        with pytest.raises(ValueError, match=name):
            Cluster.from_dict(document | {name: value})
    for name in document:
        with pytest.raises(ValueError, match=f"field '{name}' is missing"):
            Cluster.from_dict({key: found for key, found in document.items() if key != name})


def test_speeds_have_one_spelling_and_survive_their_document() -> None:
    equal = Cluster(1, 3, 2, speeds=(4, 4, 4))
    assert equal == Cluster(1, 3, 2)
    assert equal.speeds == 1
    assert equal.equal
    assert "speeds" not in equal.to_dict()
    unequal = Cluster(1, 3, 2, speeds=[1, 2, 2])  # type: ignore[arg-type]
    assert unequal.speeds == (1, 2, 2)
    assert unequal.speeds_of.tolist() == [1, 2, 2]
    assert equal.speeds_of.tolist() == [1, 1, 1]
    assert not unequal.equal
    assert not Cluster(1, 2, (1, 2)).equal
    assert Cluster.from_dict(json.loads(json.dumps(unequal.to_dict()))) == unequal
    assert hash(unequal) == hash(Cluster(1, 3, 2, speeds=(1, 2, 2)))


@pytest.mark.parametrize(
    ("speeds", "words"),
    [
        (0, "speeds must be at least 1, found 0"),
        (1.5, r"speeds must be one whole number or one for each GPU, found 1\.5"),
        ((1, 2), "speeds must be one number or 3 numbers, found 2"),
        ((1, 0, 2), "speeds of GPU 1 must be at least 1, found 0"),
        ((1, 2, True), "speeds of GPU 2 must be a whole number, found True"),
        ((1, 2, 1 << 40), "speeds of GPU 2 must be at most 2147483648"),
    ],
)
def test_speeds_that_are_none_are_refused(speeds: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Cluster(1, 3, 2, speeds=speeds)
