"""A sweep: every task once, on any executor, its rows stored as they come; what is stored is not run again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, as_completed, wait
from contextlib import contextmanager

from moeopt.bench_rows import SETTLED, Row, Task, perform, versions
from moeopt.bench_runs import Limits, end_runs, isolated
from moeopt.bench_store import Store, cells_of

__all__ = ["forecast", "left", "sweep"]

DEFAULT = Limits()
Contradiction = Callable[[Row, Sequence[Row]], str]


def sweep(
    tasks: Iterable[Task],
    store: Store,
    *,
    experiment: str,
    workers: int = 1,
    executor: Executor | None = None,
    limits: Limits | None = DEFAULT,
    again: bool = False,
    follow: Callable[[list[Row]], object] = lambda rows: None,
    contradiction: Contradiction | None = None,
) -> int:
    """Perform the tasks that `store` has no answer to, or all of them `again`; returns how many that were.

    Each task is a process of its own within `limits`, so many at a time, or wherever `executor` starts it: any
    `concurrent.futures.Executor`, also one of other machines that have the same modules. Limits of None perform the
    tasks in the executor itself, without one in this thread. The rows of a task are stored together, here; a row that
    contradicts stored ones becomes a disagreement before it is stored. An interrupt ends the runs of this process; what
    is stored stays. Raises ValueError for fewer than one worker, for a limit below what a task may take by its own
    clock, and for an executor whose processes have other versions: their rows would never count as done here.
    """
    todo = list(tasks) if again else left(tasks, store, experiment=experiment)
    _check(todo, limits, executor)
    stored = store.latest(experiment) if contradiction is not None else []

    def keep(rows: list[Row], task: Task) -> None:
        rows = _storable(rows, task)
        if contradiction is not None:
            rows = [_disputed(row, contradiction(row, stored)) for row in rows]
            stored.extend(rows)
        store.append(rows, experiment=experiment)
        follow(rows)

    if limits is None and executor is None:
        for task in todo:
            keep(perform(task), task)
        return len(todo)
    with _starting(executor, workers) as starter:
        futures: dict[Future[list[Row]], Task] = {}
        try:
            for task in todo:
                futures[_submitted(starter, task, limits)] = task
            for future in as_completed(futures):
                keep(_answer(future, futures[future]), futures[future])
        except BaseException:
            for future in futures:
                future.cancel()
            end_runs()
            while executor is None and wait(futures, timeout=0.1).not_done:
                end_runs()  # one may have been about to start
            raise
    return len(todo)


def left(tasks: Iterable[Task], store: Store, *, experiment: str) -> list[Task]:
    """The tasks that `store` has no answer to."""
    known = store.done(experiment)
    return [task for task in tasks if task.key not in known]


def forecast(tasks: Sequence[Task], stored: Iterable[Row], *, workers: int = 1) -> str:
    """How long the tasks take: at most, and as far as other runs of the same case and method tell."""
    took: dict[tuple[str, str], float] = {}
    for row in stored:
        seconds = row["wall_seconds"] or row["found"].get("wall_seconds")
        if seconds is None and row["outcome"] in SETTLED and row["outcome"] != "done":
            seconds = 0.0
        if seconds is not None:
            about = (row["case"], row["method"])
            took[about] = max(seconds, took.get(about, 0.0))
    most = sum(task.seconds for task in tasks) / workers
    likely = sum(took.get((task.key.case, task.key.method), task.seconds) for task in tasks) / workers
    timed = f", at most {most / 60:.0f} min, by stored runs {likely / 60:.0f} min" if most else ""
    return f"{len(tasks)} runs to go, {workers} at a time{timed}"


@contextmanager
def _starting(executor: Executor | None, workers: int) -> Iterator[Executor]:
    """The executor itself, which stays open, or threads that each wait for a process."""
    if executor is not None:
        yield executor
        return
    if workers < 1:
        raise ValueError(f"workers must be at least 1, found {workers}")
    threads = ThreadPoolExecutor(workers)
    try:
        yield threads
    finally:
        threads.shutdown(cancel_futures=True)


def _check(tasks: Sequence[Task], limits: Limits | None, executor: Executor | None) -> None:
    longest = max((task.seconds for task in tasks), default=0.0)
    if limits is not None and limits.seconds is not None and limits.seconds < longest:
        raise ValueError(f"a run may take {longest:g} s by its own clock, the limit is {limits.seconds:g} s")
    if executor is not None and (theirs := executor.submit(versions).result()) != versions():
        differ = [
            f"{name} {theirs[name]}, here {one}" for name, one in versions().items() if theirs[name] != one
        ]
        raise ValueError(f"the executor's processes have other versions: {'; '.join(differ)}")


def _submitted(starter: Executor, task: Task, limits: Limits | None) -> Future[list[Row]]:
    """The future of a task; where the executor takes no more, one that says so."""
    try:
        return starter.submit(perform, task) if limits is None else starter.submit(isolated, task, limits)
    except Exception as error:
        refused: Future[list[Row]] = Future()
        refused.set_exception(error)
        return refused


def _storable(rows: list[Row], task: Task) -> list[Row]:
    """The rows, or one that says why a store cannot hold them."""
    try:
        for row in rows:
            cells_of(row, "")
    except (ValueError, TypeError, KeyError) as error:
        return [task.unanswered("failed", reason=f"no rows to store: {type(error).__name__}: {error}")]
    return rows


def _answer(future: Future[list[Row]], task: Task) -> list[Row]:
    """The rows, or one that says what became of the executor."""
    try:
        return future.result()
    except Exception as error:
        return [task.unanswered("failed", reason=f"not run: {type(error).__name__}: {error}")]


def _disputed(row: Row, reason: str) -> Row:
    """The row with a reason why it cannot be true, if there is one and the row claims anything."""
    if not reason or row["outcome"] != "done":
        return row
    return {**row, "reason": reason, "found": {**row["found"], "status": "disagreement"}}
