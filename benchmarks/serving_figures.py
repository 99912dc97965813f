"""What a placement does to traffic under each way of serving its copies."""

from functools import lru_cache
from statistics import median
from typing import Any

from moeopt.comparison import served_traffic
from moeopt.heuristics.linear import Linear
from moeopt.load_guard import LoadGuard
from moeopt.load_priced import LoadPriced
from moeopt.placement import Placement
from moeopt.replay_rules import Guarded, Rule
from moeopt.replaying import replay
from moeopt.trace import Trace
from moeopt.traffic import Traffic, jain, max_violation, variation

TOLERANCE = "0.15"  # of the guard that sees all of the traffic, and theta of the published one
SERVINGS = {
    "cover": "the cheapest copies of each token",
    "guard": "the fewest tokens off the cheapest copies so that no GPU serves more than 15 % above the mean, or as "
    "little above it as these copies allow, all traffic known",
    "published guard": "GESR's rule, token by token, theta 0.15",
    "priced": "`load-priced`, token by token",
}
ONLINE: dict[str, Rule] = {"published guard": Guarded(LoadGuard(theta=0.15)), "priced": LoadPriced()}


def figures(placement: Placement, trace: Trace, *, order: str = "steps") -> dict[str, dict[str, Any]]:
    """For each serving the figures of `summary`; one serving where no expert has a choice."""
    linear = linear_fan_out(trace, gpus=placement.gpus)
    found = {"cover": summary(served_traffic(placement, trace), linear=linear)}
    if placement.is_partition:
        return found
    guarded = served_traffic(placement, trace, load_tolerance=TOLERANCE)
    found["guard"] = summary(guarded, linear=linear)
    for name, rule in ONLINE.items():
        found[name] = summary(replay(placement, trace, rule=rule, order=order).traffic, linear=linear)
    return found


def summary(traffic: Traffic, *, linear: float) -> dict[str, Any]:
    """Communication as arXiv 2606.01007, appendix C, counts it, and loads as its tables do.

    `comm`: further GPUs of a token, summed over layers; `reduction` against linear; jain, MaxVio, variation of loads
    summed over layers; MaxVio of the median and of the worst layer.
    """
    layers = [max_violation(loads) for loads in traffic.loads]
    return {
        "comm": traffic.fan_out * len(traffic.layer_ids),
        "reduction": 1 - traffic.fan_out / linear,
        "jain": jain(traffic.summed),
        "max_violation": max_violation(traffic.summed),
        "variation": variation(traffic.summed),
        "median_layer": median(layers),
        "worst_layer": max(layers),
        "families": traffic.family_fan_out,
    }


@lru_cache(maxsize=8)
def _linear(trace: Trace, gpus: int) -> float:
    from moeopt.api import solve
    from moeopt.cluster import Cluster
    from moeopt.problem import Problem

    cluster = Cluster.of(gpus=gpus, slots=-(-trace.n_experts // gpus))
    placement = solve(Problem.from_trace(trace, cluster), Linear()).placement
    if placement is None:
        raise RuntimeError("the linear placement was refused")
    return served_traffic(placement, trace).fan_out


def linear_fan_out(trace: Trace, *, gpus: int) -> float:
    """Of consecutive experts, one copy each, on as many GPUs."""
    return _linear(trace, gpus)
