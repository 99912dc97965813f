"""Rows of one width at a time: the entries of a sparse matrix as arrays of column numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Rows"]


@dataclass
class Rows:
    """Families of rows, in the order in which they were added."""

    _parts: list[tuple[NDArray[np.int64], NDArray[np.float64]]] = field(default_factory=list)
    _lower: list[NDArray[np.float64]] = field(default_factory=list)
    _upper: list[NDArray[np.float64]] = field(default_factory=list)

    def add(
        self,
        columns: NDArray[Any],
        coefficients: ArrayLike = 1,
        *,
        lower: ArrayLike = -np.inf,
        upper: ArrayLike = np.inf,
    ) -> None:
        """Rows with entries at `columns` [..., width]; coefficients broadcast to that shape, bounds to [rows]."""
        entries = np.broadcast_to(np.asarray(coefficients, np.float64), columns.shape)
        columns = columns.reshape(-1, columns.shape[-1])
        self._parts.append((columns, entries.reshape(columns.shape)))
        for bounds, values in ((self._lower, lower), (self._upper, upper)):
            bounds.append(np.broadcast_to(np.asarray(values, np.float64), len(columns)))

    def arrays(self, *, width: int) -> dict[str, Any]:
        """Fields of a `Matrix` of `width` columns: rows, row_lower, row_upper; entries at one place are summed."""
        from scipy.sparse import csr_array

        lengths = np.concatenate([np.full(len(columns), columns.shape[1]) for columns, _ in self._parts])
        columns, entries = (np.concatenate([part[at].ravel() for part in self._parts]) for at in range(2))
        starts = np.append(0, lengths.cumsum())
        return {
            "rows": csr_array((entries, columns, starts), shape=(len(lengths), width)),
            "row_lower": np.concatenate(self._lower),
            "row_upper": np.concatenate(self._upper),
        }
