"""The arrays of DeepSeek's EPLB, as a NumPy archive."""

import io
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moeopt import storage
from moeopt.array_files import check_unpacked
from moeopt.engine import KEY, Notes, PhysicalMap, equal_slots, numbers, physical_map, placement_of
from moeopt.engine_files import (
    ARRAY,
    MOST_EXPERTS,
    array_of,
    document_of,
    list_of,
    object_with,
    shape_of,
    table_of,
)
from moeopt.placement import Placement

ARRAYS = (KEY, "logical_to_physical_map", "expert_count", "layer_ids")
MOST_BYTES = 1 << 30
ZIP = b"PK\x03\x04"
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, LookupError, MemoryError)


@dataclass(frozen=True)
class Eplb:
    """What `rebalance_experts` returns, without pickled objects: `numpy.load(..., allow_pickle=False)`.

    | array | holds |
    |---|---|
    | physical_to_logical_map | int64 [layers, slots]: the expert in each slot, GPU by GPU |
    | logical_to_physical_map | int64 [layers, experts, most copies]: slots of each expert ascending, then -1 |
    | expert_count | int64 [layers, experts]: copies |
    | layer_ids | int64 [layers]: absolute layer indices; only MoE layers appear |

    `read` takes the first array alone as well: in an archive, as `numpy.save` writes it, or as JSON, where the others
    may be missing. Source: deepseek-ai/EPLB d52c72d, eplb.py.
    """

    name: ClassVar[str] = "eplb"
    summary: ClassVar[str] = "arrays of DeepSeek's EPLB, .npz"
    suffix: ClassVar[str] = ".npz"

    def check(self, placement: Placement, *, pad: bool = False) -> str:
        """Every GPU and layer fills the same number of slots; settings as for `dump`."""
        return equal_slots(placement, pad=pad)

    def dump(self, placement: Placement, *, pad: bool = False, loads: ArrayLike | None = None) -> bytes:
        """The archive. `pad` fills free slots as `moeopt.engine.padded` does; else they raise ValueError."""
        rows = physical_map(placement, pad=pad, loads=loads)
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

    def accepts(self, content: bytes) -> bool:
        """A NumPy archive with the first array, an array of no three axes, JSON lists, JSON with arrays beside the map.

        Lists alone are also the proposed form of `moeopt.engines.vllm_proposals.VLLMProposedMap`, asked after this one.
        """
        if content.startswith(ARRAY):
            return len(shape_of(content) or ()) != 3  # those are of OmniPlacement
        if content.startswith(ZIP):
            return f"{KEY}.npy" in _members(content)
        rows = list_of(content)
        if rows is not None:
            return not rows or not isinstance(rows[0], int)
        document = object_with(content, KEY)
        return document is not None and len(document) > 1

    def read(self, content: bytes) -> PhysicalMap:
        """The map; the other arrays must agree with it where they are given, slots of an expert in any order."""
        if content.startswith(ZIP):
            members = _members(content)
            given = _arrays(content, [True, *(f"{name}.npy" in members for name in ARRAYS[1:])])
        elif content.startswith(ARRAY):
            given = {KEY: array_of(content, KEY)}
        else:
            given = _tables(content)
        rows = given[KEY]
        if rows.ndim != 2 or not rows.size:
            raise ValueError(f"{KEY} must be [layers, slots], found shape {rows.shape}")
        ids = given.get("layer_ids")
        if ids is not None and ids.shape != rows.shape[:1]:
            raise ValueError(f"{len(rows)} layers need as many layer_ids, found shape {ids.shape}")
        inverse = {name: given[name] for name in ARRAYS[1:3] if name in given}
        for name, array in inverse.items():
            if array.ndim < 2:
                raise ValueError(f"{name} must be [layers, experts, ...], found shape {array.shape}")
        most = min([MOST_EXPERTS, *(array.shape[1] for array in inverse.values())])
        for layer, slot in np.argwhere((rows < 0) | (rows >= most))[:1]:
            raise ValueError(
                f"row {layer}, slot {slot}: expert {rows[layer, slot]} out of range 0..{most - 1}"
            )
        if inverse:
            slots_of, counts = _inverse(rows, most)
            # Slots of an expert may be listed in any order.
            listed = np.sort(inverse.get(ARRAYS[1], slots_of))
            for name, found, wanted in (
                (ARRAYS[1], listed, np.sort(slots_of)),
                (ARRAYS[2], inverse.get(ARRAYS[2], counts), counts),
            ):
                if not np.array_equal(found, wanted):
                    raise ValueError(f"{name} does not belong to {KEY}")
        layer_ids = None if ids is None else tuple(ids.tolist())
        return PhysicalMap(rows, layer_ids, most if inverse else None)

    def notes(self, placement: Placement | None, path: str) -> Notes:
        """No server reads these arrays: they are for programs that call EPLB."""
        remarks = numbers(self, placement)[3]
        return Notes(
            "deepseek-ai/EPLB d52c72d",
            remarks=(
                *remarks,
                f"numpy.load({path!r}, allow_pickle=False) gives what rebalance_experts returns; no engine loads it.",
            ),
        )

    def load(self, content: bytes, *, gpus: int, nodes: int = 1, model: str = "") -> Placement:
        """The placement on `gpus` GPUs; the maps must agree with each other."""
        rows, slots_of, counts, ids = _arrays(content, [True] * len(ARRAYS)).values()
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
    most = int(counts.max())
    if layers * experts * most > MOST_BYTES // 8:
        raise ValueError(f"{ARRAYS[1]} would be [{layers}, {experts}, {most}], more than {MOST_BYTES} bytes")
    slots_of = np.full((layers, experts, most), -1, np.int64)
    slots_of[np.arange(layers)[:, None], expert, rank] = order
    return slots_of, counts


def _arrays(content: bytes, wanted: Sequence[bool]) -> dict[str, NDArray[np.int64]]:
    """The arrays of an archive, by name, those of ARRAYS that are wanted."""
    names = [name for name, asked in zip(ARRAYS, wanted, strict=True) if asked]
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {info.filename: info for info in archive.infolist()}
            if missing := [name for name in names if f"{name}.npy" not in members]:
                raise ValueError(f"array {missing[0]!r} is missing, found {sorted(members)!r:.120}")
            check_unpacked(members.values(), packed=len(content), limit=MOST_BYTES)
            arrays = {name: archive.read(f"{name}.npy") for name in names}
    except DAMAGE as error:
        raise ValueError(f"damaged or truncated npz archive: {str(error) or type(error).__name__}") from error
    return {name: array_of(array, name) for name, array in arrays.items()}


def _members(content: bytes) -> list[str]:
    """Files of an archive; none of a damaged one."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return archive.namelist()
    except DAMAGE:
        return []


def _tables(content: bytes) -> dict[str, NDArray[np.int64]]:
    document = document_of(content)
    if isinstance(document, list):
        return {KEY: table_of(document)}
    if not isinstance(document, dict) or KEY not in document:
        raise ValueError(f"expected a NumPy archive or array, or JSON with {KEY!r}")
    others = {name: storage.whole_numbers(document, name) for name in ARRAYS[1:] if name in document}
    return {KEY: table_of(document[KEY]), **others}
