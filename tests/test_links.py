"""What problems about several layers share."""

from __future__ import annotations

import numpy as np
import pytest

from moeopt import links
from moeopt.cluster import Cluster


def test_the_way_to_another_node_costs_both_prices() -> None:
    cluster = Cluster(2, 2, 1, gpu_cost=2, node_cost=5)
    assert links.distances(cluster).tolist() == [[0, 2, 7, 7], [2, 0, 7, 7], [7, 7, 0, 2], [7, 7, 2, 0]]


def test_every_seating_keeps_the_slots() -> None:
    found = links.every_seating(np.array([2, 1]), experts=3)
    assert found == [(0, 0, 1), (0, 1, 0), (1, 0, 0)]


def test_counts_are_copied_and_frozen() -> None:
    values = np.ones((2, 3), np.uint8)
    counts = links.whole_counts("counts", values, shape=(None, 3))
    values[0, 0] = 9
    assert counts.dtype == np.int64
    assert counts[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        counts[0, 0] = 2


def test_fingerprints_tell_facts_shapes_and_numbers_apart() -> None:
    row, column = np.zeros((1, 4), np.int64), np.zeros((4, 1), np.int64)
    prints = {
        links.fingerprint("a", 1, row),
        links.fingerprint("b", 1, row),
        links.fingerprint("a", 2, row),
        links.fingerprint("a", 1, column),
        links.fingerprint("a", 1, row + 1),
        links.fingerprint("a", 1, row, None),
    }
    assert len(prints) == 6


def test_memory_is_enough_exactly_when_all_layers_fit_together() -> None:
    cluster = Cluster(1, 2, (3, 1))
    links.check_memory(6, cluster, layers=2, experts=4)
    with pytest.raises(
        ValueError, match="memory 5 is too small: 2 GPUs hold 7 experts, 2 layers of 4 need 8"
    ):
        links.check_memory(5, cluster, layers=2, experts=4)
