"""Sweeps killed at random instants: `python -m benchmarks.kills --kills N`. Prints what was lost or doubled.

A child sweeps quick tasks of three rows each and reports a task when the store says its rows are on disk; SIGKILL
comes after a random time. Then every reported task must have all its rows, no task a part of them, and no row be
there twice. The next child goes on where the last one was killed.
"""

import json
import os
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from sqlite3 import connect
from typing import Annotated

import typer

from moeopt.bench_rows import Key, Row, Task
from moeopt.bench_store import Store
from moeopt.bench_sweep import sweep

ROWS, TASKS = 3, 40  # rows of a task, tasks of an experiment
LONGEST = 0.12  # seconds until a kill
PAUSE = 0.002  # seconds a task takes at most


def measured(case: str) -> list[Row]:
    """Rows of a task, after a moment."""
    time.sleep(random.random() * PAUSE)
    last = Key(case, None, "sleep", 0, "")
    return [replace(last, layer=layer).row("done", cost=layer) for layer in range(ROWS - 1)] + [
        last.row("done", cost=ROWS - 1)
    ]


def tasks(experiment: str) -> list[Task]:
    """All tasks of an experiment."""
    names = [f"{experiment}, task {number}" for number in range(TASKS)]
    return [Task(Key(name, None, "sleep", 0, ""), measured, (name,)) for name in names]


def swept(store: Store, experiment: str, tell: Callable[[list[Row]], object]) -> None:
    """The sweep that is killed."""
    sweep(tasks(experiment), store, experiment=experiment, limits=None, follow=tell)


def killed(store: Store, experiment: str, *, after: float) -> list[str]:
    """Cases that a child reported before it was killed, or was done, whichever came first."""
    ears, mouth = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(ears)
            swept(store, experiment, lambda rows: os.write(mouth, f"{rows[-1]['case']}\n".encode()))
        finally:
            os._exit(0)
    os.close(mouth)
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(ears) as file:
        return [line for line in file.read().split("\n") if line]


@dataclass
class Tally:
    """What kills left behind.

    | field | holds |
    |---|---|
    | kills, amid | of them; that came before a sweep was done |
    | reported | tasks said to be on disk |
    | lost | rows of reported tasks that the store did not have right after a kill |
    | torn | tasks of which it had some rows and not all |
    | doubled | rows that it had more than once |
    | unsound | kills after which SQLite's own check found something |
    """

    kills: int = 0
    amid: int = 0
    reported: int = 0
    lost: int = 0
    torn: int = 0
    doubled: int = 0
    unsound: int = 0

    def look(self, store: Store, experiment: str, reported: set[str]) -> bool:
        """Look at the store after a kill; whether the sweep was done."""
        keys = Counter(Key.of(row) for row in store.rows(experiment))
        held = Counter(key.case for key in keys)
        self.kills += 1
        self.lost += sum(ROWS - held[case] for case in reported)
        self.torn += sum(rows < ROWS for rows in held.values())
        self.doubled += keys.total() - len(keys)
        with closing(connect(store.path)) as database:
            self.unsound += database.execute("PRAGMA integrity_check").fetchone() != ("ok",)
        done = len(held) == TASKS
        self.amid += not done
        return done

    @property
    def clean(self) -> bool:
        """Whether nothing was lost, torn, doubled or damaged."""
        return not (self.lost or self.torn or self.doubled or self.unsound)


def kill(count: int, store: Store, *, seed: int) -> Tally:
    """Kill so many sweeps into a store: one goes on where the last was killed, a new one begins where it was done."""
    draw, tally, number = random.Random(seed), Tally(), 0
    reported: set[str] = set()
    for _ in range(count):
        experiment = f"sweep {number}"
        reported |= set(killed(store, experiment, after=draw.random() * LONGEST))
        if tally.look(store, experiment, reported):
            number, tally.reported = number + 1, tally.reported + len(reported)
            reported = set()
    tally.reported += len(reported)
    return tally


def command(
    kills: Annotated[int, typer.Option(min=1, help="Processes to kill.")] = 2_000,
    seed: Annotated[int, typer.Option(min=0, help="Of the instants.")] = 0,
    store: Annotated[Path | None, typer.Option(help="The store; by default one that is thrown away.")] = None,
) -> None:
    """Kill sweeps; exit code 1 when a row was lost, torn or doubled."""
    with tempfile.TemporaryDirectory() as folder:
        tally = kill(kills, Store(store or Path(folder) / "rows.sqlite"), seed=seed)
    typer.echo(json.dumps({**asdict(tally), "clean": tally.clean}))
    raise typer.Exit(0 if tally.clean else 1)


if __name__ == "__main__":
    typer.run(command)
