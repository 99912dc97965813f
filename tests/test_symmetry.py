"""Of all numberings of alike groups exactly one keeps the rows."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from moeopt.symmetry import alike, first_rows, renumbered


@st.composite
def partitions(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """(kind of each group, group of each item)."""
    kinds = draw(st.lists(st.integers(0, 1), min_size=1, max_size=4))
    return kinds, draw(st.lists(st.integers(0, len(kinds) - 1), max_size=5))


def keeps(group_of: list[int], kinds: list[int]) -> bool:
    """Whether a partition keeps every row, evaluated as it is written."""
    return all(
        (group_of[row.item] in row.later) <= sum(group_of[item] == row.before for item in row.earlier)
        for row in first_rows(alike(kinds), range(len(group_of)))
    )


@given(partition=partitions())
def test_one_numbering_of_alike_groups_is_kept(partition: tuple[list[int], list[int]]) -> None:
    kinds, group_of = partition
    groups = range(len(kinds))
    renamings = (
        names
        for names in itertools.permutations(groups)
        if all(kinds[name] == kinds[group] for group, name in zip(groups, names, strict=True))
    )
    variants = {tuple(names[group] for group in group_of) for names in renamings}
    kept = [list(variant) for variant in variants if keeps(list(variant), kinds)]
    names = renumbered(np.array(group_of, int), alike(kinds), groups=len(kinds))
    assert sorted(names.tolist()) == list(groups)
    assert kept == [[int(names[group]) for group in group_of]]


def test_groups_are_alike_when_every_trait_agrees() -> None:
    assert alike([1, 1, 2, 1], [3, 3, 3, 4]) == [(0, 1)]
    assert alike([1, 2], [1, 1]) == []
