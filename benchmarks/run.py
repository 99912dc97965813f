"""Runs tasks, each once, and keeps what they found: one JSON line a row, appended whole."""

import json
import os
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

from benchmarks.cases import Absent
from moeopt import checker, parallel, storage
from moeopt.dispatch import Plan
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.result import Result
from moeopt.trace import Trace
from moeopt.workload import Workload

RESULTS = Path(__file__).parent / "results"
LIBRARIES = ("numpy", "highspy", "pyomo", "numba", "moeopt")

Row = dict[str, Any]
Outcome = Literal["done", "unsupported", "skipped", "failed"]


@dataclass(frozen=True)
class Key:
    """What a row is about; with the versions, its identity.

    | field | holds |
    |---|---|
    | case | name of the case |
    | layer | absolute id; None: all layers of the case |
    | method | repr of the method, or what else was run |
    | seed, stop | repr of the stop |
    """

    case: str
    layer: int | None
    method: str
    seed: int
    stop: str

    @classmethod
    def of(cls, row: Row) -> "Key":
        """The key of a stored row."""
        return cls(*(row[name] for name in cls.__dataclass_fields__))

    def row(self, outcome: Outcome, *, reason: str = "", **found: Any) -> Row:
        """The row to store: `found` holds what was measured, `reason` why nothing was."""
        return {
            **asdict(self),
            "outcome": outcome,
            "reason": reason,
            "found": found,
            "versions": versions(),
            "machine": machine(),
        }


@dataclass(frozen=True)
class Task:
    """Work that gives rows; the last one bears `key`, so that a task is done when its last row is stored.

    `seconds`: what it may take, where that is known beforehand.
    """

    key: Key
    measure: Callable[..., list[Row]]
    arguments: tuple[Any, ...]
    seconds: float = 0.0


@dataclass(frozen=True)
class Store:
    """The rows of one experiment, a file of JSON lines.

    Rows are only ever added. A last line without its end, left by a crash, does not count and is cut off by the
    next row.
    """

    path: Path

    def rows(self) -> list[Row]:
        """All rows, oldest first."""
        if not self.path.exists():
            return []
        return [json.loads(line) for line in self.path.read_bytes().split(b"\n")[:-1]]

    def latest(self) -> list[Row]:
        """The newest row of every key, whatever the versions."""
        return list({Key.of(row): row for row in self.rows()}.values())

    def done(self) -> set[Key]:
        """Keys with an answer by the versions installed; failures and skipped cases are tried again."""
        mine = versions()
        return {
            Key.of(row)
            for row in self.rows()
            if row["versions"] == mine and row["outcome"] in ("done", "unsupported")
        }

    def append(self, rows: Iterable[Row]) -> None:
        """Add rows in one write, on disk when this returns."""
        lines = [json.dumps(row, default=storage.plain, allow_nan=False) + "\n" for row in rows]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as file:
            file.seek(0)
            whole = file.read().rfind(b"\n") + 1
            file.truncate(whole)
            file.write("".join(lines).encode())
            file.flush()
            os.fsync(file.fileno())


def perform_all(
    tasks: Iterable[Task],
    store: Store,
    *,
    workers: int = 0,
    limit: int | None = None,
    follow: Callable[[list[Row]], object] = lambda rows: None,
    contradiction: Callable[[Row, Sequence[Row]], str] | None = None,
) -> int:
    """Perform the tasks that `store` has no answer to, at most `limit`; returns how many that were.

    With no `workers` every task has a fresh process of its own, one after the other, which makes its peak memory
    its own; otherwise so many processes share the tasks; 1 means this process. A row that contradicts stored ones
    becomes a disagreement before it is stored.
    """
    todo = left(tasks, store)[:limit]
    stored = store.latest() if contradiction is not None else []

    def keep(rows: list[Row]) -> None:
        if contradiction is not None:
            rows = [disputed(row, contradiction(row, stored)) for row in rows]
            stored.extend(rows)
        store.append(rows)
        follow(rows)

    if not workers:
        for task in todo:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
                keep(fresh.submit(perform, task).result())
        return len(todo)
    with parallel.processes(workers) as executor:
        _, interrupted = parallel.run(executor, [(perform, (task,)) for task in todo], done=keep)
    if interrupted:
        raise KeyboardInterrupt
    return len(todo)


