"""Tokens split over the copies of their experts, so that the fullest GPU serves as few as possible."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from moeopt import links
from moeopt.placement import Placement
from moeopt.workload import Workload


@dataclass(frozen=True, eq=False)
class Split:
    """How many tokens of every expert each of its GPUs serves.

    | field | holds |
    |---|---|
    | tokens | int64 [experts, gpus]: whole tokens |
    | hosts | bool [experts, gpus]: the GPU holds a copy |

    Equal and hashable by value. Sums and hosts are the business of `SplitProblem.violation`.
    """

    tokens: NDArray[np.int64]
    hosts: NDArray[np.bool_]

    def __post_init__(self) -> None:
        hosts = _checked_hosts(self.hosts)
        object.__setattr__(self, "hosts", hosts)
        object.__setattr__(self, "tokens", links.whole_counts("tokens", self.tokens, shape=hosts.shape))

    @property
    def gpu_loads(self) -> NDArray[np.int64]:
        """int64 [gpus]: tokens that each GPU serves."""
        loads: NDArray[np.int64] = self.tokens.sum(axis=0)
        return loads

    @cached_property
    def weights(self) -> NDArray[np.float64]:
        """float [experts, gpus]: the share of an expert's tokens that each copy serves, for dispatch at random.

        Rows sum to 1; an expert without tokens is shared equally by its copies.
        """
        served = np.where(self.tokens.sum(axis=1, keepdims=True) > 0, self.tokens, self.hosts)
        shares: NDArray[np.float64] = served / served.sum(axis=1, keepdims=True)
        shares.setflags(write=False)
        return shares

    def _key(self) -> tuple[object, ...]:
        return (self.tokens.shape, self.tokens.tobytes(), self.hosts.tobytes())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Split) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())


@dataclass(frozen=True, eq=False)
class SplitProblem:
    """Split the tokens of every expert over its copies; the placement is given, all GPUs are equally fast.

    | field | holds |
    |---|---|
    | load | int64 [experts]: tokens that chose the expert |
    | hosts | bool [experts, gpus]: the GPU holds a copy |

    cost = tokens on the fullest GPU. The least cost is the largest of ceil(tokens bound to S / |S|) over all sets S of
    GPUs, where tokens are bound to S when S holds every copy of their expert: the densest set of GPUs in the
    hypergraph whose edges are the experts.

    Source: FineMoE (MicroEP), arXiv 2511.16947; LPLB of DeepSeek solves the same linear program for every batch.
    Raises ValueError for what arithmetic alone rules out.
    """

    load: NDArray[np.int64]
    hosts: NDArray[np.bool_]

    def __post_init__(self) -> None:
        hosts = _checked_hosts(self.hosts)
        load = links.whole_counts("load", self.load, shape=(len(hosts),))
        if load.sum(dtype=float) >= links.MOST_COST:
            raise ValueError(
                f"load too large for exact 64-bit arithmetic: {load.sum(dtype=float):.0f} tokens"
            )
        object.__setattr__(self, "load", load)
        object.__setattr__(self, "hosts", hosts)

    @classmethod
    def from_placement(cls, placement: Placement, workload: Workload) -> Self:
        """One layer of recorded traffic on a placement with copies; ValueError when layers differ or are several."""
        if placement.layer_ids != workload.layer_ids or len(workload.layers) != 1:
            raise ValueError(
                f"placement and workload must be of the same one layer, found layers "
                f"{list(placement.layer_ids)} and {list(workload.layer_ids)}"
            )
        return cls(workload.layers[0].load, placement.hosts[0])

    @property
    def n_experts(self) -> int:
        return len(self.hosts)

    @property
    def gpus(self) -> int:
        return int(self.hosts.shape[1])

    @cached_property
    def digest(self) -> str:
        return links.fingerprint("moeopt-splitting", (), self.load, self.hosts.astype(np.int64))

    def cost(self, answer: Split, /) -> int:
        self._check_shape(answer)
        return int(answer.gpu_loads.max())

    def violation(self, answer: Split, /) -> str:
        self._check_shape(answer)
        for expert, gpu in np.argwhere((answer.tokens > 0) & ~self.hosts)[:1]:
            return f"GPU {gpu} serves {answer.tokens[expert, gpu]} tokens of expert {expert} and does not hold it"
        served = answer.tokens.sum(axis=1)
        for expert in np.flatnonzero(served != self.load)[:1]:
            return f"expert {expert}: {served[expert]} tokens are served, its load is {self.load[expert]}"
        return ""

    def candidates(self) -> Iterator[Split]:
        """Every way to send every single token to a GPU that holds its expert, tokens of an expert being alike."""
        ways = []
        for load, held in zip(self.load.tolist(), self.hosts, strict=True):
            counts = links.every_choice([range(load + 1)] * int(held.sum()))
            rows = np.array([count for count in counts if sum(count) == load])
            spread = np.zeros((len(rows), self.gpus), np.int64)
            spread[:, held] = rows
            ways.append(list(spread))
        for choice in links.every_choice(ways):
            yield Split(np.array(choice), self.hosts)

    def density(self, gpus: NDArray[np.bool_]) -> int:
        """ceil(tokens bound to a set of GPUs / its size), `gpus` bool [gpus] not empty: no split costs less."""
        bound = int(self.load[~(self.hosts & ~gpus).any(axis=1)].sum())
        return -(-bound // int(gpus.sum()))

    def solve(self) -> tuple[Split, NDArray[np.bool_]]:
        """A split of least cost, and bool [gpus] of a densest set: density(set) = cost(split), which proves both.

        Tokens leave GPUs above the cap along shortest paths of copies. Where there is no path, the GPUs reached serve
        only tokens bound to them, and their density, above the cap, is the next cap.
        """
        tokens = np.zeros(self.hosts.shape, np.int64)
        tokens[np.arange(self.n_experts), self.hosts.argmax(axis=1)] = self.load
        densest = np.ones(self.gpus, bool)
        cap = self.density(densest)
        while (loads := tokens.sum(axis=0)).max() > cap:
            path, reached = self._path(tokens, int(loads.argmax()), room=loads < cap)
            if not path:
                densest = reached
                cap = self.density(densest)
                continue
            goal = path[-1][2]
            amount = min(
                int(loads.max()) - cap, cap - int(loads[goal]), *(int(tokens[e, g]) for e, g, _ in path)
            )
            for e, g, h in path:
                tokens[e, g] -= amount
                tokens[e, h] += amount
        return Split(tokens, self.hosts), densest

    def _path(
        self, tokens: NDArray[np.int64], start: int, *, room: NDArray[np.bool_]
    ) -> tuple[list[tuple[int, int, int]], NDArray[np.bool_]]:
        """Moves (expert, from, to) of a shortest way from a GPU to one with room, none without; GPUs reached."""
        came: dict[int, tuple[int, int, int]] = {}
        reached = np.arange(self.gpus) == start
        queue = [start]
        for g in queue:
            if room[g]:
                path = []
                while g != start:
                    path.append(came[g])
                    g = came[g][1]
                return path[::-1], reached
            served = np.flatnonzero(tokens[:, g])
            for h in np.flatnonzero(self.hosts[served].any(axis=0) & ~reached).tolist():
                came[h] = (int(served[self.hosts[served, h].argmax()]), g, h)
                reached[h] = True
                queue.append(h)
        return [], reached

    def _check_shape(self, answer: Split) -> None:
        if answer.tokens.shape != self.hosts.shape:
            raise ValueError(
                f"tokens must have shape {list(self.hosts.shape)}, found {list(answer.tokens.shape)}"
            )


def _checked_hosts(hosts: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A read-only copy: bool [experts, gpus], every expert on a GPU."""
    found = np.array(hosts)
    if found.ndim != 2 or 0 in found.shape or found.dtype != np.bool_:
        raise ValueError(f"hosts must be bool [experts, gpus], found {found.dtype}{list(found.shape)}")
    if not found.any(axis=1).all():
        raise ValueError(f"expert {int(found.any(axis=1).argmin())} is on no GPU")
    found.setflags(write=False)
    return found
