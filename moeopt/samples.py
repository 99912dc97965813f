"""The packaged trace: enough for a first run, offline."""

from importlib.resources import as_file, files

from moeopt.readers.parquet import Parquet
from moeopt.supplement import Supplement
from moeopt.trace import Trace


def sample() -> Trace:
    """Real routing of a 5.7 M-parameter model, "tiny-moe": 6 layers of 32 experts, top-4, four task families,
    prefill and decode, whole requests."""
    with as_file(files("moeopt") / "data" / "sample.parquet") as path:
        return Parquet().read(path, Supplement())
