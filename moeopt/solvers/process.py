"""The parent's hold on one worker process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import weakref
from io import RawIOBase
from queue import Empty, SimpleQueue
from threading import Thread
from typing import IO, Any, cast

from moeopt.solvers.protocol import read_frame, write_frame

__all__ = ["Process", "WorkerDied"]

MOST_WORDS = 2000  # characters of what a dead worker said


class WorkerDied(RuntimeError):
    """The worker process ended without an answer: crashed, killed, or out of memory."""


class Process:
    """A worker process running the adapter at `path` ("package.module:Class"); frames go in and out.

    It leads its own session, so Ctrl-C in a terminal reaches the parent alone, and ends with its parent.
    """

    def __init__(self, path: str, *, threads: int) -> None:
        # The worker must find the very modules its parent found, wherever the parent looked for them.
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
        with tempfile.TemporaryFile() as log:
            self._popen = subprocess.Popen(
                [sys.executable, "-P", "-m", "moeopt.solvers.worker", path, str(threads), str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                bufsize=0,
                start_new_session=True,
                env=environment,
            )
            self._log = os.fdopen(os.dup(log.fileno()), "rb")
        self._inbox: SimpleQueue[tuple[int, str, Any] | None] = SimpleQueue()
        stdout = cast(RawIOBase, self._popen.stdout)
        self._reader = Thread(target=_drain, args=(stdout, self._inbox), daemon=True)
        self._reader.start()
        self._end = weakref.finalize(self, _end, os.getpid(), self._popen, self._log, self._reader)

    @property
    def pid(self) -> int:
        """The process id of the worker."""
        return self._popen.pid

    def send(self, ticket: int, verb: str, *, content: object = None) -> None:
        """Hand one request over; WorkerDied when nobody is there to take it."""
        try:
            write_frame(cast(RawIOBase, self._popen.stdin), (ticket, verb, content))
        except OSError as error:
            raise WorkerDied(self._obituary()) from error

    def receive(self, *, timeout: float) -> tuple[int, str, Any] | None:
        """The next (ticket, kind, content), None after `timeout` seconds, WorkerDied when none can come."""
        try:
            frame = self._inbox.get(timeout=timeout)
        except Empty:
            return None
        if frame is None:
            self._inbox.put(None)  # every later call must learn it too
            raise WorkerDied(self._obituary())
        return frame

    def close(self) -> None:
        """Ask the worker to end, and kill it when it has not within two seconds."""
        try:
            self.send(0, "close")
            self._popen.wait(timeout=2.0)
        except (WorkerDied, subprocess.TimeoutExpired):
            pass
        finally:
            self.kill()

    def kill(self) -> None:
        """End the worker at once and free its pipes; harmless when it has ended."""
        self._end()

    def _obituary(self) -> str:
        try:
            code = self._popen.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            return "the solver worker closed its pipe"
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        self._log.seek(0)
        words = _last_words(self._log.read().decode(errors="replace"))
        return f"the solver worker ended without an answer ({how})" + (f": {words}" if words else "")


def _last_words(text: str) -> str:
    """The end of what a worker said, each line once; of a traceback its last line alone, for frames name no cause."""
    lines = dict.fromkeys(
        line for line in text.strip().splitlines() if line and not line.startswith(("Traceback ", "  "))
    )
    return "\n".join(lines)[-MOST_WORDS:]


def _drain(stream: RawIOBase, inbox: SimpleQueue[tuple[int, str, Any] | None]) -> None:
    """Keep the pipe empty, so that neither side ever waits for the other to read."""
    try:
        while True:
            inbox.put(read_frame(stream))
    except (EOFError, OSError, ValueError):  # ValueError: closed under us
        inbox.put(None)


def _end(owner: int, popen: subprocess.Popen[bytes], log: IO[bytes], reader: Thread) -> None:
    if os.getpid() != owner:
        return  # a fork that lets go of its copy must not end the worker of its parent
    popen.kill()
    popen.wait()
    reader.join(timeout=1.0)
    for stream in (popen.stdin, popen.stdout, log):
        if stream is not None:
            stream.close()
