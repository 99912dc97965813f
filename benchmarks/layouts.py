"""Two ways to lay a trace out in Parquet: a row a token, or a row a token and layer."""

import io
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.cases import read_source
from benchmarks.suite import experiment
from moeopt.bench_rows import Key, Row, Task
from moeopt.readers.parquet import encode
from moeopt.trace import Trace

REPEATS = 5
SOURCES = ("gpt-oss-20b", "deepseek-v2-lite")


@experiment("layouts")
def layouts() -> Iterable[Task]:
    """Size and reading speed of a row a token against a row a token and layer."""
    for source in SOURCES:
        key = Key(source, None, "encode", 0, f"{REPEATS} repeats")
        yield Task(key, measure_layouts, (source, key))


def measure_layouts(source: str, key: Key) -> list[Row]:
    """One row with megabytes and seconds of both layouts: all of the file, and one layer of it."""
    recorded = read_source(source)
    wide, tall = encode(recorded), encode_tall(recorded)
    layer = int(recorded.layer_ids[recorded.n_layers // 2])
    found: dict[str, Any] = {
        "wide_megabytes": len(wide) / 1e6,
        "tall_megabytes": len(tall) / 1e6,
        "wide_seconds": _best(lambda: pq.read_table(io.BytesIO(wide))),
        "tall_seconds": _best(lambda: pq.read_table(io.BytesIO(tall))),
        "wide_layer_seconds": _best(lambda: pq.read_table(io.BytesIO(wide), columns=[f"layer_{layer}"])),
        "tall_layer_seconds": _best(
            lambda: pq.read_table(io.BytesIO(tall), filters=[("layer", "=", layer)], columns=["experts"])
        ),
    }
    return [key.row("done", **found)]


def encode_tall(trace: Trace) -> bytes:
    """A row a token and layer, the ids dictionary-encoded, the token columns as deltas."""
    layers = trace.n_layers
    columns = {
        name: pa.array(np.repeat(getattr(trace, name), layers))
        for name in ("request", "position", "phase", "family")
    }
    columns["layer"] = pa.array(np.tile(trace.layer_ids, trace.n_tokens))
    columns["experts"] = pa.FixedSizeListArray.from_arrays(pa.array(trace.experts.reshape(-1)), trace.top_k)
    sink = io.BytesIO()
    pq.write_table(
        pa.table(columns),
        sink,
        row_group_size=32_768 * layers,
        compression="zstd",
        compression_level=9,
        use_dictionary=["experts.list.element"],
        column_encoding=dict.fromkeys(
            ("request", "position", "phase", "family", "layer"), "DELTA_BINARY_PACKED"
        ),
    )
    return sink.getvalue()


def _best(action: Callable[[], Any]) -> float:
    """Seconds of the quickest of a few repeats."""
    seconds = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - begun)
    return min(seconds)
