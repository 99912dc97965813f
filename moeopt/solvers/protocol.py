"""What passes between a session and its worker process: plain arrays in length-prefixed pickles.

The two ends are our own processes on one machine; nothing here reads data from a user or a network.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from io import RawIOBase
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Adapter", "Block", "Limits", "Model", "Outcome", "Status", "Watch", "read_frame", "write_frame"]

_LENGTH = struct.Struct("!Q")
Floats = NDArray[np.float64]


class Status(StrEnum):
    """Why a solve stopped, as the solver claims."""

    OPTIMAL = "optimal"
    TIME_LIMIT = "time-limit"
    INTERRUPTED = "interrupted"
    INFEASIBLE = "infeasible"
    UNBOUNDED = "unbounded"
    INFEASIBLE_OR_UNBOUNDED = "infeasible-or-unbounded"


@dataclass(frozen=True, eq=False, kw_only=True)
class Outcome:
    """What a solver claims about one solve. Nothing in it is proved: check `x` with `Matrix.violation`,
    its worth with `Matrix.value`, and the bound with a certificate.

    =========  ================  ======================================================================
    status     Status            ``optimal``: the gap asked for is closed, which for a gap above 0 is
                                 not the optimum
    x          float[columns]    the best point found, or None
    objective  float             the solver's value of x, or None
    bound      float             no feasible point costs less, or None when nothing is known
    row_duals  float[rows]       linear models: y of the Lagrangian ``c @ x - y @ (rows @ x)``; y >= 0 on a
                                 binding lower bound of a row, y <= 0 on a binding upper one; or None
    col_duals  float[columns]    reduced costs ``c - rows.T @ y``, or None
    nodes      int               nodes of the search tree, 0 for linear models
    seconds    float             wall-clock time of the call, hand-over included
    =========  ================  ======================================================================
    """

    status: Status
    x: Floats | None = None
    objective: float | None = None
    bound: float | None = None
    row_duals: Floats | None = None
    col_duals: Floats | None = None
    nodes: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, eq=False, kw_only=True)
class Block:
    """A compressed matrix: `starts` int32[lines + 1], `indices` int32[entries], `values` float[entries]."""

    starts: NDArray[np.int32]
    indices: NDArray[np.int32]
    values: Floats


@dataclass(frozen=True, eq=False, kw_only=True)
class Model:
    """A `moeopt.matrix.Matrix` as plain arrays, so that a worker needs no scipy; `rows` is by row."""

    cost: Floats
    lower: Floats
    upper: Floats
    integer: NDArray[np.bool_]
    rows: Block
    row_lower: Floats
    row_upper: Floats
    offset: float


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When to stop and how to run: `deadline` is a `time.monotonic` reading, one clock for all processes."""

    deadline: float | None = None
    gap: float = 0.0
    seed: int = 0
    options: Mapping[str, bool | int | float | str] = field(default_factory=dict)


class Watch(Protocol):
    """The wire back to the session while a solver runs."""

    def stopped(self) -> bool:
        """Whether the session wants the solve to end."""

    def incumbent(self, x: Floats, objective: float) -> None:
        """Report a better point float[columns] and the solver's value of it."""

    def bound(self, value: float) -> None:
        """Report a better bound: no feasible point costs less."""


class Adapter(Protocol):
    """What a solver module offers; it lives in the worker process and is the only importer of its solver.

    `load`, `add_columns`, `add_rows`, `set_bounds` and `resolve` keep one linear model and its basis; `solve` leaves
    that model alone. ValueError means a wrong request, RuntimeError a solver that gave no answer.
    `linear` says whether linear models are solved; if not, they and the held model are refused by ValueError.
    """

    linear: bool

    def __init__(self, *, threads: int) -> None: ...

    def solve(self, *, model: Model, start: Floats | None, limits: Limits, watch: Watch) -> Outcome:
        """Minimise a model from scratch; `start` is a point float[columns], nan where unknown."""

    def load(self, *, model: Model) -> None:
        """Hold a linear model for `add_columns`, `add_rows` and `resolve`."""

    def add_columns(self, *, cost: Floats, lower: Floats, upper: Floats, columns: Block) -> None:
        """Append columns, compressed by column, to the held model."""

    def add_rows(self, *, rows: Block, row_lower: Floats, row_upper: Floats) -> None:
        """Append rows, compressed by row, to the held model."""

    def set_bounds(self, *, lower: Floats, upper: Floats) -> None:
        """Replace the bounds of all columns of the held model; its basis stays."""

    def resolve(self, *, limits: Limits, watch: Watch) -> Outcome:
        """Solve the held model from its last basis."""


def write_frame(stream: RawIOBase, message: object) -> None:
    """Write one message; OSError when the other end is gone."""
    data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    for part in (_LENGTH.pack(len(data)), data):
        view = memoryview(part)
        while view:
            view = view[stream.write(view) :]


def read_frame(stream: RawIOBase) -> Any:
    """Read one message; EOFError when the other end is gone."""
    (length,) = _LENGTH.unpack(_read(stream, _LENGTH.size))
    return pickle.loads(_read(stream, length))


def _read(stream: RawIOBase, length: int) -> bytearray:
    data = bytearray(length)
    view = memoryview(data)
    while view:
        count = stream.readinto(view)
        if not count:
            raise EOFError("the other end of the pipe is closed")
        view = view[count:]
    return data
