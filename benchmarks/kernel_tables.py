"""The table of the kernels against the machine, from stored rows."""

from collections.abc import Callable, Mapping, Sequence

from benchmarks.drawing import drawn
from moeopt.bench_rows import Row


def kernels(rows: Sequence[Row]) -> str:
    """A line a kernel."""
    head = ["kernel", "unit", "millions a second", "work, best of rounds (median)"]
    head += ["no code needs less than", "which takes", "times that"]
    lines = []
    for row in rows:
        found = row["found"]
        lines.append(
            [
                row["case"],
                found["unit"],
                f"{found['rate'] / 1e6:.3g}",
                f"{_milliseconds(found['seconds'])} ({_milliseconds(found['median_seconds'])})",
                found["limit"],
                _milliseconds(found["limit_seconds"]),
                f"{found['times_limit']:.1f}",
            ]
        )
    return drawn(head, lines) + "\nOne core, one thread, CPU time; limits measured in the same process.\n"


def _milliseconds(value: float) -> str:
    """Three digits."""
    return f"{1000 * value:.3g} ms"


TABLES: Mapping[str, tuple[str, Callable[[Sequence[Row]], str]]] = {"kernels": ("kernels", kernels)}
"""Name of a table to its experiment and how it is drawn."""
