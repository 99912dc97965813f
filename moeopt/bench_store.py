"""The store of a benchmark's rows: one SQLite file, written by transactions that survive a killed process."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moeopt import storage
from moeopt.bench_checks import OUTCOMES, parsed
from moeopt.bench_rows import SETTLED, Key, Row, versions

__all__ = ["COLUMNS", "Store", "cells_of", "newest", "row_of"]

MARK, VERSION = 0x6D6F656F, 1  # application id and schema
WAIT = 60.0  # seconds for another process's transaction
WHOLE = -1  # stands for no layer: SQLite holds two NULLs for different
COLUMNS = (
    *("experiment", "case", "layer", "method", "seed", "stop", "versions", "machine"),
    *("outcome", "reason", "found", "wall_seconds", "peak_mib"),
)
IDENTITY = 8  # columns: one row each
SCHEMA = """
CREATE TABLE IF NOT EXISTS rows (
    number INTEGER PRIMARY KEY,
    "experiment" TEXT NOT NULL, "case" TEXT NOT NULL, "layer" INTEGER NOT NULL, "method" TEXT NOT NULL,
    "seed" INTEGER NOT NULL, "stop" TEXT NOT NULL, "versions" TEXT NOT NULL, "machine" TEXT NOT NULL,
    "outcome" TEXT NOT NULL CHECK ("outcome" IN ('done', 'unsupported', 'skipped', 'failed')),
    "reason" TEXT NOT NULL, "found" TEXT NOT NULL, "wall_seconds" REAL, "peak_mib" REAL,
    UNIQUE ("experiment", "case", "layer", "method", "seed", "stop", "versions", "machine")
)
"""
_NAMES = ", ".join(f'"{name}"' for name in COLUMNS)
_KEY = ", ".join(f'"{name}"' for name in COLUMNS[:IDENTITY])
_FOUND = ", ".join(f'"{name}" = excluded."{name}"' for name in COLUMNS[IDENTITY:])
_NEWEST = "number = (SELECT max(number) + 1 FROM rows)"
_SETTLED = ", ".join(f"'{outcome}'" for outcome in SETTLED)
# An answer stays when a later try of the same fails.
INSERT = (
    f"INSERT INTO rows ({_NAMES}) VALUES ({', '.join('?' * len(COLUMNS))}) "
    f"ON CONFLICT ({_KEY}) DO UPDATE SET {_NEWEST}, {_FOUND} "
    f"WHERE excluded.outcome IN ({_SETTLED}) OR rows.outcome NOT IN ({_SETTLED})"
)


@dataclass(frozen=True)
class Store:
    """Rows of experiments in one file: a row for each key, versions and machine, whoever writes and however often.

    Write-ahead log, synchronised to the disk before `append` returns; processes on one machine may share it.
    """

    path: Path

    def append(self, rows: Iterable[Row], *, experiment: str) -> None:
        """Add rows, all of them or none, on disk when this returns; they replace failures and earlier answers."""
        found = [cells_of(row, experiment) for row in rows]
        with self._open() as database:
            database.execute("BEGIN IMMEDIATE")
            database.executemany(INSERT, found)
            database.execute("COMMIT")

    def rows(self, experiment: str) -> list[Row]:
        """All rows of an experiment, oldest first."""
        found = self._read(f"SELECT {_NAMES} FROM rows WHERE experiment = ? ORDER BY number", experiment)
        try:
            return [row_of(cells) for cells in found]
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from error

    def latest(self, experiment: str) -> list[Row]:
        """The newest row of every key, an answer where there is one, whatever the versions and the machine."""
        return newest(self.rows(experiment))

    def done(self, experiment: str) -> set[Key]:
        """Keys with an answer by the versions installed, of any machine; failures and skipped cases are tried again."""
        mine = versions()
        return {
            Key.of(row)
            for row in self.rows(experiment)
            if row["versions"] == mine and row["outcome"] in SETTLED
        }

    def last(self) -> int:
        """The number of the newest row; 0 without any."""
        return max((int(number or 0) for (number,) in self._read("SELECT max(number) FROM rows")), default=0)

    def forget(self, experiment: str, *, until: int) -> None:
        """Delete the rows of an experiment up to the one of this number."""
        with self._open() as database:
            database.execute("DELETE FROM rows WHERE experiment = ? AND number <= ?", (experiment, until))

    def experiments(self) -> list[str]:
        """Names of those that have rows, in the order of their first."""
        found = self._read("SELECT experiment FROM rows GROUP BY experiment ORDER BY min(number)")
        return [name for (name,) in found]

    def _read(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """What a query finds; nothing where no file is, or an empty one. Nothing is written, nor left beside the file.

        SQLite opens a closed store with a write-ahead log only where it may write beside it, and leaves files there;
        so the store is first read as a file that nobody changes, and that is believed when nobody has.
        """
        before = self._state()
        if before is None or not before[1]:
            return []
        quiet = not Path(f"{self.path}-wal").exists()
        for mode in ["mode=ro&immutable=1", "mode=ro"] if quiet else ["mode=ro"]:
            try:
                found = self._queried(mode, query, values)
            except sqlite3.Error as error:
                if mode == "mode=ro" or self._state() == before:
                    raise ValueError(f"{self.path}: {error}") from error
            else:
                if mode == "mode=ro" or self._state() == before:
                    return found
        raise RuntimeError("the last way to read a store either finds or raises")

    def _queried(self, mode: str, query: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        address = f"{self.path.absolute().as_uri()}?{mode}"
        with closing(sqlite3.connect(address, timeout=WAIT, isolation_level=None, uri=True)) as database:
            return database.execute(query, values).fetchall() if _is_store(database, self.path) else []

    def _state(self) -> tuple[int, int] | None:
        """Changes with every write to the file; None where none is."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        return found.st_mtime_ns, found.st_size

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            database = sqlite3.connect(self.path, timeout=WAIT, isolation_level=None)
            try:
                _check(database, self.path)
                yield database
            finally:
                database.close()
        except sqlite3.Error as error:
            raise ValueError(f"{self.path}: {error}") from error


