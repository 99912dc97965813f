"""Methods side by side on single recorded layers, with what each had found and proved at any time."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.cases import FILES, folder
from benchmarks.suite import CORES, experiment
from moeopt.bench_rows import Absent, Key, Row, Task
from moeopt.bench_solving import Question, tasks
from moeopt.stop import Stop

STOP = Stop(seconds=10)
SEEDS = range(3)
SINGLE = (
    "linear",
    "random",
    "lpt",
    "spectral",
    "tacg",
    "mt-kahypar",
    "swap-cut",
    "swap",
    "search",
    "blocks",
    "priced",
)
COPIED = ("eplb", "gesr", "tacg-gesr", "grace", "replicate", "anneal", "search", "auto")
RACES: tuple[tuple[str, str, dict[str, Any], tuple[str, ...]], ...] = (
    ("gpt-oss-20b", "0,12", {"gpus": 8}, SINGLE),
    ("deepseek-v2-lite", "1,13", {"gpus": 16}, SINGLE),
    ("gpt-oss-20b", "0,12", {"gpus": 8, "replicas": 8}, COPIED),
    ("deepseek-v2-lite", "1,13", {"gpus": 16, "replicas": 16}, COPIED),
)
"""Source, layers, options, methods."""


@experiment("races", workers=CORES)
def races() -> Iterable[Task]:
    """Every method on two layers of each recorded model, with copies and without: cost and bound over time."""
    for source, layers, options, methods in RACES:
        path = folder() / FILES[source]
        if not path.exists():
            yield Task(Key(source, None, str(options), 0, repr(STOP)), absent, (path,))
            continue
        yield from tasks(Question(path, layers, options, held_out=0.2), methods, seeds=SEEDS, stop=STOP)


def absent(path: Path) -> list[Row]:
    """Never rows: the recording is not there."""
    raise Absent(f"{path.name} is not there; set MOEOPT_TRACES to the folder that holds it")
