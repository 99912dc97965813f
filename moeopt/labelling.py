"""GPUs for given groups of experts, layer after layer, by bottleneck assignments."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moeopt import links
from moeopt.cluster import Cluster
from moeopt.labels import LabelProblem
from moeopt.stop import Clock

__all__ = ["chained", "is_level", "relabelled"]

Counts = NDArray[np.int64]
THRESHOLDS = 8  # tails of the step before that are tried for a layer between two others


def is_level(cluster: Cluster) -> bool:
    """Whether two GPUs are as far apart as any other two, and all offer the same slots."""
    level = cluster.nodes == 1 or cluster.gpus_per_node == 1 or cluster.node_cost == 0
    return level and isinstance(cluster.slots, int)


def chained(problem: LabelProblem) -> Counts:
    """int64 [layers, groups]: the GPU of each group, the first layer's as numbered, the others in turn.

    Given the GPUs of a layer, those of the next have the least tail of the step, and of these the least total. Where
    `is_level`, no step depends on another, for GPUs are alike: the sum of the tails is the least there is.
    """
    gpu_of = np.empty((problem.n_layers, problem.cluster.gpus), np.int64)
    gpu_of[0] = np.arange(problem.cluster.gpus)
    fits = _fitting(problem)
    for layer in range(1, problem.n_layers):
        tail, total = _pay(problem, layer - 1, gpu_of[layer - 1])
        gpu_of[layer] = _seated(total, (tail <= _least_tail(tail, fits[layer])) & fits[layer])
    return gpu_of


def relabelled(problem: LabelProblem, gpu_of: Counts, *, clock: Clock) -> Counts:
    """`gpu_of` int64 [layers, groups] improved layer by layer, neighbours fixed, until none gains or the clock ends.

    A layer may raise the tail of one step to lower that of the other; of a layer's equal sums the least total wins.
    For prices of two levels, where the steps depend on each other.
    """
    gpu_of, fits, layers = gpu_of.copy(), _fitting(problem), problem.n_layers
    gained = True
    while gained:
        gained = False
        for layer in range(layers):
            if clock.expired:
                return gpu_of
            steps = [_pay(problem, step, gpu_of[step]) for step in (layer - 1,) if layer]
            steps += [_pay(problem, layer, gpu_of[layer + 1], back=True)] if layer < layers - 1 else []
            better = _reseated(steps, fits[layer], gpu_of[layer])
            if better is not None:
                gpu_of[layer], gained = better, True
    return gpu_of


def _reseated(steps: list[tuple[Counts, Counts]], fits: NDArray[np.bool_], seats: Counts) -> Counts | None:
    """int64 [groups]: better GPUs for the groups of a layer, or None; `steps` as `_pay` gives them, one or two."""
    if not steps:
        return None
    groups, total = np.arange(len(seats)), np.sum([step[1] for step in steps], axis=0)

    def worth(gpu_of: Counts) -> tuple[int, int]:
        tails = sum(int(tail[groups, gpu_of].max()) for tail, _ in steps)
        return tails, int(total[groups, gpu_of].sum())

    first, last = steps[0][0], steps[-1][0]
    lowest, now = _least_tail(first, fits), worth(seats)[0]
    tails = np.unique(first[(first >= lowest) & (first <= now)])
    best: tuple[tuple[int, int], Counts] = worth(seats), seats
    for most in tails[np.unique(np.linspace(0, len(tails) - 1, THRESHOLDS).astype(int))]:
        allowed = fits & (first <= most)
        found = _seated(total, allowed & (last <= _least_tail(last, allowed)))
        best = min(best, (worth(found), found), key=lambda pair: pair[0])
    return None if best[1] is seats else best[1]


def _pay(problem: LabelProblem, step: int, fixed: Counts, *, back: bool = False) -> tuple[Counts, Counts]:
    """int64 [groups, gpus] twice: dearest pair and price of all pairs of a group on a GPU, the other layer `fixed`.

    Groups are those of layer step + 1, or of layer step when looking `back` from the next one.
    """
    traffic = problem.traffic[step] if back else problem.traffic[step].T
    priced = traffic[:, :, None] * links.distances(problem.cluster)[fixed]
    return priced.max(axis=1), priced.sum(axis=1)


def _fitting(problem: LabelProblem) -> NDArray[np.bool_]:
    """bool [layers, groups, gpus]: the GPU has slots for the group."""
    return np.asarray(problem.sizes[:, :, None] <= problem.cluster.slots_of)


def _least_tail(tail: Counts, allowed: NDArray[np.bool_]) -> int:
    """The least maximum of `tail` int64 [groups, gpus] over matchings of groups and GPUs that are `allowed`."""
    from scipy.optimize import linear_sum_assignment

    values = np.unique(tail[allowed])
    low, high = 0, len(values) - 1
    while low < high:
        middle = (low + high) // 2
        refused = ~(allowed & (tail <= values[middle]))
        if refused[linear_sum_assignment(refused)].any():
            low = middle + 1
        else:
            high = middle
    return int(values[low])


def _seated(total: Counts, allowed: NDArray[np.bool_]) -> Counts:
    """int64 [groups]: the matching of least total among the allowed ones."""
    from scipy.optimize import linear_sum_assignment

    return np.asarray(linear_sum_assignment(np.where(allowed, total, int(total.sum()) + 1))[1], np.int64)
