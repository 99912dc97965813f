"""Clique partition twice: which pairs of experts share a GPU, and which share a node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from moeopt.cliques import (
    MOST,
    Groups,
    broken_triangles,
    checked_triangles,
    every_triangle,
    group_block,
    pair_square,
    triangle_rows,
)
from moeopt.formulation import LazyRows, unsupported_extras, unsupported_objective
from moeopt.placement import Placement
from moeopt.problem import Problem

if TYPE_CHECKING:
    from moeopt.matrix import Matrix


@dataclass(frozen=True)
class TwoLevelPairs:
    """Equal GPUs on several nodes, cut; y[i,j] = 1: experts i < j share a GPU, y_node[i,j] = 1: they share a node.

    N nodes of H GPUs with m slots and load cap c each; W[i,j] the co-activation weight of a pair, p and q the prices
    of a GPU and a node. GPUs and nodes have no names:

        minimise    sum over i<j of  W[i,j] (p (1 - y[i,j]) + q (1 - y_node[i,j]))
        gpus        the rows slots, loads, full of `pairs` for y:      N H groups, m slots, cap c
        nodes       the rows slots, loads, full of `pairs` for y_node: N groups, H m slots, cap H c
        triangle    y[i,j] + y[j,k] - y[i,k] <= 1, and so for y_node    for i < k and every other j
        nested      y[i,j] <= y_node[i,j]                               for every i < j

    and, where slots alone would allow more than N nodes or more than H GPUs a node, with head[i,j] = 1: i is the first
    expert of its node and j <= the first of a GPU there:

        open        sum over i<=j of head[i,j] + sum over i<j of y[i,j] >= 1     for every j
        own         head[i,j] <= y_node[i,j]                                     for every i < j
        heads       head[j,j] + y_node[i,j] <= 1                                 for every i < j
        room        sum over j>=i of head[i,j] <= H head[i,i]                    for every i
        count       sum_i head[i,i] <= N

    y and y_node are binary. Only the first expert of a node can have head[i,i] > 0, thus any head[i,j]; it has one for
    the first expert of each of its GPUs, itself among them. So head[i,i] = 1, there are at most H of them, and at
    most N nodes; head may be fractional (0 <= head <= 1). GPUs that slots say to hold at least E - (NH-1) m experts
    need no heads when a node has too few slots for H + 1 of them: as always when every slot is used.

    Source: clique partition as in `pairs`; heads after M. Campêlo, V. Campos, R. Corrêa, On the asymmetric
    representatives formulation for the vertex coloring problem, Discrete Applied Mathematics 156 (2008).
    """

    name: ClassVar[str] = "two-level"
    summary: ClassVar[str] = "clique partition of GPUs inside one of nodes; cut, equal GPUs, lazy triangles"

    def supports(self, problem: Problem) -> str:
        if reason := unsupported_extras(problem) or unsupported_objective(problem):
            return reason
        cluster = problem.cluster
        if not cluster.equal:
            return 'needs GPUs with equal slots and speeds: use "assignment" for unequal ones'
        if cluster.nodes == 1 or cluster.gpus_per_node == 1 or not cluster.node_cost:
            return (
                f"needs two levels, found {cluster.nodes} nodes of {cluster.gpus_per_node} GPUs and node cost "
                f'{cluster.node_cost}: use "pairs"'
            )
        if problem.workload.n_experts < 2:
            return "needs two experts: one has nothing to be apart from"
        return ""

    def build(self, problem: Problem) -> Any:
        import pyomo.environ as pyo

        gpus, nodes, marked = _levels(problem)
        weight = _weight(problem).tolist()
        experts, cluster = range(gpus.experts), problem.cluster
        pairs = [(i, j) for i in experts for j in experts if i < j]
        model = pyo.ConcreteModel(name=self.name)
        model.problem = problem
        model.y = pyo.Var(pairs, domain=pyo.Binary)
        model.y_node = pyo.Var(pairs, domain=pyo.Binary)
        model.cut = pyo.Objective(
            expr=sum(
                w * (cluster.gpu_cost * (1 - model.y[pair]) + cluster.node_cost * (1 - model.y_node[pair]))
                for w, pair in zip(weight, pairs, strict=True)
            )
        )
        model.gpus = group_block(gpus, model.y)
        model.nodes = group_block(nodes, model.y_node)
        model.nested = pyo.Constraint(pairs, rule=lambda _, i, j: model.y[i, j] <= model.y_node[i, j])
        if not marked:
            return model
        model.head = head = pyo.Var([(i, j) for i in experts for j in experts if i <= j], bounds=(0, 1))
        model.open = pyo.Constraint(
            experts,
            rule=lambda _, j: (
                sum(head[i, j] for i in experts if i <= j) + sum(model.y[i, j] for i in experts if i < j) >= 1
            ),
        )
        model.own = pyo.Constraint(pairs, rule=lambda _, i, j: head[i, j] <= model.y_node[i, j])
        model.heads = pyo.Constraint(pairs, rule=lambda _, i, j: head[j, j] + model.y_node[i, j] <= 1)
        model.room = pyo.Constraint(
            experts,
            rule=lambda _, i: (
                sum(head[i, j] for j in experts if j >= i) <= cluster.gpus_per_node * head[i, i]
            ),
        )
        model.count = pyo.Constraint(expr=sum(head[i, i] for i in experts) <= cluster.nodes)
        return model

    def read(self, model: Any) -> Placement:
        values = [variable.value for part in (model.y, model.y_node) for variable in part.values()]
        placement = self.placement(model.problem, np.array(values, dtype=np.float64))
        if placement is None:
            raise ValueError("the values of the model are no partition into nodes, and of these into GPUs")
        return placement

    def matrix(self, problem: Problem) -> Matrix:
        from scipy.sparse import block_array, eye_array

        from moeopt.matrix import Matrix

        gpus, nodes, marked = _levels(problem)
        first, second = np.triu_indices(gpus.experts, 1)
        cost, offset = self.costs(problem)
        blocks: list[list[Any]] = []
        lower, upper = [np.full(first.size, -np.inf)], [np.zeros(first.size)]
        same = eye_array(first.size, format="csr")
        blocks.append([same, -same, None])
        for level, groups in enumerate((gpus, nodes)):
            for rows, low, high in zip(*groups.rows(), strict=True):
                blocks.append([None, None, None])
                blocks[-1][level] = rows
                lower.append(low)
                upper.append(high)
        if marked:
            for row, low, high in _heads(gpus.experts, problem):
                blocks.append(row)
                lower.append(low)
                upper.append(high)
        names = [
            f"{y}[{i},{j}]"
            for y in ("y", "y_node")
            for i, j in zip(first.tolist(), second.tolist(), strict=True)
        ]
        names += [f"head[{i},{j}]" for i in range(gpus.experts) for j in range(i, gpus.experts) if marked]
        return Matrix(
            cost=cost.astype(float),
            offset=float(offset),
            lower=np.zeros(cost.size),
            upper=np.ones(cost.size),
            integer=np.arange(cost.size) < 2 * first.size,
            rows=block_array([row if marked else row[:2] for row in blocks], format="csr"),
            row_lower=np.concatenate(lower),
            row_upper=np.concatenate(upper),
            column_names=tuple(names),
        )

    def costs(self, problem: Problem) -> tuple[NDArray[np.int64], int]:
        cluster, weight = problem.cluster, _weight(problem)
        experts, marked = problem.workload.n_experts, _levels(problem)[2]
        heads = np.zeros(marked * (experts * (experts + 1) // 2), np.int64)
        cost = np.concatenate([-cluster.gpu_cost * weight, -cluster.node_cost * weight, heads])
        return cost, (cluster.gpu_cost + cluster.node_cost) * int(weight.sum())

    def values(self, problem: Problem, placement: Placement) -> NDArray[np.float64]:
        gpu_of = placement.primary[0]
        experts, node_of = gpu_of.size, problem.cluster.node_of[gpu_of]
        gpu, node = gpu_of[:, None] == gpu_of, node_of[:, None] == node_of
        pairs = np.triu_indices(experts, 1)
        parts = [gpu[pairs], node[pairs]]
        if _levels(problem)[2]:
            numbers = np.arange(experts)
            leads, opens = node.argmax(axis=1) == numbers, gpu.argmax(axis=1) == numbers
            parts.append((node & leads[:, None] & opens)[np.triu_indices(experts)])
        return np.concatenate(parts).astype(float)

    def placement(self, problem: Problem, x: NDArray[np.float64]) -> Placement | None:
        experts, cluster = problem.workload.n_experts, problem.cluster
        pairs, numbers = experts * (experts - 1) // 2, np.arange(experts)
        first = []  # of the GPU, and of the node, of each expert
        for y in (x[:pairs], x[pairs : 2 * pairs]):
            together = pair_square(experts, (y > 0.5).astype(np.int64)) + np.eye(experts, dtype=np.int64)
            first.append(together.argmax(axis=1))
            if (together != (first[-1][:, None] == first[-1])).any():
                return None
        gpu, node = first
        if (node[gpu] != node).any():
            return None
        opens, leads = np.flatnonzero(gpu == numbers), np.flatnonzero(node == numbers)
        inside = node[opens][:, None] == leads  # [GPUs, nodes]
        if leads.size > cluster.nodes or inside.sum(axis=0).max() > cluster.gpus_per_node:
            return None
        place = np.zeros(experts, np.int64)
        place[opens] = (
            inside * (np.cumsum(inside, axis=0) - 1 + cluster.gpus_per_node * np.arange(leads.size))
        ).sum(axis=1)
        return problem.partition(place[gpu])

    def separate(self, problem: Problem, point: NDArray[np.float64]) -> LazyRows:
        experts = problem.workload.n_experts
        pairs = experts * (experts - 1) // 2
        keys, excess = [], []
        for level in (0, 1):
            triangles, over = broken_triangles(pair_square(experts, point[level * pairs :][:pairs]))
            keys.append(np.insert(triangles, 0, level, axis=1))
            excess.append(over)
        worst = np.argsort(-np.concatenate(excess), kind="stable")[:MOST]
        return _lazy(np.concatenate(keys)[worst], experts=experts, width=point.size)

    def lazy(self, problem: Problem, keys: NDArray[Any] | None = None) -> LazyRows:
        experts = problem.workload.n_experts
        if keys is None:
            every = every_triangle(experts)
            keys = np.concatenate([np.insert(every, 0, level, axis=1) for level in (0, 1)])
        elif keys.ndim != 2 or keys.shape[1] != 4 or not np.isin(keys[:, 0], (0, 1)).all():
            raise ValueError(
                f"keys must be [rows, 4], a level 0 or 1 and a triangle, found {keys[:1].tolist()}"
            )
        checked_triangles(keys[:, 1:], experts)
        return _lazy(keys, experts=experts, width=self.costs(problem)[0].size)


def _levels(problem: Problem) -> tuple[Groups, Groups, bool]:
    """The groups of the GPUs and of the nodes, and whether their number needs heads."""
    (sets,), cluster = problem.workload.layers, problem.cluster
    slots, each, cap = int(cluster.slots_of[0]), cluster.gpus_per_node, problem.load_cap
    gpus = Groups.of(sets.load, groups=cluster.gpus, slots=slots, cap=cap)
    total = None if cap is None else each * cap
    nodes = Groups.of(sets.load, groups=cluster.nodes, slots=each * gpus.slots, cap=total)
    return gpus, nodes, nodes.slots // gpus.least > each or nodes.most > cluster.nodes


def _weight(problem: Problem) -> NDArray[np.int64]:
    """int64 [pairs]: co-activation weight W of the pairs i < j."""
    (sets,) = problem.workload.layers
    return sets.affinity(problem.set_weights(sets))[np.triu_indices(sets.n_experts, 1)]


def _heads(
    experts: int, problem: Problem
) -> list[tuple[list[Any], NDArray[np.float64], NDArray[np.float64]]]:
    """open, own, heads, room, count: rows over y, y_node, head, their lower and upper sides."""
    from scipy.sparse import coo_array, csr_array, eye_array

    i, j = np.triu_indices(experts)
    at, pairs = np.arange(i.size), experts * (experts - 1) // 2
    diagonal = at[i == j]
    _, second = np.triu_indices(experts, 1)
    apart = coo_array((np.ones(pairs), (np.arange(pairs), at[i < j])), shape=(pairs, i.size))
    closed = coo_array((np.ones(pairs), (np.arange(pairs), diagonal[second])), shape=(pairs, i.size))
    into = coo_array((np.ones(i.size), (j, at)), shape=(experts, i.size))
    before = csr_array((np.ones(pairs), (second, np.arange(pairs))), shape=(experts, pairs))
    room = coo_array(
        (np.where(i == j, 1.0 - problem.cluster.gpus_per_node, 1.0), (i, at)), shape=(experts, i.size)
    )
    count = csr_array((i == j).astype(float)[None])
    same = eye_array(pairs)
    free = -np.inf
    return [
        ([before, None, into], np.ones(experts), np.full(experts, np.inf)),
        ([None, -same, apart], np.full(pairs, free), np.zeros(pairs)),
        ([None, same, closed], np.full(pairs, free), np.ones(pairs)),
        ([None, None, room], np.full(experts, free), np.zeros(experts)),
        ([None, None, count], np.array([free]), np.array([float(problem.cluster.nodes)])),
    ]


def _lazy(keys: NDArray[Any], *, experts: int, width: int) -> LazyRows:
    """The triangles of keys [rows, (level, i, j, k)] in a matrix of `width` columns."""
    starts = keys[:, 0] * (experts * (experts - 1) // 2)
    rows = triangle_rows(keys[:, 1:], experts=experts, starts=starts, width=width)
    return LazyRows(keys.astype(np.int32), rows, np.full(len(keys), -np.inf), np.ones(len(keys)))
