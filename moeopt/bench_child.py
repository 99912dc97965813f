"""The process of one run: a task from standard input, its rows to standard output; started by `bench_runs`."""

from __future__ import annotations

import json
import os
import pickle
import resource
import signal
import sys
import threading
import time
from pathlib import Path

from moeopt import storage
from moeopt.bench_rows import Row, Task, perform

LENGTH = 8  # bytes that say how long the task is


def main() -> None:
    """Perform the task; the process ends when its parent does, with all that it started."""
    answers = os.dup(1)
    os.dup2(2, 1)  # what libraries print is no answer
    task, mebibytes = pickle.loads(_read(int.from_bytes(_read(LENGTH), "big")))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if mebibytes is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (mebibytes << 20, mebibytes << 20))
    found = json.dumps(_measured(task), default=storage.plain, allow_nan=False).encode()
    while found:
        found = found[os.write(answers, found) :]
    sys.stderr.flush()
    os._exit(0)


def _measured(task: Task) -> list[Row]:
    """The rows; the last one with the time and the largest memory of one process."""
    begun = time.perf_counter()
    rows = perform(task)
    rows[-1] = {**rows[-1], "wall_seconds": time.perf_counter() - begun, "peak_mib": _peak()}
    return rows


def _peak() -> float:
    """MiB of the largest process: this one or one that it waited for."""
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10  # of ru_maxrss, in a MiB
    own, others = (
        resource.getrusage(who).ru_maxrss / unit for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss is at least the memory of the process that started this one
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        own = int(line.split()[1]) / 1024
    return float(max(own, others))


def _read(size: int) -> bytes:
    found = b""
    while len(found) < size:
        part = os.read(0, size - len(found))
        if not part:
            os._exit(1)  # the parent ended before it had said what to do
        found += part
    return found


def _end_with_parent() -> None:
    """Standard input ends with the parent, however it ended."""
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
