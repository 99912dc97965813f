"""First placements for the cut: swap descent in array arithmetic, a few milliseconds a start."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from moeopt.balance import balanced, levelled
from moeopt.placement import Placement
from moeopt.problem import Problem

__all__ = ["cut_descents", "lightest_placement"]


def lightest_placement(problem: Problem) -> Placement:
    """A placement of one layer with the loads as even as a quick search makes them."""
    workload, slots = problem.workload, problem.cluster.slots_of
    load = workload.layers[0].load
    gpu_of = levelled(load, balanced(load, slots), slots)
    return Placement.partition([gpu_of], problem.cluster, layer_ids=workload.layer_ids, model=workload.model)


def cut_descents(problem: Problem, *, rng: np.random.Generator) -> Iterator[Placement]:
    """Local optima of the cut of one layer, without end: from even loads first, from random placements then."""
    workload, cluster = problem.workload, problem.cluster
    (sets,) = workload.layers
    first = lightest_placement(problem).primary[0].astype(np.int64)
    held = np.bincount(first, minlength=cluster.gpus)
    # Twice an equal share is room enough, and keeps the arrays small where memory is not the limit.
    share = -(-2 * sets.n_experts // cluster.gpus)
    room = np.minimum(cluster.slots_of, np.maximum(held, share))
    seats = np.repeat(np.arange(cluster.gpus), room)
    spare = seats.size - sets.n_experts
    weight = np.pad(sets.affinity(problem.set_weights(sets)), (0, spare))  # an empty seat is a swap partner
    load = np.pad(sets.load, (0, spare))
    near = cluster.gpu_cost * np.eye(cluster.gpus, dtype=np.int64)
    near += cluster.node_cost * (cluster.node_of[:, None] == cluster.node_of)
    labels = np.concatenate([first, np.repeat(np.arange(cluster.gpus), room - held)])
    while True:
        gpu_of = _descend(labels, weight=weight, load=load, near=near, cap=problem.load_cap)
        yield Placement.partition(
            [gpu_of[: sets.n_experts]], cluster, layer_ids=workload.layer_ids, model=workload.model
        )
        # With a load cap, a few random swaps of what is admissible; without one, anything goes.
        labels = gpu_of.copy() if problem.load_cap is not None else rng.permutation(seats)
        if problem.load_cap is not None:
            for one, other in rng.integers(0, seats.size, (max(2, seats.size // 8), 2)):
                _exchange(labels, one, other, load=load, cap=problem.load_cap)


def _exchange(labels: NDArray[np.int64], one: int, other: int, *, load: NDArray[np.int64], cap: int) -> None:
    labels[[one, other]] = labels[[other, one]]
    if max(load[labels == labels[one]].sum(), load[labels == labels[other]].sum()) > cap:
        labels[[one, other]] = labels[[other, one]]


def _descend(
    labels: NDArray[np.int64],
    *,
    weight: NDArray[np.int64],
    load: NDArray[np.int64],
    near: NDArray[np.int64],
    cap: int | None,
) -> NDArray[np.int64]:
    """The best swap of two seats, again until none helps; loads above `cap` are never made or made worse.

    int64 throughout, weight [seats, seats], near [gpus, gpus]: what a pair together on g and h saves. After a
    swap of e on g and f on h: V[e,h] - V[e,g] + V[f,g] - V[f,h] - W[e,f] (near[g,g] + near[h,h] - 2 near[g,h]),
    where V[e,g] is what e saves on g.
    """
    labels, seats = labels.copy(), np.arange(labels.size)
    gpus = len(near)
    while True:
        on = (labels[:, None] == np.arange(gpus)).astype(np.int64)
        saved = weight @ on @ near
        move = saved[:, labels] - saved[seats, labels][:, None]  # [e, f]: e goes where f is
        own = near[labels, labels]
        gain = move + move.T - weight * (own[:, None] + own - 2 * near[labels[:, None], labels])
        if cap is not None:
            carried = load @ on
            after = carried[labels][:, None] - load[:, None] + load  # [e, f]: on e's GPU once f has come
            gain[
                np.maximum(after, after.T)
                > np.maximum(cap, np.maximum.outer(carried[labels], carried[labels]))
            ] = 0
        best = int(gain.argmax())
        e, f = divmod(best, labels.size)
        if gain[e, f] <= 0:
            return labels
        labels[e], labels[f] = labels[f], labels[e]
