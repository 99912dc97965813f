"""One replica budget over all layers, in one model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from moeopt.dispatch import Plan
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt_formulations.replicated import Replicated

LARGEST_ROWS = 200_000


@dataclass(frozen=True)
class Joint:
    """Several layers side by side, each stated as by `replicated`, and the budget R that they share.

        minimise   sum over layers of their fan-out
        layer      the rows of `replicated` for every layer l, x[l,e,g] its copies
        budget     sum_l,e,g x[l,e,g] <= L E + R

    Nothing else couples the layers, so `moeopt.allocate` finds the same optimum from layers solved one by one, with
    0, 1, ... copies each, and a knapsack: that is the tool, this is what it is held to.
    """

    name: ClassVar[str] = "joint"
    states: ClassVar[str] = "moeopt.Problem with total_replicas"
    summary: ClassVar[str] = (
        "several layers with one replica budget over all of them; exact fan-out, tiny sizes"
    )

    def supports(self, problem: object) -> str:
        if not isinstance(problem, Problem):
            return f"states placements of experts (moeopt.Problem), found {type(problem).__name__}"
        if problem.total_replicas is None:
            return 'states a budget over all layers, total_replicas is None: use "replicated" or "covers"'
        if problem.load_caps is not None:
            return f"states no load tolerance, found {problem.load_tolerance}: use moeopt.allocate"
        for layer in range(len(problem.workload.layers)):
            if reason := Replicated().supports(problem.layer(layer)):
                return f"layer {problem.workload.layer_ids[layer]}: {reason}"
        return ""

    def build(self, problem: Problem) -> Any:
        import pyomo.environ as pyo

        layers = range(len(problem.workload.layers))
        model = pyo.ConcreteModel(name=self.name)
        model.problem = problem
        model.layer = pyo.Block(layers)
        parts = [Replicated().build(problem.layer(layer)) for layer in layers]
        for layer, part in zip(layers, parts, strict=True):
            part.fan_out.deactivate()
            model.layer[layer].transfer_attributes_from(part)
        model.fan_out = pyo.Objective(expr=sum(model.layer[layer].fan_out.expr for layer in layers))
        copies = sum(sum(model.layer[layer].x.values()) for layer in layers)
        experts = len(layers) * problem.workload.n_experts
        model.budget = pyo.Constraint(expr=copies <= experts + (problem.total_replicas or 0))
        return model

    def read(self, model: Any) -> Placement:
        parts = [Replicated().read(model.layer[layer]) for layer in model.layer]
        placements = [part.placement if isinstance(part, Plan) else part for part in parts]
        slots = model.problem.cluster.slots
        return Placement.join([replace(placement, slots=slots) for placement in placements])
