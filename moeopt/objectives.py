"""What a placement of one layer costs, objective by objective, where its dispatch does not decide it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from moeopt.cluster import Cluster
from moeopt.expert_sets import ExpertSets

if TYPE_CHECKING:
    from moeopt.problem import Problem

__all__ = ["cut", "fullest", "least_fullest", "prices_apart"]


def prices_apart(cluster: Cluster, gpu_of: NDArray[np.int32]) -> NDArray[np.int64]:
    """int64 [experts, experts], above the diagonal: price of each pair, expert e being on GPU gpu_of[e]."""
    node_of = cluster.node_of[gpu_of]
    apart = cluster.gpu_cost * (gpu_of[:, None] != gpu_of).astype(np.int64)
    apart += cluster.node_cost * (node_of[:, None] != node_of).astype(np.int64)
    return np.triu(apart)


def fullest(problem: Problem, sets: ExpertSets, *, hosts: NDArray[np.bool_]) -> int:
    """Weighted load of the fullest GPU, `hosts` bool [experts, gpus]; copies share their expert's load as is best."""
    from moeopt.guard import least_peak

    return least_peak(sets.weighted_load(problem.set_weights(sets)), hosts)


def least_fullest(problem: Problem) -> int:
    """No placement of one layer does better: an equal share of all, or the heaviest expert shared by all its copies."""
    (sets,) = problem.workload.layers
    load = sets.weighted_load(problem.set_weights(sets))
    gpus = problem.cluster.gpus
    copies = min(1 + problem.replicas, gpus)
    return max(-(-int(load.sum()) // gpus), -(-int(load.max()) // copies))


def cut(problem: Problem, sets: ExpertSets, *, gpu_of: NDArray[np.int32]) -> int:
    """The pairs of experts of a token that `gpu_of` int32 [experts] separates, weighted as the objective says."""
    apart = prices_apart(problem.cluster, gpu_of)
    if problem.risk is None:
        return int((sets.affinity(problem.set_weights(sets)) * apart).sum())
    return problem.together(np.array([int((sets.affinity(own) * apart).sum()) for own in sets.counts.T]))
