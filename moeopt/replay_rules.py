"""Dispatch rules: which copy serves each token, decided token by token as an engine does."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from moeopt.cluster import Cluster
from moeopt.load_guard import LoadGuard
from moeopt.load_priced import LoadPriced


class Rule(Protocol):
    """How the tokens of one layer choose among copies; a frozen dataclass whose fields are its settings.

    A layer is served slice by slice, tokens in the order of the replay, and each slice sees what the earlier ones
    left in `memory`: a rule gives the same answer however the tokens are sliced.
    """

    name: ClassVar[str]
    summary: ClassVar[str]

    def remember(self, hosts: NDArray[np.bool_], cluster: Cluster) -> NDArray[Any]:
        """What the rule knows before the first token of a layer: an array that `assign` may change.

        `hosts` bool [experts, gpus].
        """

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
        """int32 [tokens, k]: a GPU out of hosts[experts[t, j]] for each activation.

        `experts` [tokens, k], `hosts` bool [experts, gpus], `primary` [experts], `source` [tokens]: home GPUs.
        """


@dataclass(frozen=True)
class Cover:
    """Each token on the cheapest GPUs and nodes that hold its experts, load ignored.

    The costs are gpu_cost and node_cost of the cluster; ties go to the lowest GPU: `moeopt.dispatch.cover`, which
    no dispatch undercuts. Where tokens come from plays no part.
    """

    name: ClassVar[str] = "cover"
    summary: ClassVar[str] = "cheapest GPUs and nodes of each token"

    def remember(self, hosts: NDArray[np.bool_], cluster: Cluster) -> NDArray[Any]:
        return np.empty(0, np.int64)

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
        if (hosts.sum(axis=1) == 1).all():
            return primary[experts]
        if experts.shape[1] > 16:
            raise ValueError(f"optimal covers are computed for top-k up to 16, found {experts.shape[1]}")
        from moeopt.covers import cheapest_covers

        served: NDArray[np.int32] = cheapest_covers(
            experts, hosts, cluster.gpus_per_node, cluster.gpu_cost, cluster.node_cost
        )
        return served


@dataclass(frozen=True)
class Equal:
    """The copies of an expert take its tokens in turn: token i of the expert is served by copy i modulo copies.

    Copies count from the lowest GPU. Each serves as many tokens as any other, give or take one.
    """

    name: ClassVar[str] = "equal"
    summary: ClassVar[str] = "copies take the tokens of an expert in turn"

    def remember(self, hosts: NDArray[np.bool_], cluster: Cluster) -> NDArray[Any]:
        return np.zeros(len(hosts), np.int64)

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
        from moeopt.replay_kernels import copies_in_turn

        served: NDArray[np.int32] = copies_in_turn(experts, *_host_lists(hosts), memory)
        return served


@dataclass(frozen=True)
class Nearest:
    """Seen from the token's home GPU: the copy there, else those in its node in turn, else all copies in turn.

    Every GPU keeps its own turn for each expert; that of GPU r starts at copy r modulo the copies it goes round.
    """

    name: ClassVar[str] = "nearest"
    summary: ClassVar[str] = "same GPU, then same node, then in turn"

    def remember(self, hosts: NDArray[np.bool_], cluster: Cluster) -> NDArray[Any]:
        experts, gpus = hosts.shape
        return np.repeat(np.arange(gpus), experts).reshape(gpus, experts)

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
        from moeopt.replay_kernels import nearest_copies

        served: NDArray[np.int32] = nearest_copies(
            experts, *_host_lists(hosts), source, cluster.gpus_per_node, memory
        )
        return served


@dataclass(frozen=True)
class Static:
    """Each home GPU uses one fixed copy of every expert: its own, else the lowest GPU of its node that has one.

    The GPUs with neither take the copies in turn, in ascending order. This is SGLang's static dispatch
    (`compute_logical_to_rank_dispatch_physical_map`), which shuffles that last round with a seed.
    """

    name: ClassVar[str] = "static"
    summary: ClassVar[str] = "one fixed copy for each home GPU, near or spread"

    def remember(self, hosts: NDArray[np.bool_], cluster: Cluster) -> NDArray[Any]:
        from moeopt.replay_kernels import fixed_copies

        table: NDArray[np.int32] = fixed_copies(*_host_lists(hosts), cluster.gpus, cluster.gpus_per_node)
        return table

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
        served: NDArray[np.int32] = memory[source[:, None], experts]
        return served


@dataclass(frozen=True)
class Guarded:
    """GPUs that the token touches already, unless they are loaded too much: `moeopt.load_guard.LoadGuard`.

    | field | holds |
    |---|---|
    | guard | its settings |
    """

    guard: LoadGuard = field(default_factory=LoadGuard)
    name: ClassVar[str] = "guarded"
    summary: ClassVar[str] = "GPUs touched already, unless their decayed load is too far above the mean"

    def remember(self, hosts: NDArray[np.bool_], cluster: Cluster) -> NDArray[Any]:
        return np.zeros(2 * hosts.shape[1] + 1)

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
        return self.guard.gpus(experts, hosts=hosts, primary=primary, source=source, state=memory)


RULES: Mapping[str, Rule] = MappingProxyType(
    {rule.name: rule for rule in (Cover(), Equal(), Nearest(), Static(), Guarded(), LoadPriced())}
)


def named_rule(name: str) -> Rule:
    """The rule of this name with its default settings; ValueError lists the known names."""
    if (known := RULES.get(name)) is None:
        raise ValueError(f"no dispatch rule is named {name!r}; known are {', '.join(RULES)}")
    return known


def _host_lists(hosts: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """(starts [experts + 1], GPUs): the hosts of each expert, ascending."""
    starts = np.concatenate([[0], hosts.sum(axis=1).cumsum()])
    return starts.astype(np.int64), np.nonzero(hosts)[1].astype(np.int32)
