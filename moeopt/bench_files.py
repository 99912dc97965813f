"""Rows of benchmarks for others to read: Parquet and CSV, a file an experiment."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from moeopt import storage
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
    """The rows of a file that `write_rows` wrote; ValueError names the file and what is wrong."""
    try:
        if path.suffix == ".csv":
            return [row_of(cells) for cells in _cells(path)]
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(path, columns=list(COLUMNS))
        except pa.ArrowException as error:
            raise ValueError(str(error)) from error
        return [row_of(cells) for cells in zip(*(table[name].to_pylist() for name in COLUMNS), strict=True)]
    except (ValueError, KeyError, TypeError, OSError, csv.Error) as error:
        raise ValueError(f"{path}: no rows of a benchmark: {error}") from error


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


def _cells(path: Path) -> list[list[object]]:
    csv.field_size_limit(LONGEST)
    with path.open(encoding="utf-8", newline="") as file:
        head, *lines = csv.reader(file)
    if tuple(head) != COLUMNS:
        raise ValueError(f"columns must be {', '.join(COLUMNS)}, found {', '.join(head)}")
    kinds = dict.fromkeys(WHOLE_NUMBERS, int) | {
        name: lambda cell: float(cell) if cell else None for name in NUMBERS
    }
    return [[kinds.get(name, str)(cell) for name, cell in zip(COLUMNS, line, strict=True)] for line in lines]
