"""One door to every solver: a model goes in, a claim comes out, the solver stays in a worker process.

Solvers that cannot share a process, crash, or miss their time limit hurt no caller here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from moeopt.solvers.offered import adapter_path, installed
from moeopt.solvers.process import Process, WorkerDied
from moeopt.solvers.protocol import Limits, Outcome, Status
from moeopt.solvers.request import as_block, as_limits, as_model, as_point, as_vectors
from moeopt.solvers.talk import POLL, Talk, consistent, read_answer, true_to, with_start

if TYPE_CHECKING:
    from scipy.sparse import csc_array, csr_array

    from moeopt.matrix import Matrix

__all__ = ["Outcome", "Session", "Status", "WorkerDied", "installed"]

Floats = NDArray[np.float64]
Options = Mapping[str, bool | int | float | str]

_FEASIBLE = 1e-9  # violation a start may have and still be kept as an incumbent


class Session:
    """A solver in a worker process of its own, used again for every solve; close it, or use it in a `with`.

    The worker starts at once and restarts by itself after a crash or a kill. One thread at a time.

    Parameters
    ----------
    solver
        A name in the entry-point group ``moeopt.solvers``, or the path "package.module:Adapter"; ValueError
        says what to install when its solver is not there (`installed`).
    threads
        Threads of the solver, fixed for the session.
    patience
        Seconds a worker has to answer a cancellation before it is killed.
    """

    def __init__(self, solver: str = "highs", *, threads: int = 1, patience: float = 5.0) -> None:
        if threads < 1:
            raise ValueError(f"threads must be at least 1; found {threads}")
        if reason := installed(solver):
            raise ValueError(reason)
        self._path = adapter_path(solver)
        self._threads = threads
        self._patience = patience
        self._ticket = 0
        self._shape: tuple[int, int] | None = None  # rows and columns of the loaded model
        self._process: Process | None = Process(self._path, threads=threads)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The process id of the worker, or None when none runs."""
        return None if self._process is None else self._process.pid

    @property
    def linear(self) -> bool:
        """Whether the solver answers linear models: `relax` in `solve`, `load` and what follows it."""
        return bool(self._ask("linear", {}))

    def close(self) -> None:
        """End the worker; a later call of any other method starts another."""
        if self._process is not None:
            self._process.close()
        self._process, self._shape = None, None

    def solve(
        self,
        matrix: Matrix,
        *,
        seconds: float | None = None,
        gap: float = 0.0,
        seed: int = 0,
        start: Mapping[int, float] | Mapping[str, float] | Floats | None = None,
        relax: bool = False,
        options: Options | None = None,
        on_incumbent: Callable[[Floats, float], object] | None = None,
        on_bound: Callable[[float], object] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Outcome:
        """Minimise a model from scratch; the model held by `load` stays as it is.

        Parameters
        ----------
        seconds
            Wall-clock limit of the call, hand-over included; None for none.
        gap
            Relative gap ``(objective - bound) / |objective|`` at which a search may stop.
        start
            A point float[columns] with nan where unknown, or values by column (index or name). A complete
            feasible start is the incumbent until a better point arrives.
        relax
            Leave integrality out.
        options
            Further options in the solver's own words; an unknown one raises ValueError.
        on_incumbent, on_bound
            Called in this thread, while the solver runs, with (x, objective) and with (bound).
        should_stop
            Asked about every 50 ms; True ends the solve with status ``interrupted`` and the incumbent.
            Ctrl-C does the same; a second Ctrl-C raises KeyboardInterrupt.

        Raises
        ------
        ValueError
            A parameter, option or number that the door or the solver refuses.
        WorkerDied
            The worker crashed; the session can be used again.
        RuntimeError
            The solver gave no answer, or one that contradicts the matrix, the start or its own bound.
        """
        begun = time.monotonic()
        point = None if start is None else as_point(matrix, start)
        content = {"model": as_model(matrix, relax=relax), "start": point}
        limits = as_limits(begun, seconds=seconds, gap=gap, seed=seed, options=options)
        talk = self._talk(limits, should_stop, on_incumbent=on_incumbent, on_bound=on_bound)
        outcome = true_to(matrix, self._run("solve", content | {"limits": limits}, talk), relax=relax)
        if point is not None and matrix.violation(point, _FEASIBLE) == 0.0:
            outcome = with_start(outcome, point, value=matrix.value(point), gap=gap)
        return replace(consistent(outcome, gap=gap), seconds=time.monotonic() - begun)

    def load(self, matrix: Matrix, /) -> None:
        """Hold the linear relaxation of a model, to be extended and solved again from its last basis."""
        self._shape = None
        self._ask("load", {"model": as_model(matrix, relax=True)})
        self._shape = (matrix.row_lower.size, matrix.cost.size)

    def add_columns(self, *, cost: Floats, lower: Floats, upper: Floats, columns: csc_array) -> None:
        """Append columns to the held model; `columns` is sparse [rows held, new columns]."""
        from scipy.sparse import csc_array

        rows, width = self._held()
        block = csc_array(columns, dtype=np.float64)
        new = block.shape[1]
        if block.shape[0] != rows:
            raise ValueError(
                f"new columns must have the {rows} rows of the held model; found {block.shape[0]}"
            )
        numbers = as_vectors({"cost": cost, "lower": lower, "upper": upper}, new)
        self._shape = None  # a refused block leaves nothing to rely on
        self._ask("add_columns", {**numbers, "columns": as_block(block)})
        self._shape = (rows, width + new)

    def add_rows(self, *, rows: csr_array, row_lower: Floats, row_upper: Floats) -> None:
        """Append rows to the held model; `rows` is sparse [new rows, columns held]."""
        from scipy.sparse import csr_array

        count, width = self._held()
        block = csr_array(rows, dtype=np.float64)
        new = block.shape[0]
        if block.shape[1] != width:
            raise ValueError(
                f"new rows must have the {width} columns of the held model; found {block.shape[1]}"
            )
        numbers = as_vectors({"row_lower": row_lower, "row_upper": row_upper}, new)
        self._shape = None  # a refused block leaves nothing to rely on
        self._ask("add_rows", {**numbers, "rows": as_block(block)})
        self._shape = (count + new, width)

    def set_bounds(self, *, lower: Floats, upper: Floats) -> None:
        """Replace the bounds of all columns of the held model, float [columns] each; its last basis stays."""
        _, width = self._held()
        self._ask("set_bounds", as_vectors({"lower": lower, "upper": upper}, width))

    def resolve(
        self,
        *,
        seconds: float | None = None,
        seed: int = 0,
        options: Options | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Outcome:
        """Solve the held linear model from its last basis; limits and errors are those of `solve`.

        Raises RuntimeError also when no model is held, as after a worker was killed.
        """
        self._held()
        begun = time.monotonic()
        limits = as_limits(begun, seconds=seconds, gap=0.0, seed=seed, options=options)
        outcome = self._run("resolve", {"limits": limits}, self._talk(limits, should_stop))
        return replace(consistent(outcome, gap=0.0), seconds=time.monotonic() - begun)

    def _held(self) -> tuple[int, int]:
        if self._shape is None:
            raise RuntimeError("no model is held: call load first; a worker that was killed loses its model")
        return self._shape

    def _send(self, verb: str, content: object) -> Process:
        """Hand a request to the worker under a fresh ticket, starting a worker when there is none."""
        if self._process is None:
            self._process = Process(self._path, threads=self._threads)
        self._ticket += 1
        self._process.send(self._ticket, verb, content=content)
        return self._process

    def _drop(self) -> None:
        if self._process is not None:
            self._process.kill()
        self._process, self._shape = None, None

    def _ask(self, verb: str, content: object) -> Any:
        """The answer to a request without a search."""
        try:
            process = self._send(verb, content)
            frame = None
            while frame is None or frame[0] != self._ticket:
                frame = process.receive(timeout=POLL)
        except BaseException:
            self._drop()  # what the worker now holds is unknown
            raise
        return read_answer(frame[1], frame[2])

    def _talk(
        self,
        limits: Limits,
        should_stop: Callable[[], bool] | None,
        *,
        on_incumbent: Callable[[Floats, float], object] | None = None,
        on_bound: Callable[[float], object] | None = None,
    ) -> Talk:
        return Talk(
            ticket=self._ticket + 1,
            deadline=limits.deadline,
            patience=self._patience,
            on_incumbent=on_incumbent,
            on_bound=on_bound,
            should_stop=should_stop,
        )

    def _run(self, verb: str, content: object, talk: Talk) -> Outcome:
        try:
            process = self._send(verb, content)
        except KeyboardInterrupt:
            self._drop()  # half a request may be in the pipe
            return talk.conclude(None)
        except BaseException:
            self._drop()
            raise
        try:
            ending = talk.listen(process)
        except BaseException:
            self._drop()
            raise
        if ending is None:
            self._drop()
        return talk.conclude(ending)
