"""Compiled kernels for subset rows: triples of experts of which a block holds two or more."""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def held_discounts(members: NDArray[np.int16], inside: NDArray[np.int8], discounts: NDArray[Any]) -> Any:
    """[columns]: sum of `discounts` [triples] where the block holds two or more; `inside` int8 [experts, triples]."""
    n_columns, m = members.shape
    total = np.zeros(n_columns, discounts.dtype)
    for column in range(n_columns):
        for triple in range(len(discounts)):
            held = 0
            for j in range(m):
                if members[column, j] >= 0:
                    held += inside[members[column, j], triple]
            if held >= 2:
                total[column] += discounts[triple]
    return total


def together(members: NDArray[np.int16], weights: NDArray[np.float64], n_experts: int) -> NDArray[np.float64]:
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
