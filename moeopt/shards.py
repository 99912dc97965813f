"""Parquet traces read a layer at a time: only the columns of the layer and of the families are decoded."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike as OsPath
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeopt.parquet_columns import (
    check_types,
    damage_named,
    layer_columns,
    lists_of,
    metadata_of,
    without_nulls,
)
from moeopt.readers.parquet import ROWS
from moeopt.storage import PathLike

__all__ = ["Shard", "find_shards"]

BUFFER = 1 << 20  # bytes of a column chunk that are held before they are decoded
EDGE = 1 << 16  # bytes at both ends of a file that name it


@dataclass(frozen=True)
class Shard:
    """One Parquet file of a trace: what its footer says.

    | field | holds |
    |---|---|
    | path, rows | the file, its tokens |
    | n_experts, top_k | E, k; k is 0 of a file without tokens |
    | layer_ids, families, model | as in a trace |
    | salt | from the size of the file and the bytes at its ends: it names the file wherever it lies |
    """

    path: Path
    rows: int
    n_experts: int
    top_k: int
    layer_ids: tuple[int, ...]
    families: tuple[str, ...]
    model: str
    salt: int

    @classmethod
    def open(cls, path: PathLike) -> "Shard":
        """Check footer and first row; ValueError names the file and what is wrong with it."""
        source = Path(path)
        try:
            return cls._read(source)
        except OSError as error:
            raise ValueError(f"{source}: cannot be read: {error.strerror or error}") from error
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from error

    @classmethod
    def _read(cls, source: Path) -> "Shard":
        import pyarrow.parquet as pq

        salt = _salt(source)
        with damage_named(), pq.ParquetFile(source) as file:
            about = metadata_of(file.schema_arrow.metadata)
            layers = layer_columns(file.schema_arrow, about["layer_ids"])
            tokens = [name for name in ("family",) if name in file.schema_arrow.names]
            check_types(file.schema_arrow, tokens=tokens, layers=layers)
            rows, k = file.metadata.num_rows, 0
            for batch in file.iter_batches(batch_size=1, columns=layers[:1]):
                k = lists_of(layers[0], batch.column(0)).shape[1]
                break
        experts, ids = about["n_experts"], tuple(about["layer_ids"])
        if not 1 <= experts <= 65_536:
            raise ValueError(f"n_experts must be between 1 and 65536, found {experts}")
        if rows and not 1 <= k <= experts:
            raise ValueError(f"top-k must lie between 1 and the {experts} experts, found {k}")
        if list(ids) != sorted(set(ids)):
            raise ValueError(f"layer_ids must ascend, found {list(ids)}")
        families = tuple(about["families"])
        if not 1 <= len(families) <= 256 or len(set(families)) != len(families):
            raise ValueError(f"families must be 1 to 256 distinct names, found {list(families)[:300]}")
        return cls(source, rows, experts, k, ids, families, about["model"], salt)

    def batches(self, layer: int) -> Iterator[tuple[NDArray[np.uint16], NDArray[np.uint8]]]:
        """(ids [rows, k], family [rows]) of one layer, some thousand tokens at a time."""
        try:
            yield from self._batches(layer)
        except OSError as error:
            raise ValueError(f"{self.path}: cannot be read: {error.strerror or error}") from error
        except ValueError as error:
            raise ValueError(f"{self.path}: layer {layer}: {error}") from error

    def _batches(self, layer: int) -> Iterator[tuple[NDArray[np.uint16], NDArray[np.uint8]]]:
        import pyarrow.parquet as pq

        name, seen = f"layer_{layer}", 0
        with (
            damage_named(),
            pq.ParquetFile(self.path, page_checksum_verification=True, buffer_size=BUFFER) as file,
        ):
            columns = [column for column in ("family", name) if column in file.schema_arrow.names]
            for batch in file.iter_batches(batch_size=ROWS, columns=columns, use_threads=False):
                ids = lists_of(name, batch.column(name))
                if ids.shape[1] != self.top_k:
                    raise ValueError(f"lists must be of {self.top_k} experts, found {ids.shape[1]}")
                if "family" in columns:
                    family = _ranged(
                        "family",
                        without_nulls("family", batch.column("family")).to_numpy(),
                        len(self.families),
                    )
                else:
                    family = np.zeros(len(ids), np.uint8)
                yield _ranged("expert id", ids, self.n_experts).astype(np.uint16), family.astype(np.uint8)
                seen += len(ids)
        if seen != self.rows:
            raise ValueError(f"footer promises {self.rows} rows, found {seen}")


def find_shards(source: PathLike | Sequence[PathLike]) -> tuple[Shard, ...]:
    """The shards of a file, of a folder of files in the order of their names, or of a list of files.

    A folder holds Parquet files alone, beside names that begin with a dot or an underscore. Raises ValueError naming
    the file that is of another model or not to be read.
    """
    shards = [Shard.open(path) for path in _files(source)]
    for shard in shards:
        for name in ("n_experts", "layer_ids", "model"):
            if getattr(shard, name) != (wanted := getattr(shards[0], name)):
                raise ValueError(
                    f"{shard.path}: {name} must be that of {shards[0].path}, {wanted}, "
                    f"found {getattr(shard, name)}"
                )
    if not (filled := tuple(shard for shard in shards if shard.rows)):
        raise ValueError(f"{shards[0].path}: empty trace: {len(shards)} files without tokens")
    for shard in filled:
        if shard.top_k != filled[0].top_k:
            raise ValueError(f"{shard.path}: top-k must be {filled[0].top_k}, found {shard.top_k}")
    return filled


def _files(source: PathLike | Sequence[PathLike]) -> list[Path]:
    if isinstance(source, Sequence) and not isinstance(source, str):
        if not source:
            raise ValueError("a list of shards must name at least one file, found none")
        if wrong := [path for path in source if not isinstance(path, str | OsPath)]:
            raise ValueError(f"a data set is of files or of traces, found {type(wrong[0]).__name__}")
        return [Path(path) for path in source]
    path = Path(source)
    if not path.is_dir():
        return [path]
    try:
        found = sorted(entry for entry in path.iterdir() if not entry.name.startswith((".", "_")))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not found:
        raise ValueError(f"{path}: a folder of shards must hold Parquet files, found none")
    for entry in found:
        if entry.is_symlink() or not entry.is_file():
            raise ValueError(f"{entry}: a folder of shards holds regular files alone")
    return found


def _salt(path: Path) -> int:
    """63 bits; the footer is at the end of a Parquet file."""
    if not path.is_file():
        raise ValueError("a Parquet file is wanted, found none")
    with path.open("rb") as file:
        size = file.seek(0, 2)
        content = hashlib.blake2b(f"moeopt-shard {size} ".encode(), digest_size=8)
        for start in (0, max(0, size - EDGE)):
            file.seek(start)
            content.update(file.read(EDGE))
    return int.from_bytes(content.digest(), "little") >> 1


def _ranged(name: str, values: NDArray[Any], end: int) -> NDArray[Any]:
    """The values, all from 0 to below `end`."""
    low, high = int(values.min(initial=0)), int(values.max(initial=0))
    if low < 0 or high >= end:
        raise ValueError(f"{name} must lie between 0 and {end - 1}, found {low if low < 0 else high}")
    return values
