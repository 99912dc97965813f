"""Placements with copies under search: their guarded cost, and the changes that promise to lower it."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from moeopt.dispatch import cover, touched
from moeopt.guard import guarded, shortfall
from moeopt.placement import Placement
from moeopt.problem import Problem

Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Copies:
    """One layer's copies, judged.

    | field | holds |
    |---|---|
    | hosts | bool [experts, gpus] |
    | missing | activations of the fullest GPU above the load cap, at least 0 |
    | cost | exact cost of the guarded dispatch |
    | prices | float [gpus]: of one activation |
    """

    hosts: Flags
    missing: int
    cost: int
    prices: NDArray[np.float64]

    @classmethod
    def of(cls, problem: Problem, hosts: Flags) -> Self:
        """Dispatch and judge, as `Problem.cost` does."""
        (sets,), cluster = problem.workload.layers, problem.cluster
        dispatch = cover(
            sets,
            hosts,
            gpus_per_node=cluster.gpus_per_node,
            gpu_cost=cluster.gpu_cost,
            node_cost=cluster.node_cost,
        )
        missing, prices = 0, np.zeros(cluster.gpus)
        if problem.load_cap is not None:
            missing, stuck = shortfall(sets.load, hosts, cap=problem.load_cap)
            if missing:
                unit = problem.total_weight / max(1, int(problem.workload.tokens.sum()))
                prices = stuck * unit * (cluster.gpu_cost + cluster.node_cost)
            else:
                dispatch, prices = guarded(
                    dispatch, sets, hosts, cluster, weights=problem.multipliers, cap=problem.load_cap
                )
        hops = cluster.gpu_cost * (touched(dispatch.gpus) - 1)
        hops += cluster.node_cost * (touched(cluster.node_of[dispatch.gpus]) - 1)
        return cls(hosts, missing, int(hops @ (dispatch.tokens @ problem.multipliers)), prices)

    @property
    def rank(self) -> tuple[int, int]:
        """Smaller is better: the tolerance first, then cost."""
        return self.missing, self.cost

    def after(self, flips: Iterable[NDArray[np.int64]]) -> Flags:
        """`hosts` with these (expert, GPU) entries flipped, given as expert x GPUs + GPU; negative numbers are blanks."""
        flat = self.hosts.copy().ravel()
        for change in flips:
            flat[change[change >= 0]] ^= True
        return flat.reshape(self.hosts.shape)

    def placement(self, problem: Problem) -> Placement:
        """First hosting GPUs are the primaries."""
        workload, cluster = problem.workload, problem.cluster
        return Placement(
            self.hosts[None],
            self.hosts.argmax(axis=1)[None],
            cluster.nodes,
            cluster.slots,
            workload.layer_ids,
            workload.model,
        )


def survey_of(problem: Problem, copies: Copies) -> Any:
    """(saved, moved, lost) float [experts, gpus] of `moeopt.copies.survey` at the prices of `copies`."""
    from moeopt.copies import survey

    (sets,), cluster = problem.workload.layers, problem.cluster
    node = cluster.node_of if cluster.node_cost else np.zeros_like(cluster.node_of)
    return survey(
        sets.members,
        problem.set_weights(sets).astype(float),
        sets.counts.sum(axis=1).astype(float),
        copies.hosts,
        copies.prices,
        np.lexsort((-copies.prices, node)),
        cluster.gpus_per_node,
        cluster.gpu_cost,
        cluster.node_cost,
    )


def best_addition(problem: Problem, copies: Copies) -> NDArray[np.int64] | None:
    saved, _, _ = survey_of(problem, copies)
    allowed = ~copies.hosts & (copies.hosts.sum(axis=0) < problem.cluster.slots_of)
    if copies.hosts.sum() >= len(copies.hosts) + problem.replicas or not allowed.any():
        return None
    saved[~allowed] = -1
    at = saved.argmax()
    return np.array([at]) if saved.flat[at] > 0 else None


def changes(problem: Problem, copies: Copies) -> NDArray[np.int64]:
    """int64 [changes, 4]: flips, most promising first."""
    hosts, gpus = copies.hosts, problem.cluster.gpus
    saved, moved, lost = survey_of(problem, copies)
    saved = np.where(hosts, -np.inf, saved)
    expert, gpu = np.nonzero(hosts)
    only = hosts.sum(axis=1)[expert] == 1
    own = lost[expert, gpu]
    # go[i, h]: change when the copy in seat i goes to GPU h
    with np.errstate(invalid="ignore"):
        go = np.where(only[:, None], moved[expert], own[:, None] - saved[expert])
    go[hosts[expert]] = np.inf
    free = hosts.sum(axis=0) < problem.cluster.slots_of
    estimates, flips = [], []

    def propose(estimate, *columns):
        keep = np.flatnonzero(estimate < np.inf)
        keep = keep[np.argsort(estimate[keep], kind="stable")[:256]]
        rows = np.full((len(keep), 4), -1, np.int64)
        for index, column in enumerate(columns):
            rows[:, index] = column[keep]
        estimates.append(estimate[keep])
        flips.append(rows)

    e, g = np.nonzero(free & ~hosts)
    if hosts.sum() < len(hosts) + problem.replicas:
        propose(-saved[e, g], e * gpus + g)
    i, h = np.nonzero(free & ~hosts[expert])
    propose(go[i, h], expert[i] * gpus + gpu[i], expert[i] * gpus + h)
    i, f = np.nonzero(~only[:, None] & ~hosts[:, gpu].T)
    propose(own[i] - saved[f, gpu[i]], expert[i] * gpus + gpu[i], f * gpus + gpu[i])
    if len(e):
        best = saved[e, g].argmax()
        i = np.flatnonzero(~only & (expert != e[best]))
        propose(own[i] - saved[e[best], g[best]], expert[i] * gpus + gpu[i], np.full(len(i), e[best] * gpus + g[best]))
    i, j = np.triu_indices(len(expert), 1)
    propose(
        go[i, gpu[j]] + go[j, gpu[i]],
        expert[i] * gpus + gpu[i],
        expert[i] * gpus + gpu[j],
        expert[j] * gpus + gpu[j],
        expert[j] * gpus + gpu[i],
    )
    order = np.argsort(np.concatenate(estimates), kind="stable")
    return np.concatenate(flips)[order]


def disjoint(candidates, most, gpus=16):
    taken_e, taken_g, chosen = set(), set(), []
    for index, row in enumerate(candidates.tolist()):
        es = {x // gpus for x in row if x >= 0}
        gs = {x % gpus for x in row if x >= 0}
        if not (es & taken_e or gs & taken_g):
            chosen.append(index)
            taken_e |= es
            taken_g |= gs
            if len(chosen) == most:
                break
    return chosen
