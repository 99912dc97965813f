"""Where the rows of the experiments are kept: a store to work in, and a Parquet file an experiment to show."""

from pathlib import Path

from moeopt.bench_files import read_rows
from moeopt.bench_rows import Row
from moeopt.bench_store import Store, newest

RESULTS = Path(__file__).parent / "results"


def store_in(folder: Path) -> Store:
    """The store of a folder; it holds what was run here and, after `collect`, what the folder's files show."""
    return Store(folder / "rows.sqlite")


def shown(experiment: str, *, folder: Path = RESULTS) -> list[Row]:
    """The rows that a folder's file of an experiment shows, the newest of every key; none without a file."""
    path = folder / f"{experiment}.parquet"
    return newest(read_rows(path)) if path.exists() else []
