"""The placement nobody chose: exact expectations over uniformly random equal partitions."""

from fractions import Fraction
from math import comb

import numpy as np
from numpy.typing import NDArray

from moeopt.placement import Placement
from moeopt.problem import Problem


def reference_cost(problem: Problem) -> Fraction:
    """Expected cost of a random partition into groups as equal as the slots allow, load ignored, no replicas.

    Fan-out: a group of m of E experts is touched by a set of k with probability 1 - C(E-m, k) / C(E, k).
    Cut: a pair is together with probability sum m(m-1) / (E(E-1)). The load of the fullest GPU has no such formula:
    it is that of the first experts on the first GPU, the next ones on the second.
    """
    if problem.objective == "load":
        return Fraction(problem.cost(linear_placement(problem)))
    sizes = equal_sizes(problem.workload.n_experts, problem.cluster.slots_of)
    node_sizes = np.bincount(problem.cluster.node_of, weights=sizes, minlength=problem.cluster.nodes).astype(
        int
    )
    levels = ((problem.cluster.gpu_cost, sizes.tolist()), (problem.cluster.node_cost, node_sizes.tolist()))
    experts, k = problem.workload.n_experts, problem.workload.top_k
    if problem.objective == "fan-out":
        parts = (price * (_expected_touched(experts, k, groups) - 1) for price, groups in levels)
        per_token = sum(parts, Fraction(0))
        return per_token * problem.total_weight * len(problem.workload.layers)
    return problem.pair_weight * sum(
        (price * (1 - _expected_together(experts, groups)) for price, groups in levels), Fraction(0)
    )


def linear_placement(problem: Problem) -> Placement:
    """Experts in the order of their ids, one copy each, in groups as equal as the slots allow."""
    sizes = equal_sizes(problem.workload.n_experts, problem.cluster.slots_of)
    gpu_of = np.repeat(np.arange(len(sizes)), sizes)
    return problem.partition(np.tile(gpu_of, (len(problem.workload.layers), 1)))


def equal_sizes(experts: int, slots: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64 [gpus]: group sizes that sum to `experts`, as equal as the slots allow, larger groups first."""
    sizes = np.zeros_like(slots)
    for _ in range(experts):
        open_groups = np.flatnonzero(sizes < slots)
        sizes[open_groups[np.argmin(sizes[open_groups])]] += 1
    return sizes


def _expected_touched(experts: int, k: int, groups: list[int]) -> Fraction:
    return sum((1 - Fraction(comb(experts - size, k), comb(experts, k)) for size in groups), Fraction(0))


def _expected_together(experts: int, groups: list[int]) -> Fraction:
    if experts < 2:
        return Fraction(1)
    return Fraction(sum(size * (size - 1) for size in groups), experts * (experts - 1))
