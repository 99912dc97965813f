"""Experts in order of frequency: runs of them share a GPU, or they are dealt to and fro."""

from __future__ import annotations

import numpy as np
import pytest

from moeopt.cluster import Cluster
from moeopt.heuristics.frequency import Frequency
from moeopt.problem import Problem
from moeopt.stop import Stop
from moeopt.trace import Trace

FREELY = Stop(seconds=None)


def labels(order: str, load: list[int], cluster: Cluster) -> list[int]:
    trace = Trace(np.repeat(np.arange(len(load)), load)[:, None, None], len(load))
    problem = Problem.from_trace(trace, cluster)
    placement = Frequency(order).solve(problem, stop=FREELY, seed=0).placement
    assert placement is not None
    return [int(gpu) for gpu in placement.primary[0]]


def test_the_most_frequent_experts_fill_the_first_gpu() -> None:
    assert labels("runs", [1, 5, 3, 2, 4, 6], Cluster(1, 3, 2)) == [2, 0, 1, 2, 1, 0]
    assert labels("runs", [1, 5, 3, 2, 4, 6], Cluster(1, 3, (1, 4, 1))) == [2, 1, 1, 1, 1, 0]


def test_the_snake_deals_to_and_fro_and_passes_over_full_gpus() -> None:
    assert labels("snake", [1, 5, 3, 2, 4, 6], Cluster(1, 3, 2)) == [0, 1, 2, 1, 2, 0]
    assert labels("snake", [6, 5, 4, 3, 2, 1], Cluster(1, 3, (1, 4, 1))) == [0, 1, 2, 1, 1, 1]


def test_of_experts_of_one_frequency_the_lower_ids_come_first() -> None:
    assert labels("runs", [2, 2, 2, 2], Cluster(1, 2, 2)) == [0, 0, 1, 1]


def test_the_snake_is_even_and_the_runs_are_not() -> None:
    load = np.array([8, 7, 6, 5, 4, 3, 2, 1])
    carried = {
        order: np.bincount(labels(order, load.tolist(), Cluster(1, 2, 4)), weights=load).tolist()
        for order in ("runs", "snake")
    }
    assert carried == {"runs": [26, 10], "snake": [18, 18]}


def test_an_unknown_order_is_refused() -> None:
    with pytest.raises(ValueError, match="order must be one of runs, snake, found 'zigzag'"):
        Frequency("zigzag")
