"""The packaged traces: enough for a first run, offline."""

from collections.abc import Mapping
from importlib.resources import as_file, files
from types import MappingProxyType

from moeopt.readers.parquet import Parquet
from moeopt.supplement import Supplement
from moeopt.trace import Trace

SAMPLES: Mapping[str, str] = MappingProxyType(
    {"tiny-moe": "sample.parquet", "tiny-olmoe": "tiny-olmoe.parquet"}
)
"""Name of a model to the file of its trace."""


def sample(name: str = "tiny-moe") -> Trace:
    """Real routing of a small model: four task families, prefill and decode, whole requests.

    | name | model |
    |---|---|
    | tiny-moe | 5.7 M parameters: 6 layers of 32 experts, top-4 |
    | tiny-olmoe | of OLMoE's architecture: 8 layers of 64 experts, top-8; requests are a prompt and its answer |

    `benchmarks/train_tiny_moe.py` trained the second one and recorded it. ValueError lists the names.
    """
    if name not in SAMPLES:
        raise ValueError(f"no sample is named {name!r}; known are {', '.join(SAMPLES)}")
    with as_file(files("moeopt") / "data" / SAMPLES[name]) as path:
        return Parquet().read(path, Supplement())
