"""What the wrappers of general graph partitioners share: groups to fill, graph, whole weights, exact sizes."""

from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from moeopt.problem import Problem
from moeopt.reference import equal_sizes
from moeopt.spectral_partition import repaired

__all__ = ["MOST", "Graph", "grouped", "neighbours", "unsupported", "whole"]

MOST = 2**30  # sum of the weights: their sums and doubles stay within int32
Graph = tuple[list[int], list[int], list[int]]


def unsupported(problem: Problem, *, package: str) -> str:
    """Why a general partitioner cannot treat `problem`; empty when it can. `package` is not imported."""
    if find_spec(package) is None:
        return f"{package} is not installed: pip install 'moeopt[partitioners]'"
    if problem.replicas:
        return f"places single copies, replicas are {problem.replicas}"
    if problem.cluster.nodes > 1 and problem.cluster.node_cost:
        return f"knows one level of groups, node_cost is {problem.cluster.node_cost}"
    if problem.max_moves is not None:
        return "counts no moves from an incumbent: the problem has max_moves"
    return ""


def whole(weights: NDArray[np.int64], *, most: int = MOST) -> NDArray[np.int64]:
    """int64: the weights, scaled down to a sum of about `most` where it is larger; positive ones stay at least 1."""
    total = int(weights.sum())
    if total <= most:
        return weights
    return np.where(weights > 0, np.maximum((weights * (most / total)).astype(np.int64), 1), 0)


def neighbours(graph: NDArray[np.int64], *, most: int = MOST) -> Graph:
    """Compressed rows (starts, columns, weights) of the symmetric int64 [experts, experts] `graph`, by `whole`."""
    rows, columns = np.nonzero(graph)
    starts = np.searchsorted(rows, np.arange(len(graph) + 1))
    return starts.tolist(), columns.tolist(), whole(graph[rows, columns], most=most).tolist()


def grouped(
    problem: Problem, partition: Callable[[NDArray[np.int64], NDArray[np.int64]], list[int]]
) -> NDArray[np.int64]:
    """int64 [experts]: GPU of each, sizes as equal as the slots allow.

    `partition(graph, sizes)` gives a group to each expert, from the co-activation int64 [experts, experts] in weights
    of the objective and the sizes wanted, all above 0; it may miss them. Experts are then moved as in
    `spectral_partition.repaired`: an overfull group keeps those with most co-activation inside. A partition into one
    group, or without co-activation, is not asked for.
    """
    sets = problem.workload.layers[0]
    sizes = equal_sizes(problem.workload.n_experts, problem.cluster.slots_of)
    used = np.flatnonzero(sizes)
    graph = sets.affinity(problem.set_weights(sets))
    if len(used) == 1 or not graph.any():
        return np.repeat(used, sizes[used])
    group = np.asarray(partition(graph, sizes[used]), np.int64)
    return used[repaired(group, graph.astype(float), sizes=sizes[used])]
