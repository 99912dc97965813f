"""A serving rule for copies: each token on its cheapest GPUs, where loads above the mean ask a price."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from moeopt.cluster import Cluster

__all__ = ["LoadPriced"]


@dataclass(frozen=True)
class LoadPriced:
    """The least sum of hops and load prices, token by token.

    Every GPU carries a load L, at first its even share of `history` tokens. A token is served by the GPUs of least
    cost: gpu_cost for each further GPU, node_cost for each further node, and for each activation on a GPU whose load
    stands x mean above (1 + theta) mean, gpu_cost x / width. Up to 8 experts with a choice choose together, exactly
    but for the bids of several on one node, further ones in turn. After each batch loads become rho L + the activations
    that it brought. Router choices are never changed. `moeopt.load_guard` is the published rule, which takes experts
    one at a time and forbids GPUs.

    | field | holds |
    |---|---|
    | theta | load above the mean that costs nothing |
    | width | excess over that, as a share of the mean, at which an activation costs a hop |
    | rho | what remains of a load after a batch, 0 to 1 |
    | batch | tokens of a batch |
    | history | tokens that count as served evenly before the first: without them noise sets the first prices |
    """

    theta: float = 0.0
    width: float = 0.5
    rho: float = 0.9998
    batch: int = 1
    history: int = 5_000
    name: ClassVar[str] = "load-priced"
    summary: ClassVar[str] = "cheapest GPUs of each token, at prices that rise with decayed load"

    def __post_init__(self) -> None:
        if not self.theta >= 0:
            raise ValueError(f"theta must not be negative, found {self.theta}")
        if not 0 < self.width < float("inf"):
            raise ValueError(f"width must be finite and above 0, found {self.width}")
        if not 0 <= self.rho <= 1:
            raise ValueError(f"rho must lie between 0 and 1, found {self.rho}")
        for name in ("batch", "history"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, found {getattr(self, name)}")

    def remember(self, hosts: NDArray[np.bool_], cluster: Cluster) -> NDArray[Any]:
        """float [2 gpus + 1]: loads, activations of the open batch, tokens so far."""
        return np.concatenate([np.full(hosts.shape[1], np.nan), np.zeros(hosts.shape[1] + 1)])

    def assign(
        self,
        experts: NDArray[np.int32],
        hosts: NDArray[np.bool_],
        *,
        primary: NDArray[np.int32],
        cluster: Cluster,
        source: NDArray[np.int32],
        memory: NDArray[Any],
    ) -> NDArray[np.int32]:
        """As `moeopt.replay_rules.Rule`."""
        from moeopt.load_price_kernel import serve_in_turn
        from moeopt.serving import Desk, Service, Traffic

        tokens, top_k = experts.shape
        gpus = hosts.shape[1]
        copies = hosts.sum(axis=1).astype(np.int64)
        lists = np.zeros((len(hosts), max(1, int(copies.max(initial=1)))), np.int32)
        expert, gpu = np.nonzero(hosts)
        lists[expert, np.arange(len(expert)) - (np.cumsum(copies) - copies)[expert]] = gpu
        if not memory[-1]:
            memory[:gpus] = self.history * top_k / gpus
        nothing = np.zeros(0, np.int32)
        costs = np.array([cluster.gpu_cost, cluster.node_cost if cluster.nodes > 1 else 0], float)
        ones = np.ones(tokens)
        traffic = Traffic(
            np.ascontiguousarray(experts, np.int32),
            ones,
            ones,
            np.zeros(1, np.int64),
            nothing,
            cluster.node_of,
            costs,
            np.zeros(gpus),
        )
        service = Service(
            nothing,
            nothing,
            np.zeros(1, np.int64),
            lists,
            copies,
            hosts,
            np.zeros((tokens, top_k), np.int32),
            np.zeros(tokens),
            memory[:gpus],
        )
        desk = Desk.of(gpus=gpus, nodes=cluster.nodes, top_k=top_k)
        further, earlier = memory[gpus : 2 * gpus], int(memory[-1])
        serve_in_turn(traffic, service, desk, further, earlier, self.theta, self.rho, self.batch, self.width)
        memory[-1] += tokens
        return service.served
