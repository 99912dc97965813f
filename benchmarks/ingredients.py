"""What tiny instances are made of, drawn at random: traces, weights of families, clusters, copies of experts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeopt.cluster import Cluster
from moeopt.trace import Trace

Rng = np.random.Generator

FAMILIES = ("code", "math", "prose")


def several_layers(rng: Rng, *, layers: int, experts: int, most_tokens: int = 12) -> Trace:
    """A tiny trace of a few requests."""
    k, tokens = int(rng.integers(1, min(experts, 3) + 1)), int(rng.integers(1, most_tokens + 1))
    return Trace(
        np.argsort(rng.random((tokens, layers, experts)), axis=2)[:, :, :k],
        experts,
        layer_ids=np.sort(rng.choice(40, layers, replace=False)).astype(np.int32),
        request=rng.integers(4, size=tokens).astype(np.int32),
    )


def one_layer(rng: Rng, *, experts: int, families: int = 2, most_tokens: int = 30) -> Trace:
    """A tiny trace of skewed popularity; the first family is never empty."""
    k, tokens = int(rng.integers(1, min(experts, 4) + 1)), int(rng.integers(1, most_tokens + 1))
    popularity = rng.dirichlet(np.ones(experts)) + 1e-3
    race = rng.random((tokens, experts)) ** (1 / popularity)  # weighted draws without replacement
    family = rng.integers(0, families, tokens).astype(np.uint8)
    family[0] = 0
    return Trace(
        np.argsort(-race, axis=1)[:, None, :k],
        experts,
        families=FAMILIES[:families],
        family=family,
        layer_ids=np.array([5], np.int32),
    )


def small_cluster(rng: Rng, *, experts: int, gpus: int, speeds: bool = True) -> Cluster:
    """A slot for every expert, and seldom many more; unequal slots and speeds and a price on nodes now and then."""
    on = one_of(rng, [n for n in (1, 2, 2, gpus) if gpus % n == 0])
    least = -(-experts // gpus)
    slots: Any = least + int(rng.integers(3))
    if chance(rng, 0.25):
        slots = tuple(rng.permutation([least + 1] + [least] * (gpus - 1)).tolist())
    pace: Any = tuple(rng.integers(1, 4, gpus).tolist()) if speeds and chance(rng, 0.25) else 1
    return Cluster(on, gpus // on, slots, one_of(rng, (1, 1, 2, 3)), one_of(rng, (0, 5)), pace)


def copied_experts(rng: Rng, cluster: Cluster, *, experts: int, replicas: int) -> NDArray[np.bool_]:
    """bool [experts, gpus]: one copy each in a random order of the slots, then copies where they fit."""
    hosts = np.zeros((experts, cluster.gpus), bool)
    seats = rng.permutation(np.repeat(np.arange(cluster.gpus), cluster.slots_of))
    hosts[np.arange(experts), seats[:experts]] = True
    for gpu in seats[experts:]:
        absent = np.flatnonzero(~hosts[:, gpu])
        if replicas and absent.size:
            hosts[rng.choice(absent), gpu] = True
            replicas -= 1
    return hosts


def family_weights(rng: Rng, trace: Trace) -> dict[str, float] | None:
    """None, or a weight for every family that has tokens; that of code is positive."""
    if chance(rng, 0.5):
        return None
    weights = {"code": one_of(rng, (1, 2, 0.3))}
    present = {trace.families[index] for index in np.unique(trace.family).tolist()} - {"code"}
    return weights | {name: one_of(rng, (0, 1, 1.5)) for name in sorted(present)}


def shares(rng: Rng, total: int, groups: int) -> list[int]:
    """Whole numbers that sum to the total."""
    return [int(share) for share in np.bincount(rng.integers(0, groups, total), minlength=groups)]


def one_of(rng: Rng, values: Any) -> Any:
    """One of a sequence, each as likely as another."""
    return values[int(rng.integers(len(values)))]


def chance(rng: Rng, share: float) -> bool:
    """Whether something happens that comes in a share of the draws."""
    return bool(rng.random() < share)
