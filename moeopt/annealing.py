"""Copies under annealing: one layer's placement and dispatch, changed together by compiled moves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from moeopt.annealing_kernels import Undo, attempt, sweep
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.serving import Desk, Service, Traffic, serve

Flags = NDArray[np.bool_]
MARGIN = 0.0005  # of a cap, kept free where the guarded dispatch has the last word
PART = 0.0005  # of the mean load of a GPU: sets of more tokens are served in parts
RAMP = 0.01  # of a cap: the excess at which an activation costs a hop at stiffness 1


@dataclass(frozen=True, eq=False)
class Annealing:
    """One layer's copies, the dispatch of every set, and what a move needs.

    | field | holds |
    |---|---|
    | problem | of one layer, on the fan-out |
    | traffic, service | sets, and how the copies serve them |
    | desk, undo | scratch space |
    | slope | price of an activation for each activation above the cap, at stiffness 1; 0 without a tolerance |
    | degree | temperature 1: the objective of a hop of every token, by slots |

    A dispatch gives all tokens of a set, or of a part of a large one, the same GPUs. Load above the cap costs half the
    slope times the square of the excess, so that placement and dispatch lower one function.
    """

    problem: Problem
    traffic: Traffic
    service: Service
    desk: Desk
    undo: Undo
    slope: float
    degree: float

    @classmethod
    def of(cls, problem: Problem, hosts: Flags) -> Self:
        """From the copies `hosts` bool [experts, gpus], which keep slots and budget."""
        (sets,), cluster = problem.workload.layers, problem.cluster
        weights, tokens = problem.set_weights(sets).astype(float), sets.counts.sum(axis=1).astype(float)
        parts = np.ones(len(tokens), np.int64)
        if problem.load_caps is not None and problem.replicas:
            parts = np.ceil(tokens / max(1.0, PART * problem.load_total / cluster.gpus)).astype(np.int64)
        order = np.repeat(np.arange(len(tokens)), parts)
        order = np.random.default_rng(len(order)).permutation(order)  # a share of them is a sample
        members, weights, tokens = sets.members[order], (weights / parts)[order], (tokens / parts)[order]
        flat = members.ravel()
        by_expert = np.argsort(flat, kind="stable")
        hop = float(cluster.gpu_cost + (cluster.node_cost if cluster.nodes > 1 else 0))
        caps, slope = np.full(cluster.gpus, np.inf), 0.0
        if problem.load_caps is not None:
            caps = problem.load_caps * (1.0 - MARGIN if problem.replicas else 1.0)
            slope = hop * weights.sum() / max(tokens.sum(), 1.0) / max(RAMP * float(caps.mean()), 1.0)
        traffic = Traffic(
            np.ascontiguousarray(members),
            weights,
            tokens,
            np.searchsorted(flat[by_expert], np.arange(sets.n_experts + 1)).astype(np.int64),
            (by_expert // sets.top_k).astype(np.int32),
            cluster.node_of,
            np.array([cluster.gpu_cost, cluster.node_cost if cluster.nodes > 1 else 0], float),
            caps,
        )
        service = _service(hosts, np.minimum(cluster.slots_of, sets.n_experts), members, problem.replicas)
        desk = Desk.of(gpus=cluster.gpus, nodes=cluster.nodes, top_k=sets.top_k)
        serve(np.arange(len(order), dtype=np.int32), traffic, service, desk, slope)
        undo = Undo.of(sets=len(order), top_k=sets.top_k, gpus=cluster.gpus)
        return cls(problem, traffic, service, desk, undo, slope, hop * weights.sum() / len(service.gpu))

    @property
    def hosts(self) -> Flags:
        """bool [experts, gpus]."""
        return self.service.at.copy()

    @property
    def kept(self) -> bool:
        """Whether no load stands above its cap."""
        caps = self.problem.load_caps
        return caps is None or bool((self.service.loads <= caps).all())

    @property
    def spare(self) -> int:
        """Copies that the budget still allows."""
        return self.problem.workload.n_experts + self.problem.replicas - int(self.service.copies.sum())

    @property
    def slice(self) -> int:
        """Moves that take a fraction of a second."""
        each = self.traffic.members.size / self.problem.workload.n_experts
        return int(np.clip(400_000 / max(each, 1.0), 20, 500))

    def move(self, rng: np.random.Generator, *, moves: int, temperature: float, stiffness: float) -> None:
        """Try `moves` moves at this temperature, in units of `degree`; before them every set is served anew."""
        slope = self.slope * stiffness
        if slope and self.problem.replicas:
            order = rng.permutation(len(self.traffic.weights)).astype(np.int32)
            sweep(order, self.traffic, self.service, self.desk, slope)
        heat = np.full(moves, temperature * self.degree)
        draws = rng.random((moves, 8))
        attempt(draws, heat, self.spare, self.traffic, self.service, self.desk, self.undo, slope)

    @property
    def cost(self) -> float:
        """The objective of the dispatch as it stands, load ignored."""
        return float(self.service.hops.sum())

    def placement(self) -> Placement:
        """First hosting GPUs are the primaries."""
        workload, cluster, hosts = self.problem.workload, self.problem.cluster, self.hosts
        primary = hosts.argmax(axis=1)[None]
        ids, model = workload.layer_ids, workload.model
        return Placement(hosts[None], primary, cluster.nodes, cluster.slots, ids, model)


def filled(hosts: Flags, problem: Problem, *, rng: np.random.Generator) -> Flags:
    """`hosts` bool [experts, gpus] with random copies: one of each expert at least, then what the budget allows.

    `hosts` holds every expert or none.
    """
    hosts = hosts.copy()
    slots = np.minimum(problem.cluster.slots_of, len(hosts))
    budget = len(hosts) + problem.replicas - int(hosts.sum())
    free = rng.permutation(np.repeat(np.arange(len(slots)), slots - hosts.sum(axis=0)))
    if not hosts.any():
        hosts[np.arange(len(hosts)), free[: len(hosts)]] = True
        free, budget = free[len(hosts) :], problem.replicas
    for gpu in free[:budget]:
        hosts[rng.choice(np.flatnonzero(~hosts[:, gpu])), gpu] = True
    return hosts


def _service(hosts: Flags, slots: NDArray[np.int64], members: NDArray[np.int32], replicas: int) -> Service:
    """Seats of `slots` [gpus] filled with `hosts`; nothing is served yet."""
    experts, gpus = hosts.shape
    gpu = np.repeat(np.arange(gpus), slots).astype(np.int32)
    first = np.concatenate([[0], slots.cumsum()]).astype(np.int64)
    expert = np.full(len(gpu), -1, np.int32)
    copies = hosts.sum(axis=1).astype(np.int64)
    lists = np.zeros(
        (experts, min(gpus, replicas + 1) + 1), np.int32
    )  # a move may hold one more for a moment
    for g in range(gpus):
        held = np.flatnonzero(hosts[:, g])
        expert[first[g] : first[g] + len(held)] = held
    for e in range(experts):
        lists[e, : copies[e]] = np.flatnonzero(hosts[e])
    served = np.zeros(members.shape, np.int32)
    return Service(
        expert, gpu, first, lists, copies, hosts.copy(), served, np.zeros(len(members)), np.zeros(gpus)
    )
