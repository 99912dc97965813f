"""Few activated experts on every GPU, batch by batch: where copies are, and which of them serves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from moeopt.activation import Activation, ActivationProblem
from moeopt.symmetry import alike, first_rows


@dataclass(frozen=True)
class Activated:
    """h[e,g] = 1: GPU g holds a copy of expert e; s[b,e,g]: it serves e in batch b; t[b]: most experts of a GPU.

    With A[b] the experts that batch b activates, slots m[g] and R replicas:

        minimise    sum_b t[b]                      one t for all batches when only the worst counts
        held        sum_g h[e,g] >= 1                            for every e; = 1 without replicas
        slots       sum_e h[e,g] <= m[g]                         for every g
        replicas    sum_e,g h[e,g] <= E + R                      with replicas
        served      sum_g s[b,e,g] = 1                           for every b, e in A[b]
        copies      s[b,e,g] <= h[e,g]                           for every b, e in A[b], g
        most        sum over e in A[b] of s[b,e,g] <= t[b]       for every b, g
        first       sum over g' >= g of h[e,g'] <= sum over earlier f of h[f,g-1]    without replicas,
                    h[e,g] <= h[e,g-1] + sum over earlier f of h[f,g-1]              with them,
                    for every e and GPUs g - 1, g of equal slots

    h is binary and t whole, at least |A[b]| / G rounded up; s is whole by itself, a flow from experts to GPUs once
    h and t are. Without replicas s is h; a placement that is given leaves s and t, batch by batch a small flow.
    first numbers GPUs of equal slots by the first expert they hold, experts activated by most batches first.
    The relaxation spreads every expert evenly and proves |A[b]| / G rounded up, and no more.

    Source: METRO, which chooses the copies greedily; here placement and choice are exact.
    """

    name: ClassVar[str] = "activated"
    states: ClassVar[str] = "moeopt.activation.ActivationProblem"
    summary: ClassVar[str] = (
        "fewest activated experts on the fullest GPU of every decode batch; copies allowed"
    )

    def supports(self, problem: object) -> str:
        if not isinstance(problem, ActivationProblem):
            return f"states an ActivationProblem, found {type(problem).__name__}: see moeopt.activation"
        return ""

    def build(self, problem: ActivationProblem) -> Any:
        import pyomo.environ as pyo

        experts, gpus = range(problem.n_experts), range(problem.cluster.gpus)
        active = [np.flatnonzero(row).tolist() for row in problem.batches]
        batches = range(len(active))
        model = pyo.ConcreteModel(name=self.name)
        model.problem = problem
        if problem.hosts is None:
            _state_placement(model, problem)
        hosts_of = [
            list(gpus) if problem.hosts is None else np.flatnonzero(problem.hosts[e]).tolist()
            for e in experts
        ]
        if problem.hosts is None and not problem.replicas:
            serves = {(b, e, g): model.h[e, g] for b in batches for e in active[b] for g in gpus}
        else:
            model.s = pyo.Var(
                [(b, e, g) for b in batches for e in active[b] for g in hosts_of[e]], bounds=(0, 1)
            )
            serves = dict(model.s.items())
            model.served = pyo.Constraint(
                [(b, e) for b in batches for e in active[b]],
                rule=lambda _, b, e: sum(model.s[b, e, g] for g in hosts_of[e]) == 1,
            )
            if problem.hosts is None:
                model.copies = pyo.Constraint(
                    list(model.s), rule=lambda _, b, e, g: model.s[b, e, g] <= model.h[e, g]
                )
        counts = [max(map(len, active))] if problem.worst else [len(members) for members in active]
        model.t = pyo.Var(
            range(len(counts)),
            domain=pyo.Integers,
            bounds=lambda _, b: (-(-counts[b] // len(gpus)), counts[b]),
        )
        model.cost = pyo.Objective(expr=sum(model.t.values()))
        model.most = pyo.ConstraintList()
        for b in batches:
            for g in gpus:
                if served := [serves[b, e, g] for e in active[b] if (b, e, g) in serves]:
                    model.most.add(sum(served) - model.t[0 if problem.worst else b] <= 0)
        return model

    def read(self, model: Any) -> Activation:
        """Hosts from the model, or as given; then the best copies for them, which are a flow and exact."""
        problem: ActivationProblem = model.problem
        if problem.hosts is not None:
            return problem.serve(problem.hosts)
        values = np.array([variable.value for variable in model.h.values()], dtype=np.float64)
        hosts = values.reshape(problem.n_experts, problem.cluster.gpus) > 0.5
        if not hosts.any(axis=1).all():
            raise ValueError("the values of the model do not put every expert on a GPU")
        return problem.serve(hosts)


def _state_placement(model: Any, problem: ActivationProblem) -> None:
    """h and its rows."""
    import pyomo.environ as pyo

    slots = problem.cluster.slots_of
    experts, gpus = range(problem.n_experts), range(problem.cluster.gpus)
    model.h = pyo.Var(experts, gpus, domain=pyo.Binary)
    h = model.h
    model.slots = pyo.Constraint(gpus, rule=lambda _, g: sum(h[e, g] for e in experts) <= int(slots[g]))
    model.first = pyo.ConstraintList()
    often_first = np.argsort(-problem.batches.sum(axis=0), kind="stable").tolist()
    rows = first_rows(alike(slots), often_first)
    if not problem.replicas:
        model.held = pyo.Constraint(experts, rule=lambda _, e: sum(h[e, g] for g in gpus) == 1)
        for e, later, earlier, before in rows:
            model.first.add(sum(h[e, g] for g in later) <= sum(h[f, before] for f in earlier))
        return
    model.held = pyo.Constraint(experts, rule=lambda _, e: sum(h[e, g] for g in gpus) >= 1)
    model.replicas = pyo.Constraint(expr=sum(h.values()) <= problem.n_experts + problem.replicas)
    for e, later, earlier, before in rows:
        model.first.add(h[e, later[0]] <= sum(h[f, before] for f in (e, *earlier)))
