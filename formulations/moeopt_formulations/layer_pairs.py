"""Several layers without labels: which experts of a layer, and of it and the next, share a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from moeopt.cliques import checked_triangles
from moeopt.flow import FlowProblem
from moeopt.formulation import LazyRows
from moeopt.placement import Placement

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from moeopt.matrix import Matrix

_BROKEN = 1e-6  # violation above which a triangle counts as broken; HiGHS keeps rows to 1e-7
_MOST = 4_000  # triangles returned at once


@dataclass(frozen=True)
class LayerPairs:
    """Identical GPUs, every slot taken, no homes; y[i,j] = 1: experts i < j share a GPU. GPU labels are gone.

    i numbers the experts of all layers, layer l from l E on, and y is stated for pairs in one layer or in two
    consecutive ones: near pairs. With F[i,j] transfers, 0 inside a layer, price p of another GPU, m slots:

        minimise    sum over near i<j of  p F[i,j] (1 - y[i,j])
        triangle    y[i,j] + y[j,k] - y[i,k] <= 1       for i < k and every other j, all three pairs near
        slots       [l is i's] + sum over j in l of y[i,j] = m            for every i and its own or a next layer l
        loads       load[i] [l is i's] + sum over j in l of load[j] y[i,j] between T[l] - (G-1) cap[l] and cap[l],
                    for every i and its own or a next layer l, with a load tolerance; T[l]: load of the layer

    Groups of consecutive layers are matched one to one, for each holds m experts of either: labels run on from the
    first layer to the last, whatever pairs further apart would say. The relaxation with all triangles is within a
    per cent of the optimum, where that of x[l,e,g] keeps every expert's m best partners together.

    Source: ExFlow's problem, arXiv 2401.08383, on the clique partition polytope of Grötschel and Wakabayashi,
    Mathematical Programming 45 (1989); the combination is ours.
    """

    name: ClassVar[str] = "layer-pairs"
    states: ClassVar[str] = "moeopt.flow.FlowProblem"
    summary: ClassVar[str] = (
        "all layers at once without labels, lazily separated triangles; identical full GPUs"
    )

    def supports(self, problem: Any) -> str:
        if not isinstance(problem, FlowProblem):
            return f"states a FlowProblem, found {type(problem).__name__}: see moeopt.flow"
        cluster = problem.cluster
        if problem.home is not None:
            return 'has no homes, which tell GPUs apart: use "layers"'
        if not cluster.equal:
            return 'needs GPUs alike, slots and speeds: use "layers"'
        if (taken := cluster.gpus * int(cluster.slots_of[0])) != problem.n_experts:
            return f'needs every slot taken, {problem.n_experts} experts have {taken} slots: use "layers"'
        if cluster.node_cost and cluster.nodes > 1 and cluster.gpus_per_node > 1:
            return 'has no node term: use node_cost=0, or "layers"'
        if problem.n_experts < 2:
            return "needs two experts: one has nothing to be apart from"
        return ""

    def build(self, problem: FlowProblem) -> Any:
        import pyomo.environ as pyo

        near, slots = _Near.of(problem), int(problem.cluster.slots_of[0])
        cost = self.costs(problem)[0].tolist()
        pairs = [tuple(pair) for pair in np.stack([near.first, near.second], axis=1).tolist()]
        model = pyo.ConcreteModel(name=self.name)
        model.problem = problem
        model.y = pyo.Var(pairs, domain=pyo.Binary)

        def y(i: int, j: int) -> Any:
            return model.y[min(i, j), max(i, j)]

        model.travel = pyo.Objective(
            expr=sum(-price * (1 - y(*pair)) for pair, price in zip(pairs, cost, strict=True))
        )
        model.triangle = pyo.Constraint(
            [tuple(key) for key in near.triangles().tolist()],
            rule=lambda _, i, j, k: y(i, j) + y(j, k) - y(i, k) <= 1,
        )
        seen = [(i, layer) for i in range(near.count) for layer in near.layers_of(i)]
        model.slots = pyo.Constraint(
            seen,
            rule=lambda _, i, layer: (
                near.own(i, layer) + sum(y(i, j) for j in near.others(i, layer)) == slots
            ),
        )
        if problem.load is not None and problem.load_caps is not None:
            load, caps, least = (
                problem.load.ravel().tolist(),
                problem.load_caps[:, 0].tolist(),
                near.least_load(problem),
            )

            def loads(_: Any, i: int, layer: int) -> Any:
                others = [j for j in near.others(i, layer) if load[j]]
                if not others:  # the row has no variable
                    return pyo.Constraint.Skip
                served = load[i] * near.own(i, layer) + sum(load[j] * y(i, j) for j in others)
                return pyo.inequality(least[layer], served, caps[layer])

            model.loads = pyo.Constraint(seen, rule=loads)
        return model

    def read(self, model: Any) -> Placement:
        values = np.array([variable.value for variable in model.y.values()], dtype=np.float64)
        placement = self.placement(model.problem, values)
        if placement is None:
            raise ValueError(
                "the values of the model are no partition of every layer that runs on to the next"
            )
        return placement

    def matrix(self, problem: FlowProblem) -> Matrix:
        """The standard form without the triangles."""
        from scipy.sparse import coo_array, vstack

        from moeopt.matrix import Matrix

        near, slots = _Near.of(problem), float(problem.cluster.slots_of[0])
        one, other = np.append(near.first, near.second), np.append(near.second, near.first)
        column = np.tile(np.arange(near.first.size), 2)
        # A row for every expert and layer; those of layers further apart have no pair and are dropped.
        size = (near.count * problem.n_layers, near.first.size)
        row = one * problem.n_layers + near.layer[other]
        seen = np.unique(row)
        own = (near.layer[seen // problem.n_layers] == seen % problem.n_layers).astype(float)
        blocks = [coo_array((np.ones(row.size), (row, column)), shape=size).tocsr()[seen]]
        lower, upper = [slots - own], [slots - own]
        if problem.load is not None and problem.load_caps is not None:
            load = problem.load.ravel().astype(float)
            blocks.append(coo_array((load[other], (row, column)), shape=size).tocsr()[seen])
            mine = own * load[seen // problem.n_layers]
            lower.append(np.array(near.least_load(problem), float)[seen % problem.n_layers] - mine)
            upper.append(problem.load_caps[seen % problem.n_layers, 0] - mine)
        cost, offset = self.costs(problem)
        return Matrix(
            cost=cost.astype(float),
            offset=float(offset),
            lower=np.zeros(cost.size),
            upper=np.ones(cost.size),
            integer=np.ones(cost.size, dtype=bool),
            rows=vstack(blocks, format="csr"),
            row_lower=np.concatenate(lower),
            row_upper=np.concatenate(upper),
            column_names=tuple(
                f"y[{i},{j}]" for i, j in zip(near.first.tolist(), near.second.tolist(), strict=True)
            ),
        )

    def costs(self, problem: FlowProblem) -> tuple[NDArray[np.int64], int]:
        """int64 [columns] and the constant: the objective in exact integers."""
        near, cluster, experts = _Near.of(problem), problem.cluster, problem.n_experts
        each_a_node = cluster.nodes > 1 and cluster.gpus_per_node == 1
        price = cluster.gpu_cost + (cluster.node_cost if each_a_node else 0)
        step = near.layer[near.first]
        across = near.layer[near.second] > step
        moved = np.zeros(near.first.size, np.int64)
        moved[across] = problem.flow[
            step[across], near.first[across] % experts, near.second[across] % experts
        ]
        return -price * moved, int(price * moved.sum())

    def values(self, problem: FlowProblem, placement: Placement) -> NDArray[np.float64]:
        """float [columns]: the placement as a point of the matrix; admissible or not."""
        near, gpu_of = _Near.of(problem), placement.primary.ravel()
        return np.asarray(gpu_of[near.first] == gpu_of[near.second], float)

    def placement(self, problem: FlowProblem, x: NDArray[np.float64]) -> Placement | None:
        """The placement that a point stands for, GPUs in order of their first expert; None when it stands for none."""
        near = _Near.of(problem)
        layers, experts = problem.n_layers, problem.n_experts
        together = near.square(x) > 0.5
        np.fill_diagonal(together, True)
        blocks = together.reshape(layers, experts, layers, experts)
        first = np.argmax(blocks[0, :, 0], axis=1)  # the smallest member of the group
        gpu_of = np.zeros((layers, experts), np.int64)
        gpu_of[0] = np.unique(first, return_inverse=True)[1]
        for layer in range(1, layers):
            gpu_of[layer] = gpu_of[layer - 1][np.argmax(blocks[layer, :, layer - 1], axis=1)]
        label = gpu_of.ravel()
        same = label[near.first] == label[near.second]
        if gpu_of.max() >= problem.cluster.gpus or (same != together[near.first, near.second]).any():
            return None
        return problem.partition(gpu_of)

    def separate(self, problem: FlowProblem, point: NDArray[np.float64]) -> LazyRows:
        """The most broken triangles at a point, most broken first; empty only when every triangle holds."""
        near = _Near.of(problem)
        y = near.square(point)
        found: list[NDArray[np.intp]] = []
        excess: list[NDArray[np.float64]] = []
        for j in range(near.count):  # one centre at a time, and only what is near it
            around = np.flatnonzero(near.touches[j])
            over = y[around, j, None] + y[j, around] - y[np.ix_(around, around)] - 1.0
            i, k = np.nonzero(np.triu((over > _BROKEN) & near.touches[np.ix_(around, around)], 1))
            found.append(np.stack([around[i], np.full(i.size, j), around[k]], axis=1))
            excess.append(over[i, k])
        keys, broken = np.concatenate(found), np.concatenate(excess)
        return near.rows(keys[np.argsort(-broken, kind="stable")[:_MOST]])

    def lazy(self, problem: FlowProblem, keys: NDArray[Any] | None = None) -> LazyRows:
        """Every triangle, for tests at small sizes, or those of the keys."""
        near = _Near.of(problem)
        if keys is None:
            return near.rows(near.triangles())
        i, j, k = checked_triangles(keys, near.count).T
        apart = ~(near.touches[i, j] & near.touches[j, k] & near.touches[i, k])
        if apart.any():
            raise ValueError(f"{keys[apart][0].tolist()} is no triangle of neighbouring layers")
        return near.rows(np.asarray(keys))


@dataclass(frozen=True, eq=False)
class _Near:
    """Near pairs: int64 [pairs] first < second, int64 [experts of all] layer, bool [all, all] touches, no diagonal."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    layer: NDArray[np.int64]
    touches: NDArray[np.bool_]

    @classmethod
    def of(cls, problem: FlowProblem) -> _Near:
        layer = np.repeat(np.arange(problem.n_layers), problem.n_experts)
        touches = np.abs(layer[:, None] - layer) <= 1
        np.fill_diagonal(touches, False)
        first, second = np.nonzero(np.triu(touches))
        return cls(first, second, layer, touches)

    @property
    def count(self) -> int:
        return self.layer.size

    def layers_of(self, i: int) -> list[int]:
        return [layer for layer in range(int(self.layer[-1]) + 1) if abs(int(self.layer[i]) - layer) <= 1]

    def own(self, i: int, layer: int) -> int:
        return int(self.layer[i] == layer)

    def others(self, i: int, layer: int) -> list[int]:
        members: list[int] = np.flatnonzero(self.touches[i] & (self.layer == layer)).tolist()
        return members

    def least_load(self, problem: FlowProblem) -> list[int]:
        """What the other GPUs cannot serve of each layer."""
        if problem.load is None or problem.load_caps is None:
            return [0] * problem.n_layers
        cap = problem.load_caps[:, 0]
        rest = problem.load.sum(axis=1) - (problem.cluster.gpus - 1) * cap
        least: list[int] = np.clip(rest, 0, cap).tolist()
        return least

    def square(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """float [all, all]: the values y, symmetric, 0 where a pair is not near."""
        y = np.zeros((self.count, self.count))
        y[self.first, self.second] = x
        return y + y.T

    def triangles(self) -> NDArray[np.intp]:
        """int [rows, (i, j, k)]: i < k, any other j, all pairs near."""
        inside = self.touches[:, :, None] & self.touches[None] & self.touches[:, None, :]
        i, j, k = np.nonzero(inside)
        return np.stack([i, j, k], axis=1)[i < k]

    def rows(self, keys: NDArray[Any]) -> LazyRows:
        """The triangle rows of keys [rows, (i, j, k)]."""
        from scipy.sparse import csr_array

        at = np.zeros(self.touches.shape, np.int32)
        at[self.first, self.second] = np.arange(self.first.size)
        at += at.T
        i, j, k = keys.T
        count = len(keys)
        columns = np.stack([at[i, j], at[j, k], at[i, k]], axis=1)
        signs = np.tile([1.0, 1.0, -1.0], count)
        shape = (count, self.first.size)
        rows: csr_array = csr_array((signs, (np.repeat(np.arange(count), 3), columns.ravel())), shape=shape)
        return LazyRows(keys.astype(np.int32), rows, np.full(count, -np.inf), np.ones(count))
