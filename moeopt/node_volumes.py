"""What crosses between nodes when every request has a home node."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moeopt.placement import Placement
from moeopt.replaying import replay
from moeopt.trace import Trace

__all__ = ["NodeVolumes", "between_nodes", "mixed_ranks"]


@dataclass(frozen=True)
class NodeVolumes:
    """Vectors dispatched, layers summed; combining sends as many back.

    | field | holds |
    |---|---|
    | experts | to every expert of a token |
    | remote | to experts off the token's node |
    | nodes | to nodes but the token's, a vector each: de-duplicated |
    | padded | as `nodes`, every message of a batch as long as the largest |
    | busiest | tokens of the node that is home to most, over the mean |
    """

    experts: int
    remote: int
    nodes: int
    padded: int
    busiest: float

    def over(self, base: NodeVolumes) -> dict[str, float | None]:
        """Remote, de-duplicated and padded volume relative to those of `base`; None where that is 0."""
        return {
            name: getattr(self, name) / below if (below := getattr(base, name)) else None
            for name in ("remote", "nodes", "padded")
        }

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def between_nodes(placement: Placement, trace: Trace, *, ranks: ArrayLike, batch: int = 256) -> NodeVolumes:
    """Replay `trace` in batches of `batch` tokens, those of home GPU `ranks` int [tokens]; see `moeopt.replaying`.

    A copy on the home node serves its tokens, other copies take turns. Source: arXiv 2604.23150, section 5.2, which
    states no formula; the de-duplicated count is ours. Raises ValueError as `moeopt.replaying.replay` does, and unless
    every node has one GPU.
    """
    if placement.nodes != placement.gpus:
        raise ValueError(f"nodes must have one GPU each, found {placement.gpus} on {placement.nodes} nodes")
    found = replay(placement, trace, rule="nearest", ranks=ranks, batch=batch)
    home = np.bincount(np.asarray(ranks), minlength=placement.gpus)
    remote, nodes, padded, experts = (
        int(found.vectors(name).sum()) for name in ("off_node_experts", "remote_nodes", "padded", "experts")
    )
    return NodeVolumes(experts, remote, nodes, padded, float(home.max() / home.mean()))


def mixed_ranks(trace: Trace, groups: int, *, seed: int) -> NDArray[np.int32]:
    """int32 [tokens]: home GPUs when requests are dealt at random, equally many to each of the groups."""
    requests, row = np.unique(trace.request, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(requests))
    return np.asarray((order % groups)[row], np.int32)
