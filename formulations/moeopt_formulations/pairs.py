"""Clique partition: which pairs of experts share a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from moeopt.formulation import LazyRows, unsupported_extras, unsupported_objective
from moeopt.placement import Placement
from moeopt.problem import Problem

if TYPE_CHECKING:
    from moeopt.matrix import Matrix

_BROKEN = 1e-6  # violation above which a triangle counts as broken; HiGHS keeps rows to 1e-7
_MOST = 4_000  # triangles returned at once


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

        data, cost = _Data.of(problem), _prices(problem)
        experts = range(data.experts)
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
                data.least, 1 + sum(y(i, j) for j in experts if j != i), data.slots
            ),
        )
        if data.cap is not None:
            load = data.load.tolist()

            def loads(_: Any, i: int) -> Any:
                if load[i] == sum(load):  # no other expert weighs anything: the row has no variable
                    return pyo.Constraint.Skip
                others = sum(load[j] * y(i, j) for j in experts if j != i)
                return pyo.inequality(data.least_load, load[i] + others, data.cap)

            model.loads = pyo.Constraint(experts, rule=loads)
        if data.full is not None:
            model.full = pyo.Constraint(expr=sum(model.y.values()) <= data.full)
        if data.marks:
            model.r = pyo.Var(experts, domain=pyo.Binary)
            model.first = pyo.Constraint(
                experts, rule=lambda _, i: model.r[i] + sum(y(j, i) for j in experts if j < i) >= 1
            )
            model.groups = pyo.Constraint(expr=sum(model.r.values()) <= data.gpus)
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

        data = _Data.of(problem)
        first, second = np.triu_indices(data.experts, 1)
        pairs, size = np.arange(first.size), (data.experts, first.size)
        ends, at = np.concatenate([first, second]), np.concatenate([pairs, pairs])
        other = np.concatenate([second, first])
        blocks: list[list[Any]] = [[csr_array((np.ones(at.size), (ends, at)), shape=size), None]]
        lower, upper = [np.full(size[0], data.least - 1.0)], [np.full(size[0], data.slots - 1.0)]
        if data.cap is not None:
            blocks.append([csr_array((data.load[other].astype(float), (ends, at)), shape=size), None])
            lower.append((data.least_load - data.load).astype(float))
            upper.append((data.cap - data.load).astype(float))
        if data.full is not None:
            blocks.append([csr_array(np.ones((1, first.size))), None])
            lower.append(np.array([-np.inf]))
            upper.append(np.array([float(data.full)]))
        if data.marks:
            starts = csr_array((np.ones(first.size), (second, pairs)), shape=size)
            blocks.append([starts, eye_array(data.marks, format="csr")])
            blocks.append([None, csr_array(np.ones((1, data.marks)))])
            lower += [np.ones(data.marks), np.array([-np.inf])]
            upper += [np.full(data.marks, np.inf), np.array([float(data.gpus)])]
        rows = block_array(blocks if data.marks else [row[:1] for row in blocks], format="csr")
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
                *(f"r[{i}]" for i in range(data.marks)),
            ),
        )

    def costs(self, problem: Problem) -> tuple[NDArray[np.int64], int]:
        data = _Data.of(problem)
        pairs = _prices(problem)[np.triu_indices(data.experts, 1)]
        return np.concatenate([-pairs, np.zeros(data.marks, np.int64)]), int(pairs.sum())

    def values(self, problem: Problem, placement: Placement) -> NDArray[np.float64]:
        data = _Data.of(problem)
        gpu_of = placement.primary[0]
        together = gpu_of[:, None] == gpu_of
        y = together[np.triu_indices(data.experts, 1)]
        marks = np.argmax(together, axis=1) == np.arange(data.experts)
        return np.concatenate([y, marks[: data.marks]]).astype(float)

    def placement(self, problem: Problem, x: NDArray[np.float64]) -> Placement | None:
        together = _square(problem.workload.n_experts, x) > 0.5
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
        y = _square(problem.workload.n_experts, point)
        found: list[NDArray[np.intp]] = []
        excess: list[NDArray[np.float64]] = []
        for j in range(len(y)):  # one centre at a time keeps the work array at E x E
            over = y[:, j, None] + y[j] - y - 1.0
            over[j] = over[:, j] = 0.0
            i, k = np.nonzero(np.triu(over > _BROKEN, 1))
            found.append(np.stack([i, np.full(i.size, j), k], axis=1))
            excess.append(over[i, k])
        keys, broken = np.concatenate(found), np.concatenate(excess)
        return _triangles(keys[np.argsort(-broken, kind="stable")[:_MOST]], experts=len(y), width=point.size)

    def lazy(self, problem: Problem) -> LazyRows:
        experts = problem.workload.n_experts
        i, j, k = np.meshgrid(*[np.arange(experts)] * 3, indexing="ij")
        keep = (i < k) & (i != j) & (j != k)
        width = experts * (experts - 1) // 2 + _Data.of(problem).marks
        return _triangles(np.stack([i[keep], j[keep], k[keep]], axis=1), experts=experts, width=width)

    def proof(
        self, problem: Problem, *, multipliers: Sequence[int], keys: NDArray[np.int32]
    ) -> dict[str, Any]:
        """slots, load, first: a number an expert; full, groups: one number; triangles: [i, j, k, number]."""
        data = _Data.of(problem)
        numbers: dict[str, Any] = {}
        rest = list(multipliers)
        counts = {"slots": data.experts, "load": data.experts if data.cap is not None else 0}
        counts |= {"full": int(data.full is not None), "first": data.marks, "groups": int(data.marks > 0)}
        for name, count in counts.items():
            if count:
                taken, rest = rest[:count], rest[count:]
                numbers[name] = taken[0] if name in ("full", "groups") else taken
        numbers["triangles"] = [
            [*key, number] for key, number in zip(keys.tolist(), rest, strict=True) if number
        ]
        return numbers


@dataclass(frozen=True, eq=False)
class _Data:
    """The letters of the docstring; load int64 [experts], marks the number of variables r: E or none."""

    experts: int
    gpus: int
    slots: int
    least: int
    load: NDArray[np.int64]
    cap: int | None
    least_load: int
    full: int | None
    marks: int

    @classmethod
    def of(cls, problem: Problem) -> _Data:
        (sets,) = problem.workload.layers
        experts, gpus, cap = sets.n_experts, problem.cluster.gpus, problem.load_cap
        slots = min(int(problem.cluster.slots_of[0]), experts)
        least = max(1, experts - (gpus - 1) * slots)
        whole, rest = divmod(experts, slots)
        return cls(
            experts=experts,
            gpus=gpus,
            slots=slots,
            least=least,
            load=sets.load,
            cap=cap,
            least_load=0 if cap is None else max(0, min(cap, int(sets.load.sum()) - (gpus - 1) * cap)),
            full=(whole * slots * (slots - 1) + rest * (rest - 1)) // 2 if rest else None,
            marks=experts if experts // least > gpus else 0,
        )


def _prices(problem: Problem) -> NDArray[np.int64]:
    """int64 [experts, experts]: w W of the docstring."""
    (sets,) = problem.workload.layers
    cluster = problem.cluster
    each_a_node = cluster.nodes > 1 and cluster.gpus_per_node == 1
    price = cluster.gpu_cost + (cluster.node_cost if each_a_node else 0)
    return price * sets.affinity(problem.set_weights(sets))


def _square(experts: int, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """float [experts, experts], symmetric with a zero diagonal, of a point of the matrix."""
    pair = np.triu_indices(experts, 1)
    y = np.zeros((experts, experts))
    y[pair] = x[: pair[0].size]
    return y + y.T


def _triangles(keys: NDArray[Any], *, experts: int, width: int) -> LazyRows:
    """The triangle rows of keys [rows, (i, j, k)] in a matrix of `width` columns."""
    from scipy.sparse import csr_array

    pair = np.triu_indices(experts, 1)
    at = np.zeros((experts, experts), np.int32)
    at[pair] = np.arange(pair[0].size)
    at += at.T
    i, j, k = keys.T
    count = len(keys)
    columns = np.stack([at[i, j], at[j, k], at[i, k]], axis=1)
    signs = np.tile([1.0, 1.0, -1.0], count)
    rows = csr_array((signs, (np.repeat(np.arange(count), 3), columns.ravel())), shape=(count, width))
    return LazyRows(keys.astype(np.int32), rows, np.full(count, -np.inf), np.ones(count))