def left(tasks: Iterable[Task], store: Store) -> list[Task]:
    """The tasks that `store` has no answer to."""
    known = store.done()
    return [task for task in tasks if task.key not in known]


def forecast(tasks: Sequence[Task], store: Store, *, workers: int = 0) -> str:
    """How long the tasks take: at most, and as far as other runs of the same case and method tell."""
    took: dict[tuple[str, str], float] = {}
    for row in store.latest():
        seconds = row["found"].get("wall_seconds", 0.0 if row["outcome"] == "unsupported" else None)
        if seconds is not None:
            about = (row["case"], row["method"])
            took[about] = max(seconds, took.get(about, 0.0))
    side = max(1, workers)
    most = sum(task.seconds for task in tasks) / side
    likely = sum(took.get((task.key.case, task.key.method), task.seconds) for task in tasks) / side
    timed = f", at most {most / 60:.0f} min, by stored runs {likely / 60:.0f} min" if most else ""
    return f"{len(tasks)} runs to go, {side} at a time{timed}"


def disputed(row: Row, reason: str) -> Row:
    """The row with a reason why it cannot be true, if there is one and the row claims anything."""
    if not reason or row["outcome"] != "done":
        return row
    return {**row, "reason": reason, "found": {**row["found"], "status": "disagreement"}}


def perform(task: Task) -> list[Row]:
    """The rows of a task; whatever goes wrong is a row with its reason."""
    try:
        return task.measure(*task.arguments)
    except Absent as absent:
        return [task.key.row("skipped", reason=str(absent))]
    except Exception as error:  # a benchmark goes on, and its table says what failed
        return [task.key.row("failed", reason=f"{type(error).__name__}: {error}")]


@dataclass(frozen=True)
class Judgement:
    """A result seen by the judge and the checker.

    | field | holds |
    |---|---|
    | status | the result's, "disagreement" or "rejected" |
    | reason | why it is one of the last two |
    | cost, bound | by `Problem.cost`, and by the certificate that the checker accepted |
    | verify_seconds | of the checker, from the trace; None without a certificate |
    """

    status: str
    reason: str
    cost: int | None
    bound: int | None
    verify_seconds: float | None


def judge(problem: Problem, result: Result, trace: Trace | Workload) -> Judgement:
    """Cost the placement again and verify the certificate against the trace: a word is not a result."""
    cost, bound, seconds = None, None, None
    if result.placement is not None:
        candidate = _answer(problem, result)
        if broken := problem.violation(candidate):
            return Judgement("disagreement", f"not admissible: {broken}", None, None, None)
        cost = problem.cost(candidate)
    if cost != result.cost:
        return Judgement("disagreement", f"costs {cost}, the result says {result.cost}", cost, None, None)
    if result.certificate is not None:
        begun = time.perf_counter()
        verdict = checker.verify(result.certificate, trace)
        seconds = time.perf_counter() - begun
        if not verdict.accepted:
            return Judgement("rejected", verdict.reason, cost, None, seconds)
        bound = sum(proof.bound for proof in result.certificate.proofs)
        complete = len(result.certificate.proofs) == len(problem.workload.layers)
        bound = bound if complete else None
    judgement = Judgement(result.status, "", cost, bound, seconds)
    if bound != result.bound:
        why = f"the certificate proves {bound}, the result says {result.bound}"
        return replace(judgement, status="disagreement", reason=why)
    holds = {"certified-optimal": bound is not None and bound == cost, "certified-gap": bound is not None}
    if not holds.get(result.status, True):
        why = f"{result.status} with bound {bound} and cost {cost}"
        return replace(judgement, status="disagreement", reason=why)
    return judgement


def _answer(problem: Problem, result: Result) -> Placement | Plan:
    """The placement, with the dispatch that its certificate carries where that is part of the answer."""
    placement = result.placement
    if placement is None:
        raise ValueError("the result has no placement")
    dispatches = [] if result.certificate is None else [proof.dispatch for proof in result.certificate.proofs]
    kept = tuple(dispatch for dispatch in dispatches if dispatch is not None)
    return Plan(placement, kept) if len(kept) == len(problem.workload.layers) else placement


def versions() -> dict[str, str]:
    """Of Python and the libraries that numbers depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}


@cache
def machine() -> dict[str, Any]:
    """The processor's name and the cores this process may use."""
    cpu = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        lines = information.read_text().splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
    return {"cpu": cpu, "cores": parallel.available_cores()}
