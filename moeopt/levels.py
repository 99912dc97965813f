"""Levels of a cluster that cost something to touch: GPUs, nodes or both."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from moeopt.problem import Problem

__all__ = ["Level", "priced_levels"]


class Level(NamedTuple):
    """GPUs in groups that cost something to touch; int64: gpus [groups, size], slots, caps [groups], load [experts]."""

    symbol: str
    price: int
    gpus: NDArray[np.int64]
    slots: NDArray[np.int64]
    caps: NDArray[np.int64] | None
    load: NDArray[np.int64]

    @property
    def groups(self) -> int:
        return len(self.gpus)

    def need(self, members: NDArray[np.int32]) -> NDArray[np.int64]:
        """int64 [sets]: fewest groups that have the slots, and the load, for all experts of a set."""
        fewest = np.full(len(members), _fewest(self.slots, members.shape[1]), np.int64)
        if self.caps is not None:
            np.maximum(fewest, _fewest(self.caps, self.load[members].sum(axis=1)), out=fewest)
        return fewest


def _fewest(room: NDArray[np.int64], amount: Any) -> Any:
    """How many of the roomiest groups hold the amount; all of them when they do not."""
    return np.minimum(np.searchsorted(np.cumsum(np.sort(room)[::-1]), amount) + 1, len(room))


def priced_levels(problem: Problem) -> list[Level]:
    """The levels that cost something."""
    (sets,), cluster = problem.workload.layers, problem.cluster
    slots, caps = np.minimum(cluster.slots_of, sets.n_experts), problem.load_caps
    node, size = cluster.node_cost if cluster.nodes > 1 else 0, cluster.gpus_per_node
    prices = (cluster.gpu_cost + node, 0) if size == 1 else (cluster.gpu_cost, node)
    return [
        Level(
            symbol,
            price,
            np.arange(cluster.gpus).reshape(-1, width),
            slots.reshape(-1, width).sum(axis=1),
            None if caps is None else caps.reshape(-1, width).sum(axis=1),
            sets.load,
        )
        for symbol, price, width in zip(("u", "u_node"), prices, (1, size), strict=True)
        if price and sets.top_k > 1
    ]
