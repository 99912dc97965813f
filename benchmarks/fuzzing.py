"""Every reader of files under fuzzing: damaged inputs by the million, and how many did not end as they should."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from importlib.util import find_spec

from benchmarks.drawing import drawn, seconds
from benchmarks.fuzz import fuzz
from benchmarks.fuzz_targets import TARGETS
from benchmarks.suite import CORES, experiment
from moeopt.bench_rows import Absent, Key, Row, Task

RUNS = 1_000_000
ENGINE = "atheris"
SECONDS = 3_600.0  # that a million inputs may take


@experiment("fuzz", workers=CORES)
def fuzzing() -> Iterable[Task]:
    """A million damaged inputs to every reader of files: any ends in an answer or a ValueError."""
    for target in TARGETS:
        key = Key(target, None, ENGINE, 0, f"{RUNS} runs")
        yield Task(key, throw, (key,), SECONDS)


def throw(key: Key, *, runs: int = RUNS, engine: str = ENGINE) -> list[Row]:
    """One row; a crash is a failed one that names the input. Raises Absent without atheris."""
    if engine == ENGINE and find_spec(ENGINE) is None:
        raise Absent("the extra fuzz is not installed")
    found = asdict(fuzz(key.case, runs=runs, engine=engine, seed=key.seed))
    if crash := found.pop("crash"):
        return [key.row("failed", reason=f"{crash}: {found['reason']}")]
    found["release"] = version(engine) if engine == ENGINE else ""
    return [key.row("done", **found)]


def table(rows: Sequence[Row]) -> str:
    """A line a reader; those that crashed are left out, with their inputs named below."""
    head = ["reader", "damaged inputs", "a second", "takes", "crashes"]
    lines = []
    for row in rows:
        found = row["found"]
        rate = found["runs"] / max(found["seconds"], 1e-9)
        lines.append(
            [f"`{row['case']}`", f"{found['runs']:,}", f"{rate:,.0f}", seconds(found["seconds"]), "none"]
        )
    releases = sorted({row["found"]["release"] for row in rows if row["found"].get("release")})
    return drawn(head, lines) + (f"\natheris {', '.join(releases)}, two at a time.\n" if releases else "")


TABLES: Mapping[str, tuple[str, Callable[[Sequence[Row]], str]]] = {"fuzz": ("fuzz", table)}
"""Name of a table to its experiment and how it is drawn."""
