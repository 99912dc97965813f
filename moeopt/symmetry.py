"""Labels that mean nothing: of all renamings of groups that are alike, one is kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["FirstRow", "alike", "first_rows", "renumbered"]


class FirstRow(NamedTuple):
    """sum over g in `later` of v[item, g] <= sum over j in `earlier` of v[j, before]; v[i,g] = 1: i is in group g."""

    item: int
    later: tuple[int, ...]
    earlier: tuple[int, ...]
    before: int


def alike(*traits: ArrayLike) -> list[tuple[int, ...]]:
    """The groups that agree in every trait [groups], ascending; only classes of two or more."""
    table = np.stack([np.asarray(trait) for trait in traits], axis=1)
    class_of = np.unique(table, axis=0, return_inverse=True)[1].ravel()
    classes = (np.flatnonzero(class_of == number) for number in range(int(class_of.max()) + 1))
    return [tuple(members.tolist()) for members in classes if len(members) > 1]


def first_rows(classes: Sequence[Sequence[int]], items: Sequence[int]) -> Iterator[FirstRow]:
    """Rows that keep one numbering of alike groups, for items that are in one group each.

    In the order of `items`, the first item of a group comes before the first item of the next group of its class,
    and groups without items are last. Some numbering of every partition has this form, and only one.
    """
    for members in classes:
        for position, item in enumerate(items):
            for at in range(1, len(members)):
                yield FirstRow(item, tuple(members[at:]), tuple(items[:position]), members[at - 1])


def renumbered(
    group_of: NDArray[np.integer[Any]], classes: Sequence[Sequence[int]], *, groups: int
) -> NDArray[np.intp]:
    """The numbering that `first_rows` keeps: intp [groups], the new name of every group.

    `group_of` int [items] is in the order of the rows.
    """
    first = np.full(groups, len(group_of))
    np.minimum.at(first, group_of, np.arange(len(group_of)))
    name_of = np.arange(groups)
    for members in classes:
        seen = np.array(members)
        name_of[seen[np.argsort(first[seen], kind="stable")]] = seen
    return name_of
