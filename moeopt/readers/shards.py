"""Folders of Parquet files: a data set of any size, counted in one pass."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from moeopt.supplement import Supplement
from moeopt.workload import Workload


@dataclass(frozen=True)
class Shards:
    """Reader of a folder of Parquet traces of one model, see `moeopt.streaming.stream_workload`.

    The workload is exact; a data set that `memory` bytes do not hold is refused, since a workload does not say that it
    is of a sample.
    """

    memory: int = 2 << 30

    name: ClassVar[str] = "shards"

    def accepts(self, path: Path, head: bytes) -> bool:
        if not path.is_dir():
            return False
        first = min(
            (entry for entry in path.iterdir() if not entry.name.startswith((".", "_"))), default=None
        )
        if first is None or not first.is_file():
            return False
        with first.open("rb") as file:
            return file.read(4) == b"PAR1"

    def read(self, path: Path, supplement: Supplement) -> Workload:
        from moeopt.parallel import available_cores
        from moeopt.streaming import stream_workload

        with ThreadPoolExecutor(available_cores()) as executor:
            found = stream_workload(
                path, layer_ids=supplement.layer_ids, memory=self.memory, executor=executor
            )
        if not found.exact:
            raise ValueError(
                f"{found.sample.of} tokens have more expert sets than {self.memory} bytes hold: `moeopt place` and "
                "`moeopt profile` draw a sample and say so, and so does moeopt.streaming.stream_workload"
            )
        return supplement.settled(found.workload)
