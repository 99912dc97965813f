"""What clique partitions say of groups and triangles holds for every partition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeopt.cliques import Groups, broken_triangles, every_triangle, pair_square, triangle_rows


@settings(max_examples=60, deadline=None)
@given(
    slots=st.integers(1, 4),
    groups=st.integers(1, 4),
    experts=st.integers(2, 9),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_partition_keeps_the_rows_of_its_groups(
    slots: int, groups: int, experts: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    group_of = rng.permutation(np.repeat(np.arange(groups), slots))[:experts]
    experts = group_of.size
    if experts < 2:
        return
    load = rng.integers(0, 9, experts)
    cap = int(np.bincount(group_of, load).max())
    limits = Groups.of(load, groups=groups, slots=slots, cap=cap)
    y = (group_of[:, None] == group_of)[np.triu_indices(experts, 1)].astype(float)
    for rows, lower, upper in zip(*limits.rows(), strict=True):
        assert (lower <= rows @ y).all()
        assert (rows @ y <= upper).all()
    assert np.unique(group_of).size <= max(groups, limits.most)
    assert len(broken_triangles(pair_square(experts, y))[0]) == 0


@settings(max_examples=60, deadline=None)
@given(experts=st.integers(2, 7), seed=st.integers(0, 2**32 - 1))
def test_the_broken_triangles_are_those_whose_rows_are_broken(experts: int, seed: int) -> None:
    y = np.random.default_rng(seed).random(experts * (experts - 1) // 2)
    keys = every_triangle(experts)
    assert len(keys) == experts * (experts - 1) * (experts - 2) // 2
    excess = triangle_rows(keys, experts=experts, width=y.size) @ y - 1.0
    found, amount = broken_triangles(pair_square(experts, y))
    wanted = {tuple(key): value for key, value in zip(keys.tolist(), excess, strict=True) if value > 1e-6}
    assert {tuple(key) for key in found.tolist()} == set(wanted)
    assert amount == pytest.approx([wanted[tuple(key)] for key in found.tolist()])


def test_groups_know_what_the_others_cannot_take() -> None:
    limits = Groups.of(np.array([5, 1, 1, 1, 1, 1, 1]), groups=3, slots=3, cap=5)
    assert (limits.least, limits.least_load, limits.full, limits.most) == (1, 1, 6, 7)
    assert Groups.of(np.ones(6, np.int64), groups=2, slots=3, cap=None).full is None
    assert Groups.of(np.ones(3, np.int64), groups=2, slots=9, cap=None).slots == 3
