"""A result in the units people compare: per token and layer."""

from fractions import Fraction
from typing import Any

from moeopt.comparison import mean_fan_out
from moeopt.problem import Problem
from moeopt.reference import reference_cost
from moeopt.result import Result, certified_share
from moeopt.rules import served_loads


def summarise(problem: Problem, result: Result, *, seconds: float) -> dict[str, Any]:
    """The JSON answer of `place`; `seconds` is wall time; costs are integers, `cost_unit` is one GPU for everybody."""
    unit = problem.total_weight
    layers = []
    for index, part in enumerate(result.layers):
        own = problem.layer(index)
        entry: dict[str, Any] = {
            "layer": part.layer_id,
            "status": part.status,
            "cost": part.cost,
            "bound": part.bound,
            "claimed_bound": part.claimed_bound,
            "fan_out": None,
            "fan_out_bound": per_token(own, part.bound),
            "certified_share": share(own, part),
            "load_max_over_mean": None,
            "seconds": part.seconds,
            "method": part.method,
            "message": part.message,
        }
        if part.placement is not None:
            (loads,) = served_loads(own, part.placement)
            entry["fan_out"] = _fan_out(own, part)
            entry["load_max_over_mean"] = float(loads.max() / loads.mean())
        layers.append(entry)
    return {
        "status": result.status,
        "fan_out": _fan_out(problem, result),
        "bound": per_token(problem, result.bound),
        "certified_share": share(problem, result),
        "seconds": seconds,
        "objective": problem.objective,
        "cost": result.cost,
        "cost_bound": result.bound,
        "cost_unit": unit,
        "method": result.method,
        "seed": result.seed,
        "message": result.message,
        "tolerance_reached": result.tolerance_reached,
        "layers": layers,
    }


def _fan_out(problem: Problem, result: Result) -> float | None:
    """None without a placement, and where pair counts do not tell it."""
    if result.placement is None or not problem.workload.complete:
        return None
    return mean_fan_out(problem, result.placement)


def per_token(problem: Problem, bound: int | None) -> float | None:
    """A fan-out bound in further GPUs per token and layer; None for the cut and where nodes have a price."""
    cluster = problem.cluster
    if bound is None or problem.objective != "fan-out" or not cluster.gpu_cost:
        return None
    if cluster.nodes > 1 and cluster.node_cost:
        return None
    return float(Fraction(bound, problem.total_weight * cluster.gpu_cost * len(problem.workload.layers)))


def share(problem: Problem, result: Result) -> float | None:
    """Certified share of the attainable saving."""
    if result.cost is None:
        return None
    return certified_share(reference=reference_cost(problem), cost=result.cost, bound=result.bound)
