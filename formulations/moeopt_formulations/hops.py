"""Experts near the hosts that dispatch to them: the topology program, a flow problem in disguise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from moeopt.placement import Placement
from moeopt.topology import HopsProblem

if TYPE_CHECKING:
    from moeopt.matrix import Matrix


@dataclass(frozen=True)
class Hops:
    """All layers, one copy each; x[l,e,s] = 1: expert e of layer l is on server s, a GPU of the cluster.

    With activity p[l,e], hops d[l,s] from the dispatching host of the layer over s to the collecting one, and
    slots m[s] of a layer:

        minimise    sum over l,e,s of p[l,e] d[l,s] x[l,e,s]
        once        sum_s x[l,e,s] = 1                 for every l, e
        slots       sum_e x[l,e,s] <= m[s]             for every l, s
        memory      sum over l,e of x[l,e,s] <= c      for every s, when it is limited

    This is a minimum-cost flow, expert - (layer, server) - server, so every vertex of the relaxation is whole: the
    linear program is the integer program, for any p and d, and needs no branching. Without memory the layers are
    apart, and sorting solves each: busiest experts to the nearest slots (rearrangement inequality).

    Source: arXiv 2508.09229, whose ILP has p = 1 and whose ILPLoad has p measured.
    """

    name: ClassVar[str] = "hops"
    states: ClassVar[str] = "moeopt.topology.HopsProblem"
    summary: ClassVar[str] = (
        "experts near the hosts of their layer; a minimum-cost flow, linear program exact"
    )

    def supports(self, problem: Any) -> str:
        if not isinstance(problem, HopsProblem):
            return f"states a HopsProblem, found {type(problem).__name__}: see moeopt.topology"
        return ""

    def build(self, problem: HopsProblem) -> Any:
        import pyomo.environ as pyo

        cluster, p, d = problem.cluster, problem.activity.tolist(), problem.hops.tolist()
        layers, experts, servers = range(problem.n_layers), range(problem.n_experts), range(cluster.gpus)
        model = pyo.ConcreteModel(name=self.name)
        model.problem = problem
        x = model.x = pyo.Var(layers, experts, servers, domain=pyo.Binary)
        model.hops = pyo.Objective(expr=sum(p[i][e] * d[i][s] * x[i, e, s] for i, e, s in x))
        model.once = pyo.Constraint(
            layers, experts, rule=lambda _, i, e: sum(x[i, e, s] for s in servers) == 1
        )
        model.slots = pyo.Constraint(
            layers, servers, rule=lambda _, i, s: sum(x[i, e, s] for e in experts) <= int(cluster.slots_of[s])
        )
        if problem.memory is not None:
            model.memory = pyo.Constraint(
                servers,
                rule=lambda _, s: sum(x[i, e, s] for i in layers for e in experts) <= problem.memory,
            )
        return model

    def read(self, model: Any) -> Placement:
        values = np.array([variable.value for variable in model.x.values()], dtype=np.float64)
        placement = self.placement(model.problem, values)
        if placement is None:
            raise ValueError("the values of the model do not put every expert on one server")
        return placement

    def matrix(self, problem: HopsProblem) -> Matrix:
        """The standard form, built in array arithmetic."""
        from scipy.sparse import eye_array, kron, vstack

        from moeopt.matrix import Matrix

        layers, experts, servers = problem.n_layers, problem.n_experts, problem.cluster.gpus
        per_server = eye_array(servers)
        blocks = [
            kron(eye_array(layers * experts), np.ones((1, servers))),
            kron(eye_array(layers), kron(np.ones((1, experts)), per_server)),
        ]
        upper = [np.ones(layers * experts), np.tile(problem.cluster.slots_of, layers).astype(float)]
        if problem.memory is not None:
            blocks.append(kron(np.ones((1, layers * experts)), per_server))
            upper.append(np.full(servers, float(problem.memory)))
        rows = vstack(blocks, format="csr")
        count = layers * experts * servers
        return Matrix(
            cost=self.costs(problem)[0].astype(float),
            lower=np.zeros(count),
            upper=np.ones(count),
            integer=np.ones(count, dtype=bool),
            rows=rows,
            row_lower=np.where(np.arange(rows.shape[0]) < layers * experts, 1.0, -np.inf),
            row_upper=np.concatenate(upper),
            column_names=tuple(
                f"x[{i},{e},{s}]" for i in range(layers) for e in range(experts) for s in range(servers)
            ),
        )

    def costs(self, problem: HopsProblem) -> tuple[NDArray[np.int64], int]:
        """int64 [columns] and the constant, 0: the objective in exact integers."""
        return (problem.activity[:, :, None] * problem.hops[:, None, :]).ravel(), 0

    def values(self, problem: HopsProblem, placement: Placement) -> NDArray[np.float64]:
        """float [columns]: the placement as a point of `matrix`."""
        on = placement.primary[..., None] == np.arange(problem.cluster.gpus)
        return np.asarray(on.ravel(), float)

    def placement(self, problem: HopsProblem, x: NDArray[np.float64]) -> Placement | None:
        """The placement that a point stands for; None when an expert is not on one server."""
        on = x.reshape(problem.n_layers, problem.n_experts, problem.cluster.gpus) > 0.5
        if (on.sum(axis=2) != 1).any():
            return None
        return problem.partition(on.argmax(axis=2))
