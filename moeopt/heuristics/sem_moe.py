"""Tokens and experts clustered together, in turn, until no token and no expert has a better cluster."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moeopt.method import Heuristic
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.reference import equal_sizes
from moeopt.stop import Clock


@dataclass(frozen=True)
class SemMoe(Heuristic):
    """Clusters of tokens and of experts, one of each for a GPU, by alternation.

        minimise    theta sum_j |load_j - mean| + (1 - theta) (activations of tokens by experts of other clusters)

    over a cluster of every token and of every expert, experts even over clusters. Tokens are distinct expert sets with
    their weight; load_j counts the activations of the experts of cluster j. Given the experts, a token joins the
    cluster that holds most of its experts, ties at random; given the tokens, experts are assigned at least cost
    without the load, then swapped while that helps with it. In turn from a random start, until the sum stays.

    | field | holds |
    |---|---|
    | theta | weight of even loads against local activations, 0 to 1 |
    | restarts | random starts; the least sum is proposed, not the least fan-out |
    | rounds | alternations of each start, at most |

    Source: Y. Li et al., Semantic parallelism: Redefining efficient MoE inference via model-data co-scheduling
    (Sem-MoE), arXiv 2503.04398: objective, constraints, alternation. Open there, and our reading: theta, what load
    counts, both steps in detail. Where tokens go is the placement's dispatch here: the clusters of tokens are dropped,
    as is the tolerance of the problem.
    """

    theta: float = 0.5
    restarts: int = 10
    rounds: int = 30
    name = "sem-moe"
    summary = "tokens and experts clustered in turn, loads even: Sem-MoE"

    def __post_init__(self) -> None:
        if not 0 <= self.theta <= 1:
            raise ValueError(f"theta must lie between 0 and 1, found {self.theta}")
        for name in ("restarts", "rounds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, found {getattr(self, name)}")

    def supports(self, problem: Problem) -> str:
        """One copy of each expert; tokens are needed."""
        if problem.replicas:
            return f"places single copies, replicas are {problem.replicas}"
        if not problem.workload.layers[0].complete:
            return "clusters tokens: the workload has pair counts only"
        return ""

    def search(
        self, problem: Problem, *, clock: Clock, rng: np.random.Generator, start: Placement | None
    ) -> Iterator[Placement]:
        """The placement of the least sum."""
        (sets,) = problem.workload.layers
        sizes = equal_sizes(sets.n_experts, problem.cluster.slots_of)
        clustering = _Clustering(sets.members, problem.set_weights(sets), sizes, self.theta)
        best: tuple[float, NDArray[np.int64]] | None = None
        for _ in range(self.restarts):
            if best is not None and clock.expired:
                break
            gpu_of = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
            value, laps = np.inf, 0
            while laps < self.rounds and not (laps and clock.expired):
                visits = clustering.visits(clustering.token_clusters(gpu_of, rng))
                after = clustering.expert_clusters(visits)
                reached = clustering.value(visits, after)
                if reached >= value:
                    break
                gpu_of, value, laps = after, reached, laps + 1
            if best is None or value < best[0]:
                best = (value, gpu_of)
        if best is not None:
            yield problem.partition(best[1])


@dataclass(frozen=True, eq=False)
class _Clustering:
    """members int32 [sets, k], weights int64 [sets], sizes int64 [clusters]."""

    members: NDArray[np.int32]
    weights: NDArray[np.int64]
    sizes: NDArray[np.int64]
    theta: float

    @property
    def load(self) -> NDArray[np.float64]:
        """float [experts]: activations, weighted."""
        return self._counted(np.zeros(len(self.members), np.int64), 1)[:, 0]

    def token_clusters(self, gpu_of: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """int64 [sets]: a cluster with most of the set's experts."""
        score = rng.random((len(self.members), len(self.sizes)))  # below 1: ties only
        rows = np.arange(len(score))
        for column in gpu_of[self.members].T:
            score[rows, column] += 1.0
        return np.asarray(score.argmax(axis=1))

    def visits(self, cluster_of: NDArray[np.int64]) -> NDArray[np.float64]:
        """float [experts, clusters]: activations of each expert by the tokens of each cluster."""
        return self._counted(cluster_of, len(self.sizes))

    def _counted(self, cluster_of: NDArray[np.int64], clusters: int) -> NDArray[np.float64]:
        experts = int(self.sizes.sum())
        seats = (self.members.astype(np.int64) * clusters + cluster_of[:, None]).ravel()
        weights = np.repeat(self.weights.astype(float), self.members.shape[1])
        total = np.bincount(seats, weights=weights, minlength=experts * clusters)
        return np.asarray(total, np.float64).reshape(experts, clusters)

    def value(self, visits: NDArray[np.float64], gpu_of: NDArray[np.int64]) -> float:
        """The sum to minimise."""
        carried = np.bincount(gpu_of, weights=self.load, minlength=len(self.sizes))
        remote = self.load.sum() - visits[np.arange(len(gpu_of)), gpu_of].sum()
        return float(self.theta * np.abs(carried - carried.mean()).sum() + (1 - self.theta) * remote)

    def expert_clusters(self, visits: NDArray[np.float64]) -> NDArray[np.int64]:
        """int64 [experts]: most local activations for the sizes, then swaps that lower the sum, best first."""
        from scipy.optimize import linear_sum_assignment

        seats = np.repeat(np.arange(len(self.sizes)), self.sizes)
        _, chosen = linear_sum_assignment(-visits[:, seats])
        gpu_of, load = np.asarray(seats[chosen], np.int64), self.load
        mean = load.sum() / len(self.sizes)
        least = 1e-9 * (1.0 + load.sum())  # below it a gain is rounding
        while self.theta:
            carried = np.bincount(gpu_of, weights=load, minlength=len(self.sizes))
            over = carried[gpu_of] - mean
            shift = load - load[:, None]  # [e, f]: what the cluster of e gains
            uneven = (
                np.abs(over[:, None] + shift) + np.abs(over - shift) - np.abs(over)[:, None] - np.abs(over)
            )
            kept = visits[np.arange(len(gpu_of)), gpu_of]
            reached = visits[:, gpu_of]
            local = reached + reached.T - kept[:, None] - kept
            change = self.theta * uneven - (1 - self.theta) * local
            change[gpu_of[:, None] == gpu_of] = 0.0
            e, f = divmod(int(change.argmin()), len(change))
            if change[e, f] >= -least:
                break
            gpu_of[e], gpu_of[f] = gpu_of[f], gpu_of[e]
        return gpu_of
