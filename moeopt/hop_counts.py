"""What the tokens of a layer touch when every expert is on one GPU: nothing is left to dispatch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from moeopt.dispatch import touched

if TYPE_CHECKING:
    from moeopt.cluster import Cluster
    from moeopt.expert_sets import ExpertSets

__all__ = ["partition_touches"]

COMPILED = 1 << 18  # experts of all sets from which the compiled kernel pays for its import


def partition_touches(
    sets: ExpertSets, gpu_of: NDArray[np.int32], *, cluster: Cluster
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(int64 [families], int64 [families]): sums over tokens of GPUs, and of nodes, touched.

    `gpu_of` int32 [experts]. Raises ValueError where the expert sets are not recorded.
    """
    if not sets.complete:
        raise ValueError("hops are counted of expert sets, the workload has pair counts only")
    on_gpus = _sums(sets, gpu_of, cluster.gpus)
    if cluster.nodes == 1:
        return on_gpus, sets.tokens
    return on_gpus, _sums(sets, cluster.node_of[gpu_of], cluster.nodes)


def _sums(sets: ExpertSets, group_of: NDArray[Any], groups: int) -> NDArray[np.int64]:
    """int64 [families]: sum over tokens of the groups touched."""
    if sets.members.size >= COMPILED:
        from moeopt.touch_kernels import touch_sums

        return np.asarray(touch_sums(sets.members, sets.counts, group_of.astype(np.int32), groups), np.int64)
    return touched(group_of[sets.members]) @ sets.counts
