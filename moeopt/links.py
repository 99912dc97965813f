"""What problems about several layers share: the way between GPUs, and answers of one GPU an expert."""

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeopt.cluster import Cluster
from moeopt.placement import Placement

MOST_CANDIDATES = 100_000  # of a brute force
MOST_COST = 1 << 60  # leaves room for sums in 64 bits


def distances(cluster: Cluster) -> NDArray[np.int64]:
    """int64 [gpus, gpus]: gpu_cost between different GPUs, and node_cost more between different nodes."""
    gpu, node = np.arange(cluster.gpus), cluster.node_of
    apart: NDArray[np.int64] = cluster.gpu_cost * (gpu[:, None] != gpu).astype(np.int64)
    apart += cluster.node_cost * (node[:, None] != node).astype(np.int64)
    return apart


def whole_counts(name: str, values: Any, *, shape: Sequence[int | None]) -> NDArray[np.int64]:
    """A read-only int64 copy of `values`; None in `shape` stands for any length of at least 0.

    Raises ValueError for another shape, for numbers that are not whole, and for negative ones.
    """
    found = np.asarray(values)
    fits = found.ndim == len(shape) and all(
        want in (None, have) for want, have in zip(shape, found.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if length is None else str(length) for length in shape)
        raise ValueError(f"{name} must have shape [{wanted}], found {list(found.shape)}")
    if found.dtype.kind not in "iu":
        raise ValueError(f"{name} must be whole numbers, found dtype {found.dtype}")
    if found.size and (int(found.min()) < 0 or int(found.max()) > MOST_COST):
        raise ValueError(
            f"{name} must lie between 0 and {MOST_COST}, found {int(found.min())}..{int(found.max())}"
        )
    copy = found.astype(np.int64)
    copy.setflags(write=False)
    return copy


def named_layers(layer_ids: Sequence[int], *, count: int) -> tuple[int, ...]:
    """The absolute layer indices of `count` layers, 0, 1, ... where none are given; ValueError if they do not fit."""
    ids = tuple(int(layer) for layer in layer_ids) or tuple(range(count))
    if len(ids) != count or list(ids) != sorted(set(ids)):
        raise ValueError(f"layer_ids must be {count} ascending numbers, found {list(ids)}")
    return ids


def check_shape(
    placement: Placement, cluster: Cluster, *, layer_ids: tuple[int, ...], experts: int
) -> NDArray[np.int32]:
    """int32 [layers, experts]: the GPU of every expert of a placement that fits the problem.

    Raises ValueError when the placement has copies or another shape.
    """
    for name, found, wanted in (
        ("layers", placement.layer_ids, layer_ids),
        ("experts", placement.n_experts, experts),
        ("GPUs", placement.gpus, cluster.gpus),
        ("nodes", placement.nodes, cluster.nodes),
    ):
        if found != wanted:
            raise ValueError(f"placement and problem differ in {name}: {found} and {wanted}")
    if not placement.is_partition:
        raise ValueError("the problem is about one copy of each expert: the placement has copies")
    return placement.primary


def check_slots(cluster: Cluster, *, experts: int) -> None:
    """ValueError when the slots of a layer do not hold its experts."""
    slots = int(np.minimum(cluster.slots_of, experts).sum())
    if slots < experts:
        raise ValueError(
            f"too few slots: {cluster.gpus} GPUs offer {slots} slots a layer for {experts} experts"
        )


def check_memory(memory: int | None, cluster: Cluster, *, layers: int, experts: int) -> None:
    """ValueError when slots and memory (experts of all layers that a GPU holds) do not hold the experts.

    Layers alike, the least cut of the transport from layers to GPUs takes all layers or none: these rules are enough.
    """
    check_slots(cluster, experts=experts)
    if memory is None:
        return
    if isinstance(memory, bool) or not isinstance(memory, int) or memory < 1:
        raise ValueError(f"memory must be a whole number, at least 1, or None, found {memory!r}")
    room = int(np.minimum(memory, layers * np.minimum(cluster.slots_of, experts)).sum())
    if room < layers * experts:
        raise ValueError(
            f"memory {memory} is too small: {cluster.gpus} GPUs hold {room} experts, {layers} layers of {experts} "
            f"need {layers * experts}"
        )


def check_magnitude(*transfers: NDArray[np.int64] | None, cluster: Cluster) -> None:
    """ValueError when the price of all transfers does not fit exact 64-bit arithmetic."""
    # Summed in floats, for the whole sum may not fit 64 bits either.
    moved = sum(float(part.sum(dtype=float)) for part in transfers if part is not None)
    unit = cluster.gpu_cost + cluster.node_cost
    if moved * unit >= MOST_COST:
        raise ValueError(
            f"objective too large for exact 64-bit arithmetic: {moved:.0f} transfers, price up to {unit}"
        )


def overfull(placement: Placement, cluster: Cluster, *, memory: int | None = None) -> str:
    """The first GPU that holds more experts of a layer than its slots, or of all layers than `memory`; else empty."""
    held = placement.hosts.sum(axis=1)
    for layer, gpu in np.argwhere(held > cluster.slots_of)[:1]:
        return (
            f"layer {placement.layer_ids[layer]}: GPU {gpu} holds {held[layer, gpu]} experts, "
            f"slots are {cluster.slots_of[gpu]}"
        )
    total = held.sum(axis=0)
    if memory is not None and total.max() > memory:
        return f"GPU {int(total.argmax())} holds {total.max()} experts of all layers, memory is {memory}"
    return ""


def every_choice(choices: Sequence[Sequence[Any]]) -> Iterator[tuple[Any, ...]]:
    """One member of each sequence, in every way; ValueError above 100,000 ways."""
    count = 1
    for options in choices:
        count *= len(options)
    if count > MOST_CANDIDATES:
        raise ValueError(f"brute force ends at {MOST_CANDIDATES:,} candidates, found {count:,}")
    return itertools.product(*choices)


def every_seating(slots: NDArray[np.int64], *, experts: int) -> list[tuple[int, ...]]:
    """Every way to seat the experts of one layer within `slots` int [gpus]; ValueError above 100,000 ways to try."""
    room = slots.tolist()
    return [
        gpu_of
        for gpu_of in every_choice([range(len(room))] * experts)
        if all(gpu_of.count(gpu) <= room[gpu] for gpu in set(gpu_of))
    ]


def fingerprint(kind: str, facts: object, *arrays: NDArray[np.int64] | None) -> str:
    """SHA-256 of a kind of problem, its plain facts (by repr) and its arrays, the same on every machine."""
    shapes = [None if array is None else array.shape for array in arrays]
    content = hashlib.sha256(f"{kind} 1 {facts!r} {shapes}".encode())
    for array in arrays:
        content.update(b"" if array is None else array.astype("<i8").tobytes())
    return content.hexdigest()