def newest(rows: Iterable[Row]) -> list[Row]:
    """Of rows, oldest first, the newest of every key; a failure does not hide an answer."""
    found: dict[Key, Row] = {}
    for row in rows:
        key = Key.of(row)
        if key not in found or row["outcome"] in SETTLED or found[key]["outcome"] not in SETTLED:
            found[key] = row
    return list(found.values())


def _check(database: sqlite3.Connection, path: Path) -> None:
    """Make an empty file a store; ValueError for a file of somebody else, or of a later version."""
    database.execute("PRAGMA synchronous = FULL")
    if _is_store(database, path):  # before anything is written to it
        return
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("BEGIN IMMEDIATE")
    try:
        _check_empty(database, path)  # another process may have been first
        database.execute(SCHEMA)
        database.execute(f"PRAGMA application_id = {MARK}")
        database.execute(f"PRAGMA user_version = {VERSION}")
        database.execute("COMMIT")
    except BaseException:
        database.execute("ROLLBACK")
        raise


def _is_store(database: sqlite3.Connection, path: Path) -> bool:
    """Whether it is a store, not empty; ValueError for a file of somebody else, or of a later version."""
    (mark,), (version,) = (
        database.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version")
    )
    if mark == MARK and version != VERSION:
        raise ValueError(f"{path}: a store of version {version}, this moeopt knows {VERSION}")
    if mark != MARK:
        _check_empty(database, path)
    return bool(mark == MARK)


def _check_empty(database: sqlite3.Connection, path: Path) -> None:
    (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    (mark,) = database.execute("PRAGMA application_id").fetchone()
    if mark != MARK and (mark or tables):
        raise ValueError(f"{path}: a database, but not of benchmark rows")


def cells_of(row: Row, experiment: str) -> list[Any]:
    """The values of `COLUMNS`."""
    words: dict[str, Any] = {**row, "experiment": experiment}
    words["layer"] = WHOLE if row["layer"] is None else row["layer"]
    for name in ("versions", "machine", "found"):
        words[name] = _text(row[name], ordered=name != "found")
    if row["outcome"] not in OUTCOMES:
        raise ValueError(f"an outcome is one of {', '.join(OUTCOMES)}, found {row['outcome']!r}")
    if not -(1 << 63) <= row["seed"] < 1 << 63:
        raise ValueError(f"a seed has 64 bits, found {row['seed']}")
    # A file's name may hold bytes that are no text.
    return [_plain(words.get(name)) for name in COLUMNS]


def _plain(value: Any) -> Any:
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


def _text(value: object, *, ordered: bool) -> str:
    return json.dumps(
        value,
        default=storage.plain,
        allow_nan=False,
        sort_keys=ordered,
        ensure_ascii=False,
        separators=(",", ":"),
    )


def row_of(cells: Sequence[Any]) -> Row:
    """Inverse of `cells_of`, without the experiment."""
    row: Row = dict(zip(COLUMNS[1:], cells[1:], strict=True))
    row["layer"] = None if row["layer"] == WHOLE else row["layer"]
    for name in ("versions", "machine", "found"):
        row[name] = parsed(row[name], column=name)
    return row
