"""Costs of partitions bounded from below by lines in the pairs that share a group: what a semidefinite proof is about.

y_ij = 1 when experts i and j share one of G groups of at most m. The cut is linear in y. The groups that a set of
experts touches are not, but they are at least those that a subset T of it touches, and so many groups, none larger
than m, leave so many pairs together: over all partitions of |T| experts into parts of at most m, the lower convex
hull of (pairs together, parts) gives lines

    parts  >=  a - b x (pairs of T that share a group),

that hold with whole a and b after one scaling. Which T and which line serve a set is a free choice. It is made from
references, matrices of guessed y in units of 1/64: the highest value at the reference, of equal ones the first. Over
several references the lines are averaged.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from math import gcd, lcm
from typing import Any, NamedTuple, Self

import numpy as np
from numba import njit
from numpy.typing import NDArray

from moeopt.problem import Problem

__all__ = ["MOST_CHOSEN", "UNITS", "Level", "Lines", "hull_lines", "partition_levels"]

UNITS = 64  # of a reference: y = 1
MOST_CHOSEN = 12  # experts of a token, because all their subsets are tried
MOST_SEATS = 1_024
WEIGHT_BITS = 30  # of all tokens together; heavier ones are counted in units of a power of two, rounded down


class Level(NamedTuple):
    """Groups of equal size that cost something to touch: price of a further one, groups G, slots m of each."""

    price: int
    groups: int
    slots: int

    @property
    def seats(self) -> int:
        """n = G m: experts without traffic fill the free slots."""
        return self.groups * self.slots


def partition_levels(problem: Problem) -> list[Level]:
    """The GPUs and the nodes, where they cost something; ValueError for a problem that these do not describe."""
    cluster, experts = problem.cluster, problem.workload.n_experts
    if len(problem.workload.layers) != 1:
        raise ValueError(f"one layer at a time, found {len(problem.workload.layers)}")
    if problem.replicas:
        raise ValueError(f"without copies only, found {problem.replicas} replicas")
    if problem.risk is not None:
        raise ValueError("the mean over families only, the problem asks for the worst of them")
    if not isinstance(cluster.slots, int):
        raise ValueError(f"GPUs with equal slots only, found {cluster.slots}")
    if problem.objective == "fan-out" and problem.workload.top_k > MOST_CHOSEN:
        raise ValueError(f"tokens of at most {MOST_CHOSEN} experts, found {problem.workload.top_k}")
    whole, nodes = cluster.gpus_per_node, cluster.nodes
    levels = [Level(cluster.gpu_cost, cluster.gpus, cluster.slots)]
    if whole == 1:
        levels = [Level(cluster.gpu_cost + cluster.node_cost, nodes, cluster.slots)]
    else:
        levels.append(Level(cluster.node_cost, nodes, whole * cluster.slots))
    levels = [
        level._replace(slots=min(level.slots, experts))
        for level in levels
        if level.price and level.groups > 1
    ]
    for level in levels:
        if level.seats > MOST_SEATS:
            raise ValueError(f"at most {MOST_SEATS} slots, found {level.groups} groups of {level.slots}")
    return levels


@dataclass(frozen=True, eq=False)
class Lines:
    """Cost of a level, one further group costing 1: denominator x cost >= unit x (constant - sum of weights x y).

    | field | holds |
    |---|---|
    | constant, denominator, unit | whole numbers |
    | weights | int64 [seats, seats], symmetric, zero diagonal; the sum is over pairs i < j |
    | divisor | of every cost |
    """

    constant: int
    weights: NDArray[np.int64]
    denominator: int
    unit: int
    divisor: int

    @classmethod
    def of(cls, problem: Problem, level: Level, *, references: list[NDArray[np.int64]]) -> Self:
        """The lines of a problem of one layer; `references` int64 [seats, seats] for the fan-out, none for the cut."""
        (sets,) = problem.workload.layers
        tokens = problem.set_weights(sets)
        unit = 1 << max(0, int(tokens.sum()).bit_length() - WEIGHT_BITS)
        light = tokens // unit
        weights = np.zeros((level.seats, level.seats), np.int64)
        if problem.objective == "cut":
            weights[: sets.n_experts, : sets.n_experts] = sets.affinity(light)
            divisor = gcd(*np.unique(sets.affinity(tokens)).tolist())
            return cls(int(weights.sum()) // 2, weights, 1, unit, divisor or 1)
        scale, starts, slopes = hull_lines(sets.top_k, level.slots)
        constant = 0
        for reference in references:
            constant += int(_add_lines(sets.members, light, reference, starts, slopes, weights))
            constant -= scale * int(light.sum())
        divisor = gcd(*np.unique(tokens).tolist())
        return cls(constant, weights, scale * len(references), unit, divisor or 1)

    def bound(self, dual: int, *, scale: int) -> int:
        """Least cost, given that constant - sum of weights x y is at least dual / scale."""
        step = scale * self.denominator * self.divisor
        return max(0, self.divisor * -(-self.unit * dual // step))


@cache
def hull_lines(chosen: int, slots: int) -> tuple[int, NDArray[np.int64], NDArray[np.int64]]:
    """(scale, a, b) with int64 [chosen + 1, lines]: q experts in parts of at most `slots` with P pairs together.

    scale x parts >= a[q] - b[q] P, the lines of the lower convex hull; the last one is repeated.
    """
    rows: list[list[tuple[Fraction, Fraction]]] = []
    for experts in range(chosen + 1):
        fewest: dict[int, int] = {}
        for sizes in _sizes(experts, slots):
            pairs = sum(size * (size - 1) // 2 for size in sizes)
            fewest[pairs] = min(fewest.get(pairs, experts), len(sizes))
        at, lines = 0, []  # nobody together comes first
        while later := [pairs for pairs in fewest if pairs > at and fewest[pairs] < fewest[at]]:
            slope, far = max((Fraction(fewest[at] - fewest[to], to - at), to) for to in later)
            lines.append((fewest[at] + slope * at, slope))
            at = far
        rows.append([*lines, (Fraction(fewest[at]), Fraction(0))])
    scale = lcm(*(number.denominator for lines in rows for line in lines for number in line))
    width = max(map(len, rows))
    table = np.array([[lines[min(i, len(lines) - 1)] for i in range(width)] for lines in rows])
    whole = (table * scale).astype(np.int64)
    return scale, np.ascontiguousarray(whole[..., 0]), np.ascontiguousarray(whole[..., 1])


def _sizes(experts: int, most: int) -> list[list[int]]:
    """All ways to write a number as a sum of numbers up to `most`, largest first."""
    if not experts:
        return [[]]
    largest = range(1, min(experts, most) + 1)
    return [[size, *rest] for size in largest for rest in _sizes(experts - size, size)]


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _add_lines(
    members: NDArray[np.int32],
    tokens: NDArray[np.int64],
    reference: NDArray[np.int64],
    starts: NDArray[np.int64],
    slopes: NDArray[np.int64],
    weights: NDArray[np.int64],
) -> Any:
    """Sum of tokens x a; tokens x b is added to `weights`, for the best subset and line of each set."""
    n_sets, k = members.shape
    size = np.zeros(1 << k, np.int64)
    for subset in range(1, 1 << k):
        size[subset] = size[subset >> 1] + (subset & 1)
    pairs, ties = np.zeros((2, 1 << k), np.int64)
    constant = 0
    for s in range(n_sets):
        for high in range(k):  # pairs[subset] for the subsets whose last member is `high`
            for low in range(high):
                y = reference[members[s, high], members[s, low]]
                for subset in range(1 << low):
                    ties[subset | (1 << low)] = ties[subset] + y
            for subset in range(1 << high):
                pairs[subset | (1 << high)] = pairs[subset] + ties[subset]
        best, chosen, line = -1, 0, 0
        for subset in range(1, 1 << k):
            q = size[subset]
            for row in range(starts.shape[1]):
                value = UNITS * starts[q, row] - slopes[q, row] * pairs[subset]
                if value > best:
                    best, chosen, line = value, subset, row
        q = size[chosen]
        constant += tokens[s] * starts[q, line]
        slope = tokens[s] * slopes[q, line]
        for a in range(k):
            if chosen >> a & 1:
                for b in range(a):
                    if chosen >> b & 1:
                        i, j = members[s, a], members[s, b]
                        weights[i, j] += slope
                        weights[j, i] += slope
    return constant
