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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from moeopt.parquet_columns import (
    FORMAT,
    KEY,
    TOKEN_COLUMNS,
    VERSION,
    check_pages,
    check_types,
    damage_named,
    layer_columns,
    lists_of,
    metadata_of,
    without_nulls,
)
from moeopt.supplement import Supplement
from moeopt.trace import Trace

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

    `limit` bounds the decoded size of the columns read, in bytes; larger files are refused, and those that would unpack
    to a hundred times what they are (`moeopt.parquet_columns.check_pages`).
    """

    limit: int = 8 * 2**30

    name: ClassVar[str] = "parquet"

    def accepts(self, path: Path, head: bytes) -> bool:
        return head.startswith(b"PAR1")

    def read(self, path: Path, supplement: Supplement) -> Trace:
        import pyarrow.parquet as pq

        check_pages(path)
        with damage_named(), pq.ParquetFile(path, page_checksum_verification=True) as file:
            about = metadata_of(file.schema_arrow.metadata)
            layers = layer_columns(file.schema_arrow, about["layer_ids"])
            tokens = [name for name in TOKEN_COLUMNS if name in file.schema_arrow.names]
            check_types(file.schema_arrow, tokens=tokens, layers=layers)
            experts, columns = _decode(file, tokens=tokens, layers=layers, limit=self.limit)
        trace = Trace(
            experts,
            about["n_experts"],
            layer_ids=about["layer_ids"],
            families=tuple(about["families"]),
            model=about["model"],
            **columns,
        )
        return supplement.settled(trace)


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
            ids = lists_of(name, batch.column(name))
            if not experts.size:
                _guard(rows * len(layers) * ids.shape[1] * ids.itemsize, limit)
                experts = np.empty((rows, len(layers), ids.shape[1]), ids.dtype)
            if ids.shape[1] != experts.shape[2]:
                raise ValueError(
                    f"column {name!r} must hold lists of {experts.shape[2]}, found {ids.shape[1]}"
                )
            experts[start:stop, index] = ids
        for name in tokens:
            parts[name].append(without_nulls(name, batch.column(name)).to_numpy())
        start = stop
    if start != rows:
        raise ValueError(f"footer promises {rows} rows, found {start}")
    if not experts.size:
        raise ValueError(f"empty trace: {rows} rows, lists of {experts.shape[2]}")
    return experts, {name: np.concatenate(arrays) for name, arrays in parts.items()}


def _guard(size: int, limit: int) -> None:
    if size > limit:
        raise ValueError(f"columns must unpack to at most {limit} bytes, found {size}")
