"""What pairs of experts that are together or apart decide about further ones, and the cases of a tree of such pairs.

Of G groups of m seats, all of them taken: experts that are together form blocks. Two blocks are apart when a pair of
them is, or when they exceed a group together. Blocks that are apart from each other lie in different groups: more than
G of them contradict each other, and with G of them known a block that is apart from all but one joins that one.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeopt.partition_lines import Level

__all__ = ["APART", "OPEN", "TOGETHER", "cases_of", "decided_pairs"]

OPEN, APART, TOGETHER = -1, 0, 1
MOST_CASES = 1 << 20
SPLIT = {"pair", "together", "apart"}

Pairs = tuple[tuple[int, int, int], ...]  # experts i < j, and whether they are together


def decided_pairs(level: Level, pairs: Pairs) -> NDArray[np.int8] | None:
    """int8 [seats, seats]: TOGETHER, APART or OPEN, as far as these pairs decide it; None when they contradict."""
    n = level.seats
    block = np.arange(n)  # the least expert of each one's block
    for i, j, together in pairs:
        if together:
            _join(block, i, j)
    while True:
        names, of = np.unique(block, return_inverse=True)
        sizes = np.bincount(of)
        if int(sizes.max()) > level.slots:
            return None
        apart = sizes[:, None] + sizes > level.slots
        np.fill_diagonal(apart, False)
        for i, j, together in pairs:
            if not together:
                apart[of[i], of[j]] = apart[of[j], of[i]] = True
        if np.diag(apart).any():
            return None
        found = _joined(apart, level.groups)
        if found is None:
            return None
        if not found:
            break
        for a, b in found:
            _join(block, int(names[a]), int(names[b]))
    decided = np.where(apart, APART, OPEN).astype(np.int8)
    np.fill_diagonal(decided, TOGETHER)
    return np.asarray(decided[of[:, None], of])


def _join(block: NDArray[np.int64], i: int, j: int) -> None:
    least, other = sorted((int(block[i]), int(block[j])))
    block[block == other] = least


def _joined(apart: NDArray[np.bool_], groups: int) -> list[tuple[int, int]] | None:
    """Pairs of blocks that must be together; None when more than G are apart. Blocks are gathered from each in turn."""
    found: list[tuple[int, int]] = []
    for first in np.flatnonzero(apart.any(axis=1)):
        known, free = [int(first)], apart[first].copy()
        while free.any():
            # Of those that are apart from all gathered ones, the one with the most neighbours among them.
            nearest = int(np.where(free, (apart & free).sum(axis=1) + 1, 0).argmax())
            known.append(nearest)
            free &= apart[nearest]
        if len(known) > groups:
            return None
        if len(known) == groups:
            met = apart[:, known].sum(axis=1)
            met[known] = 0
            for other in np.flatnonzero(met == groups - 1):
                found.append((int(other), known[int(np.flatnonzero(~apart[other, known])[0])]))
            if found:
                return found
    return found


def cases_of(tree: object, *, seats: int) -> Iterator[tuple[Any, Pairs]]:
    """The leaves of a tree and the pairs that lead to each; ValueError unless they are all the cases there are.

    A list of nodes, the root first: {"pair": [i, j], "together": index, "apart": index}, or a leaf. Children come after
    their parent, and every node but the root is the child of exactly one.
    """
    if not isinstance(tree, list) or not 1 <= len(tree) <= MOST_CASES:
        raise ValueError(f"a tree is a list of 1 to {MOST_CASES} nodes")
    led: list[Pairs | None] = [None] * len(tree)
    led[0] = ()
    for index, node in enumerate(tree):
        pairs = led[index]
        if pairs is None:
            raise ValueError(f"node {index} of the tree is nobody's child")
        if not isinstance(node, Mapping) or "pair" not in node:
            yield node, pairs
            continue
        if set(node) != SPLIT:
            raise ValueError(f"node {index}: expected {sorted(SPLIT)}, found {sorted(map(str, node))}")
        i, j = _pair(node["pair"], index, seats)
        for name, value in (("together", TOGETHER), ("apart", APART)):
            child = node[name]
            if type(child) is not int or not index < child < len(tree):
                raise ValueError(f"node {index}: a later node must be its child {name}, found {child!r:.40}")
            if led[child] is not None:
                raise ValueError(f"node {child} of the tree is the child of two")
            led[child] = (*pairs, (i, j, value))


def _pair(pair: object, index: int, seats: int) -> tuple[int, int]:
    """Experts i < j of the seats."""
    if (
        not isinstance(pair, list)
        or len(pair) != 2
        or any(type(i) is not int for i in pair)
        or not 0 <= pair[0] < pair[1] < seats
    ):
        raise ValueError(f"node {index}: a pair is i < j below {seats}, found {pair!r:.40}")
    return pair[0], pair[1]
