"""From a Parquet file of tens of millions of rows to a workload: seconds, peak memory, and a plain read beside them.

A row is one token in one layer: 58 layers of 256 experts, top-8. Experts are drawn by a Zipf law of their rank, without
co-activation, so that hardly a set repeats: the hardest traffic to keep.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numba import njit
from numpy.typing import NDArray

from benchmarks.suite import CORES, experiment
from moeopt.bench_rows import Key, Row, Task
from moeopt.parquet_columns import FORMAT, KEY, VERSION
from moeopt.readers.parquet import ROWS
from moeopt.streaming import stream_workload

LAYERS, EXPERTS, TOP_K, FAMILIES = 58, 256, 8, ("code", "math", "chat", "general")
EXPONENT = 0.5  # of the Zipf law: the busiest of 256 experts has eight times the mean load
DRAWS = 1 << 14  # entries of the table that ids are drawn from
MEMORY = 2 << 30
MILLIONS = (5, 10, 15, 25, 50)  # of rows
STEPS = ("read", "stream")
SECONDS = 600.0


@dataclass(frozen=True)
class Measured:
    """One child process.

    | field | holds |
    |---|---|
    | rows, file_mib | tokens x layers; size of the file |
    | read_seconds | decoding every column with PyArrow alone |
    | seconds | from file to workload |
    | read_cpu, cpu | CPU seconds of both: on a busy machine they tell more |
    | peak_mib, read_peak_mib | largest resident size, Python and its packages included |
    | tokens, taken | tokens of a layer, and those the workload is of |
    | load_error | largest error of a load of the workload, as part of the mean load |
    """

    rows: int
    file_mib: float
    read_seconds: float
    seconds: float
    read_cpu: float
    cpu: float
    peak_mib: float
    read_peak_mib: float
    tokens: int
    taken: int
    load_error: float

    @property
    def ratio(self) -> float:
        """Of the pass to the plain read, wall time."""
        return self.seconds / self.read_seconds

    @property
    def cpu_ratio(self) -> float:
        """The same of CPU time."""
        return self.cpu / self.read_cpu


@experiment("streaming")
def streaming_sizes() -> Iterable[Task]:
    """Files of 5 to 50 million rows, a token in a layer each, to a workload in 2 GiB; a plain read beside it."""
    for millions in MILLIONS:
        case = f"zipf, {LAYERS} x {EXPERTS}, top-{TOP_K}, {millions} million rows"
        key = Key(case, None, "stream_workload", 0, f"{MEMORY >> 20} MiB")
        yield Task(key, measure_size, (round(millions * 1e6 / LAYERS), key), SECONDS)


def measure_size(tokens: int, key: Key) -> list[Row]:
    """Write a file of so many tokens, then both steps."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.parquet"
        write_file(path, tokens=tokens)
        found = measure(path)
    return [key.row("done", **vars(found), ratio_to_read=found.ratio, cpu_ratio=found.cpu_ratio)]


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def draw_sets(table: NDArray[np.uint8], rows: int, k: int, rng: np.random.Generator) -> Any:
    """uint8 [rows, k]: ids drawn from the entries of `table`, one by one, until k are distinct."""
    ids = np.empty((rows, k), np.uint8)
    for row in range(rows):
        taken = 0
        while taken < k:
            candidate, fresh = table[rng.integers(0, len(table))], True
            for i in range(taken):
                fresh &= ids[row, i] != candidate
            if fresh:
                ids[row, taken] = candidate
                taken += 1
    return ids


def write_file(path: Path, *, tokens: int, seed: int = 0) -> None:
    """A trace of so many tokens in the canonical layout, a row group at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(seed)
    shares = np.arange(1, EXPERTS + 1) ** -EXPONENT
    spread = np.repeat(
        np.arange(EXPERTS, dtype=np.uint8), np.maximum(1, (DRAWS * shares / shares.sum()).astype(int))
    )
    tables = [rng.permutation(EXPERTS).astype(np.uint8)[spread] for _ in range(LAYERS)]
    about = {
        "format": FORMAT,
        "version": VERSION,
        "model": "zipf",
        "n_experts": EXPERTS,
        "families": list(FAMILIES),
        "layer_ids": list(range(LAYERS)),
    }
    names = [f"layer_{layer}" for layer in range(LAYERS)]
    fields = [pa.field("family", pa.uint8())] + [
        pa.field(name, pa.list_(pa.uint8(), TOP_K)) for name in names
    ]
    schema = pa.schema(fields, metadata={KEY: json.dumps(about).encode()})
    encoding = {"family": "DELTA_BINARY_PACKED"} | {
        f"{name}.list.element": "BYTE_STREAM_SPLIT" for name in names
    }
    with pq.ParquetWriter(
        path,
        schema,
        compression="zstd",
        compression_level=1,
        use_dictionary=False,
        column_encoding=encoding,
        write_statistics=False,
        write_page_checksum=True,
    ) as writer:
        for start in range(0, tokens, ROWS):
            rows = min(ROWS, tokens - start)
            columns = [pa.array(rng.integers(len(FAMILIES), size=rows).astype(np.uint8))]
            for table in tables:
                ids = draw_sets(table, rows, TOP_K, rng)
                columns.append(pa.FixedSizeListArray.from_arrays(pa.array(ids.reshape(-1)), TOP_K))
            writer.write_table(pa.table(columns, schema=schema), row_group_size=ROWS)


def read_plainly(path: Path) -> dict[str, Any]:
    """Seconds to decode every column, and nothing else."""
    import pyarrow.parquet as pq

    begun, worked, rows = time.perf_counter(), time.process_time(), 0
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        for batch in file.iter_batches(batch_size=ROWS):
            rows += batch.num_rows
    return {"seconds": time.perf_counter() - begun, "cpu": time.process_time() - worked, "rows": rows}


def stream_file(path: Path) -> dict[str, Any]:
    """Seconds to the finished workload; kernels are loaded before the clock starts."""
    stream_workload(path, layer_ids=[0], memory=MEMORY, most_sets=1024)
    begun, worked = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(CORES) as executor:
        found = stream_workload(path, memory=MEMORY, executor=executor)
    workload = found.workload
    seconds, cpu = time.perf_counter() - begun, time.process_time() - worked
    return {
        "seconds": seconds,
        "cpu": cpu,
        "tokens": found.sample.of,
        "taken": int(workload.tokens.sum()),
        "load_error": float(found.load_errors.max()),
    }


def measure(path: Path) -> Measured:
    """Both steps, each in a process of its own; both find the file in the page cache: it was written just before."""
    answers = {}
    for step in STEPS:
        command = [sys.executable, "-m", "benchmarks.streaming", str(path), step]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        answers[step] = json.loads(text)
    read, stream = answers["read"], answers["stream"]
    return Measured(
        rows=stream["tokens"] * LAYERS,
        file_mib=path.stat().st_size / 2**20,
        read_seconds=read["seconds"],
        seconds=stream["seconds"],
        read_cpu=read["cpu"],
        cpu=stream["cpu"],
        peak_mib=stream["peak_mib"],
        read_peak_mib=read["peak_mib"],
        tokens=stream["tokens"],
        taken=stream["taken"],
        load_error=stream["load_error"],
    )


def main(
    file: Annotated[Path, typer.Argument(help="The trace.")],
    step: Annotated[str, typer.Argument(help="read or stream.")],
) -> None:
    """One step in this process, as JSON: `measure` starts one for each."""
    answer = read_plainly(file) if step == "read" else stream_file(file)
    answer["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    typer.echo(json.dumps(answer))


if __name__ == "__main__":
    typer.run(main)
