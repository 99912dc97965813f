"""The tables of sweeps: methods side by side, kills, workers and what a task costs beside its work."""

from collections.abc import Callable, Mapping, Sequence

from benchmarks.drawing import drawn, seconds
from moeopt.bench_markdown import case_tables
from moeopt.bench_rows import Row


def kills(rows: Sequence[Row]) -> str:
    """A line a run."""
    names = ("kills", "amid", "reported", "lost", "torn", "doubled", "unsound")
    lines = [[f"{row['found'][name]:,}" for name in names] for row in rows]
    head = [
        "kills",
        "amid a sweep",
        "tasks reported done",
        "rows lost",
        "tasks torn",
        "rows doubled",
        "stores damaged",
    ]
    return drawn(head, lines)


def scaling(rows: Sequence[Row]) -> str:
    """A line an engine and kind of task."""
    lines = []
    for engine, work in dict.fromkeys((row["found"]["engine"], row["found"]["work"]) for row in rows):
        by = {
            row["found"]["workers"]: row["found"]
            for row in rows
            if (row["found"]["engine"], row["found"]["work"]) == (engine, work)
        }
        one, two = by[1], by[2]
        lines.append(
            [
                engine,
                work,
                str(one["tasks"]),
                seconds(one["seconds"]),
                seconds(two["seconds"]),
                f"{one['seconds'] / two['seconds']:.2f}",
                *(
                    seconds((count * found["seconds"] - found["own_seconds"]) / found["tasks"])
                    for count, found in ((1, one), (2, two))
                ),
            ]
        )
    head = [
        "started by",
        "task",
        "tasks",
        "1 worker",
        "2 workers",
        "ratio",
        "beside the work, 1",
        "beside the work, 2",
    ]
    note = "\nBeside the work: worker seconds a task that its own measure leaves out: start, imports, rows stored.\n"
    return drawn(head, lines) + note


TABLES: Mapping[str, tuple[str, Callable[[Sequence[Row]], str]]] = {
    "races": ("races", case_tables),
    "kills": ("kills", kills),
    "scaling": ("scaling", scaling),
}
"""Name of a table to its experiment and how it is drawn."""
