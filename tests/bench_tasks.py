"""Runs that tests have performed in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from moeopt.bench_rows import Absent, Key, Row, Task


def key_of(case: str, *, layer: int | None = None) -> Key:
    return Key(case, layer, "Linear()", 0, "Stop()")


def task(case: str, call: str = "answer", *arguments: object) -> Task:
    """A task that this module's function of that name performs."""
    return Task(key_of(case), globals()[call], (case, *arguments))


def answer(case: str, value: int = 1) -> list[Row]:
    return [
        key_of(case, layer=0).row("done", cost=value),
        key_of(case).row("done", cost=value, pid=os.getpid()),
    ]


def absent(case: str) -> list[Row]:
    raise Absent(f"{case}.npz is not there")


def broken(case: str) -> list[Row]:
    raise ValueError("top-k exceeds n_experts")


def talkative(case: str) -> list[Row]:
    print("solver: presolving")
    os.system("echo from a child")
    return answer(case)


def empty(case: str) -> list[Row]:
    return []


def endless(case: str, numbers: str) -> list[Row]:
    """Writes its number and that of a process it started, and never ends."""
    started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(numbers).write_text(f"{os.getpid()} {started.pid}")
    time.sleep(600)
    return []


def vast(case: str) -> list[Row]:
    return answer(case, int(np.ones((1 << 30,), np.int64).sum()))


def crash(case: str) -> list[Row]:
    sys.stderr.write("about to fail\n")
    sys.stderr.flush()
    os.kill(os.getpid(), signal.SIGSEGV)
    return []


def leave(case: str) -> list[Row]:
    os._exit(3)


def unwritable(case: str) -> list[Row]:
    return [key_of(case).row("done", cost=float("nan"))]


def alive(number: int) -> bool:
    """Whether a process runs; one that has ended and is not waited for does not."""
    status = Path(f"/proc/{number}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
