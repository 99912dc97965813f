"""Statistics of the experts that TensorRT-LLM chose."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from moeopt import storage
from moeopt.load_counts import load_workload
from moeopt.safetensors import read_tensors
from moeopt.supplement import Supplement
from moeopt.workload import Workload

META = "meta_info.json"
LARGEST_META = 1 << 20  # bytes
NAME = re.compile(r"(0|[1-9][0-9]{0,8})_(0|[1-9][0-9]{0,5})", re.ASCII)
RANK = re.compile(r"rank(0|[1-9][0-9]{0,5})\.safetensors", re.ASCII)


@dataclass(frozen=True)
class TensorRTLLM:
    """Reader of the folder `EXPERT_STATISTIC_PATH`, written with `EXPERT_STATISTIC_ITER_RANGE=first-last`.

    | file | holds |
    |---|---|
    | meta_info.json | num_experts, E; num_experts_per_token, k; sometimes ep_size |
    | rank<r>.safetensors | tensors <iteration>_<layer>, integers [E]: tokens that the rank sent to each expert |

    Loads are summed over iterations and ranks, which must all be there, 0 to the last. Layers are absolute, dense ones
    absent. Without attention parallel over data every rank counts the same tokens, which scales the loads. Other files
    (token numbers, pair counts) are not read: pair counts are of a branch and lack the loads of later iterations.

    `limit` bounds the size of all files in bytes. Source: TensorRT-LLM, tensorrt_llm/_torch/expert_statistic.py and
    examples/ep_load_balancer.
    """

    limit: int = 8 * 2**30

    name: ClassVar[str] = "tensorrt-llm"

    def accepts(self, path: Path, head: bytes) -> bool:
        if head:
            return False
        try:
            return (path / META).is_file() and any(map(_rank, path.glob("rank*.safetensors")))
        except OSError:
            return False

    def read(self, path: Path, supplement: Supplement) -> Workload:
        files = sorted((file for file in path.iterdir() if _rank(file)), key=lambda file: int(_rank(file)))
        for file in (path / META, *files):
            if file.is_symlink():
                raise ValueError(f"statistics must hold their files, found the symbolic link {file.name!r}")
        if (size := sum(file.stat().st_size for file in files)) > self.limit:
            raise ValueError(f"statistics may have {self.limit} bytes, found {size}")
        about = _about(path / META)
        experts, top_k = (_count(about, name) for name in ("num_experts", "num_experts_per_token"))
        ranks = [int(_rank(file)) for file in files]
        expected = _count(about, "ep_size") if "ep_size" in about else len(ranks)
        if missing := sorted({*range(max(expected, *ranks, 0))} - {*ranks}):
            raise ValueError(f"files of all ranks must be there, found none of rank {missing[0]}")
        loads: dict[int, NDArray[np.int64]] = {}
        counted: set[str] = set()
        for file in files:
            try:
                tensors = read_tensors(file, limit=self.limit)
                _add(tensors, loads, experts=experts)
                if file is files[0]:
                    counted = set(tensors)
                for name in sorted(counted ^ set(tensors))[:1]:
                    raise ValueError(f"all ranks must have the same tensors, {name} is not in all")
            except ValueError as error:
                raise ValueError(f"{file.name}: {error}") from error
        if not any(load.any() for load in loads.values()):
            raise ValueError(f"every count of {len(loads)} layers is zero: nothing was recorded")
        ids = sorted(loads)
        found = load_workload(np.array([loads[layer] for layer in ids]), layer_ids=ids, top_k=top_k)
        return supplement.settled(found)


def _rank(file: Path) -> str:
    """The rank that a file is of, empty for other files."""
    found = RANK.fullmatch(file.name)
    return found[1] if found else ""


def _about(path: Path) -> dict[str, Any]:
    if (size := path.stat().st_size) > LARGEST_META:
        raise ValueError(f"{META} may have {LARGEST_META} bytes, found {size}")
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{META}: not JSON: {error}") from error
    if not isinstance(about, dict):
        raise ValueError(f"{META} must be a JSON object, found {type(about).__name__}: nothing was recorded")
    return about


def _count(about: dict[str, Any], name: str) -> int:
    found = int(storage.field(about, name, kind=int))
    if not 1 <= found <= 65_536:
        raise ValueError(f"{META}: {name} must lie between 1 and 65536, found {found:.6g}")
    return found


def _add(tensors: dict[str, NDArray[Any]], loads: dict[int, NDArray[np.int64]], *, experts: int) -> None:
    """Add the counts of one rank to those of every layer."""
    for name, counts in tensors.items():
        if not (key := NAME.fullmatch(name)):
            raise ValueError(f"a tensor is named <iteration>_<layer>, found {name!r:.80}")
        if counts.dtype.kind not in "iu" or counts.shape != (experts,):
            raise ValueError(
                f"tensor {name} must count the tokens of {experts} experts, found {counts.dtype} {counts.shape}"
            )
        if counts.min() < 0 or counts.max() >= 1 << 46:
            raise ValueError(f"tensor {name} must lie from 0 to 2^46, found {counts.min()} to {counts.max()}")
        layer = int(key[2])
        loads[layer] = loads.get(layer, np.zeros(experts, np.int64)) + counts.astype(np.int64)
