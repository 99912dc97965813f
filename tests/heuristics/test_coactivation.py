"""Groups grown by co-activation, all together or one GPU after the other."""

from __future__ import annotations

import numpy as np
import pytest

from moeopt.cluster import Cluster
from moeopt.heuristics.coactivation import Coactivation
from moeopt.problem import Problem
from moeopt.stop import Stop
from moeopt.trace import Trace

PAIRS = {(0, 1): 5, (1, 2): 4, (3, 4): 6, (4, 5): 1, (2, 3): 3}


def labels(cluster: Cluster, growth: str) -> list[int]:
    tokens = np.repeat(np.array(list(PAIRS)), list(PAIRS.values()), axis=0)
    problem = Problem.from_trace(Trace(tokens[:, None, :], 6), cluster)
    placement = Coactivation(growth).solve(problem, stop=Stop(seconds=None), seed=0).placement
    assert placement is not None
    return [int(gpu) for gpu in placement.primary[0]]


def test_a_group_is_opened_by_the_largest_degree_and_grows_by_affinity() -> None:
    # Degrees 5, 9, 7, 9, 7, 1: expert 1 opens, 0 joins with 5, then 2 with 4.
    assert labels(Cluster(1, 2, 3), "one-by-one") == [0, 0, 0, 1, 1, 1]


def test_greed_leaves_the_rest_to_the_last_gpu() -> None:
    # 1 takes 0, then 3 takes 4; 2 and 5, never together, are left.
    assert labels(Cluster(1, 3, 2), "one-by-one") == [0, 0, 2, 1, 1, 2]


def test_unequal_slots_are_filled_as_evenly_as_they_allow() -> None:
    assert labels(Cluster(1, 3, (1, 4, 1)), "one-by-one") == [2, 0, 1, 1, 1, 1]


def test_together_every_gpu_gets_a_hot_expert_before_any_grows() -> None:
    # 1 and 3 open; 4 joins 3 with 6, 0 joins 1 with 5, 2 joins 0 and 1 with 4; 5 is left to 3 and 4.
    assert labels(Cluster(1, 2, 3), "together") == [0, 0, 0, 1, 1, 1]
    # 1, 3 and 2 open, in order of degree: 2 is no longer free for 1 or 3.
    assert labels(Cluster(1, 3, 2), "together") == [0, 0, 2, 1, 1, 2]
    assert labels(Cluster(1, 3, (1, 4, 1)), "together") == [1, 0, 2, 1, 1, 1]


def test_an_unknown_growth_is_refused() -> None:
    with pytest.raises(ValueError, match="growth must be one of together, one-by-one, found 'apart'"):
        Coactivation("apart")
