"""What a session checks and flattens before anything goes to a worker."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from moeopt.solvers.protocol import Block, Limits, Model

if TYPE_CHECKING:
    from moeopt.matrix import Matrix

__all__ = ["as_block", "as_limits", "as_model", "as_point", "as_vectors"]

Floats = NDArray[np.float64]


def as_block(matrix: Any, /) -> Block:
    """The arrays of a csr or csc matrix, entries in order and without duplicates."""
    if not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    if not np.isfinite(matrix.data).all():
        raise ValueError("matrix entries must be finite; found NaN or infinity")
    return Block(
        starts=matrix.indptr.astype(np.int32), indices=matrix.indices.astype(np.int32), values=matrix.data
    )


def as_model(matrix: Matrix, *, relax: bool) -> Model:
    """A matrix as the plain arrays that a worker reads, without its integrality when `relax` is set."""
    return Model(
        cost=matrix.cost,
        lower=matrix.lower,
        upper=matrix.upper,
        integer=np.zeros_like(matrix.integer) if relax else matrix.integer,
        rows=as_block(matrix.rows),
        row_lower=matrix.row_lower,
        row_upper=matrix.row_upper,
        offset=matrix.offset,
    )


def as_vectors(arrays: Mapping[str, Floats], size: int) -> dict[str, Floats]:
    """Float copies of the named arrays, each float[size] and free of NaN."""
    vectors = {name: np.array(array, dtype=np.float64) for name, array in arrays.items()}
    for name, vector in vectors.items():
        if vector.shape != (size,) or np.isnan(vector).any():
            raise ValueError(f"{name} must be float[{size}] without NaN; found shape {vector.shape}")
    return vectors


def as_point(matrix: Matrix, start: Mapping[int, float] | Mapping[str, float] | Floats) -> Floats:
    """A start as float[columns], nan where it says nothing."""
    size = matrix.cost.size
    if isinstance(start, Mapping):
        place = {name: at for at, name in enumerate(matrix.column_names)}
        point = np.full(size, np.nan)
        for key, value in start.items():
            at = place.get(key, -1) if isinstance(key, str) else int(key)
            if not 0 <= at < size:
                raise ValueError(f"a start must name columns of the matrix ({size} of them); found {key!r}")
            point[at] = value
    else:
        point = np.array(start, dtype=np.float64)
    if point.shape != (size,) or np.isinf(point).any():
        raise ValueError(
            f"a start must be float[{size}], nan where unknown and never infinite; found {point.shape}"
        )
    return point


def as_limits(
    begun: float,
    *,
    seconds: float | None,
    gap: float,
    seed: int,
    options: Mapping[str, bool | int | float | str] | None,
) -> Limits:
    """Limits that start to count at `begun`, a reading of `time.monotonic`."""
    if seconds is not None and not 0.0 <= seconds < math.inf:
        raise ValueError(f"seconds must be None, or finite and at least 0; found {seconds}")
    if not 0.0 <= gap < math.inf:
        raise ValueError(f"gap must be finite and at least 0; found {gap}")
    if not 0 <= seed < 2**31:
        raise ValueError(f"seed must be at least 0 and below 2**31; found {seed}")
    deadline = None if seconds is None else begun + seconds
    return Limits(deadline=deadline, gap=float(gap), seed=seed, options=dict(options or {}))
