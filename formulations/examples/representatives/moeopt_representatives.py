"""Asymmetric representatives: every group of experts is named after its smallest member."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from moeopt.formulation import unsupported_extras, unsupported_objective
from moeopt.placement import Placement
from moeopt.problem import Problem


@dataclass(frozen=True)
class Representatives:
    """Identical GPUs, cut; x[i,j] = 1: expert i is the smallest on the GPU of expert j >= i, so x[i,i] opens a group.

    A partition has one x: GPUs have no labels. z[i,j,k] = 1: j and k are both in the group of i < j < k. With
    W[j,k] the co-activation weight of a pair, w the price of a GPU (a node's included when every node is one GPU),
    E experts on G GPUs of m slots, least = max(1, E - (G-1) m) what the other GPUs cannot take:

        minimise    sum over j<k of  w W[j,k] (1 - x[j,k] - sum over i<j of z[i,j,k])
        once        sum over i<=j of x[i,j] = 1                                        for every j
        groups      sum_i x[i,i] <= G
        opened      x[i,j] <= x[i,i]                                                   for every i < j
        slots       least x[i,i] <= sum over j>=i of x[i,j] <= m x[i,i]                for every i
        loads       sum over j>=i of load[j] x[i,j] <= cap x[i,i]                      for every i, given a tolerance
        both        z[i,j,k] <= x[i,j],  z[i,j,k] <= x[i,k]                            for every i < j < k
        mates       max(0, least - 2) x[i,j] <= sum_k z[i,{j,k}] <= (m - 2) x[i,j]     for every i < j

    x is binary; 0 <= z <= 1 is whole where it earns something, because W >= 0. mates is slots times x[i,j].

    Source: M. Campêlo, V. Campos, R. Corrêa, On the asymmetric representatives formulation for the vertex coloring
    problem, Discrete Applied Mathematics 156 (2008); mates: H. Sherali, W. Adams, A hierarchy of relaxations between
    the continuous and convex hull representations for zero-one programming problems, SIAM J. Disc. Math. 3 (1990).
    """

    name: ClassVar[str] = "representatives"
    summary: ClassVar[str] = "groups named after their smallest expert; cut, identical GPUs, every row stated"

    def supports(self, problem: Problem) -> str:
        if reason := unsupported_extras(problem) or unsupported_objective(problem):
            return reason
        cluster = problem.cluster
        if not cluster.equal:
            return 'needs GPUs with equal slots and speeds: use "assignment" for unequal ones'
        if cluster.nodes > 1 and cluster.gpus_per_node > 1 and cluster.node_cost:
            return 'has no node term: use node_cost=0, or "assignment"'
        if problem.workload.n_experts < 2:
            return "needs two experts: one has nothing to be apart from"
        return ""

    def build(self, problem: Problem) -> Any:
        import pyomo.environ as pyo

        (sets,) = problem.workload.layers
        cluster, experts = problem.cluster, range(sets.n_experts)
        m = min(int(cluster.slots_of[0]), len(experts))
        least = max(1, len(experts) - (cluster.gpus - 1) * m)
        price = cluster.gpu_cost + (cluster.node_cost if cluster.nodes == cluster.gpus > 1 else 0)
        weight = (price * sets.affinity(problem.set_weights(sets))).tolist()
        pairs = [(j, k) for j in experts for k in experts if j < k]
        triples = [(i, j, k) for i, j in pairs for k in experts if j < k]
        model = pyo.ConcreteModel(name=self.name)
        model.problem = problem
        model.x = pyo.Var([(j, j) for j in experts] + pairs, domain=pyo.Binary)
        model.z = pyo.Var(triples, bounds=(0, 1))
        x, z = model.x, model.z

        def members(i: int) -> list[int]:
            return [j for j in experts if j >= i]

        def mates(i: int, j: int) -> Any:
            return sum(z[i, min(j, k), max(j, k)] for k in members(i + 1) if k != j)

        model.cut = pyo.Objective(
            expr=sum(weight[j][k] * (1 - x[j, k] - sum(z[i, j, k] for i in range(j))) for j, k in pairs)
        )
        model.once = pyo.Constraint(experts, rule=lambda _, j: sum(x[i, j] for i in range(j + 1)) == 1)
        model.groups = pyo.Constraint(expr=sum(x[i, i] for i in experts) <= cluster.gpus)
        model.opened = pyo.Constraint(pairs, rule=lambda _, i, j: x[i, j] <= x[i, i])
        model.least = pyo.Constraint(
            experts, rule=lambda _, i: least * x[i, i] <= sum(x[i, j] for j in members(i))
        )
        model.slots = pyo.Constraint(
            experts, rule=lambda _, i: sum(x[i, j] for j in members(i)) <= m * x[i, i]
        )
        if problem.load_cap is not None:
            load, cap = sets.load.tolist(), problem.load_cap
            model.loads = pyo.Constraint(
                experts, rule=lambda _, i: sum(load[j] * x[i, j] for j in members(i)) <= cap * x[i, i]
            )
        model.both = pyo.Constraint(triples, [0, 1], rule=lambda _, i, j, k, s: z[i, j, k] <= x[i, (j, k)[s]])
        model.mates = pyo.Constraint(pairs, rule=lambda _, i, j: mates(i, j) <= (m - 2) * x[i, j])
        model.mates_least = pyo.Constraint(
            pairs, rule=lambda _, i, j: max(0, least - 2) * x[i, j] <= mates(i, j)
        )
        return model

    def read(self, model: Any) -> Placement:
        workload = model.problem.workload
        smallest = np.full(workload.n_experts, -1)
        for (i, j), variable in model.x.items():
            if variable.value > 0.5:
                smallest[j] = i
        groups, gpu_of = np.unique(smallest, return_inverse=True)
        if groups[0] < 0 or groups.size > model.problem.cluster.gpus:
            raise ValueError(
                "the values of the model do not put every expert into one of at most as many groups as GPUs"
            )
        placement: Placement = model.problem.partition(gpu_of)
        return placement
