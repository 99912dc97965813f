"""DeepSeek's load balancer, by its rules: copies by load, equal counts, nodes first, duplicates mended."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeopt.cluster import Cluster
from moeopt.eplb_packing import Packing, copied, duplicates_of, is_hierarchical, packed
from moeopt.heuristics.eplb import Eplb
from moeopt.problem import Problem
from moeopt.stop import Stop
from moeopt.trace import Trace


def problem_of(load: list[int], cluster: Cluster, replicas: int = 0) -> Problem:
    trace = Trace(np.repeat(np.arange(len(load)), load)[:, None, None], len(load))
    return Problem.from_trace(trace, cluster, replicas=replicas)


def contents(packing: Packing, gpus: int) -> list[list[int]]:
    return [sorted(packing.expert[packing.gpu == gpu].tolist()) for gpu in range(gpus)]


def test_the_example_of_its_description_comes_out() -> None:
    # Two layers of 12 experts, 16 copies, 4 groups, 2 nodes, 8 GPUs.
    cluster = Cluster(2, 4, 2)
    first = problem_of([90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86], cluster, 4)
    second = problem_of([20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27], cluster, 4)
    assert contents(Packing.of(first, groups=4), 8) == [
        [5, 6], [5, 7], [4, 8], [3, 4], [9, 10], [2, 10], [0, 1], [1, 11]
    ]  # fmt: skip
    assert contents(Packing.of(second, groups=4), 8) == [
        [7, 10], [6, 8], [6, 11], [8, 9], [2, 4], [1, 5], [0, 5], [1, 3]
    ]  # fmt: skip


def test_every_further_copy_is_of_the_expert_with_most_load_on_each_copy() -> None:
    assert copied(np.array([10, 6, 1]), 3).tolist() == [0, 1, 2]
    assert copied(np.array([10, 6, 1]), 7).tolist() == [0, 1, 2, 0, 1, 0, 0]  # 10, 6, 5, 3.33


def test_packs_take_the_heaviest_first_and_never_more_than_their_size() -> None:
    assert packed(np.array([5, 4, 3, 3, 1, 1]), np.array([3, 3])).tolist() == [0, 1, 1, 0, 1, 0]
    assert packed(np.array([9, 1, 1, 1]), np.array([2, 2])).tolist() == [0, 1, 1, 0]
    assert packed(np.array([1, 9, 5]), np.array([1, 1, 1])).tolist() == [0, 1, 2]  # in the order given


def test_one_group_a_node_and_no_replicas_leave_the_nodes_linear() -> None:
    problem = problem_of([9, 1, 1, 8, 7, 2, 3, 4], Cluster(2, 2, 2))
    placement = Eplb().solve(problem, stop=Stop(seconds=None), seed=0).placement
    assert placement is not None
    assert problem.cluster.node_of[placement.primary[0]].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


def test_where_counts_do_not_divide_the_nodes_are_forgotten() -> None:
    cluster = Cluster(2, 2, 3)
    load = [9, 1, 1, 8, 7, 2, 3, 4]
    assert is_hierarchical(problem_of(load, cluster), groups=2)
    assert is_hierarchical(problem_of(load, cluster, 2), groups=4)
    assert not is_hierarchical(problem_of(load, cluster), groups=1)
    assert not is_hierarchical(problem_of(load, cluster), groups=3)
    assert not is_hierarchical(problem_of(load, cluster, 1), groups=2)
    assert not is_hierarchical(problem_of(load, Cluster(1, 4, 3)), groups=2)
    assert not is_hierarchical(problem_of(load, Cluster(2, 2, (1, 2, 3, 3))), groups=2)


def test_an_expert_with_more_copies_than_gpus_loses_the_others() -> None:
    problem = problem_of([100, 1, 1], Cluster(1, 2, 3), replicas=3)
    packing, duplicates = duplicates_of(problem)
    assert contents(packing, 2) == [[0, 0, 1], [0, 0, 2]]
    assert duplicates == 2
    assert contents(packing.mended(), 2) == [[0, 1], [0, 2]]


def test_a_duplicate_changes_places_with_the_copy_of_nearest_load() -> None:
    packing = Packing(np.array([0, 0, 1, 2]), np.array([0, 0, 1, 1]), np.array([5.0, 5.0, 1.0, 4.0]))
    assert packing.extra.tolist() == [1]
    assert contents(packing.mended(), 2) == [[0, 2], [0, 1]]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 9999), gpus=st.integers(2, 4), replicas=st.integers(0, 8))
def test_mended_packings_have_no_duplicates_and_every_expert(seed: int, gpus: int, replicas: int) -> None:
    load = np.random.default_rng(seed).lognormal(2.0, 1.5, 6).astype(int) + 1
    problem = problem_of(load.tolist(), Cluster(1, gpus, 6), min(replicas, 6 * gpus - 6))
    packing, duplicates = duplicates_of(problem)
    mended = packing.mended()
    assert (duplicates == 0) == (mended is packing)
    assert len(mended.extra) == 0
    assert set(mended.expert.tolist()) == set(range(6))
    before, after = (np.bincount(found.gpu, minlength=gpus) for found in (packing, mended))
    assert (after <= before).all()
    assert (before - after).sum() <= duplicates
    total = np.bincount(mended.expert, weights=mended.load)
    assert total == pytest.approx(load)


def test_groups_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="groups must be at least 1, found 0"):
        Eplb(groups=0)
