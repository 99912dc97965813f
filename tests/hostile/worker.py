"""What comes of reading each case, measured: `python -m tests.hostile.worker CASES`, where CASES is a file of JSON.

A line of JSON a case. Whoever starts it sees from the lines that are missing which case ended the process.
"""

from __future__ import annotations

import gc
import json
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

from tests.hostile.cases import Case, cases_in
from tests.hostile.readers import READERS
from tests.hostile.tiny import problem

MOST_SPACE = 3 << 30  # bytes of address space: above it an allocation fails, instead of the machine
STUCK = 10  # seconds after which a reader that waits for something is ended


def _measured(case: Case) -> dict[str, Any]:
    """What comes of reading a case: type and text of the error, CPU seconds, growth of the memory in use, bytes."""
    gc.collect(1)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _status("VmRSS")
    begun = time.process_time()
    kind, message = "", ""
    try:
        READERS[case.by](case.path, case.given)
    except BaseException as error:
        kind, message = type(error).__name__, str(error)
    seconds = time.process_time() - begun
    return {
        "name": case.name,
        "kind": kind,
        "message": message[:4000].encode("utf-8", "surrogateescape").decode("utf-8", "replace"),
        "length": len(message) - len(case.path),
        "lines": message.count("\n") + 1,
        "named": message.startswith(case.path),
        "seconds": seconds,
        "grown": _status("VmHWM") - before,
    }


def _status(name: str) -> int:
    """A size of this process, bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(name)


def _work(cases: list[Case]) -> None:
    """Warm up on the tiny problem, so that no case pays for imports; then every case, a line each."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_SPACE, MOST_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    import pyarrow.csv
    import pyarrow.json
    import pyarrow.parquet  # noqa: F401

    problem()
    for case in cases:
        signal.alarm(STUCK)
        print(json.dumps(_measured(case)), flush=True)


if __name__ == "__main__":
    _work(cases_in(Path(sys.argv[1]).read_text()))
