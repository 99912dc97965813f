"""Replicas with GPU labels: which GPUs hold every expert, and which of them each token touches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from moeopt.dispatch import Plan
from moeopt.dispatching import collected, interleaved, matched, spread_out
from moeopt.formulation import unsupported_extras
from moeopt.gatherings import demands
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.symmetry import alike

LARGEST_ROWS = 200_000


@dataclass(frozen=True)
class Replicated:
    """Any GPUs, fan-out, replicas; x[e,g] = 1: GPU g holds a copy of expert e.

    The tokens of a set s touch a set T of at most k GPUs: y[s,T] is the share of s that touches no GPU outside T.
    c[T] is the cost of the GPUs and nodes of T beyond the first.

        minimise   sum_s,T w[s] c[T] y[s,T]
        held       sum_g x[e,g] >= 1                           for every e
        slots      sum_e x[e,g] <= m[g]                        for every g
        copies     sum_e,g x[e,g] <= E + R
        once       sum_T y[s,T] = 1                            for every s
        serve      sum over T inside H of y[s,T] <= sum over g in H of x[e,g]     for every s, e in s, H of GPUs
        moves      sum over (e,g) not in the incumbent of x[e,g] <= B             with a budget of moves
        order      x[e,h] <= sum over f up to e of x[f,g]      for every e and GPUs g, h that are alike, g before h

    x is binary, 0 <= y. For whole x the right side of serve is 0, and forbids every T inside H, or at least 1, and
    follows from once: y ranges over the simplex of the T that hold all of s, and is whole at a vertex.

    With a load tolerance y counts tokens, whole numbers, of each set and each group v of families with one multiplier
    q, and t[s,v,e,g] are those of them whose expert e is served by GPU g; n[s,v] replaces 1 in once, q[v] c[T] is the
    cost of a token.

        serve      sum over T inside H of y[s,v,T] <= sum over g in H of t[s,v,e,g]     for every H
        all        sum_g t[s,v,e,g] = n[s,v]                   for every s, v, e in s
        host       t[s,v,e,g] <= n[s,v] x[e,g]
        loads      sum_s,v,e t[s,v,e,g] <= cap[g]              for every g

    This is a dispatch: for each e in s the tokens can be matched to GPUs of the T they touch exactly when every H has
    room (Hall), and the matchings of the members of a set do not depend on each other. So the k! G^k assignments of a
    set need no variables. The compact form with one fractional touch variable a GPU instead of y[s,T] is only a
    relaxation: copies on {1,2}, {2,3}, {1,3} cost it 1.5 GPUs where the truth is 2.

    Dominance: a token that touches more than k GPUs does not use some of them, and c grows with T, so only T of at most
    k GPUs are listed. Without a load tolerance nothing else matters, which is why t is not stated.
    `symmetry`: in some naming of GPUs that are alike (equal slots and speed, interchangeable nodes; no budget of
    moves) the first expert of each comes in their order, experts ordered by load; the other namings are cut off.
    """

    name: ClassVar[str] = "replicated"
    summary: ClassVar[str] = "replicas on any GPUs and two levels; exact fan-out and loads, small sizes only"
    symmetry: bool = True

    def supports(self, problem: Problem) -> str:
        if reason := unsupported_extras(problem, replicas=True, moves=True):
            return reason
        if problem.objective != "fan-out":
            return f"states the fan-out, not the {problem.objective}"
        (sets,) = problem.workload.layers
        if problem.cluster.gpus > 16:
            return f"lists sets of GPUs, which ends at 16; found {problem.cluster.gpus} GPUs"
        subsets = (1 << problem.cluster.gpus) - 2
        count = len(demands(problem, unit=1).sets) * (sets.top_k * subsets + 1)
        if count > LARGEST_ROWS:
            return (
                f"{count:,} rows for {len(sets):,} expert sets on {problem.cluster.gpus} GPUs, "
                f'the limit is {LARGEST_ROWS:,}: use "covers"'
            )
        return ""

    def build(self, problem: Problem) -> Any:
        import pyomo.environ as pyo

        wanted, cluster = demands(problem, unit=1), problem.cluster
        (sets,) = problem.workload.layers
        experts, gpus, demand = range(sets.n_experts), range(cluster.gpus), range(len(wanted.sets))
        members = sets.members[wanted.sets].tolist()
        tokens, weights = wanted.tokens.tolist(), wanted.weights.tolist()
        touched, subsets = _touched(problem), _subsets(cluster.gpus, cluster.gpus - 1)
        capped = problem.load_caps is not None
        model = pyo.ConcreteModel(name=self.name)
        model.problem = problem
        model.x = pyo.Var(experts, gpus, domain=pyo.Binary)
        model.y = pyo.Var(
            demand,
            range(len(touched)),
            domain=pyo.Integers if capped else pyo.Reals,
            bounds=lambda _, s, t: (0, tokens[s]),
        )
        model.fan_out = pyo.Objective(
            expr=sum(
                weights[s] * _cost(problem, T) * model.y[s, t] for s in demand for t, T in enumerate(touched)
            )
        )
        model.held = pyo.Constraint(experts, rule=lambda _, e: sum(model.x[e, g] for g in gpus) >= 1)
        model.slots = pyo.Constraint(
            gpus, rule=lambda _, g: sum(model.x[e, g] for e in experts) <= int(cluster.slots_of[g])
        )
        model.copies = pyo.Constraint(expr=sum(model.x.values()) <= sets.n_experts + problem.replicas)
        model.once = pyo.Constraint(
            demand, rule=lambda _, s: sum(model.y[s, t] for t in range(len(touched))) == tokens[s]
        )
        if capped:
            self._add_loads(model, problem, members, tokens)

        def serving(s: int, j: int, g: int) -> Any:
            return model.t[s, j, g] if capped else model.x[members[s][j], g]

        model.serve = pyo.Constraint(
            demand,
            range(sets.top_k),
            range(len(subsets)),
            rule=lambda _, s, j, h: (
                sum(model.y[s, t] for t, T in enumerate(touched) if subsets[h].issuperset(T))
                <= sum(serving(s, j, g) for g in subsets[h])
            ),
        )
        if problem.max_moves is not None and problem.incumbent is not None:
            held = problem.incumbent.hosts[0]
            new = [model.x[e, g] for e in experts for g in gpus if not held[e, g]]
            if new:
                model.moves = pyo.Constraint(expr=sum(new) <= problem.max_moves)
        elif self.symmetry and (pairs := _ordered(problem)):
            order = np.argsort(-sets.load, kind="stable").tolist()
            model.order = pyo.Constraint(
                experts,
                pairs,
                rule=lambda _, i, g, h: model.x[order[i], h] <= sum(model.x[f, g] for f in order[: i + 1]),
            )
        return model

    def _add_loads(self, model: Any, problem: Problem, members: list[list[int]], tokens: list[int]) -> None:
        import pyomo.environ as pyo

        demand, places, gpus = range(len(tokens)), range(len(members[0])), range(problem.cluster.gpus)
        caps = [] if problem.load_caps is None else problem.load_caps.tolist()
        model.t = pyo.Var(demand, places, gpus, domain=pyo.Integers, bounds=lambda _, s, j, g: (0, tokens[s]))
        model.all = pyo.Constraint(
            demand, places, rule=lambda _, s, j: sum(model.t[s, j, g] for g in gpus) == tokens[s]
        )
        model.host = pyo.Constraint(
            demand,
            places,
            gpus,
            rule=lambda _, s, j, g: model.t[s, j, g] <= tokens[s] * model.x[members[s][j], g],
        )
        model.loads = pyo.Constraint(
            gpus, rule=lambda _, g: sum(model.t[s, j, g] for s in demand for j in places) <= caps[g]
        )

    def read(self, model: Any) -> Placement | Plan:
        problem: Problem = model.problem
        (sets,), cluster, workload = problem.workload.layers, problem.cluster, problem.workload
        hosts = np.array([variable.value for variable in model.x.values()]).reshape(sets.n_experts, -1) > 0.5
        placement = Placement(
            hosts[None],
            hosts.argmax(axis=1)[None],
            cluster.nodes,
            cluster.slots,
            workload.layer_ids,
            workload.model,
        )
        if problem.load_caps is None:
            return placement
        families = len(workload.families)
        return Plan(placement, (collected(_rows(model), families=families, k=sets.top_k),))


def _subsets(gpus: int, most: int) -> list[frozenset[int]]:
    """Sets of at least one GPU and at most `most`."""
    return [frozenset(T) for size in range(1, most + 1) for T in combinations(range(gpus), size)]


def _touched(problem: Problem) -> list[frozenset[int]]:
    """The sets of GPUs that a token may touch."""
    return _subsets(problem.cluster.gpus, min(problem.cluster.gpus, problem.workload.top_k))


def _cost(problem: Problem, touched: frozenset[int]) -> int:
    cluster = problem.cluster
    nodes = {int(cluster.node_of[gpu]) for gpu in touched}
    return cluster.gpu_cost * (len(touched) - 1) + cluster.node_cost * (len(nodes) - 1)


def _ordered(problem: Problem) -> list[tuple[int, int]]:
    """Pairs of GPUs whose names may be exchanged, the first to come first: neighbours within each class.

    With a price on nodes: GPUs of one node, and the first GPUs of nodes that are alike GPU by GPU.
    """
    cluster = problem.cluster
    traits = [cluster.slots_of, cluster.speeds_of]
    if cluster.nodes == 1 or not cluster.node_cost:
        classes = alike(*traits)
    else:
        classes = alike(*traits, cluster.node_of)
        whole = alike(*(row for trait in traits for row in trait.reshape(cluster.nodes, -1).T))
        classes += [tuple(node * cluster.gpus_per_node for node in nodes) for nodes in whole]
    return [pair for members in classes for pair in pairwise(members)]


def _rows(model: Any) -> Iterator[tuple[int, tuple[int, ...], NDArray[np.int64]]]:
    """The dispatch: for every member of a set, the tokens of each touched set of GPUs matched to GPUs in it."""
    problem: Problem = model.problem
    (sets,) = problem.workload.layers
    wanted, touched, gpus = demands(problem, unit=1), _touched(problem), range(problem.cluster.gpus)
    inside = np.array([[gpu in T for gpu in gpus] for T in touched])
    for demand, s in enumerate(wanted.sets.tolist()):
        amounts = np.rint([model.y[demand, t].value for t in range(len(touched))]).astype(np.int64)
        queues = []
        for place in range(sets.top_k):
            room = np.rint([model.t[demand, place, g].value for g in gpus]).astype(np.int64)
            flow = matched(amounts, room, allowed=inside)
            queues.append([(g, int(flow[t, g])) for t in range(len(touched)) for g in gpus if flow[t, g]])
        counts = np.where(wanted.families[demand], sets.counts[s], 0)
        yield from ((s, chosen, dealt) for chosen, dealt in spread_out(interleaved(queues), counts))
