"""Growth, exchanges and sizes of groups by affinity."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeopt.affinity_groups import affinity_inside, exchanged, fitted, grown


def drawn(seed: int, experts: int) -> np.ndarray:
    upper = np.triu(np.random.default_rng(seed).integers(0, 20, (experts, experts)), 1)
    return upper + upper.T


def test_affinity_inside_counts_each_pair_once() -> None:
    affinity = np.array([[0, 3, 1], [3, 0, 2], [1, 2, 0]])
    assert affinity_inside(affinity, np.array([0, 0, 1])) == 3
    assert affinity_inside(affinity, np.zeros(3, np.int64)) == 6


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 999), sizes=st.lists(st.integers(0, 4), min_size=1, max_size=4), pairs=st.booleans()
)
def test_growth_and_exchanges_keep_the_sizes(seed: int, sizes: list[int], pairs: bool) -> None:
    if not sum(sizes):
        return
    affinity = drawn(seed, sum(sizes))
    gpu_of = grown(affinity, np.array(sizes), pairs=pairs)
    better = exchanged(affinity, gpu_of)
    for found in (gpu_of, better):
        assert np.bincount(found, minlength=len(sizes)).tolist() == sizes
    assert affinity_inside(affinity, better) >= affinity_inside(affinity, gpu_of)


def test_a_group_of_two_is_opened_by_the_best_free_pair_when_pairs_open() -> None:
    affinity = np.zeros((4, 4), np.int64)
    for (i, j), value in {(0, 1): 5, (0, 2): 5, (0, 3): 5, (1, 2): 6}.items():
        affinity[i, j] = affinity[j, i] = value
    assert grown(affinity, np.array([2, 2])).tolist() == [0, 0, 1, 1]  # 0 has the largest degree
    assert grown(affinity, np.array([2, 2]), pairs=True).tolist() == [1, 0, 0, 1]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 999), experts=st.integers(1, 9), groups=st.integers(1, 4), data=st.data())
def test_fitted_groups_have_the_sizes_asked_for(
    seed: int, experts: int, groups: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    group_of = rng.integers(0, groups, experts)
    sizes = np.bincount(rng.integers(0, groups, experts), minlength=groups)
    least = np.maximum(0, sizes - data.draw(st.integers(0, 2)))
    most = sizes + data.draw(st.integers(0, 2))
    found = np.bincount(fitted(drawn(seed, experts), group_of, least=least, most=most), minlength=groups)
    assert (least <= found).all()
    assert (found <= most).all()


def test_groups_that_have_their_sizes_are_left_alone() -> None:
    group_of = np.array([1, 0, 1, 0])
    kept = fitted(drawn(0, 4), group_of, least=np.array([1, 1]), most=np.array([2, 2]))
    assert kept.tolist() == group_of.tolist()


def test_the_member_of_least_affinity_leaves_a_group_that_is_too_large() -> None:
    affinity = np.array([[0, 9, 9, 1], [9, 0, 9, 1], [9, 9, 0, 0], [1, 1, 0, 0]])
    found = fitted(affinity, np.zeros(4, np.int64), least=np.array([0, 0]), most=np.array([3, 1]))
    assert found.tolist() == [0, 0, 0, 1]


def test_sizes_that_cannot_be_kept_are_refused() -> None:
    for least, most in (([0, 0], [1, 1]), ([3, 3], [4, 4]), ([2, 0], [1, 5])):
        with pytest.raises(ValueError, match="4 experts do not fill groups of"):
            fitted(drawn(0, 4), np.zeros(4, np.int64), least=np.array(least), most=np.array(most))
