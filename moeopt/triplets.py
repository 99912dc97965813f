"""Rows of a matrix, gathered family by family."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from scipy.sparse import csr_array

__all__ = ["Triplets"]


@dataclass
class Triplets:
    """Coefficients of rows over `columns` columns; `add` appends a family of rows, `stacked` has them all."""

    columns: int
    count: int = 0
    _parts: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]] = field(default_factory=list)
    _low: list[NDArray[np.float64]] = field(default_factory=list)
    _high: list[NDArray[np.float64]] = field(default_factory=list)

    def add(
        self,
        *,
        rows: ArrayLike,
        columns: ArrayLike,
        values: ArrayLike,
        low: ArrayLike = -np.inf,
        high: ArrayLike = np.inf,
        count: int = 1,
    ) -> None:
        """Append `count` rows, numbered from 0 within the family: low <= sum of values x columns <= high."""
        at, where, value = np.broadcast_arrays(rows, columns, values)
        self._parts.append((self.count + at.ravel(), where.ravel(), value.ravel()))
        self._low.append(np.broadcast_to(np.asarray(low, float), (count,)))
        self._high.append(np.broadcast_to(np.asarray(high, float), (count,)))
        self.count += count

    def stacked(self) -> csr_array:
        """All rows."""
        from scipy.sparse import csr_array

        rows, columns, values = (np.concatenate(side) for side in zip(*self._parts, strict=True))
        return csr_array((values.astype(float), (rows, columns)), shape=(self.count, self.columns))

    @property
    def low(self) -> NDArray[np.float64]:
        return np.concatenate(self._low)

    @property
    def high(self) -> NDArray[np.float64]:
        return np.concatenate(self._high)
