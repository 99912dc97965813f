"""Even loads in one layer: the smallest maximum, or the smallest sum of deviations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from moeopt.loads import LoadProblem
from moeopt.placement import Placement
from moeopt.symmetry import alike, first_rows


@dataclass(frozen=True)
class Balance:
    """x[e,g] = 1: expert e is on GPU g. With load[e], slots m[g] and pace c[g], the scaled time of an activation:

        minimise    t                              measure "maximum"
                    sum_g d[g]                     measure "deviation", with C the time common to all
        once        sum_g x[e,g] = 1                               for every e
        slots       sum_e x[e,g] <= m[g]                           for every g
        longest     c[g] sum_e load[e] x[e,g] <= t                 for every g
        above       c[g] sum_e load[e] x[e,g] - C <= d[g]          for every g
        below       C - c[g] sum_e load[e] x[e,g] <= d[g]          for every g
        first       sum over g' >= g of x[e,g'] <= sum over heavier f of x[f,g-1]   for every e and alike g - 1, g

    x is binary, t and d are whole; t starts at `LoadProblem.least`, the bound of mean and heaviest experts. first
    numbers GPUs of equal slots and speed by their heaviest expert, equal loads by id. The relaxation proves that bound
    and no more: with even loads it is the mean, placements come within a fraction of a percent of it, and the rest of
    the gap stays open.

    Source: MoETuner, arXiv 2502.06643, first model ("deviation", there without slots).
    """

    name: ClassVar[str] = "balance"
    states: ClassVar[str] = "moeopt.loads.LoadProblem"
    summary: ClassVar[str] = (
        "even loads in a layer: smallest maximum or deviation; GPUs may differ in slots and speed"
    )

    def supports(self, problem: object) -> str:
        if not isinstance(problem, LoadProblem):
            return f"states a LoadProblem, found {type(problem).__name__}: see moeopt.loads"
        return ""

    def build(self, problem: LoadProblem) -> Any:
        import pyomo.environ as pyo

        load, pace, slots = problem.load.tolist(), problem.pace.tolist(), problem.cluster.slots_of
        experts, gpus = range(problem.n_experts), range(problem.cluster.gpus)
        model = pyo.ConcreteModel(name=self.name)
        model.problem = problem
        model.x = pyo.Var(experts, gpus, domain=pyo.Binary)
        x = model.x
        model.once = pyo.Constraint(experts, rule=lambda _, e: sum(x[e, g] for g in gpus) == 1)
        model.slots = pyo.Constraint(gpus, rule=lambda _, g: sum(x[e, g] for e in experts) <= int(slots[g]))
        time = [pace[g] * sum(load[e] * x[e, g] for e in experts) for g in gpus]
        if problem.measure == "maximum":
            most = max(pace) * sum(load)
            model.t = pyo.Var(domain=pyo.Integers, bounds=(problem.least, most))
            model.longest = pyo.Constraint(gpus, rule=lambda _, g: time[g] - model.t <= 0)
            model.cost = pyo.Objective(expr=model.t)
        else:
            common = problem.common_time
            bounds = {g: (0, max(common, pace[g] * sum(load) - common)) for g in gpus}
            model.d = pyo.Var(gpus, domain=pyo.Integers, bounds=lambda _, g: bounds[g])
            model.above = pyo.Constraint(gpus, rule=lambda _, g: time[g] - model.d[g] <= common)
            model.below = pyo.Constraint(gpus, rule=lambda _, g: time[g] + model.d[g] >= common)
            model.cost = pyo.Objective(expr=sum(model.d.values()))
        model.first = pyo.ConstraintList()
        heaviest_first = np.argsort(-problem.load, kind="stable").tolist()
        for e, later, earlier, before in first_rows(alike(slots, problem.speed_of), heaviest_first):
            model.first.add(sum(x[e, g] for g in later) <= sum(x[f, before] for f in earlier))
        return model

    def read(self, model: Any) -> Placement:
        problem: LoadProblem = model.problem
        values = np.array([variable.value for variable in model.x.values()], dtype=np.float64)
        on = values.reshape(problem.n_experts, problem.cluster.gpus) > 0.5
        if (on.sum(axis=1) != 1).any():
            raise ValueError("the values of the model do not put every expert on one GPU")
        return problem.partition(on.argmax(axis=1))
