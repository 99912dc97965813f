"""Which copy of an expert serves which tokens."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from moeopt import storage
from moeopt.expert_sets import ExpertSets
from moeopt.placement import Placement
from moeopt.workload import Workload

FORMAT = "moeopt-plan"


@dataclass(frozen=True, eq=False)
class Dispatch:
    """How the tokens of one layer use the copies.

    | field | holds |
    |---|---|
    | sets | int32 [rows]: index of the expert set |
    | gpus | int32 [rows, k]: the GPU that serves each member of the set |
    | tokens | int64 [rows, families]: tokens served so; over the rows of a set they sum to its counts |
    """

    sets: NDArray[np.int32]
    gpus: NDArray[np.int32]
    tokens: NDArray[np.int64]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: the rows."""
        return {"sets": self.sets.tolist(), "gpus": self.gpus.tolist(), "tokens": self.tokens.tolist()}

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> Self:
        """Inverse of `to_dict`; ValueError names what does not fit."""
        sets = storage.whole_numbers(document, "sets", dtype=np.int32)
        gpus = storage.whole_numbers(document, "gpus", dtype=np.int32)
        tokens = storage.whole_numbers(document, "tokens")
        if sets.ndim != 1 or gpus.ndim != 2 or tokens.ndim != 2 or not len(sets) == len(gpus) == len(tokens):
            raise ValueError(
                f"a dispatch needs equally many rows, found {sets.shape}, {gpus.shape}, {tokens.shape}"
            )
        return cls(sets, gpus, tokens)

    def gpu_loads(self, gpus: int) -> NDArray[np.int64]:
        """int64 [gpus]: expert activations served by each GPU."""
        loads = np.zeros(gpus, np.int64)
        traffic = self.tokens.sum(axis=1)
        for column in self.gpus.T:
            np.add.at(loads, column, traffic)
        return loads

    def violation(self, sets: ExpertSets, hosts: NDArray[np.bool_]) -> str:
        """Why this does not dispatch `sets` over `hosts` [experts, gpus]; empty when it does."""
        if not sets.complete:
            return "a dispatch serves expert sets, the workload has pair counts only"
        rows = len(self.sets)
        for name, found, wanted in (
            ("GPUs", self.gpus.shape, (rows, sets.top_k)),
            ("tokens", self.tokens.shape, (rows, sets.counts.shape[1])),
        ):
            if found != wanted:
                return f"dispatch of {rows} rows has {name} of shape {found}, expected {wanted}"
        if (self.tokens < 0).any():
            return (
                f"dispatch row {int(np.argwhere(self.tokens < 0)[0, 0])} serves a negative number of tokens"
            )
        if self.sets.size and not (self.sets.min() >= 0 and self.sets.max() < len(sets)):
            wrong = self.sets[(self.sets < 0) | (self.sets >= len(sets))][0]
            return f"dispatch names expert set {wrong}, there are {len(sets)}"
        served = np.zeros_like(sets.counts)
        np.add.at(served, self.sets, self.tokens)
        if (served != sets.counts).any():
            at, family = np.argwhere(served != sets.counts)[0]
            wanted, found = sets.counts[at, family], served[at, family]
            return f"expert set {at} has {wanted} tokens of family {family}, {found} served"
        if self.gpus.size and not (self.gpus.min() >= 0 and self.gpus.max() < hosts.shape[1]):
            wrong = self.gpus[(self.gpus < 0) | (self.gpus >= hosts.shape[1])][0]
            return f"dispatch names GPU {wrong}, there are {hosts.shape[1]}"
        held = hosts[sets.members[self.sets], self.gpus]
        if not held.all():
            row, column = np.argwhere(~held)[0]
            return f"GPU {self.gpus[row, column]} does not hold expert {sets.members[self.sets[row], column]}"
        return ""


@dataclass(frozen=True, eq=False)
class Plan:
    """A placement and the dispatch of a workload over its copies: what a cost can be read off."""

    placement: Placement
    dispatches: tuple[Dispatch, ...]

    def to_dict(self) -> dict[str, Any]:
        """The documented JSON form, version 1: the placement, and the rows of every layer's dispatch."""
        layers = [part.to_dict() for part in self.dispatches]
        return {"format": FORMAT, "version": 1, "placement": self.placement.to_dict(), "dispatches": layers}

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> Self:
        """Inverse of `to_dict`."""
        storage.expect(document, kind=FORMAT)
        placement = Placement.from_dict(storage.field(document, "placement", kind=dict))
        layers = storage.field(document, "dispatches", kind=list)
        if len(layers) != len(placement.layer_ids):
            raise ValueError(f"{len(layers)} dispatches for {len(placement.layer_ids)} layers")
        return cls(placement, tuple(Dispatch.from_dict(layer) for layer in layers))


def forced(sets: ExpertSets, hosts: NDArray[np.bool_]) -> Dispatch:
    """The only dispatch of a partition: `hosts` bool [experts, gpus] with one GPU per expert."""
    gpu_of = hosts.argmax(axis=1).astype(np.int32)
    return Dispatch(np.arange(len(sets), dtype=np.int32), gpu_of[sets.members], sets.counts)


def cover(
    sets: ExpertSets, hosts: NDArray[np.bool_], *, gpus_per_node: int, gpu_cost: int = 1, node_cost: int = 0
) -> Dispatch:
    """Every set served by the cheapest GPUs and nodes that hold its experts: optimal when load is free."""
    if (hosts.sum(axis=1) == 1).all():
        return forced(sets, hosts)
    if sets.top_k > 16:
        raise ValueError(f"optimal covers are computed for top-k up to 16, found {sets.top_k}")
    from moeopt.covers import cheapest_covers

    served = cheapest_covers(sets.members, np.ascontiguousarray(hosts), gpus_per_node, gpu_cost, node_cost)
    return Dispatch(np.arange(len(sets), dtype=np.int32), served, sets.counts)


def cover_plan(placement: Placement, workload: Workload, *, gpu_cost: int = 1, node_cost: int = 0) -> Plan:
    """The cheapest dispatch of every layer, load ignored."""
    per_node = placement.gpus // placement.nodes
    layers = (
        cover(sets, hosts, gpus_per_node=per_node, gpu_cost=gpu_cost, node_cost=node_cost)
        for sets, hosts in zip(workload.layers, placement.hosts, strict=True)
    )
    return Plan(placement, tuple(layers))


def touched(labels: NDArray[Any]) -> NDArray[np.int64]:
    """int64 [rows]: distinct labels in each row of `labels` [rows, k] (GPUs or nodes)."""
    ordered = np.sort(labels, axis=1)
    return np.asarray(1 + (ordered[:, 1:] != ordered[:, :-1]).sum(axis=1, dtype=np.int64))
