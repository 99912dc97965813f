"""GESR: second copies of generic experts, where their partners are."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moeopt.family_graphs import FamilyGraphs
from moeopt.heuristics.tacg import Tacg
from moeopt.placement import Placement
from moeopt.problem import Problem


@dataclass(frozen=True)
class TacgGesr(Tacg):
    """The placement of `Tacg` with copies of generic experts, arXiv 2606.01007, GESR.

    `generality` ranks the experts. The first `n_rep` of them each get copies on `k_sec` further GPUs, those with room
    whose primary experts they are most co-activated with, by the pooled graph; ties go to the lower id. Copies end with
    the problem's replicas or with the slots, so that fewer replicas mean fewer experts, and more than n_rep x k_sec are
    left unused. Neither cap is in the source, which counts copies only. Tokens are judged at the problem's own
    dispatch; the published one is `moeopt.load_guard`.

    | field | holds |
    |---|---|
    | normaliser, pooling, jitter, seeds, unit_rows, alpha, tau | as of `Tacg` |
    | n_rep | experts that get copies, in every layer |
    | k_sec | copies of each beyond its primary one |
    | lambda1, lambda2 | weights of consistency and of specificity; published 0 and 0 |
    """

    n_rep: int = 8
    k_sec: int = 2
    lambda1: float = 0.0
    lambda2: float = 0.0
    name = "tacg-gesr"
    summary = "TACG and copies of the most central experts (GESR)"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("n_rep", "k_sec"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, found {getattr(self, name)}")
        for name in ("lambda1", "lambda2"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be finite and not negative, found {getattr(self, name)}")

    def _placed(self, problem: Problem, graphs: FamilyGraphs, gpu_of: NDArray[np.int64]) -> Placement:
        """The placement whose primary copies are on `gpu_of`, with secondary ones."""
        cluster, workload = problem.cluster, problem.workload
        gpus = np.arange(cluster.gpus)
        hosts = gpu_of[:, None] == gpus
        affinity = graphs.pooled @ hosts  # [experts, gpus]
        room = np.minimum(cluster.slots_of, len(hosts)) - hosts.sum(axis=0)
        left = problem.replicas
        scores = generality(graphs, lambda1=self.lambda1, lambda2=self.lambda2)
        for expert in np.argsort(-scores, kind="stable")[: self.n_rep]:
            open_gpus = gpus[(room > 0) & (gpus != gpu_of[expert])]
            nearest = open_gpus[np.argsort(-affinity[expert, open_gpus], kind="stable")]
            chosen = nearest[: min(self.k_sec, left)]
            hosts[expert, chosen] = True
            room[chosen] -= 1
            left -= len(chosen)
        primary = gpu_of[None].astype(np.int32)
        return Placement(
            hosts[None], primary, cluster.nodes, cluster.slots, workload.layer_ids, workload.model
        )


def generality(graphs: FamilyGraphs, *, lambda1: float, lambda2: float) -> NDArray[np.float64]:
    """float [experts]: centrality + lambda1 x consistency - lambda2 x specificity.

    Centrality: degree in the pooled graph. Consistency: mean over the families of the cosine between the expert's row
    of the family's graph and its pooled row; 0 where either is empty. Specificity: largest Euclidean distance between
    the two rows; the source does not name the norm.
    """
    lengths = np.linalg.norm(graphs.affinity, axis=2) * np.linalg.norm(graphs.pooled, axis=1)
    products = (graphs.affinity * graphs.pooled).sum(axis=2)
    cosines = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    apart = np.linalg.norm(graphs.affinity - graphs.pooled, axis=2)
    return np.asarray(
        graphs.pooled.sum(axis=1) + lambda1 * cosines.mean(axis=0) - lambda2 * apart.max(axis=0)
    )
