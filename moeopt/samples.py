"""The packaged traces: enough for a first run, offline."""

from collections.abc import Mapping
from importlib.resources import as_file, files
from types import MappingProxyType

from moeopt.readers.parquet import Parquet
from moeopt.supplement import Supplement
from moeopt.trace import Trace

SAMPLES: Mapping[str, str] = MappingProxyType(
    {"tiny-olmoe": "tiny-olmoe.parquet", "tiny-moe": "tiny-moe.parquet"}
)
"""Name of a model to the file of its trace."""


def sample(name: str = "tiny-olmoe") -> Trace:
    """Real routing of a small model: four task families, prefill and decode, whole requests.

    | name | model |
    |---|---|
    | tiny-olmoe | of OLMoE's architecture: 8 layers of 64 experts, top-8; a request is a prompt and its answer |
    | tiny-moe | 5.7 M parameters: 6 layers of 32 experts, top-4; a request is a prompt or an answer |

    `benchmarks/train_tiny_moe.py` trained and recorded the first one. ValueError lists the names.
    """
    if name not in SAMPLES:
        raise ValueError(f"no sample is named {name!r}; known are {', '.join(SAMPLES)}")
    with as_file(files("moeopt") / "data" / SAMPLES[name]) as path:
        return Parquet().read(path, Supplement())
