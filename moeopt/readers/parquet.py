"""Traces as Parquet, the canonical format: a row a token, a column a layer.

| column | holds |
|---|---|
| request, position | int32 |
| phase | uint8: 0 prefill, 1 decode |
| family | uint8, index into `families` of the metadata |
| layer_<id> | list of k uint8 or uint16: experts the token chose in that layer, in the trace's order |

The schema metadata holds, under the key `moeopt`, a JSON object: format "moeopt-trace", version 1, model,
n_experts, families, layer_ids. The four token columns may be absent; no others may be there, lest a misspelt
name pass for a default. Any integer type will do, the same in all layers, and lists of any kind.
"""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from moeopt import storage
from moeopt.trace import Trace

KEY, FORMAT, VERSION = b"moeopt", "moeopt-trace", 1
TOKEN_COLUMNS = ("request", "position", "phase", "family")
ROWS = 32_768  # of a row group, and of a step of streaming


def encode(trace: Trace) -> bytes:
    """The trace as a Parquet file, the same bytes for the same trace and version of pyarrow."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: pa.array(getattr(trace, name)) for name in TOKEN_COLUMNS}
    layers = [f"layer_{layer}" for layer in trace.layer_ids.tolist()]
    for index, name in enumerate(layers):
        ids = np.ascontiguousarray(trace.experts[:, index]).reshape(-1)
        columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(ids), trace.top_k)
    about = {
        "format": FORMAT,
        "version": VERSION,
        "model": trace.model,
        "n_experts": trace.n_experts,
        "families": list(trace.families),
        "layer_ids": trace.layer_ids.tolist(),
    }
    table = pa.table(columns).replace_schema_metadata({KEY: json.dumps(about).encode()})
    # Small ids stored as 32-bit words: split by byte, three streams of four are zero and the fourth is dense.
    # This beat dictionary, plain and delta encoding, and the layout with a row a token and layer.
    sink = io.BytesIO()
    pq.write_table(
        table,
        sink,
        row_group_size=ROWS,
        compression="zstd",
        compression_level=9,
        use_dictionary=False,
        column_encoding=dict.fromkeys(TOKEN_COLUMNS, "DELTA_BINARY_PACKED")
        | {f"{name}.list.element": "BYTE_STREAM_SPLIT" for name in layers},
        write_statistics=False,
        write_page_checksum=True,
    )
    return sink.getvalue()


@dataclass(frozen=True)
class Parquet:
    """Reader of the layout above; a batch of rows at a time is decoded into the final arrays.

    `limit` bounds the decoded size of the columns read, in bytes; larger files are refused.
    """

    limit: int = 8 * 2**30

    name: ClassVar[str] = "parquet"

    def accepts(self, path: Path, head: bytes) -> bool:
        return head.startswith(b"PAR1")

    def read(self, path: Path) -> Trace:
        import pyarrow.parquet as pq

        with _translated(), pq.ParquetFile(path, page_checksum_verification=True) as file:
            about = _about(file.schema_arrow.metadata)
            layers = _layer_columns(file.schema_arrow, about["layer_ids"])
            tokens = [name for name in TOKEN_COLUMNS if name in file.schema_arrow.names]
            _check_types(file.schema_arrow, tokens=tokens, layers=layers)
            experts, columns = _decode(file, tokens=tokens, layers=layers, limit=self.limit)
        return Trace(
            experts,
            about["n_experts"],
            layer_ids=about["layer_ids"],
            families=tuple(about["families"]),
            model=about["model"],
            **columns,
        )


@contextmanager
def _translated() -> Iterator[None]:
    """Errors of pyarrow as ValueErrors; it reports damage as OSError too."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, OverflowError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"damaged or truncated Parquet file: {first[:200]}") from error


def _about(metadata: dict[bytes, bytes] | None) -> dict[str, Any]:
    if not metadata or KEY not in metadata:
        raise ValueError(
            f"schema metadata must have the key {KEY.decode()!r}, found {sorted(metadata or {})}"
        )
    try:
        document = json.loads(metadata[KEY])
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"schema metadata {KEY.decode()!r} must be JSON: {error}, found {metadata[KEY][:40]!r}"
        ) from error
    about = storage.expect(document, kind=FORMAT, version=VERSION)
    for name, kind in (("model", str), ("n_experts", int), ("families", list), ("layer_ids", list)):
        storage.field(about, name, kind=kind)
    for name, inner in (("families", str), ("layer_ids", int)):
        if wrong := [value for value in about[name] if type(value) is not inner]:
            raise ValueError(f"metadata {name!r} must list {inner.__name__}, found {wrong[0]!r:.80}")
    return about


