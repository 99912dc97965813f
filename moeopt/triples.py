"""Compiled kernels for subset rows: triples of experts of which a block holds two or more."""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray


def held_discounts(
    members: NDArray[np.int16], triples: NDArray[np.int64], *, discounts: NDArray[Any], n_experts: int
) -> NDArray[Any]:
    """[columns]: sum of `discounts` [triples] over the triples of which a block holds two or more.

    A block looks only at the triples of its own pairs: the pairs of each triple are indexed first.
    """
    pairs = np.concatenate([triples[:, [0, 1]], triples[:, [0, 2]], triples[:, [1, 2]]])
    others = np.concatenate([triples[:, 2], triples[:, 1], triples[:, 0]])
    keys = pairs[:, 0] * n_experts + pairs[:, 1]
    order = np.argsort(keys, kind="stable")
    starts = np.searchsorted(keys[order], np.arange(n_experts * n_experts + 1)).astype(np.int64)
    return np.asarray(_summed(members, starts, others[order], np.tile(discounts, 3)[order], n_experts))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _summed(
    members: NDArray[np.int16],
    starts: NDArray[np.int64],
    others: NDArray[np.int64],
    amounts: NDArray[Any],
    n_experts: int,
) -> Any:
    n_columns, m = members.shape
    total = np.zeros(n_columns, amounts.dtype)
    for column in range(n_columns):
        for a in range(m):
            first = np.int64(members[column, a])
            if first < 0:
                break
            for b in range(a + 1, m):
                second = np.int64(members[column, b])
                if second < 0:
                    break
                pair = first * n_experts + second
                for entry in range(starts[pair], starts[pair + 1]):
                    # A triple that lies inside whole has three pairs here: its two lowest members count it.
                    counts = others[entry] > second
                    if not counts:
                        counts = True
                        for c in range(b):
                            if members[column, c] == others[entry]:
                                counts = False
                    if counts:
                        total[column] += amounts[entry]
    return total


def together(
    members: NDArray[np.int16], weights: NDArray[np.float64], *, n_experts: int
) -> NDArray[np.float64]:
    """float [experts, experts, experts], i < j < k, zero elsewhere: weight of the blocks that hold two or more of them.

    Two-of-three = pairs ij + ik + jk - 2 x all three. 8 bytes x E^3: 134 MB for 256 experts.
    """
    pair = np.zeros((n_experts, n_experts))
    three = np.zeros((n_experts, n_experts, n_experts))
    m = members.shape[1]
    for a in range(m):
        for b in range(a + 1, m):
            both = members[:, b] >= 0  # padding comes last
            np.add.at(pair, (members[both, a], members[both, b]), weights[both])
            for c in range(b + 1, m):
                full = members[:, c] >= 0
                where = (members[full, a], members[full, b], members[full, c])
                np.add.at(three, where, weights[full])
    total = pair[:, :, None] + pair[:, None, :] + pair[None, :, :] - 2 * three
    index = np.arange(n_experts)
    ascending = (index[:, None, None] < index[None, :, None]) & (index[None, :, None] < index[None, None, :])
    return np.where(ascending, total, 0.0)
