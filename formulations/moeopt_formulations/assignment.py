"""The textbook model: which GPU every expert sits on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from moeopt.formulation import unsupported_extras, unsupported_objective
from moeopt.placement import Placement
from moeopt.problem import Problem

if TYPE_CHECKING:
    from moeopt.matrix import Matrix


@dataclass(frozen=True)
class Assignment:
    """Any GPUs, cut; x[e,g] = 1: expert e is on GPU g, z[e,f,g] = 1: the pair e < f is together there.

    With W[e,f] the co-activation weight of a pair, prices w and v of a GPU and a node, slots m[g]:

        minimise    sum over e<f of  w W[e,f] (1 - sum_g z[e,f,g])  +  v W[e,f] (1 - sum_n z_node[e,f,n])
        once        sum_g x[e,g] = 1                           for every e
        slots       sum_e x[e,g] <= m[g]                       for every g
        loads       sum_e load[e] x[e,g] <= cap[g]             for every g, with a load tolerance
        together    z[e,f,g] <= x[e,g],  z[e,f,g] <= x[f,g]    for every e < f, g
        same node   z_node[e,f,n] <= x_node[e,n], x_node[f,n]  for every e < f, n;  x_node: sum of x over n

    x is binary; 0 <= z <= 1 is whole by itself, because W >= 0. A part of the objective that is zero for
    every placement (price 0, one node) is left out, with its z. Every relabelling of equal GPUs is another
    solution and x = 1/G costs nothing, so the relaxation says nothing: the model is the reference, not the
    tool.
    """

    name: ClassVar[str] = "assignment"
    summary: ClassVar[str] = (
        "textbook expert-to-GPU model; cut, GPUs may differ, two levels; small sizes only"
    )

    def supports(self, problem: Problem) -> str:
        return unsupported_extras(problem) or unsupported_objective(problem)

    def build(self, problem: Problem) -> Any:
        import pyomo.environ as pyo

        (sets,) = problem.workload.layers
        cluster = problem.cluster
        weight = sets.affinity(problem.set_weights(sets)).tolist()
        experts, gpus, nodes = range(sets.n_experts), range(cluster.gpus), range(cluster.nodes)
        pairs = [(e, f) for e in experts for f in experts if e < f]
        model = pyo.ConcreteModel(name=self.name)
        model.problem = problem
        model.x = pyo.Var(experts, gpus, domain=pyo.Binary)
        model.once = pyo.Constraint(experts, rule=lambda _, e: sum(model.x[e, g] for g in gpus) == 1)
        model.slots = pyo.Constraint(
            gpus, rule=lambda _, g: sum(model.x[e, g] for e in experts) <= int(cluster.slots_of[g])
        )
        if problem.load_caps is not None:
            load, caps = sets.load.tolist(), problem.load_caps.tolist()
            model.loads = pyo.Constraint(
                gpus, rule=lambda _, g: sum(load[e] * model.x[e, g] for e in experts) <= caps[g]
            )
        apart = 0
        if cluster.gpu_cost:
            model.z = pyo.Var(pairs, gpus, bounds=(0, 1))
            model.together = pyo.Constraint(
                pairs, gpus, [0, 1], rule=lambda _, e, f, g, s: model.z[e, f, g] <= model.x[(e, f)[s], g]
            )
            apart += cluster.gpu_cost * sum(
                weight[e][f] * (1 - sum(model.z[e, f, g] for g in gpus)) for e, f in pairs
            )
        if cluster.node_cost and cluster.nodes > 1:
            model.x_node = pyo.Expression(
                experts,
                nodes,
                rule=lambda _, e, n: sum(model.x[e, g] for g in gpus if cluster.node_of[g] == n),
            )
            model.z_node = pyo.Var(pairs, nodes, bounds=(0, 1))
            model.same_node = pyo.Constraint(
                pairs,
                nodes,
                [0, 1],
                rule=lambda _, e, f, n, s: model.z_node[e, f, n] <= model.x_node[(e, f)[s], n],
            )
            apart += cluster.node_cost * sum(
                weight[e][f] * (1 - sum(model.z_node[e, f, n] for n in nodes)) for e, f in pairs
            )
        model.cut = pyo.Objective(expr=apart)
        return model

    def read(self, model: Any) -> Placement:
        values = np.array([variable.value for variable in model.x.values()], dtype=np.float64)
        placement = self.placement(model.problem, values)
        if placement is None:
            raise ValueError("the values of the model do not put every expert on one GPU")
        return placement

    def matrix(self, problem: Problem) -> Matrix:
        from scipy.sparse import block_array, csr_array, eye_array, kron

        from moeopt.matrix import Matrix

        (sets,) = problem.workload.layers
        experts, gpus = sets.n_experts, problem.cluster.gpus
        first, second = np.triu_indices(experts, 1)
        members = eye_array(experts, format="csr")  # [experts, experts], times the GPUs of x
        blocks: list[list[Any]] = [
            [kron(members, np.ones((1, gpus)))],
            [kron(np.ones((1, experts)), eye_array(gpus))],
        ]
        lower = [np.ones(experts), np.full(gpus, -np.inf)]
        upper = [np.ones(experts), problem.cluster.slots_of.astype(float)]
        if problem.load_caps is not None:
            blocks.append([kron(sets.load[None, :].astype(float), eye_array(gpus))])
            lower.append(np.full(gpus, -np.inf))
            upper.append(problem.load_caps.astype(float))
        names = [f"x[{e},{g}]" for e in range(experts) for g in range(gpus)]
        levels = _levels(problem)
        for position, (symbol, _, group_of) in enumerate(levels):
            groups = int(group_of.max()) + 1
            inside = csr_array((np.ones(gpus), (group_of, np.arange(gpus))), shape=(groups, gpus))
            ties = first.size * groups
            for member in (first, second):
                row: list[Any] = [kron(-members[member], inside)] + [None] * len(levels)
                row[1 + position] = eye_array(ties)
                blocks.append(row)
            lower.append(np.full(2 * ties, -np.inf))
            upper.append(np.zeros(2 * ties))
            names += [
                f"{symbol}[{e},{f},{g}]"
                for e, f in zip(first.tolist(), second.tolist(), strict=True)
                for g in range(groups)
            ]
        cost, offset = self.costs(problem)
        full = [row + [None] * (1 + len(levels) - len(row)) for row in blocks]
        return Matrix(
            cost=cost.astype(float),
            offset=float(offset),
            lower=np.zeros(cost.size),
            upper=np.ones(cost.size),
            integer=np.arange(cost.size) < experts * gpus,
            rows=block_array(full, format="csr"),
            row_lower=np.concatenate(lower),
            row_upper=np.concatenate(upper),
            column_names=tuple(names),
        )

    def costs(self, problem: Problem) -> tuple[NDArray[np.int64], int]:
        (sets,) = problem.workload.layers
        weight = sets.affinity(problem.set_weights(sets))[np.triu_indices(sets.n_experts, 1)]
        parts = [np.zeros(sets.n_experts * problem.cluster.gpus, np.int64)]
        offset = 0
        for _, price, group_of in _levels(problem):
            parts.append(np.repeat(-price * weight, int(group_of.max()) + 1))
            offset += price * int(weight.sum())
        return np.concatenate(parts), offset

    def values(self, problem: Problem, placement: Placement) -> NDArray[np.float64]:
        gpu_of = placement.primary[0]
        first, second = np.triu_indices(gpu_of.size, 1)
        parts = [gpu_of[:, None] == np.arange(problem.cluster.gpus)]
        for _, _, group_of in _levels(problem):
            inside = group_of[gpu_of][:, None] == np.arange(int(group_of.max()) + 1)
            parts.append(inside[first] & inside[second])
        return np.concatenate([part.ravel() for part in parts]).astype(float)

    def placement(self, problem: Problem, x: NDArray[np.float64]) -> Placement | None:
        workload, gpus = problem.workload, problem.cluster.gpus
        on = x[: workload.n_experts * gpus].reshape(workload.n_experts, gpus) > 0.5
        if (on.sum(axis=1) != 1).any():
            return None
        return Placement.partition(
            on.argmax(axis=1)[None, :], problem.cluster, layer_ids=workload.layer_ids, model=workload.model
        )

    def proof(
        self, problem: Problem, *, multipliers: Sequence[int], keys: NDArray[np.int32]
    ) -> dict[str, Any]:
        """once: a number an expert; slots, load: a number a GPU; z, z_node: [e, f, g, member, number], not 0.

        member is 0 for the row that bounds z by x[e,g], 1 for x[f,g].
        """
        experts, gpus = problem.workload.n_experts, problem.cluster.gpus
        rest = list(multipliers)
        numbers: dict[str, Any] = {}
        for name, count in (("once", experts), ("slots", gpus), ("load", gpus)):
            if name != "load" or problem.load_caps is not None:
                numbers[name], rest = rest[:count], rest[count:]
        first, second = (side.tolist() for side in np.triu_indices(experts, 1))
        for symbol, _, group_of in _levels(problem):
            groups = int(group_of.max()) + 1
            rows = [
                (e, f, g, member)
                for member in (0, 1)
                for e, f in zip(first, second, strict=True)
                for g in range(groups)
            ]
            taken, rest = rest[: len(rows)], rest[len(rows) :]
            numbers[symbol] = [[*row, number] for row, number in zip(rows, taken, strict=True) if number]
        return numbers


def _levels(problem: Problem) -> list[tuple[str, int, NDArray[np.int64]]]:
    """(symbol, price, int64 [gpus] group of each GPU) of the levels that cost something."""
    cluster = problem.cluster
    levels = []
    if cluster.gpu_cost:
        levels.append(("z", cluster.gpu_cost, np.arange(cluster.gpus)))
    if cluster.node_cost and cluster.nodes > 1:
        levels.append(("z_node", cluster.node_cost, cluster.node_of))
    return levels
