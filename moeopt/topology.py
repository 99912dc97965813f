"""Experts of all layers placed near the hosts that send tokens to them and collect their results."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moeopt import links
from moeopt.cluster import Cluster
from moeopt.placement import Placement
from moeopt.workload import Workload


@dataclass(frozen=True, eq=False)
class HopsProblem:
    """Place the experts of every layer, one copy each, few hops from the fixed hosts of the layer.

    | field | holds |
    |---|---|
    | activity | int64 [layers, experts]: activations of each expert, or 1 where every expert counts the same |
    | hops | int64 [layers, gpus]: from the dispatching host of the layer to the server, and on to the collecting one |
    | cluster | the servers are its GPUs, its slots what one holds of a layer; its costs play no part |
    | memory | experts of all layers that a server holds at most; None: free |
    | layer_ids | absolute layer indices; 0, 1, ... when empty |
    | model | name of the model |

    cost = sum of activity[l, e] hops[l, server(l, e)], an integer. Servers of several GPUs: a cluster of one GPU a
    node, with the slots of the whole server. Copies of a token to one server are counted one by one.

    Source: Cluster topology-driven placement of experts reduces network traffic in MoE inference, arXiv 2508.09229:
    activity 1 is its ILP, measured activity its ILPLoad.
    Raises ValueError for what arithmetic alone rules out.
    """

    activity: NDArray[np.int64]
    hops: NDArray[np.int64]
    cluster: Cluster
    memory: int | None = None
    layer_ids: tuple[int, ...] = ()
    model: str = ""

    def __post_init__(self) -> None:
        activity = links.whole_counts("activity", self.activity, shape=(None, None))
        layers, experts = activity.shape
        if not activity.size:
            raise ValueError(f"activity must be [layers, experts], found {list(activity.shape)}")
        hops = links.whole_counts("hops", self.hops, shape=(layers, self.cluster.gpus))
        object.__setattr__(self, "activity", activity)
        object.__setattr__(self, "hops", hops)
        object.__setattr__(self, "layer_ids", links.named_layers(self.layer_ids, count=layers))
        links.check_memory(self.memory, self.cluster, layers=layers, experts=experts)
        farthest = float((activity.sum(axis=1, dtype=float) * hops.max(axis=1)).sum())
        if farthest >= links.MOST_COST:
            raise ValueError(f"objective too large for exact 64-bit arithmetic: up to {farthest:.0f}")

    @classmethod
    def from_workload(
        cls,
        workload: Workload,
        cluster: Cluster,
        *,
        hops: ArrayLike | None = None,
        dispatch: ArrayLike = 0,
        collect: ArrayLike | None = None,
        measured: bool = True,
        memory: int | None = None,
    ) -> Self:
        """The problem of all layers of a workload.

        Parameters
        ----------
        hops
            int [gpus, gpus], from row to column; None: the prices of the cluster, `links.distances`.
        dispatch, collect
            The server that sends the tokens of each layer out and the one that collects the results: one number,
            or int [layers]. None: collect where it was dispatched.
        measured
            Whether experts count by their recorded activations, families unweighted, or all the same.

        Raises
        ------
        ValueError
            A host that is no GPU, hops of another shape, or what the class refuses.
        """
        layers, gpus = len(workload.layers), cluster.gpus
        between = links.distances(cluster) if hops is None else np.asarray(hops)
        between = links.whole_counts("hops", between, shape=(gpus, gpus))
        hosts = []
        for name, given in (("dispatch", dispatch), ("collect", dispatch if collect is None else collect)):
            host = np.asarray(given)
            if host.shape not in ((), (layers,)) or host.dtype.kind not in "iu":
                raise ValueError(
                    f"{name} must be one GPU or int [{layers}], found {host.dtype} {list(host.shape)}"
                )
            if int(host.min()) < 0 or int(host.max()) >= gpus:
                raise ValueError(
                    f"{name} must be a GPU 0..{gpus - 1}, found {int(host.min())}..{int(host.max())}"
                )
            hosts.append(np.broadcast_to(host, layers))
        way = between[hosts[0]] + between[:, hosts[1]].T
        loads = np.stack([sets.load for sets in workload.layers])
        activity = loads if measured else np.ones_like(loads)
        return cls(activity, way, cluster, memory, workload.layer_ids, workload.model)

    @property
    def n_layers(self) -> int:
        return int(self.activity.shape[0])

    @property
    def n_experts(self) -> int:
        return int(self.activity.shape[1])

    @cached_property
    def digest(self) -> str:
        """SHA-256 of everything that the cost and the rules depend on."""
        facts = (sorted(self.cluster.to_dict().items()), self.memory, self.layer_ids)
        return links.fingerprint("moeopt-hops", facts, self.activity, self.hops)

    def partition(self, gpu_of: ArrayLike) -> Placement:
        """The placement of one copy each: `gpu_of` int [layers, experts]."""
        return Placement.partition(gpu_of, self.cluster, layer_ids=self.layer_ids, model=self.model)

    def cost(self, placement: Placement) -> int:
        """Exact hops of all activations; ValueError for copies or another shape."""
        gpu_of = links.check_shape(placement, self.cluster, layer_ids=self.layer_ids, experts=self.n_experts)
        return int((self.activity * np.take_along_axis(self.hops, gpu_of.astype(np.int64), axis=1)).sum())

    def violation(self, placement: Placement) -> str:
        """The first rule that the placement breaks, with its numbers; empty when it breaks none."""
        links.check_shape(placement, self.cluster, layer_ids=self.layer_ids, experts=self.n_experts)
        return links.overfull(placement, self.cluster, memory=self.memory)

    def candidates(self) -> Iterator[Placement]:
        """Every admissible placement; ValueError above 100,000 to try."""
        seatings = links.every_seating(self.cluster.slots_of, experts=self.n_experts)
        for gpu_of in links.every_choice([seatings] * self.n_layers):
            placement = self.partition(gpu_of)
            if self.memory is None or not self.violation(placement):
                yield placement
