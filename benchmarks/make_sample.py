"""Makes `moeopt/data/tiny-moe.parquet`: python benchmarks/make_sample.py tiny_moe_both_phases.npz

Whole requests of the tiny model trained for this project, equally many of every family and phase (a request
of it is all prefill or all decode), all layers, as many as fit in 600 kB.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from moeopt import storage
from moeopt.readers.parquet import encode
from moeopt.recording import read_trace
from moeopt.trace import DECODE, PREFILL, Trace

LIMIT = 600_000  # bytes
TARGET = Path(__file__).parent.parent / "moeopt" / "data" / "tiny-moe.parquet"


def excerpt(trace: Trace, *, requests: int, seed: int = 0) -> Trace:
    """`requests` whole requests of each family and phase, drawn at random, in the order of the trace."""
    rng = np.random.default_rng(seed)
    chosen = [
        rng.permutation(np.unique(trace.request[(trace.family == family) & (trace.phase == phase)]))[
            :requests
        ]
        for family in range(len(trace.families))
        for phase in (PREFILL, DECODE)
    ]
    return trace.take(np.isin(trace.request, np.concatenate(chosen)))


def largest(trace: Trace) -> bytes:
    """The encoded excerpt with the most requests within the limit, found by bisection."""
    fits, fails = 0, len(np.unique(trace.request)) + 1
    content = b""
    while fails - fits > 1:
        middle = (fits + fails) // 2
        attempt = encode(excerpt(trace, requests=middle))
        if len(attempt) <= LIMIT:
            fits, content = middle, attempt
        else:
            fails = middle
    return content


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    storage.write_bytes(TARGET, largest(replace(read_trace(sys.argv[1]), model="tiny-moe")))
    print(f"{TARGET}: {TARGET.stat().st_size} bytes")
