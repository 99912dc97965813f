"""The worker process: ``python -m moeopt.solvers.worker package.module:Adapter THREADS PARENT``.

It obeys one session and ends with it: when its standard input closes, or when its parent is no longer PARENT.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from importlib import import_module
from io import FileIO
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeopt.solvers.protocol import Adapter, read_frame, write_frame

_ORPHAN_POLL = 1.0  # seconds
# Whatever an adapter fails with belongs to the session, so these are the families that bindings, arithmetic and
# adapters made for another version of their solver raise. Any other ends the worker, and `WorkerDied` quotes it.
_FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BufferError,
    ImportError,
    LookupError,
    MemoryError,
    NameError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


class _Line:
    """The frames going out, from whichever thread a solver calls back in, and the cancellations coming in."""

    def __init__(self, stream: FileIO) -> None:
        self._stream = stream
        self._lock = Lock()
        self.cancelled = 0

    def send(self, ticket: int, kind: str, content: object) -> None:
        with self._lock:
            write_frame(self._stream, (ticket, kind, content))


class _Watch:
    """The `protocol.Watch` of one request."""

    def __init__(self, line: _Line, ticket: int) -> None:
        self._line = line
        self._ticket = ticket

    def stopped(self) -> bool:
        return self._line.cancelled >= self._ticket

    def incumbent(self, x: NDArray[np.float64], objective: float) -> None:
        self._line.send(self._ticket, "incumbent", (x, objective))

    def bound(self, value: float) -> None:
        self._line.send(self._ticket, "bound", value)


def main(arguments: Sequence[str]) -> int:
    """Serve requests until told to close; returns the exit code."""
    path, threads, parent = arguments
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the session, which sends a cancellation
    incoming = FileIO(os.dup(0), "rb")
    outgoing = FileIO(os.dup(1), "wb")
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)  # what a solver prints must not land between frames
    line = _Line(outgoing)
    requests: SimpleQueue[tuple[int, str, dict[str, Any]]] = SimpleQueue()
    Thread(target=_listen, args=(incoming, line, requests), daemon=True).start()
    Thread(target=_outlive_nobody, args=(int(parent),), daemon=True).start()
    module, _, name = path.partition(":")
    adapter: Adapter = getattr(import_module(module), name)(threads=int(threads))
    while True:
        ticket, verb, content = requests.get()
        if verb == "close":
            return 0
        _serve(adapter, line, ticket, verb, content)


def _serve(adapter: Adapter, line: _Line, ticket: int, verb: str, content: dict[str, Any]) -> None:
    answer: object = None
    try:
        match verb:
            case "solve":
                answer = adapter.solve(**content, watch=_Watch(line, ticket))
            case "resolve":
                answer = adapter.resolve(**content, watch=_Watch(line, ticket))
            case "load":
                adapter.load(**content)
            case "add_columns":
                adapter.add_columns(**content)
            case "add_rows":
                adapter.add_rows(**content)
            case "set_bounds":
                adapter.set_bounds(**content)
            case "linear":
                answer = adapter.linear
            case _:
                raise RuntimeError(f"a worker knows no request {verb!r}")
    except _FAILURES as error:  # the session raises it again on its side
        line.send(ticket, "failed", (isinstance(error, ValueError), str(error), traceback.format_exc()))
    else:
        line.send(ticket, "done", answer)


def _listen(incoming: FileIO, line: _Line, requests: SimpleQueue[tuple[int, str, dict[str, Any]]]) -> None:
    try:
        while True:
            ticket, verb, content = read_frame(incoming)
            if verb == "cancel":
                line.cancelled = max(line.cancelled, ticket)
            else:
                requests.put((ticket, verb, content))
    except (EOFError, OSError):
        os._exit(1)  # the session is gone; a solver in the main thread cannot be unwound


def _outlive_nobody(parent: int) -> None:
    """Ends the process with its parent even while a fork of the parent holds the pipe open."""
    while os.getppid() == parent:
        time.sleep(_ORPHAN_POLL)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
