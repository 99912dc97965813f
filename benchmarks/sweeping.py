"""The sweeps themselves: kills at random instants, one worker against two, what a task costs beside its work."""

import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.cases import case
from benchmarks.kills import kill
from benchmarks.suite import experiment
from moeopt.api import solve
from moeopt.bench_rows import Absent, Key, Row, Task
from moeopt.bench_runs import Limits
from moeopt.bench_store import Store
from moeopt.bench_sweep import sweep
from moeopt.heuristics.swap import Swap
from moeopt.stop import Stop

KILLS = 2_000
ENGINES = ("processes", "Dask, processes of its own", "Dask, in its workers")
WORKERS = (1, 2)
WORKS = {"nothing": 24, "search": 24}  # tasks of each kind
KICKS = 500  # of a search: so much work, however long it takes
LIMITS = Limits(seconds=600, mebibytes=4096)
SECONDS = 1_800.0


@experiment("kills")
def kills() -> Iterable[Task]:
    """Sweeps killed at random instants: rows lost, torn or doubled."""
    key = Key(f"{KILLS} kills", None, "sweep", 0, "")
    yield Task(key, count_kills, (key,), SECONDS)


def count_kills(key: Key, count: int = KILLS) -> list[Row]:
    """One row: what so many kills left behind."""
    with tempfile.TemporaryDirectory() as folder:
        tally = kill(count, Store(Path(folder) / "rows.sqlite"), seed=key.seed)
    return [key.row("done", clean=tally.clean, **asdict(tally))]


@experiment("scaling")
def scaling() -> Iterable[Task]:
    """The same tasks by one worker and by two, and what a task costs beside its work."""
    for engine in ENGINES:
        for work in WORKS:
            key = Key(work, None, engine, 0, "")
            yield Task(key, scale, (engine, work, key), SECONDS)


def scale(engine: str, work: str, key: Key) -> list[Row]:
    """A row a number of workers, by turns in one process; the last one bears the key."""
    count = WORKS[work]
    rows = []
    for workers in WORKERS:
        found = timed(engine, work, count=count, workers=workers)
        method = engine if workers == WORKERS[-1] else f"{engine}, {workers}"
        rows.append(Key(key.case, None, method, key.seed, key.stop).row("done", engine=engine, **found))
    return rows


def timed(engine: str, work: str, *, count: int, workers: int) -> dict[str, Any]:
    """Seconds of a sweep over so many tasks, those of the tasks themselves, and tasks that failed."""
    todo = [
        Task(Key(f"task {number}", None, work, number, ""), WORK[work], (number,)) for number in range(count)
    ]
    limits = None if engine == ENGINES[2] else LIMITS
    with tempfile.TemporaryDirectory() as folder, _executor(engine, workers) as executor:
        store = Store(Path(folder) / "rows.sqlite")
        # Workers start before the clock does: they are there for a whole sweep, however long.
        sweep(todo[:workers], store, experiment="first", executor=executor, workers=workers, limits=limits)
        begun = time.perf_counter()
        sweep(todo, store, experiment="timed", executor=executor, workers=workers, limits=limits)
        seconds = time.perf_counter() - begun
        rows = store.latest("timed")
    return {
        "work": work,
        "workers": workers,
        "tasks": count,
        "failed": sum(row["outcome"] != "done" for row in rows),
        "seconds": seconds,
        "own_seconds": sum(row["found"].get("seconds", 0.0) for row in rows),
    }


@contextmanager
def _executor(engine: str, workers: int) -> Iterator[Executor | None]:
    if engine == ENGINES[0]:
        yield None
        return
    try:
        distributed: Any = import_module("distributed")
    except ModuleNotFoundError as error:
        raise Absent("the extra dask is not installed") from error
    with (
        distributed.LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
        client.get_executor(pure=False) as executor,
    ):
        yield executor


def nothing(number: int) -> list[Row]:
    """A row of a task without work."""
    return [Key(f"task {number}", None, "nothing", number, "").row("done", seconds=0.0)]


def search(number: int) -> list[Row]:
    """A row of a task that searches the first layer of the sample, the same work each time but for the seed."""
    begun = time.perf_counter()
    one = case("sample").first_layer()
    solve(one.problem(), Swap(kicks=KICKS), stop=Stop(seconds=None), seed=number)
    seconds = time.perf_counter() - begun
    return [Key(f"task {number}", None, "search", number, "").row("done", seconds=seconds)]


WORK = {"nothing": nothing, "search": search}