def _layer_columns(schema: Any, layer_ids: list[int]) -> list[str]:
    """Names of the columns of the layers: one a layer of the metadata, no other."""
    named = [f"layer_{layer}" for layer in layer_ids]
    if missing := [name for name in named if name not in schema.names]:
        raise ValueError(f"column {missing[0]!r} is missing, found {schema.names}")
    if extra := [name for name in schema.names if name not in named and name not in TOKEN_COLUMNS]:
        raise ValueError(
            f"column {extra[0]!r} is neither one of {', '.join(TOKEN_COLUMNS)} "
            f"nor layer_<id> of the layers in the metadata: {layer_ids}"
        )
    if not named:
        raise ValueError("empty trace: metadata lists no layers")
    if twice := [name for name in (*named, *TOKEN_COLUMNS) if schema.names.count(name) > 1]:
        raise ValueError(f"column {twice[0]!r} must be there once, found {schema.names.count(twice[0])}")
    return named


def _check_types(schema: Any, *, tokens: list[str], layers: list[str]) -> None:
    """Lists of integers, of one type, in the layers; integers in the token columns."""
    import pyarrow.types as kinds

    first = schema.field(layers[0]).type
    for name in layers:
        found = schema.field(name).type
        if not any(
            is_list(found) for is_list in (kinds.is_list, kinds.is_large_list, kinds.is_fixed_size_list)
        ):
            raise ValueError(f"column {name!r} must hold lists of integers, found {found}")
        if not kinds.is_integer(found.value_type):
            raise ValueError(f"column {name!r} must hold lists of integers, found {found}")
        if found.value_type != first.value_type:
            raise ValueError(f"column {name!r} must have the type of {layers[0]!r}, {first}, found {found}")
    for name in tokens:
        if not kinds.is_integer(found := schema.field(name).type):
            raise ValueError(f"column {name!r} must hold integers, found {found}")


def _decode(
    file: Any, *, tokens: list[str], layers: list[str], limit: int
) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
    """experts [tokens, layers, k] and the token columns, in the types of the file."""
    metadata = file.metadata
    # Sizes per column chunk would say more, but on a damaged footer pyarrow 26 aborts when asked for them.
    _guard(sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups)), limit)
    rows = metadata.num_rows
    experts = np.empty((0, len(layers), 0), np.uint8)
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in tokens}
    start = 0
    for batch in file.iter_batches(batch_size=ROWS, columns=[*tokens, *layers]):
        stop = start + batch.num_rows
        for index, name in enumerate(layers):
            ids = _lists(name, batch.column(name))
            if not experts.size:
                _guard(rows * len(layers) * ids.shape[1] * ids.itemsize, limit)
                experts = np.empty((rows, len(layers), ids.shape[1]), ids.dtype)
            if ids.shape[1] != experts.shape[2]:
                raise ValueError(
                    f"column {name!r} must hold lists of {experts.shape[2]}, found {ids.shape[1]}"
                )
            experts[start:stop, index] = ids
        for name in tokens:
            parts[name].append(_whole(name, batch.column(name)).to_numpy())
        start = stop
    if start != rows:
        raise ValueError(f"footer promises {rows} rows, found {start}")
    if not experts.size:
        raise ValueError(f"empty trace: {rows} rows, lists of {experts.shape[2]}")
    return experts, {name: np.concatenate(arrays) for name, arrays in parts.items()}


def _guard(size: int, limit: int) -> None:
    if size > limit:
        raise ValueError(f"columns must unpack to at most {limit} bytes, found {size}")


def _lists(name: str, column: Any) -> NDArray[Any]:
    """Integers [rows, k] of a column of lists."""
    import pyarrow.compute as pc

    whole = _whole(name, column)
    lengths = pc.list_value_length(whole)
    least, most = pc.min_max(lengths).as_py().values()
    if least != most:
        raise ValueError(f"column {name!r} must hold lists of one length, found {least}..{most}")
    values: NDArray[Any] = _whole(name, pc.list_flatten(whole)).to_numpy()
    return values.reshape(len(whole), most or 0)


def _whole(name: str, column: Any) -> Any:
    if column.null_count:
        raise ValueError(f"column {name!r} must have no nulls, found {column.null_count}")
    return column
