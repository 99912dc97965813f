"""Workloads as JSON documents: what `moeopt convert` writes of a recording that holds counts alone."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from moeopt import storage
from moeopt.supplement import Supplement
from moeopt.workload import FORMAT
from moeopt.workload import Workload as Counts


@dataclass(frozen=True)
class Workload:
    """Reader of `{"format": "moeopt-workload", "version": 1, "workload": ...}`, see `moeopt.workload.Workload.to_dict`.

    `limit` bounds the size of the file in bytes; larger ones are refused.
    """

    limit: int = 2**30

    name: ClassVar[str] = "workload"

    def accepts(self, path: Path, head: bytes) -> bool:
        return head.lstrip().startswith(f'{{"format": "{FORMAT}"'.encode())

    def read(self, path: Path, supplement: Supplement) -> Counts:
        if (size := path.stat().st_size) > self.limit:
            raise ValueError(f"a workload may have {self.limit} bytes, found {size}")
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"not JSON: {error}") from error
        content = storage.field(storage.expect(document, kind=FORMAT), "workload", kind=dict)
        return supplement.settled(Counts.from_dict(content))
