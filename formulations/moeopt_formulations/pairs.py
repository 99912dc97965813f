"""Clique partition: which pairs of experts share a GPU."""

from __future__ import annotations

from collections.abc import Sequence
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
    pair_square,
    triangle_rows,
)
from moeopt.formulation import LazyRows, unsupported_extras, unsupported_objective
from moeopt.placement import Placement
from moeopt.problem import Problem

if TYPE_CHECKING:
    from moeopt.matrix import Matrix


@dataclass(frozen=True)
class Pairs:
    """Identical GPUs, cut; y[i,j] = 1: experts i < j share a GPU. GPU labels and their symmetry are gone.

    With W[i,j] the co-activation weight of a pair, m slots a GPU, E experts on G GPUs of price w (which takes
    in the price of a node when every node is one GPU):

        minimise    sum over i<j of  w W[i,j] (1 - y[i,j])
        triangle    y[i,j] + y[j,k] - y[i,k] <= 1                          for i < k and every other j
        slots       max(1, E - (G-1) m) <= 1 + sum_j y[i,j] <= m           for every i
        loads       T - (G-1) cap <= load[i] + sum_j load[j] y[i,j] <= cap for every i, with a load tolerance
        full        sum over i<j of y[i,j] <= the pairs of floor(E/m) full GPUs and one with the rest,
                    when m does not divide E
        first       r[i] + sum over j<i of y[j,i] >= 1                     for every i; r[i]: first of group
        groups      sum_i r[i] <= G

    The lower sides of slots and loads (at most cap) say what the other G - 1 GPUs cannot take; T is the load
    of the layer. first and groups are stated when the slots rows alone would allow more than G groups.

    Source: M. Grötschel, Y. Wakabayashi, A cutting plane algorithm for a clustering problem, Mathematical
    Programming 45 (1989).
    """

    name: ClassVar[str] = "pairs"
    summary: ClassVar[str] = "clique partition with lazily separated triangles; cut, identical GPUs"

    def supports(self, problem: Problem) -> str:
        if reason := unsupported_extras(problem) or unsupported_objective(problem):
            return reason
        if not problem.cluster.equal:
            return 'needs GPUs with equal slots and speeds: use "assignment" for unequal ones'
        cluster = problem.cluster
        if cluster.nodes > 1 and cluster.gpus_per_node > 1 and cluster.node_cost:
            return 'has no node term: use node_cost=0, or "assignment"'
        if problem.workload.n_experts < 2:
            return "needs two experts: one has nothing to be apart from"
        return ""

    def build(self, problem: Problem) -> Any:
        import pyomo.environ as pyo

        (groups, marks), cost = _groups(problem), _prices(problem)
        experts = range(groups.experts)
        model = pyo.ConcreteModel(name=self.name)
        model.problem = problem
        model.y = pyo.Var([(i, j) for i in experts for j in experts if i < j], domain=pyo.Binary)

        def y(i: int, j: int) -> Any:
            return model.y[min(i, j), max(i, j)]

        model.cut = pyo.Objective(expr=sum(int(cost[i, j]) * (1 - y(i, j)) for i, j in model.y))
        model.triangle = pyo.Constraint(
            [(i, j, k) for i in experts for j in experts for k in experts if i < k and j not in (i, k)],
            rule=lambda _, i, j, k: y(i, j) + y(j, k) - y(i, k) <= 1,
        )
        model.slots = pyo.Constraint(
            experts,
            rule=lambda _, i: pyo.inequality(
                groups.least, 1 + sum(y(i, j) for j in experts if j != i), groups.slots
            ),
        )
        if groups.cap is not None:
            load = groups.load.tolist()

            def loads(_: Any, i: int) -> Any:
                if load[i] == sum(load):  # no other expert weighs anything: the row has no variable
                    return pyo.Constraint.Skip
                others = sum(load[j] * y(i, j) for j in experts if j != i)
                return pyo.inequality(groups.least_load, load[i] + others, groups.cap)

            model.loads = pyo.Constraint(experts, rule=loads)
        if groups.full is not None:
            model.full = pyo.Constraint(expr=sum(model.y.values()) <= groups.full)
        if marks:
            model.r = pyo.Var(experts, domain=pyo.Binary)
            model.first = pyo.Constraint(
                experts, rule=lambda _, i: model.r[i] + sum(y(j, i) for j in experts if j < i) >= 1
            )
            model.groups = pyo.Constraint(expr=sum(model.r.values()) <= groups.groups)
        return model

    def read(self, model: Any) -> Placement:
        values = np.array([variable.value for variable in model.y.values()], dtype=np.float64)
        placement = self.placement(model.problem, values)
        if placement is None:
            raise ValueError("the values of the model are no partition into at most as many groups as GPUs")
        return placement

    def matrix(self, problem: Problem) -> Matrix:
        from scipy.sparse import block_array, csr_array, eye_array

        from moeopt.matrix import Matrix

        groups, marks = _groups(problem)
        first, second = np.triu_indices(groups.experts, 1)
        pairs, size = np.arange(first.size), (groups.experts, first.size)
        limits, lower, upper = groups.rows()
        blocks: list[list[Any]] = [[rows, None] for rows in limits]
        if marks:
            starts = csr_array((np.ones(first.size), (second, pairs)), shape=size)
            blocks.append([starts, eye_array(marks, format="csr")])
            blocks.append([None, csr_array(np.ones((1, marks)))])
            lower += [np.ones(marks), np.array([-np.inf])]
            upper += [np.full(marks, np.inf), np.array([float(groups.groups)])]
        rows = block_array(blocks if marks else [row[:1] for row in blocks], format="csr")
        cost, offset = self.costs(problem)
        return Matrix(
            cost=cost.astype(float),
            offset=float(offset),
            lower=np.zeros(cost.size),
            upper=np.ones(cost.size),
            integer=np.ones(cost.size, dtype=bool),
            rows=rows,
            row_lower=np.concatenate(lower),
            row_upper=np.concatenate(upper),
            column_names=(
                *(f"y[{i},{j}]" for i, j in zip(first.tolist(), second.tolist(), strict=True)),
                *(f"r[{i}]" for i in range(marks)),
            ),
        )

    def costs(self, problem: Problem) -> tuple[NDArray[np.int64], int]:
        groups, marks = _groups(problem)
        pairs = _prices(problem)[np.triu_indices(groups.experts, 1)]
        return np.concatenate([-pairs, np.zeros(marks, np.int64)]), int(pairs.sum())

    def values(self, problem: Problem, placement: Placement) -> NDArray[np.float64]:
        groups, marks = _groups(problem)
        gpu_of = placement.primary[0]
        together = gpu_of[:, None] == gpu_of
        y = together[np.triu_indices(groups.experts, 1)]
        opens = np.argmax(together, axis=1) == np.arange(groups.experts)
        return np.concatenate([y, opens[:marks]]).astype(float)

    def placement(self, problem: Problem, x: NDArray[np.float64]) -> Placement | None:
        together = pair_square(problem.workload.n_experts, x) > 0.5
        np.fill_diagonal(together, True)
        first = np.argmax(together, axis=1)  # the smallest member of the group
        if (together != (first[:, None] == first)).any():
            return None
        groups, gpu_of = np.unique(first, return_inverse=True)
        if groups.size > problem.cluster.gpus:
            return None
        workload = problem.workload
        return Placement.partition(
            gpu_of[None, :], problem.cluster, layer_ids=workload.layer_ids, model=workload.model
        )

    def separate(self, problem: Problem, point: NDArray[np.float64]) -> LazyRows:
        experts = problem.workload.n_experts
        keys, excess = broken_triangles(pair_square(experts, point))
        worst = np.argsort(-excess, kind="stable")[:MOST]
        return _triangles(keys[worst], experts=experts, width=point.size)

    def lazy(self, problem: Problem, keys: NDArray[Any] | None = None) -> LazyRows:
        experts = problem.workload.n_experts
        width = experts * (experts - 1) // 2 + _groups(problem)[1]
        triangles = every_triangle(experts) if keys is None else checked_triangles(keys, experts)
        return _triangles(triangles, experts=experts, width=width)

    def proof(
        self, problem: Problem, *, multipliers: Sequence[int], keys: NDArray[np.int32]
    ) -> dict[str, Any]:
        """slots, load, first: a number an expert; full, groups: one number; triangles: [i, j, k, number]."""
        groups, marks = _groups(problem)
        numbers: dict[str, Any] = {}
        rest = list(multipliers)
        counts = {"slots": groups.experts, "load": groups.experts if groups.cap is not None else 0}
        counts |= {"full": int(groups.full is not None), "first": marks, "groups": int(marks > 0)}
        for name, count in counts.items():
            if count:
                taken, rest = rest[:count], rest[count:]
                numbers[name] = taken[0] if name in ("full", "groups") else taken
        numbers["triangles"] = [
            [*key, number] for key, number in zip(keys.tolist(), rest, strict=True) if number
        ]
        return numbers


def _groups(problem: Problem) -> tuple[Groups, int]:
    """What slots and loads say of the groups, and the number of variables r: E or none."""
    (sets,) = problem.workload.layers
    cluster = problem.cluster
    slots = int(cluster.slots_of[0])
    groups = Groups.of(sets.load, groups=cluster.gpus, slots=slots, cap=problem.load_cap)
    return groups, groups.experts if groups.most > groups.groups else 0


def _prices(problem: Problem) -> NDArray[np.int64]:
    """int64 [experts, experts]: w W of the docstring."""
    (sets,) = problem.workload.layers
    return problem.cluster.further_gpu * sets.affinity(problem.set_weights(sets))


def _triangles(keys: NDArray[Any], *, experts: int, width: int) -> LazyRows:
    """The triangle rows of keys [rows, (i, j, k)] in a matrix of `width` columns."""
    rows = triangle_rows(keys, experts=experts, width=width)
    return LazyRows(keys.astype(np.int32), rows, np.full(len(keys), -np.inf), np.ones(len(keys)))
