"""Requests in K-means clusters, clusters mapped to expert groups, experts placed greedily."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from moeopt.expert_groups import ExpertGroups, capacity, dealt, placed, usage_of
from moeopt.kmeans import clusters
from moeopt.openings import OPENING, Openings
from moeopt.trace import Trace

__all__ = ["MicroBatches", "greedy_hosts", "mapped", "unit"]

OVERFLOWS, ROUTERS = ("as-is", "balanced"), ("centroid", "regression")


@dataclass(frozen=True)
class MicroBatches:
    """Micro-batch grouping and data-based expert placement.

    | field | holds |
    |---|---|
    | groups | D, expert groups, a node each |
    | clusters | K of K-means; None: D |
    | replicas | R, copies of a layer's experts beyond the first; D must divide E + R |
    | overflow | "as-is": clusters as large as they come; "balanced": equal groups of requests, by most similarity |
    | router | of unseen requests: "centroid", the nearest; "regression", logistic, on raw counts (extra `profiles`) |
    | layers | absolute ids whose counts are clustered; none given: all, concatenated |
    | opening | share of a request that stands for its prefill where there is none |
    | restarts | of K-means |

    The source leaves open: K, the layers, what becomes of unequal clusters, and how a prefill names its cluster. It
    measured R = 0.

    Source: arXiv 2604.23150, sections 4.1 (K-means on L2-normalised decode counts, three mappings), 4.2 (placement),
    4.3 (the prefill decides).
    """

    groups: int = 8
    clusters: int | None = None
    replicas: int = 0
    overflow: Literal["as-is", "balanced"] = "as-is"
    router: Literal["centroid", "regression"] = "centroid"
    layers: tuple[int, ...] = ()
    opening: float = OPENING
    restarts: int = 10

    def __post_init__(self) -> None:
        for name, known in (("overflow", OVERFLOWS), ("router", ROUTERS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, found {getattr(self, name)!r}")
        if self.clusters is not None and self.clusters < 1:
            raise ValueError(f"clusters must be at least 1, found {self.clusters}")

    def fit(self, trace: Trace, *, seed: int) -> ExpertGroups:
        """Groups learned from the requests of `trace`.

        Requests without both phases are parted as `moeopt.openings` says. Raises ValueError for more clusters or
        groups than requests, experts that groups do not divide, unknown layers, and nothing to serve.
        """
        held = capacity(trace.n_experts, self.groups, replicas=self.replicas)
        parts = Openings.of(trace, share=self.opening)
        learnable(parts, groups=self.groups, clusters=self.clusters)
        chosen = _positions(trace, self.layers)
        labels, centres = clusters(
            unit(parts.rest[:, chosen]),
            k=self.clusters or self.groups,
            rng=np.random.default_rng(seed),
            restarts=self.restarts,
        )
        totals = usage_of(parts.rest, labels[:, None] == np.arange(len(centres)))
        owned = mapped(totals, self.groups, seed=seed)
        if self.router == "centroid":
            router: Nearest | Regression = Nearest(centres, owned, chosen)
        else:
            router = Regression(_fitted(parts.first[:, chosen], labels), owned, chosen, len(centres))
        balanced = self.overflow == "balanced"
        known = _by_group(Nearest(centres, owned, chosen).scores(parts.rest), owned)
        if balanced:
            group = dealt(known, room=0.0)
            used = usage_of(parts.rest, group[:, None] == np.arange(self.groups))
        else:
            group = dealt(_by_group(labels[:, None] == np.arange(len(centres)), owned), room=None)
            used = np.rint(totals.astype(float) @ owned).astype(np.int64)
        hosts = greedy_hosts(used, held=held)
        return ExpertGroups(
            placed(hosts, trace, used=used),
            parts.requests,
            group,
            router,
            0.0 if balanced else None,
            self.opening,
        )


@dataclass(frozen=True, eq=False)
class Nearest:
    """Minus the squared distance to the nearest cluster of a group.

    | field | holds |
    |---|---|
    | centres | float [clusters, layers x experts] of L2-normalised counts |
    | owned | bool [clusters, groups] |
    | chosen | positions of the layers that were clustered |
    """

    centres: NDArray[np.float64]
    owned: NDArray[np.bool_]
    chosen: tuple[int, ...]

    def scores(self, counts: NDArray[np.int64]) -> NDArray[np.float64]:
        """float [requests, clusters]."""
        points = unit(counts[:, self.chosen])
        found: NDArray[np.float64] = 2 * points @ self.centres.T - (self.centres**2).sum(axis=1)
        return np.asarray(found - (points**2).sum(axis=1)[:, None])

    def gains(self, first: NDArray[np.int64], /) -> NDArray[np.float64]:
        return _by_group(self.scores(first), self.owned)


@dataclass(frozen=True, eq=False)
class Regression:
    """Probability of the likeliest cluster of a group: `model` of scikit-learn, None where there is one cluster."""

    model: Any
    owned: NDArray[np.bool_]
    chosen: tuple[int, ...]
    clusters: int

    def gains(self, first: NDArray[np.int64], /) -> NDArray[np.float64]:
        points = first[:, self.chosen].reshape(len(first), -1).astype(float)
        scores = np.ones((len(first), self.clusters))
        if self.model is not None:
            scores = np.asarray(self.model.predict_proba(points))
        return _by_group(scores, self.owned)


def mapped(totals: NDArray[np.int64], groups: int, *, seed: int) -> NDArray[np.bool_]:
    """bool [clusters, groups]: which groups serve a cluster, totals int64 [layers, experts, clusters].

    K = D: one to one. D > K: one group each, the others round-robin over the clusters, largest total first. K > D:
    K-means of the totals, not normalised, into D meta-clusters, a group each; where totals are equal there may be
    fewer, and groups without clusters.
    """
    count = totals.shape[2]
    if count <= groups:
        cluster_of = np.argsort(-totals.sum(axis=(0, 1)), kind="stable")[np.arange(groups) % count]
        return np.asarray(np.arange(count)[:, None] == cluster_of)
    points = totals.reshape(-1, count).T
    group_of, _ = clusters(points, k=groups, rng=np.random.default_rng([seed, 1]))
    return np.asarray(group_of[:, None] == np.arange(groups))


def greedy_hosts(used: NDArray[np.int64], *, held: int) -> NDArray[np.bool_]:
    """bool [layers, experts, groups]: `held` experts in each group, by usage U int64 [layers, experts, groups].

    Phase 1: experts by descending max_d U[d, e], each to the group of largest U that has fewer than ceil(E / D). Phase
    2: every group takes the absent experts of largest U. Then sizes are exact and every expert has a host, so that the
    last step of the source, which mends both, has nothing to do. Ties go to the lower number.

    Source: arXiv 2604.23150, section 4.2.
    """
    layers, experts, groups = used.shape
    hosts = np.zeros(used.shape, bool)
    most = -(-experts // groups)
    for layer in range(layers):
        room = np.full(groups, most)
        for expert in np.argsort(-used[layer].max(axis=1), kind="stable"):
            group = int(np.where(room > 0, used[layer, expert], -1).argmax())
            hosts[layer, expert, group] = True
            room[group] -= 1
    absent = np.argsort(np.where(hosts, 1, -used), axis=1, kind="stable")
    lacking = held - hosts.sum(axis=1)
    for layer, group in np.argwhere(lacking > 0):
        hosts[layer, absent[layer, : lacking[layer, group], group], group] = True
    return hosts


def unit(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """float [requests, layers x experts]: rows of length 1; a request without activations keeps its zeros."""
    points = counts.reshape(len(counts), -1).astype(float)
    length = np.linalg.norm(points, axis=1, keepdims=True)
    return np.asarray(points / np.where(length > 0, length, 1.0))


def learnable(parts: Openings, *, groups: int, clusters: int | None = None) -> None:
    """Raises ValueError where these requests cannot be grouped."""
    requests = len(parts.requests)
    for name, count in (("groups", groups), ("clusters", clusters or 1)):
        if count > requests:
            raise ValueError(f"{name} must be at most the {requests} requests, found {count}")
    if not parts.rest.any():
        raise ValueError(f"nothing is served: each of the {requests} requests ends with its opening")


def _by_group(scores: NDArray[Any], owned: NDArray[np.bool_]) -> NDArray[np.float64]:
    """float [requests, groups]: the best score [requests, clusters] of a group's own; of none, the worst of all."""
    worst = float(scores.min()) - 1.0
    return np.stack([np.where(own, scores, worst).astype(float).max(axis=1) for own in owned.T], axis=1)


def _fitted(first: NDArray[np.int64], labels: NDArray[np.int64]) -> Any:
    if len(np.unique(labels)) == 1:
        return None
    from moeopt.logistic import regression

    return regression(first.reshape(len(first), -1), labels)


def _positions(trace: Trace, layers: tuple[int, ...]) -> tuple[int, ...]:
    """Where the trace has these layers."""
    known = trace.layer_ids.tolist()
    if missing := [layer for layer in layers if layer not in known]:
        raise ValueError(f"layer {missing[0]} is not in the trace, whose layers are {known}")
    return tuple(known.index(layer) for layer in layers) if layers else tuple(range(len(known)))
