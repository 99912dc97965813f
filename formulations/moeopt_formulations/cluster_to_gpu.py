"""Which GPU each given group of experts gets, layer by layer (MoETuner's second program)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from moeopt.labels import LabelProblem
from moeopt.placement import Placement


@dataclass(frozen=True)
class ClusterToGpu:
    """Groups are given, GPUs chosen; y[l,c,g] = 1: group c of layer l is on GPU g.

    With T[l,c,d] tokens from group c to group d of the next layer, prices p and q of another GPU and node, G
    GPUs, M on a node, s[l,c,d,g] = 1: c of layer l and d of layer l+1 share GPU g, u[l,c,d,n] = 1: they share
    node n, and D[l,c,d] = p (1 - sum_g s[l,c,d,g]) + q (1 - sum_n u[l,c,d,n]) the price of the pair:

        minimise    sum_l t[l]  (tail)    or    sum over l,c,d of T[l,c,d] D[l,c,d]  (total)
        tail        t[l] >= T[l,c,d] D[l,c,d]                             where T[l,c,d] > 0;  t[l] >= floor[l]
        one         sum_g y[l,c,g] = 1,  sum_c y[l,c,g] = 1               for every l, c;  for every l, g
        fits        y[l,c,g] = 0                                          where group c has more experts than g slots
        memory      sum over l,c of size[l,c] y[l,c,g] <= memory          for every g, when it is limited
        same        sum_d s[l,c,d,g] = y[l,c,g],  sum_c s[l,c,d,g] = y[l+1,d,g]        for every l, c, d, g
        node        sum_d u[l,c,d,n] = M v[l,c,n],  sum_c u[l,c,d,n] = M v[l+1,d,n]    for every l, c, d, n
        both        u[l,c,d,n] <= v[l,c,n],  u[l,c,d,n] <= v[l+1,d,n],  sum over g in n of s[l,c,d,g] <= u[l,c,d,n]
        order       1 + sum_c c y[0,c,g] <= sum_c c y[0,c,h]              for neighbours g, h, when slots are equal

    v[l,c,n] sums y over the GPUs of node n. y is binary, 0 <= s, u <= 1 are whole by themselves. What has no price is
    left out; when every GPU is a node, p + q is the price of a GPU and u is left out. Neighbours are GPUs that follow
    each other on a node, and the first GPUs of nodes that follow each other (without u: all GPUs in turn, so that
    group c of the first layer is on GPU c). A group can meet one group on its GPU and M on its node:
    floor[l] is the larger of p times the second largest and p + q times the (M+1)st largest T of any group.

    Where no memory binds (groups of equal size never meet the limit) and slots are equal, only what is on a node
    matters, for any matching of the groups that a node holds in two layers can be had on its GPUs: a shortest path
    over the contents of nodes, 70 of them for 2 nodes of 4. Without u there is one content, and the steps are
    independent and easy: the total is an assignment problem a step and equals this relaxation, the tail is its floor,
    found by sorting.

    Source: MoETuner, arXiv 2502.06643, second integer program, which multiplies y by y for every pair of GPUs.
    """

    name: ClassVar[str] = "cluster-to-gpu"
    states: ClassVar[str] = "moeopt.labels.LabelProblem"
    summary: ClassVar[str] = "GPUs for given groups of experts; dearest pair or all traffic (MoETuner)"

    def supports(self, problem: Any) -> str:
        if not isinstance(problem, LabelProblem):
            return f"states a LabelProblem, found {type(problem).__name__}: see moeopt.labels"
        return ""

    def build(self, problem: LabelProblem) -> Any:
        import pyomo.environ as pyo

        cluster, size = problem.cluster, problem.sizes.tolist()
        layers, steps, gpus = range(problem.n_layers), range(problem.n_layers - 1), range(cluster.gpus)
        nodes, slots, p, q = range(cluster.nodes), cluster.slots_of.tolist(), *_prices(problem)
        traffic, on_node = problem.traffic.tolist(), cluster.gpus_per_node
        members = [range(n * on_node, (n + 1) * on_node) for n in nodes]

        model = pyo.ConcreteModel(name=self.name)
        model.problem = problem
        y = model.y = pyo.Var(
            layers, gpus, gpus, domain=pyo.Binary, bounds=lambda _, i, c, g: (0, int(size[i][c] <= slots[g]))
        )
        model.one_gpu = pyo.Constraint(layers, gpus, rule=lambda _, i, c: sum(y[i, c, g] for g in gpus) == 1)
        model.one_group = pyo.Constraint(
            layers, gpus, rule=lambda _, i, g: sum(y[i, c, g] for c in gpus) == 1
        )
        if problem.memory is not None:
            model.memory = pyo.Constraint(
                gpus,
                rule=lambda _, g: (
                    sum(size[i][c] * y[i, c, g] for i in layers for c in gpus) <= problem.memory
                ),
            )
        if p:
            s = model.s = pyo.Var(steps, gpus, gpus, gpus, bounds=(0, 1))
            model.same_from = pyo.Constraint(
                steps, gpus, gpus, rule=lambda _, i, c, g: sum(s[i, c, d, g] for d in gpus) == y[i, c, g]
            )
            model.same_to = pyo.Constraint(
                steps, gpus, gpus, rule=lambda _, i, d, g: sum(s[i, c, d, g] for c in gpus) == y[i + 1, d, g]
            )
        if q:
            v = model.v = pyo.Expression(
                layers, gpus, nodes, rule=lambda _, i, c, n: sum(y[i, c, g] for g in members[n])
            )
            u = model.u = pyo.Var(steps, gpus, gpus, nodes, bounds=(0, 1))
            model.node_from = pyo.Constraint(
                steps,
                gpus,
                nodes,
                rule=lambda _, i, c, n: sum(u[i, c, d, n] for d in gpus) == on_node * v[i, c, n],
            )
            model.node_to = pyo.Constraint(
                steps,
                gpus,
                nodes,
                rule=lambda _, i, d, n: sum(u[i, c, d, n] for c in gpus) == on_node * v[i + 1, d, n],
            )
            model.both = pyo.Constraint(
                steps,
                gpus,
                gpus,
                nodes,
                [0, 1],
                rule=lambda _, i, c, d, n, end: u[i, c, d, n] <= v[i + end, (c, d)[end], n],
            )
            if p:
                model.nested = pyo.Constraint(
                    steps,
                    gpus,
                    gpus,
                    nodes,
                    rule=lambda _, i, c, d, n: sum(s[i, c, d, g] for g in members[n]) <= u[i, c, d, n],
                )

        def price(i: int, c: int, d: int) -> Any:
            apart = p * (1 - sum(s[i, c, d, g] for g in gpus)) if p else 0
            return apart + (q * (1 - sum(u[i, c, d, n] for n in nodes)) if q else 0)

        pairs = [tuple(pair) for pair in np.argwhere(problem.traffic > 0).tolist() if p or q]
        if problem.measure == "tail":
            bounds = list(
                zip(_floor(problem), ((p + q) * problem.traffic.max(axis=(1, 2))).tolist(), strict=True)
            )
            t = model.t = pyo.Var(steps, bounds=lambda _, i: bounds[i])
            model.tail = pyo.Constraint(
                pairs, rule=lambda _, i, c, d: t[i] >= traffic[i][c][d] * price(i, c, d)
            )
            model.way = pyo.Objective(expr=sum(t.values()))
        else:
            model.way = pyo.Objective(expr=sum(traffic[i][c][d] * price(i, c, d) for i, c, d in pairs))
        if cluster.equal:
            model.order = pyo.Constraint(
                _neighbours(problem),
                rule=lambda _, g, h: (
                    1 + sum(c * y[0, c, g] for c in gpus) <= sum(c * y[0, c, h] for c in gpus)
                ),
            )
        return model

    def read(self, model: Any) -> Placement:
        problem: LabelProblem = model.problem
        gpus = problem.cluster.gpus
        values = np.array([variable.value for variable in model.y.values()], dtype=np.float64)
        on = values.reshape(problem.n_layers, gpus, gpus) > 0.5
        if (on.sum(axis=1) != 1).any() or (on.sum(axis=2) != 1).any():
            raise ValueError("the values of the model do not give every group a GPU of its own")
        return problem.labelled(on.argmax(axis=2))


def _prices(problem: LabelProblem) -> tuple[int, int]:
    """p and q of the docstring: q is 0 where no variables u are needed."""
    cluster = problem.cluster
    if cluster.nodes == 1:
        return cluster.gpu_cost, 0
    if cluster.gpus_per_node == 1:
        return cluster.gpu_cost + cluster.node_cost, 0
    return cluster.gpu_cost, cluster.node_cost


def _neighbours(problem: LabelProblem) -> list[tuple[int, int]]:
    """Pairs (g, h) of GPUs of which the first gets the lower group of the first layer."""
    cluster, (_, q) = problem.cluster, _prices(problem)
    on_node = cluster.gpus_per_node if q else cluster.gpus
    inside = [(g, g + 1) for g in range(cluster.gpus - 1) if (g + 1) % on_node]
    return inside + [(g - on_node, g) for g in range(on_node, cluster.gpus, on_node)]


def _floor(problem: LabelProblem) -> list[int]:
    """The least tail of each step, whatever the others do."""
    p, q = _prices(problem)
    least = p * _beyond(problem.traffic, 1)
    if q:
        least = np.maximum(least, (p + q) * _beyond(problem.traffic, problem.cluster.gpus_per_node))
    return [int(value) for value in least]


def _beyond(traffic: NDArray[np.int64], partners: int) -> NDArray[np.int64]:
    """int64 [layers - 1]: the most tokens that some group exchanges with all but its `partners` best partners."""
    if traffic.shape[1] <= partners:
        return np.zeros(len(traffic), np.int64)
    onward, back = (np.sort(traffic, axis=axis).take(-1 - partners, axis=axis).max(axis=1) for axis in (2, 1))
    return np.asarray(np.maximum(onward, back), np.int64)
