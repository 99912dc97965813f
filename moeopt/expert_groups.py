"""Expert groups, a node each, and the rule that sends requests to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moeopt.cluster import Cluster
from moeopt.grouping_search import seated
from moeopt.openings import Openings
from moeopt.placement import Placement
from moeopt.trace import Trace

__all__ = ["AtHome", "ExpertGroups", "Router", "capacity", "dealt", "filled", "placed", "usage_of"]


class Router(Protocol):
    """How well every group suits a request, judged by its first activations."""

    def gains(self, first: NDArray[np.int64], /) -> NDArray[np.float64]:
        """float [requests, groups], of first int64 [requests, layers, experts]; more is better."""
        ...


@dataclass(frozen=True, eq=False)
class AtHome:
    """Activations that find their expert in the group, layers summed.

    | field | holds |
    |---|---|
    | hosts | bool [layers, experts, groups] |
    | relative | whether the activations of a request count as 1 in sum |
    """

    hosts: NDArray[np.bool_]
    relative: bool = False

    def gains(self, first: NDArray[np.int64], /) -> NDArray[np.float64]:
        flat: NDArray[np.float64] = first.reshape(len(first), -1).astype(float)
        if self.relative:
            flat /= np.maximum(flat.sum(axis=1, keepdims=True), 1.0)
        return np.asarray(flat @ self.hosts.reshape(flat.shape[1], -1).astype(float))


@dataclass(frozen=True, eq=False)
class ExpertGroups:
    """Where experts live and requests are served, learned from one trace and applied to others.

    | field | holds |
    |---|---|
    | placement | a node with one GPU for each group |
    | requests, request_group | int32 [requests]: the requests learned from, ascending, and their groups |
    | router | see `Router` |
    | room | share by which a group may miss its equal share of the requests; None: no quotas |
    | opening | see `moeopt.openings.Openings` |
    """

    placement: Placement
    requests: NDArray[np.int32]
    request_group: NDArray[np.int32]
    router: Router
    room: float | None
    opening: float

    @property
    def groups(self) -> int:
        return self.placement.gpus

    def assign(self, trace: Trace) -> NDArray[np.int32]:
        """int32 [requests]: the group of every request of `trace`, by ascending id, its requests being one batch.

        Raises ValueError for a trace of another shape.
        """
        shape = (trace.n_layers, trace.n_experts)
        if shape != self.placement.primary.shape or tuple(trace.layer_ids) != self.placement.layer_ids:
            raise ValueError(
                f"groups of {list(self.placement.primary.shape)} [layers, experts] know layers "
                f"{list(self.placement.layer_ids)}, the trace has {list(shape)} and {trace.layer_ids.tolist()}"
            )
        first = Openings.of(trace, share=self.opening).first
        return dealt(self.router.gains(first), room=self.room)

    def ranks(self, trace: Trace) -> NDArray[np.int32]:
        """int32 [tokens]: the group of each token, as `moeopt.replaying.replay` takes home GPUs."""
        _, row = np.unique(trace.request, return_inverse=True)
        return np.asarray(self.assign(trace)[row], np.int32)


def dealt(gains: NDArray[np.float64], *, room: float | None) -> NDArray[np.int32]:
    """int32 [requests]: the group of most gain [requests, groups] each; among equals the one with fewest requests yet.

    With `room` the largest sum of gains such that no group misses its equal share, rounded up or down, by more than
    this share of it.
    """
    requests, groups = gains.shape
    if room is not None:
        slack = int(room * requests / groups)
        least = np.full(groups, max(0, requests // groups - slack))
        most = np.full(groups, min(requests, -(-requests // groups) + slack))
        return seated(gains, bounds=np.array([least, most]))
    held, group = np.zeros(groups, np.int64), np.empty(requests, np.int32)
    for request, row in enumerate(gains):
        best = np.flatnonzero(row == row.max())
        group[request] = best[held[best].argmin()]
        held[group[request]] += 1
    return group


def capacity(experts: int, groups: int, *, replicas: int) -> int:
    """M = (E + R) / D experts of a layer in every group. Raises ValueError where that is not a whole number <= E."""
    for name, value, least in (("groups", groups, 1), ("replicas", replicas, 0)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise ValueError(f"{name} must be a whole number, at least {least}, found {value!r}")
    if groups > experts or (experts + replicas) % groups:
        raise ValueError(
            f"groups hold equally many experts: {experts} experts + {replicas} replicas do not part into {groups}"
        )
    if (held := (experts + replicas) // groups) > experts:
        raise ValueError(f"{replicas} replicas give a group {held} experts, the layer has {experts}")
    return int(held)


def usage_of(activations: NDArray[np.int64], inside: ArrayLike) -> NDArray[np.int64]:
    """U int64 [layers, experts, groups]: activations by the requests of a group, inside bool [requests, groups]."""
    requests, layers, experts = activations.shape
    member = np.asarray(inside, float)
    summed = activations.reshape(requests, -1).astype(float).T @ member  # whole, far below 2^53
    return np.asarray(np.rint(summed), np.int64).reshape(layers, experts, -1)


def filled(used: NDArray[np.int64], *, held: int) -> NDArray[np.bool_]:
    """bool [layers, experts, groups]: the hosts that keep most of U[l, e, d] local, `held` experts in each group.

    Exact for these groups of requests: maximise sum U x, each group with `held` experts, each expert somewhere. The
    rows are those of a network, so that the vertex which the simplex method ends in is whole.
    """
    from scipy.optimize import linprog
    from scipy.sparse import csr_array, eye_array, kron

    layers, experts, groups = used.shape
    once = csr_array(-kron(eye_array(experts), np.ones((1, groups))))
    full = csr_array(kron(np.ones((1, experts)), eye_array(groups)))
    hosts = np.empty(used.shape, bool)
    for layer in range(layers):
        found = linprog(
            -used[layer].ravel().astype(float),
            A_ub=once,
            b_ub=-np.ones(experts),
            A_eq=full,
            b_eq=np.full(groups, float(held)),
            bounds=(0, 1),
            method="highs-ds",
        )
        if found.x is None:
            raise RuntimeError(f"the hosts of layer {layer} were not found: {found.message}")
        hosts[layer] = found.x.reshape(experts, groups) > 0.5
    return hosts


def placed(hosts: NDArray[np.bool_], trace: Trace, *, used: NDArray[Any]) -> Placement:
    """A node a group; the primary is the host of most usage [layers, experts, groups]."""
    groups, held = hosts.shape[2], int(hosts[0, :, 0].sum())
    cluster = Cluster(nodes=groups, gpus_per_node=1, slots=held)
    primary = np.where(hosts, used, -1).argmax(axis=2)
    return Placement(
        hosts, primary, cluster.nodes, held, tuple(int(layer) for layer in trace.layer_ids), trace.model
    )
