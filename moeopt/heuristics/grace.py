"""Spectral groups of uneven size, and copies of the heaviest group's experts on the lightest GPUs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moeopt.affinity_groups import affinity_inside, fitted
from moeopt.method import Heuristic
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.reference import equal_sizes
from moeopt.stop import Clock


@dataclass(frozen=True)
class Grace(Heuristic):
    """Spectral clusters of S - d to S + d experts by co-activation, S the equal size; nodes first, then GPUs.

    d is the knee: of 0 .. S - 1 the one whose share of affinity inside groups most exceeds its spread of sizes
    (standard deviation), both scaled to 0 .. 1. Copies, where the problem has replicas: with rho the load of the
    heaviest group over the mean, its hot experts get n = min(max(1, floor(rho)), GPUs of its node - 1) copies each, on
    the lightest GPUs of its node with a free slot, within the replicas.

    | field | holds |
    |---|---|
    | deviation | d; None: the knee |
    | rounds | heaviest groups treated, one after the other; the source treats one and may leave replicas unused |
    | restarts | of k-means |

    Proposed first as it is. Uneven sizes cannot be deployed where slots are equal and full: where a GPU has fewer slots
    than its group, a second proposal limits the sizes by the slots, the rest unchanged.

    Source: Y. Han et al., GRACE-MoE: Grouping and replication with locality-aware routing for efficient distributed MoE
    inference, arXiv 2509.25041. Open there, and our reading: how clusters are brought to their sizes
    (`affinity_groups.fitted`), how many experts are hot (as many, by load, as bring the group to the mean where copies
    share evenly). The locality-aware routing is that of the problem, `Problem.plan`; its tolerance is not known here.
    """

    deviation: int | None = None
    rounds: int = 1
    restarts: int = 10
    name = "grace"
    summary = "spectral groups of uneven size, copies from the heaviest GPU to the lightest: GRACE-MoE"

    def __post_init__(self) -> None:
        if self.deviation is not None and self.deviation < 0:
            raise ValueError(f"deviation must be at least 0, found {self.deviation}")
        for name in ("rounds", "restarts"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, found {getattr(self, name)}")

    def supports(self, problem: Problem) -> str:
        """Copies can be judged for top-k up to 16."""
        if problem.replicas and problem.workload.top_k > 16:
            return f"top-k must be at most 16 with replicas, found {problem.workload.top_k}"
        return ""

    def search(
        self, problem: Problem, *, clock: Clock, rng: np.random.Generator, start: Placement | None
    ) -> Iterator[Placement]:
        """The groups as they are, with their copies; where they break the slots, those that keep them."""
        experts = problem.workload.n_experts
        slots = np.minimum(problem.cluster.slots_of, experts)
        gpu_of = self._groups(problem, np.full(len(slots), experts), clock, rng)
        yield _with_copies(problem, gpu_of, rounds=self.rounds)
        if (np.bincount(gpu_of, minlength=len(slots)) > slots).any() and not clock.expired:
            yield _with_copies(problem, self._groups(problem, slots, clock, rng), rounds=self.rounds)

    def _groups(
        self, problem: Problem, slots: NDArray[np.int64], clock: Clock, rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """int64 [experts]: GPU of each expert, for the deviation given or that of the knee."""
        (sets,) = problem.workload.layers
        affinity = sets.affinity(problem.set_weights(sets))
        widest = max(1, sets.n_experts // len(slots))
        deviations = range(widest) if self.deviation is None else [self.deviation]
        found: list[NDArray[np.int64]] = []
        for deviation in deviations:
            if found and clock.expired:
                break
            found.append(self._hierarchy(problem, affinity, slots, deviation, rng))
        sizes = [np.bincount(gpu_of, minlength=len(slots)) for gpu_of in found]
        gains = [affinity_inside(affinity, gpu_of) for gpu_of in found]
        return found[knee([float(size.std()) for size in sizes], gains)]

    def _hierarchy(
        self,
        problem: Problem,
        affinity: NDArray[np.int64],
        slots: NDArray[np.int64],
        deviation: int,
        rng: np.random.Generator,
    ) -> NDArray[np.int64]:
        """int64 [experts]: clusters on nodes, then those of each node on its GPUs."""
        nodes = problem.cluster.nodes
        base = equal_sizes(len(affinity), slots).reshape(nodes, -1)
        room = slots.reshape(nodes, -1)
        least = np.maximum(base.sum(axis=1) - deviation, np.minimum(base, 1).sum(axis=1))
        most = np.minimum(base.sum(axis=1) + deviation, room.sum(axis=1))
        node_of = self._clustered(affinity, base.sum(axis=1), least, most, rng)
        gpu_of = np.empty(len(affinity), np.int64)
        for node in range(nodes):
            own = np.flatnonzero(node_of == node)
            least = np.maximum(base[node] - deviation, np.minimum(base[node], 1))
            most = np.minimum(base[node] + deviation, room[node])
            inner = self._clustered(affinity[np.ix_(own, own)], base[node], least, most, rng)
            gpu_of[own] = node * base.shape[1] + inner
        return gpu_of

    def _clustered(
        self,
        affinity: NDArray[np.int64],
        base: NDArray[np.int64],
        least: NDArray[np.int64],
        most: NDArray[np.int64],
        rng: np.random.Generator,
    ) -> NDArray[np.int64]:
        """int64 [experts]: spectral clusters brought to sizes between `least` and `most` int64 [groups]."""
        from moeopt.kmeans import clusters

        if len(base) == 1 or not len(affinity):
            return np.zeros(len(affinity), np.int64)
        k = min(len(base), len(affinity))
        labels, _ = clusters(_embedding(affinity, k), k=k, rng=rng, restarts=self.restarts)
        group = np.empty(len(base), np.int64)  # the largest cluster where most experts are due
        sizes = np.bincount(labels, minlength=len(base))
        group[np.argsort(-sizes, kind="stable")] = np.argsort(-base, kind="stable")
        return fitted(affinity, group[labels], least=least, most=most)


def knee(spread: list[float], gain: list[int]) -> int:
    """The position whose gain most exceeds its spread, both scaled to 0 .. 1; of equals the first of largest gain."""
    scaled = []
    for values in (np.array(spread), np.array(gain, float)):
        reach = values.max() - values.min()
        scaled.append((values - values.min()) / reach if reach else np.zeros(len(values)))
    return int(np.lexsort([-scaled[1], scaled[0] - scaled[1]])[0])


def _embedding(affinity: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """float [experts, k]: rows, of length 1, of the k lowest eigenvectors of the normalised Laplacian."""
    from scipy.linalg import eigh

    degree = affinity.sum(axis=1).astype(float)
    root = 1.0 / np.sqrt(np.maximum(degree, 1.0))
    laplacian = np.eye(len(affinity)) - root[:, None] * affinity * root
    _, vectors = eigh(laplacian, subset_by_index=[0, k - 1])
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(length > 0, length, 1.0))


def _with_copies(problem: Problem, gpu_of: NDArray[np.int64], *, rounds: int) -> Placement:
    """The groups with copies of hot experts, within replicas and slots."""
    workload, cluster = problem.workload, problem.cluster
    hosts = gpu_of[:, None] == np.arange(cluster.gpus)
    slots = np.minimum(cluster.slots_of, workload.n_experts)
    load = workload.layers[0].load.astype(float)
    left = problem.replicas
    for _ in range(rounds if left else 0):
        carried = (load / hosts.sum(axis=1)) @ hosts
        group, mean = int(carried.argmax()), carried.mean()
        near = np.flatnonzero((cluster.node_of == cluster.node_of[group]) & (hosts.sum(axis=0) < slots))
        near = near[near != group]
        wanted = min(max(1, int(carried[group] / mean)), cluster.gpus_per_node - 1)
        lightest = near[np.argsort(carried[near], kind="stable")][:wanted]
        hot = np.flatnonzero(hosts[:, group])
        for expert in hot[np.argsort(-load[hot], kind="stable")]:
            if ((load / hosts.sum(axis=1)) @ hosts)[group] <= mean:
                break
            for gpu in lightest:
                if left and not hosts[expert, gpu] and hosts[:, gpu].sum() < slots[gpu]:
                    hosts[expert, gpu] = True
                    left -= 1
    return Placement(
        hosts[None],
        gpu_of[None].astype(np.int32),
        cluster.nodes,
        cluster.slots,
        workload.layer_ids,
        workload.model,
    )
