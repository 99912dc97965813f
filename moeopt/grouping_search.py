"""Good groups of requests and experts, by alternating assignments.

With the groups of the requests fixed, the best experts of every layer are an assignment problem
(`moeopt.grouping.GroupingProblem.complete`); with those of the experts fixed, the best requests are another, common to
all layers. Each in turn improves until neither does. A new round begins from the best groups so far with some requests
exchanged at random.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeopt.grouping import Grouping, GroupingProblem
from moeopt.stop import Clock

__all__ = ["alternated", "seated"]

FRESH = 10  # rounds from random groups of experts, before any from the best
SHUFFLED = 0.25  # of the requests, when a round begins from the best


def alternated(
    problem: GroupingProblem,
    *,
    clock: Clock,
    seed: int,
    rounds: int = 100,
    starts: Sequence[NDArray[np.float64]] = (),
) -> Grouping | None:
    """The cheapest grouping of so many rounds, each a candidate of the clock; one even when it has run out.

    Each of the first rounds begins where one of `starts`, gains float [requests, groups], puts the requests.
    None where a row stands for several requests: whole rows then fit quotas by more than an assignment.
    """
    if (problem.size_of != 1).any():
        return None
    rng = np.random.default_rng(seed)
    best: Grouping | None = None
    least = 0
    for lap in range(rounds):
        if best is not None and clock.expired:
            break
        clock.candidates += 1
        if lap < len(starts):
            requests: NDArray[np.integer[Any]] = seated(starts[lap], bounds=problem.request_bounds)
        elif best is None or lap < FRESH:
            gains = problem.activations.sum() * rng.random((problem.n_requests, problem.groups))
            requests = seated(gains, bounds=problem.request_bounds)
        else:
            requests = best.request_group.copy()
            moved = rng.choice(len(requests), int(np.ceil(SHUFFLED * len(requests))), replace=False)
            requests[moved] = requests[rng.permutation(moved)]
        found, cost = _descended(problem, requests)
        if best is None or cost < least:
            best, least = found, cost
    return best


def _descended(problem: GroupingProblem, requests: NDArray[np.integer[Any]]) -> tuple[Grouping, int]:
    """The grouping where neither requests nor experts alone can improve, and its cost."""
    found = problem.complete(requests)
    cost = problem.cost(found)
    while True:
        home = np.zeros((problem.n_requests, problem.groups), np.int64)
        for group in range(problem.groups):
            home[:, group] = (problem.activations * (found.expert_group == group)).sum(axis=(1, 2))
        other = problem.complete(seated(home.astype(float), bounds=problem.request_bounds))
        if (value := problem.cost(other)) >= cost:
            return found, cost
        found, cost = other, value


def seated(gains: NDArray[np.float64], *, bounds: NDArray[Any]) -> NDArray[np.int32]:
    """int32 [requests]: the groups with the largest sum of gains float [requests, groups].

    `bounds` int [2, groups]: the fewest and the most requests of each group, which must admit all requests.
    """
    from scipy.optimize import linear_sum_assignment

    least, most = bounds
    group = np.repeat(np.arange(gains.shape[1], dtype=np.int32), most)
    optional = np.concatenate([np.arange(count) >= fewest for fewest, count in zip(least, most, strict=True)])
    nobody = np.where(optional, 0.0, np.inf) + np.zeros((len(group) - len(gains), 1))
    seat = linear_sum_assignment(np.concatenate([-gains[:, group], nobody]))[1]
    return np.asarray(group[seat[: len(gains)]])
