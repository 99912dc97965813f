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

    The workload is exact as far as `memory` bytes allow, and that of a random sample of the tokens beyond:
    `stream_workload` says which, and by how much it may err.
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
        return supplement.settled(found.workload)
