"""A model of the time that the experts of a Mixture-of-Experts layer take: links, arithmetic, weights.

One layer of one batch, in seconds, three parts one after the other:

    dispatch = slowest GPU's messages        combine = the same messages back
    compute  = max over GPUs of max(activations x flops of one / arithmetic, activated experts x bytes / memory)

A message between two GPUs holds one vector for each token that goes there. The links within a node and those beyond
work at the same time, each takes latency + bytes / bandwidth, and the slower one counts. Padded, every GPU sends every
other as much as the largest message of the batch; unpadded, the GPU that sends or receives most counts.
Utilisation = mean / largest busy time of the GPUs.

Left out: attention, the router and shared experts; overlap of transfer and compute; contention in switches and of
several GPUs for one port (one port a GPU is assumed); forwarding within a node of what came for several of its GPUs;
tiles of grouped matrix products, reading and writing of activations, launches of kernels. So the model ranks
placements and dispatch rules by their traffic and balance; it does not predict the latency of an engine.
Source: the setting of arXiv 2604.23150, section 5 (all-to-all padded to the largest rank, layer bound by the busiest
GPU), which publishes no formula; the bound by activated experts in decode is that of METRO.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from moeopt.architectures import Architecture, architecture
from moeopt.hardware import named_gpu, named_link
from moeopt.memory import expert_bytes


@dataclass(frozen=True)
class Machine:
    """The speeds that the model works with.

    | field | holds |
    |---|---|
    | flops | dense floating-point operations of a GPU, per second |
    | memory_bandwidth | of a GPU, bytes per second |
    | near_bandwidth, far_bandwidth | of a GPU's links within its node and beyond, bytes per second and direction |
    | near_latency, far_latency | seconds of one all-to-all without bytes; assumptions, no data sheet gives them |
    | flops_efficiency, memory_efficiency, link_efficiency | share of each figure that is reached; assumptions |
    | padded | whether every message is padded to the largest of the batch |
    | name | free text |
    """

    flops: float
    memory_bandwidth: float
    near_bandwidth: float
    far_bandwidth: float
    near_latency: float = 5e-6
    far_latency: float = 10e-6
    flops_efficiency: float = 0.6
    memory_efficiency: float = 0.8
    link_efficiency: float = 0.8
    padded: bool = True
    name: str = ""

    def __post_init__(self) -> None:
        for field in ("flops", "memory_bandwidth", "near_bandwidth", "far_bandwidth"):
            _check(field, getattr(self, field), least=0, strict=True)
        for field in ("near_latency", "far_latency"):
            _check(field, getattr(self, field), least=0)
        for field in ("flops_efficiency", "memory_efficiency", "link_efficiency"):
            _check(field, getattr(self, field), least=0, strict=True, most=1)

    @classmethod
    def of(cls, gpu: str, link: str, *, compute: str = "bf16", **settings: Any) -> Self:
        """From the presets of `moeopt.hardware`: Machine.of("h100-sxm", "nvlink-ib-ndr").

        `compute` is bf16 or fp8; `settings` are latencies, efficiencies and `padded`. ValueError names what is unknown
        or does not fit.
        """
        card, wires = named_gpu(gpu), named_link(link)
        return cls(
            flops=card.flops(compute),
            memory_bandwidth=card.memory_bandwidth,
            near_bandwidth=wires.near_bandwidth(card),
            far_bandwidth=wires.far_bandwidth,
            name=f"{card.name}, {wires.name}, {compute}",
            **settings,
        )


@dataclass(frozen=True)
class ExpertWork:
    """What one activation costs.

    | field | holds |
    |---|---|
    | flops | of one token in one expert: 2 for each parameter |
    | weight_bytes | of one expert, read once by a GPU that any token of the batch activates it on |
    | vector_bytes | of one token on its way, there and back |
    """

    flops: int
    weight_bytes: int
    vector_bytes: int

    @classmethod
    def of(cls, model: str | Architecture, *, precision: str = "bf16", vector_bytes: int) -> Self:
        """Of a model whose experts are stored in `precision` (`moeopt.memory.PRECISIONS`)."""
        shape = architecture(model) if isinstance(model, str) else model
        return cls(2 * shape.expert_parameters, expert_bytes(shape, precision), vector_bytes)


@dataclass(frozen=True, eq=False)
class BatchCounts:
    """What one layer does with each batch.

    | field | holds |
    |---|---|
    | loads | int [batches, gpus]: activations served |
    | activated | int [batches, gpus]: experts that serve at least one |
    | largest | int [batches]: vectors of the largest message from one GPU to another |
    | near, far | int [batches]: the most vectors that one GPU sends or receives within its node and beyond it |
    | gpus_per_node | GPUs of one node |
    """

    loads: NDArray[Any]
    activated: NDArray[Any]
    largest: NDArray[np.int64]
    near: NDArray[np.int64]
    far: NDArray[np.int64]
    gpus_per_node: int


@dataclass(frozen=True, eq=False)
class Seconds:
    """Times, float64 [n] each: of n batches, or of n layers.

    | field | holds |
    |---|---|
    | dispatch, compute, combine | seconds |
    | busy | mean over GPUs of the seconds that they compute |
    """

    dispatch: NDArray[np.float64]
    compute: NDArray[np.float64]
    combine: NDArray[np.float64]
    busy: NDArray[np.float64]

    @property
    def total(self) -> NDArray[np.float64]:
        """float [n]: the three parts together."""
        return self.dispatch + self.compute + self.combine

    @property
    def utilisation(self) -> NDArray[np.float64]:
        """float [n]: mean / largest busy time of the GPUs."""
        return self.busy / self.compute

    def only(self, index: int) -> Self:
        """One of the n, n = 1."""
        return type(self)(*(column[index : index + 1] for column in self._columns))

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """One after the other."""
        return cls(*(np.concatenate(columns) for columns in zip(*(p._columns for p in parts), strict=True)))

    @property
    def summed(self) -> Self:
        """Of all n together, n = 1."""
        return type(self)(*(column.sum(keepdims=True) for column in self._columns))

    def __add__(self, other: Self) -> Self:
        pairs = zip(self._columns, other._columns, strict=True)
        return type(self)(*(mine + theirs for mine, theirs in pairs))

    @property
    def _columns(self) -> tuple[NDArray[np.float64], ...]:
        return self.dispatch, self.compute, self.combine, self.busy

    def to_dict(self) -> dict[str, float]:
        """Sums in seconds, and the utilisation of all together."""
        dispatch, compute, combine, busy = (float(column.sum()) for column in self._columns)
        total = dispatch + compute + combine
        return {
            "dispatch": dispatch,
            "compute": compute,
            "combine": combine,
            "total": total,
            "utilisation": busy / compute,
        }


def batch_seconds(counts: BatchCounts, machine: Machine, *, work: ExpertWork) -> Seconds:
    """Seconds of every batch in one layer; the formulas are in the module's docstring."""
    gpus = counts.loads.shape[1]
    if machine.padded:
        near = counts.largest * (counts.gpus_per_node - 1)
        far = counts.largest * (gpus - counts.gpus_per_node)
    else:
        near, far = counts.near, counts.far
    transfer = np.zeros(len(counts.largest))
    for vectors, latency, bandwidth in (
        (near, machine.near_latency, machine.near_bandwidth),
        (far, machine.far_latency, machine.far_bandwidth),
    ):
        taken = latency + vectors * work.vector_bytes / (bandwidth * machine.link_efficiency)
        transfer = np.maximum(transfer, np.where(vectors > 0, taken, 0.0))
    arithmetic = counts.loads * (work.flops / (machine.flops * machine.flops_efficiency))
    weights = counts.activated * (work.weight_bytes / (machine.memory_bandwidth * machine.memory_efficiency))
    busy = np.maximum(arithmetic, weights)
    return Seconds(transfer, busy.max(axis=1), transfer.copy(), busy.mean(axis=1))


def _check(field: str, value: object, *, least: float, strict: bool = False, most: float = math.inf) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{field} must be a number, found {value!r}")
    if value < least or (strict and value == least):
        raise ValueError(f"{field} must be {'more than' if strict else 'at least'} {least}, found {value}")
    if value > most:
        raise ValueError(f"{field} must be at most {most}, found {value}")
