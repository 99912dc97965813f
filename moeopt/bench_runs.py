"""A run in a process of its own: a limit of time and memory, and a row whatever happens to it."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

from moeopt.bench_child import LENGTH
from moeopt.bench_rows import Row, Task

__all__ = ["LARGEST", "Limits", "end_runs", "isolated"]

TAIL = 4096  # bytes of what a process said last
LARGEST = 1 << 40  # mebibytes: their bytes are still a number that systems count in
_running: set[subprocess.Popen[bytes]] = set()
_lock = threading.Lock()


@dataclass(frozen=True)
class Limits:
    """Of a run; None: none.

    | field | holds |
    |---|---|
    | seconds | by the clock, from the start of the process |
    | mebibytes | of data, for each process of the run: what it allocates, not the libraries' files it maps |

    Raises ValueError for numbers that are not positive, and for more than `LARGEST` mebibytes.
    """

    seconds: float | None = 3600.0
    mebibytes: int | None = 8192

    def __post_init__(self) -> None:
        for name in ("seconds", "mebibytes"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"limit of {name} must be positive, found {value}")
        if self.mebibytes is not None and self.mebibytes > LARGEST:
            raise ValueError(f"limit of mebibytes must be at most {LARGEST}, found {self.mebibytes}")


def isolated(task: Task, limits: Limits) -> list[Row]:
    """The rows of a task that a process of its own performs; one that is ended leaves a row that says how.

    The task must be importable there: it is pickled. With this process, however it ends, end the run and what it
    started.
    """
    with tempfile.TemporaryFile() as answer, tempfile.TemporaryFile() as said:
        process = _start(answer, said)
        try:
            _tell(process, pickle.dumps((task, limits.mebibytes)))
            code = process.wait(timeout=limits.seconds)
        except subprocess.TimeoutExpired:
            return [task.unanswered("failed", reason=f"ran longer than its limit of {limits.seconds:g} s")]
        finally:
            _end(process)
        answer.seek(0)
        if code == 0:
            rows: list[Row] = json.load(answer)
            return rows
        return [task.unanswered("failed", reason=_ending(code, said))]


def end_runs() -> None:
    """End all runs that this process has started."""
    with _lock:
        processes = list(_running)
    for process in processes:
        _end(process)


def _start(answer: IO[bytes], said: IO[bytes]) -> subprocess.Popen[bytes]:
    places = os.pathsep.join(place or os.getcwd() for place in sys.path)
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "moeopt.bench_child"],
        stdin=subprocess.PIPE,
        stdout=answer,
        stderr=said,
        env={**os.environ, "PYTHONPATH": places},
        start_new_session=True,  # so that all it starts can be ended with it, and Ctrl-C is ours to pass on
    )
    with _lock:
        _running.add(process)
    return process


def _tell(process: subprocess.Popen[bytes], content: bytes) -> None:
    """Standard input stays open: its end tells the run that we have ended."""
    if process.stdin is None:
        raise RuntimeError("a run is started with a pipe")
    with suppress(BrokenPipeError):  # its exit code says why
        process.stdin.write(len(content).to_bytes(LENGTH, "big") + content)
        process.stdin.flush()


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin is not None:
        with suppress(BrokenPipeError):
            process.stdin.close()
    with _lock:
        _running.discard(process)


def _ending(code: int, said: IO[bytes]) -> str:
    """How a process ended, with the last line it said."""
    said.seek(max(0, said.seek(0, os.SEEK_END) - TAIL))
    lines = said.read().decode(errors="replace").strip().splitlines()
    last = f": {lines[-1].strip()}" if lines else ""
    if code > 0:
        return f"ended with exit code {code}{last}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"ended by {name}{last}"
