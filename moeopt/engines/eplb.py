"""The arrays of DeepSeek's EPLB, as a NumPy archive."""

import io
import zipfile
import zlib
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from moeopt.engine import equal_slots, physical_map, placement_of
from moeopt.placement import Placement

ARRAYS = ("physical_to_logical_map", "logical_to_physical_map", "expert_count", "layer_ids")
MOST_BYTES = 1 << 30
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    RuntimeError,
    LookupError,
    MemoryError,
    TypeError,
    SyntaxError,
)


@dataclass(frozen=True)
class Eplb:
    """What `rebalance_experts` returns, without pickled objects: `numpy.load(..., allow_pickle=False)`.

    | array | holds |
    |---|---|
    | physical_to_logical_map | int64 [layers, slots]: the expert in each slot, GPU by GPU |
    | logical_to_physical_map | int64 [layers, experts, most copies]: slots of each expert ascending, then -1 |
    | expert_count | int64 [layers, experts]: copies |
    | layer_ids | int64 [layers]: absolute layer indices; only MoE layers appear |

    Source: deepseek-ai/EPLB d52c72d, eplb.py.
    """

    name: ClassVar[str] = "eplb"
    summary: ClassVar[str] = "arrays of DeepSeek's EPLB, .npz"

    def check(self, placement: Placement, *, pad: bool = False) -> str:
        """Every GPU and layer fills the same number of slots; settings as for `dump`."""
        return equal_slots(placement, pad=pad)

    def dump(self, placement: Placement, *, pad: bool = False) -> bytes:
        """The archive. `pad` fills free slots with copies of the lowest experts the GPU lacks, else ValueError."""
        rows = physical_map(placement, pad=pad)
        slots_of, counts = _inverse(rows, placement.n_experts)
        file = io.BytesIO()
        ids = np.array(placement.layer_ids, np.int64)
        np.savez(
            file,
            physical_to_logical_map=rows,
            logical_to_physical_map=slots_of,
            expert_count=counts,
            layer_ids=ids,
        )
        return file.getvalue()

    def load(self, content: bytes, *, gpus: int, nodes: int = 1, model: str = "") -> Placement:
        """The placement on `gpus` GPUs; the maps must agree with each other."""
        rows, slots_of, counts, ids = _read(content)
        if counts.ndim != 2 or not counts.size or ids.ndim != 1:
            raise ValueError(
                f"expert_count [layers, experts] and layer_ids [layers] do not fit: {counts.shape}, {ids.shape}"
            )
        placement = placement_of(
            rows,
            experts=counts.shape[1],
            gpus=gpus,
            nodes=nodes,
            layer_ids=tuple(ids.tolist()),
            model=model,
        )
        for name, found, wanted in zip(
            ARRAYS[1:3], (slots_of, counts), _inverse(rows, counts.shape[1]), strict=True
        ):
            if not np.array_equal(found, wanted):
                raise ValueError(f"{name} does not belong to physical_to_logical_map")
        return placement


def _inverse(rows: NDArray[np.int64], experts: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(logical_to_physical_map, expert_count) of a physical map."""
    layers, slots = rows.shape
    counts = np.zeros((layers, experts), np.int64)
    np.add.at(counts, (np.arange(layers)[:, None], rows), 1)
    order = np.argsort(rows, axis=1, kind="stable")
    expert = np.take_along_axis(rows, order, axis=1)
    first = np.cumsum(counts, axis=1) - counts
    rank = np.arange(slots) - np.take_along_axis(first, expert, axis=1)
    slots_of = np.full((layers, experts, int(counts.max())), -1, np.int64)
    slots_of[np.arange(layers)[:, None], expert, rank] = order
    return slots_of, counts


def _read(content: bytes) -> list[NDArray[Any]]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            sizes = {info.filename: info.file_size for info in archive.infolist()}
        if missing := [name for name in ARRAYS if f"{name}.npy" not in sizes]:
            raise ValueError(f"array {missing[0]!r} is missing, found {sorted(sizes)!r:.120}")
        if sum(sizes.values()) > MOST_BYTES:
            raise ValueError(f"arrays must unpack to at most {MOST_BYTES} bytes, found {sum(sizes.values())}")
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = [archive[name] for name in ARRAYS]
    except DAMAGE as error:
        raise ValueError(f"damaged or truncated npz archive: {str(error) or type(error).__name__}") from error
    for name, array in zip(ARRAYS, arrays, strict=True):
        if array.dtype.kind not in "iu":
            raise ValueError(f"array {name!r} must hold whole numbers, found {array.dtype}")
    return [array.astype(np.int64) for array in arrays]
