"""Partitions into equal groups, as pairs that share one: the arrays of clique-partition models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.sparse import csr_array

__all__ = [
    "BROKEN",
    "MOST",
    "Groups",
    "broken_triangles",
    "checked_triangles",
    "every_triangle",
    "group_block",
    "pair_square",
    "triangle_rows",
]

BROKEN = 1e-6  # violation above which a row counts as broken; HiGHS keeps rows to 1e-7
MOST = 4_000  # rows returned at once


@dataclass(frozen=True, eq=False)
class Groups:
    """What a partition of E experts into at most G groups of m slots says of each expert and of the pairs.

    | field | holds |
    |---|---|
    | experts, groups, slots | E, G, m (at most E) |
    | least | experts of the group of any expert, at least: what the other G - 1 cannot take |
    | load | int64 [experts] |
    | cap | largest load of a group; None: any |
    | least_load | load of the group of any expert, at least |
    | full | pairs inside groups, at most, when m does not divide E; None: slots say it |
    """

    experts: int
    groups: int
    slots: int
    least: int
    load: NDArray[np.int64]
    cap: int | None
    least_load: int
    full: int | None

    @classmethod
    def of(cls, load: NDArray[np.int64], *, groups: int, slots: int, cap: int | None) -> Groups:
        """From loads int64 [experts] and the limits of a group; cap None: no limit on loads."""
        experts, total = len(load), int(load.sum())
        slots = min(slots, experts)
        whole, rest = divmod(experts, slots)
        return cls(
            experts=experts,
            groups=groups,
            slots=slots,
            least=max(1, experts - (groups - 1) * slots),
            load=load,
            cap=cap,
            least_load=0 if cap is None else max(0, min(cap, total - (groups - 1) * cap)),
            full=(whole * slots * (slots - 1) + rest * (rest - 1)) // 2 if rest else None,
        )

    @property
    def most(self) -> int:
        """Groups that the limits on slots alone allow."""
        return self.experts // self.least

    def rows(self) -> tuple[list[csr_array], list[NDArray[np.float64]], list[NDArray[np.float64]]]:
        """slots, loads with a cap, full where it says something: rows over the pairs i < j, lower and upper sides."""
        from scipy.sparse import csr_array

        first, second = np.triu_indices(self.experts, 1)
        size = (self.experts, first.size)
        ends, at = np.append(first, second), np.tile(np.arange(first.size), 2)
        rows = [csr_array((np.ones(at.size), (ends, at)), shape=size)]
        lower, upper = [np.full(size[0], self.least - 1.0)], [np.full(size[0], self.slots - 1.0)]
        if self.cap is not None:
            other = self.load[np.append(second, first)].astype(float)
            rows.append(csr_array((other, (ends, at)), shape=size))
            lower.append((self.least_load - self.load).astype(float))
            upper.append((self.cap - self.load).astype(float))
        if self.full is not None:
            rows.append(csr_array(np.ones((1, first.size))))
            lower.append(np.array([-np.inf]))
            upper.append(np.array([float(self.full)]))
        return rows, lower, upper


def group_block(groups: Groups, together: Any) -> Any:
    """A Pyomo block: slots, loads, full and triangle for the pairs of one level."""
    import pyomo.environ as pyo

    experts, load = range(groups.experts), groups.load.tolist()
    block = pyo.Block(concrete=True)

    def y(i: int, j: int) -> Any:
        return together[min(i, j), max(i, j)]

    block.slots = pyo.Constraint(
        experts,
        rule=lambda _, i: pyo.inequality(
            groups.least, 1 + sum(y(i, j) for j in experts if j != i), groups.slots
        ),
    )
    if groups.cap is not None:

        def loads(_: Any, i: int) -> Any:
            if load[i] == sum(load):  # no other expert weighs anything: the row has no variable
                return pyo.Constraint.Skip
            others = sum(load[j] * y(i, j) for j in experts if j != i)
            return pyo.inequality(groups.least_load, load[i] + others, groups.cap)

        block.loads = pyo.Constraint(experts, rule=loads)
    if groups.full is not None:
        block.full = pyo.Constraint(expr=sum(together.values()) <= groups.full)
    block.triangle = pyo.Constraint(
        [tuple(key) for key in every_triangle(groups.experts).tolist()],
        rule=lambda _, i, j, k: y(i, j) + y(j, k) - y(i, k) <= 1,
    )
    return block


def pair_square(experts: int, y: NDArray[Any]) -> NDArray[Any]:
    """[experts, experts], symmetric with a zero diagonal, of values [pairs] in the order of i < j."""
    square = np.zeros((experts, experts), y.dtype)
    square[np.triu_indices(experts, 1)] = y[: experts * (experts - 1) // 2]
    return square + square.T


def every_triangle(experts: int) -> NDArray[np.intp]:
    """int [triangles, 3]: (i, j, k) with i < k and any other j, the centre: y_ij + y_jk - y_ik <= 1."""
    i, j, k = np.meshgrid(*[np.arange(experts)] * 3, indexing="ij")
    keep = (i < k) & (i != j) & (j != k)
    return np.stack([i[keep], j[keep], k[keep]], axis=1)


def checked_triangles(keys: NDArray[Any], experts: int) -> NDArray[np.intp]:
    """`keys` as triangles [rows, 3] of so many experts; ValueError where a row is none."""
    triangles = np.asarray(keys, np.intp)
    if triangles.ndim != 2 or triangles.shape[1] != 3:
        raise ValueError(f"triangles must be [rows, 3], found {triangles.shape}")
    i, j, k = triangles.T
    wrong = (triangles < 0).any(axis=1) | (triangles >= experts).any(axis=1) | (i >= k) | (i == j) | (j == k)
    if wrong.any():
        raise ValueError(f"{triangles[wrong][0].tolist()} is no triangle i < k, j of {experts} experts")
    return triangles


def broken_triangles(y: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Triangles (i, j, k) that a symmetric y [experts, experts] breaks, and by how much."""
    found: list[NDArray[np.intp]] = []
    excess: list[NDArray[np.float64]] = []
    for j in range(len(y)):  # one centre at a time keeps the work array at E x E
        over = y[:, j, None] + y[j] - y - 1.0
        over[j] = over[:, j] = 0.0
        i, k = np.nonzero(np.triu(over > BROKEN, 1))
        found.append(np.stack([i, np.full(i.size, j), k], axis=1))
        excess.append(over[i, k])
    return np.concatenate(found), np.concatenate(excess)


def triangle_rows(
    keys: NDArray[Any], *, experts: int, starts: NDArray[Any] | int = 0, width: int
) -> csr_array:
    """The rows of triangles keys [rows, 3] in a matrix of `width` columns, whose pairs begin at `starts` [rows]."""
    from scipy.sparse import csr_array

    at = pair_square(experts, np.arange(experts * (experts - 1) // 2))
    i, j, k = keys.T
    count = len(keys)
    columns = np.stack([at[i, j], at[j, k], at[i, k]], axis=1) + np.reshape(starts, (-1, 1))
    signs = np.tile([1.0, 1.0, -1.0], count)
    return csr_array((signs, (np.repeat(np.arange(count), 3), columns.ravel())), shape=(count, width))
