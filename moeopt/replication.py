"""Placements with copies under search: their guarded cost, and the changes that promise to lower it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from moeopt.dispatch import cover, touched
from moeopt.guard import guarded, shortfall
from moeopt.placement import Placement
from moeopt.problem import Problem

Flags = NDArray[np.bool_]
MOST = 256  # changes of a kind that are looked at


@dataclass(frozen=True, eq=False)
class Copies:
    """One layer's copies, judged.

    | field | holds |
    |---|---|
    | hosts | bool [experts, gpus] |
    | missing | activations that no dispatch brings under the load cap |
    | cost | exact cost of the guarded dispatch; of the cheapest one when the cap cannot be kept |
    | prices | float [gpus]: of one activation; when the cap cannot be kept, one hop on the GPUs too full together |
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
        missing = 0
        prices: NDArray[np.float64] = np.zeros(cluster.gpus)
        if problem.load_cap is not None:
            missing, stuck = shortfall(sets.load, hosts, cap=problem.load_cap)
            if missing:
                unit = problem.total_weight / max(1, int(problem.workload.tokens.sum()))
                prices = stuck.astype(float) * unit * (cluster.gpu_cost + cluster.node_cost)
            else:
                dispatch, prices = guarded(
                    dispatch,
                    sets,
                    hosts=hosts,
                    cluster=cluster,
                    weights=problem.multipliers,
                    cap=problem.load_cap,
                )
        hops = cluster.gpu_cost * (touched(dispatch.gpus) - 1)
        hops += cluster.node_cost * (touched(cluster.node_of[dispatch.gpus]) - 1)
        return cls(hosts, missing, int(hops @ (dispatch.tokens @ problem.multipliers)), prices)

    @property
    def rank(self) -> tuple[int, int]:
        """Smaller is better: the tolerance first, then cost."""
        return self.missing, self.cost

    def after(self, flips: Iterable[NDArray[np.int64]]) -> Flags:
        """`hosts` with these entries flipped, each expert x GPUs + GPU; negative numbers are blanks."""
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
    """The further copy that saves most, as one flip; None when none is allowed or none saves anything."""
    saved, _, _ = survey_of(problem, copies)
    allowed = ~copies.hosts & (copies.hosts.sum(axis=0) < problem.cluster.slots_of)
    if copies.hosts.sum() >= len(copies.hosts) + problem.replicas or not allowed.any():
        return None
    saved = np.where(allowed, saved, 0.0)
    best = int(saved.argmax())
    return np.array([best]) if saved.flat[best] > 0 else None


def changes(problem: Problem, copies: Copies) -> NDArray[np.int64]:
    """int64 [changes, 4]: the flips of each promising change, blanks -1, best estimate first.

    A copy is added, goes to another GPU, gives its slot to another expert, or changes places with another copy.
    Estimates take the parts of a change as independent.
    """
    hosts, gpus = copies.hosts, problem.cluster.gpus
    saved, moved, lost = survey_of(problem, copies)
    expert, gpu = np.nonzero(hosts)
    seat = expert * gpus + gpu
    only = hosts.sum(axis=1)[expert] == 1
    own = np.where(only, 0.0, lost[expert, gpu])
    go = np.where(
        only[:, None], moved[expert], own[:, None] - saved[expert]
    )  # go[i, h]: copy i goes to GPU h
    go[hosts[expert]] = np.inf
    free = hosts.sum(axis=0) < problem.cluster.slots_of
    found = []
    e, g = np.nonzero(free & ~hosts)
    if hosts.sum() < len(hosts) + problem.replicas:
        found.append(_best(-saved[e, g], e * gpus + g))
    i, h = np.nonzero(free & ~hosts[expert])
    found.append(_best(go[i, h], seat[i], expert[i] * gpus + h))
    i, f = np.nonzero(~only[:, None] & ~hosts[:, gpu].T)
    found.append(_best(own[i] - saved[f, gpu[i]], seat[i], f * gpus + gpu[i]))
    if len(e):
        best = saved[e, g].argmax()
        i = np.flatnonzero(~only & (expert != e[best]))
        target = np.full(len(i), e[best] * gpus + g[best])
        found.append(_best(own[i] - saved[e[best], g[best]], seat[i], target))
    i, j = np.triu_indices(len(expert), 1)
    swapped = (expert[i] * gpus + gpu[j], expert[j] * gpus + gpu[i])
    found.append(_best(go[i, gpu[j]] + go[j, gpu[i]], seat[i], seat[j], *swapped))
    estimates, flips = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return flips[np.argsort(estimates, kind="stable")]


def disjoint(candidates: NDArray[np.int64], *, gpus: int, most: int) -> list[int]:
    """Indices of the first `most` changes that share no expert and no GPU; one at most is an added copy."""
    experts_taken: set[int] = set()
    gpus_taken: set[int] = set()
    chosen: list[int] = []
    added = False
    for index, row in enumerate(candidates.tolist()):
        experts, own = {x // gpus for x in row if x >= 0}, {x % gpus for x in row if x >= 0}
        adds = row[1] < 0
        if experts & experts_taken or own & gpus_taken or (adds and added):
            continue
        added = added or adds
        chosen.append(index)
        experts_taken |= experts
        gpus_taken |= own
        if len(chosen) >= most:
            break
    return chosen


def _best(
    estimate: NDArray[np.float64], *columns: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The possible changes of lowest estimate, at most `MOST`: estimates and flips [changes, 4]."""
    keep = np.flatnonzero(estimate < np.inf)
    keep = keep[np.argsort(estimate[keep], kind="stable")[:MOST]]
    rows = np.full((len(keep), 4), -1, np.int64)
    for index, column in enumerate(columns):
        rows[:, index] = column[keep]
    return estimate[keep], rows
