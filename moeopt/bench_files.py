"""Rows of benchmarks for others to read: Parquet and CSV, a file an experiment."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from moeopt import storage
from moeopt.bench_checks import check_row
from moeopt.bench_rows import SETTLED, Key, Row
from moeopt.bench_store import COLUMNS, Store, cells_of, row_of

__all__ = ["collect", "publish", "read_rows", "write_rows"]

LONGEST = 1 << 26  # characters of a cell
WHOLE_NUMBERS, NUMBERS = ("layer", "seed"), ("wall_seconds", "peak_mib")


def write_rows(rows: Sequence[Row], path: Path, *, experiment: str | None = None) -> None:
    """Write a table, by the suffix .parquet or .csv, whole or not at all; other suffixes raise ValueError.

    Columns as in the store, the experiment by default the name of the file. A row of all layers has the layer -1;
    `versions`, `machine` and `found` are JSON.
    """
    found = [cells_of(row, experiment or path.stem) for row in rows]
    if path.suffix == ".csv":
        text = io.StringIO(newline="")
        csv.writer(text).writerows([COLUMNS, *found])
        storage.write_bytes(path, text.getvalue().encode())
        return
    if path.suffix != ".parquet":
        raise ValueError(f"{path}: rows are written as .parquet or .csv")
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {name: pa.int64() for name in WHOLE_NUMBERS} | {name: pa.float64() for name in NUMBERS}
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in COLUMNS])
    columns = [list(column) for column in zip(*found, strict=True)] or [[] for _ in COLUMNS]
    sink = io.BytesIO()
    pq.write_table(pa.table(columns, schema=schema), sink, compression="zstd", compression_level=12)
    storage.write_bytes(path, sink.getvalue())


def read_rows(path: Path) -> list[Row]:
    """The rows of a file that `write_rows` wrote; ValueError names the file, the row from 1 on and what is wrong."""
    try:
        return [_row(cells, number) for number, cells in enumerate(_cells(path), start=1)]
    except (ValueError, KeyError, TypeError, OSError, csv.Error) as error:
        raise ValueError(f"{path}: no rows of a benchmark: {error}") from error


def _row(cells: Sequence[object], number: int) -> Row:
    try:
        row = row_of(_typed(cells))
        check_row(row)
    except ValueError as error:
        raise ValueError(f"row {number}: {error}") from error
    return row


def _cells(path: Path) -> Iterable[Sequence[object]]:
    """The cells under `COLUMNS`; those of CSV are text."""
    if path.suffix == ".csv":
        return _texts(path)
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, columns=list(COLUMNS))
    except pa.ArrowException as error:
        raise ValueError(str(error)) from error
    return zip(*(table[name].to_pylist() for name in COLUMNS), strict=True)


def _typed(cells: Sequence[object]) -> list[object]:
    """Cells with the numbers that their texts stand for."""
    if len(cells) != len(COLUMNS):
        raise ValueError(f"{len(COLUMNS)} cells are wanted, found {len(cells)}")
    found: list[object] = []
    for name, cell in zip(COLUMNS, cells, strict=True):
        if isinstance(cell, str) and name in (*WHOLE_NUMBERS, *NUMBERS):
            kind, words = (int, "a whole number") if name in WHOLE_NUMBERS else (float, "a number or nothing")
            try:
                found.append(None if not cell and name in NUMBERS else kind(cell))
            except ValueError:
                raise ValueError(f"{name} must be {words}, found {cell[:60]!r}") from None
        else:
            found.append(cell)
    return found


def publish(
    store: Store, folder: Path, *, experiments: Sequence[str] | None = None, suffix: str = ".parquet"
) -> None:
    """Write the newest row of every key to `folder`, a file an experiment: all of the store, or these."""
    for experiment in store.experiments():
        if experiments is None or experiment in experiments:
            write_rows(store.latest(experiment), folder / f"{experiment}{suffix}")


def collect(folder: Path, store: Store) -> None:
    """Add the rows of the Parquet files of a folder to the store, of keys that it has no answer to."""
    for path in sorted(folder.glob("*.parquet")):
        known = {Key.of(row) for row in store.rows(path.stem) if row["outcome"] in SETTLED}
        rows = [row for row in read_rows(path) if Key.of(row) not in known]
        store.append(rows, experiment=path.stem)


def _texts(path: Path) -> list[list[str]]:
    csv.field_size_limit(LONGEST)
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.reader(file))
    head = lines[0] if lines else []
    if tuple(head) != COLUMNS:
        raise ValueError(f"columns must be {', '.join(COLUMNS)}, found {', '.join(head) or 'none'}")
    return lines[1:]
