"""The kernels that time goes by in, against what the machine needs at least for their work."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.micro import preparing
from benchmarks.micro.preparing import FULL, SMALL, Prepared, Size
from benchmarks.suite import experiment
from moeopt.bench_rows import Key, Row, Task

__all__ = ["FULL", "KERNELS", "ROUNDS", "SMALL", "Kernel", "Prepared", "Size", "measure_kernel", "row_of"]

ROUNDS = 15
ROOT = Path(__file__).parent.parent
FILE = "benchmarks/micro/test_kernels.py"
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
SECONDS = 60.0  # that a kernel may take, its data and limits included


@dataclass(frozen=True)
class Kernel:
    """What is timed: `prepare` makes its data at a size, `unit` says what is counted."""

    name: str
    unit: str
    prepare: Callable[[Size], Prepared]


KERNELS = (
    Kernel("cost of a partition", "token-layers", preparing.of_cost),
    Kernel("workload by NumPy", "token-layers", preparing.of_numpy),
    Kernel("workload, compiled", "token-layers", preparing.of_compiled),
    Kernel("workload of a stream", "token-layers", preparing.of_stream),
    Kernel("swaps looked at", "swaps", preparing.of_looking),
    Kernel("swaps made", "swaps", preparing.of_exchanging),
    Kernel("contents priced", "looks", preparing.of_pricing),
    Kernel("triangles sought", "triples", preparing.of_triples),
    Kernel("cuts sought", "changes of a sign", preparing.of_cuts),
)


@experiment("kernels")
def kernels() -> Iterable[Task]:
    """The compiled kernels against what the machine needs at least for their work, on one core."""
    for kernel in KERNELS:
        key = Key(kernel.name, None, kernel.prepare.__name__, 0, f"{ROUNDS} rounds")
        yield Task(key, measure_kernel, (kernel.name, key), SECONDS)


def measure_kernel(name: str, key: Key, *options: str) -> list[Row]:
    """One row, by pytest-benchmark in a process with one thread.

    `options` are further ones of pytest. Raises ValueError for an unknown kernel, RuntimeError with what pytest says
    where it fails.
    """
    if name not in (known := [kernel.name for kernel in KERNELS]):
        raise ValueError(f"no kernel is named {name!r}; known are {', '.join(known)}")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "kernels.json"
        command = [sys.executable, "-m", "pytest", f"{FILE}::test_kernel[{name}]", "-q"]
        command += ["-p", "no:cacheprovider", f"--benchmark-json={page}", *options]
        outer = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        ended = subprocess.run(
            command, cwd=ROOT, env=outer | ONE_THREAD, capture_output=True, text=True, check=False
        )
        if ended.returncode:
            said = (ended.stdout + ended.stderr).strip()[-500:]
            raise RuntimeError(f"{name}: pytest ended with exit code {ended.returncode}: {said}")
        return [row_of(json.loads(page.read_text(encoding="utf-8")), key)]


def row_of(document: Mapping[str, Any], key: Key) -> Row:
    """The row of a page of pytest-benchmark; ValueError where it does not hold one kernel."""
    if len(found := document["benchmarks"]) != 1:
        raise ValueError(f"a page of one kernel is read, found {len(found)}")
    (one,) = found
    stats, about = one["stats"], one["extra_info"]
    return key.row(
        "done",
        seconds=stats["min"],
        median_seconds=stats["median"],
        rounds=stats["rounds"],
        rate=about["units"] / stats["min"],
        **about,
    )
