"""Volumes between nodes, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from moeopt.cluster import Cluster
from moeopt.node_volumes import between_nodes, mixed_ranks
from moeopt.placement import Placement
from moeopt.trace import Trace
from tests.batch_strategies import family_trace

TRACE = Trace(np.array([[[0, 1]], [[2, 3]], [[0, 2]]]), 4, request=np.array([0, 0, 1], np.int32))
LINEAR = Placement.partition(
    np.array([[0, 0, 1, 1]]), Cluster(nodes=2, gpus_per_node=1, slots=2), layer_ids=[0]
)


def test_every_remote_expert_counts_and_every_remote_node_once() -> None:
    found = between_nodes(LINEAR, TRACE, ranks=np.array([0, 0, 1]))
    assert (found.experts, found.remote, found.nodes) == (6, 3, 2)
    assert found.busiest == pytest.approx(4 / 3)
    assert found.padded >= found.nodes
    assert found.over(found) == {"remote": 1.0, "nodes": 1.0, "padded": 1.0}


def test_nothing_is_relative_to_nothing() -> None:
    still = between_nodes(LINEAR, TRACE.take(np.array([0])), ranks=np.array([0]))
    assert still.remote == 0
    assert set(still.over(still).values()) == {None}


def test_a_copy_at_home_saves_its_activations() -> None:
    hosts = LINEAR.hosts.copy()
    hosts[0, 2, 0] = True
    copied = Placement(hosts, LINEAR.primary, 2, 3, (0,))
    assert between_nodes(copied, TRACE, ranks=np.array([0, 0, 1])).remote == 2


def test_requests_are_dealt_equally_and_stay_whole() -> None:
    trace = family_trace()
    ranks = mixed_ranks(trace, 5, seed=0)
    homes = [set(ranks[trace.request == request]) for request in np.unique(trace.request)]
    assert all(len(home) == 1 for home in homes)
    assert np.bincount([home.pop() for home in homes]).tolist() == [3, 3, 2, 2, 2]
    assert not np.array_equal(ranks, mixed_ranks(trace, 5, seed=1))


def test_nodes_have_one_gpu_each() -> None:
    cluster = Cluster(nodes=1, gpus_per_node=2, slots=2)
    placement = Placement.partition(np.array([[0, 0, 1, 1]]), cluster, layer_ids=[0])
    with pytest.raises(ValueError, match="one GPU each, found 2 on 1 nodes"):
        between_nodes(placement, TRACE, ranks=np.array([0, 0, 1]))
