"""Methods side by side on one problem, and placements judged on traffic they were not made from."""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from typing import Any

from moeopt import registry
from moeopt.api import solve
from moeopt.cluster import Cluster
from moeopt.heuristics.linear import Linear
from moeopt.method import Method
from moeopt.model_method import ModelMethod, matching_trace, objection
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.reference import reference_cost
from moeopt.result import Result, certified_share
from moeopt.rules import served_loads
from moeopt.stop import Stop
from moeopt.tolerance import exact_tolerance
from moeopt.trace import Trace
from moeopt.traffic import Traffic, jain, max_violation, variation
from moeopt.workload import Workload


@dataclass(frozen=True)
class Evaluation:
    """A placement on a trace.

    | field | holds |
    |---|---|
    | fan_out, node_fan_out | mean further GPUs and nodes per token and layer, at the cheapest or guarded dispatch |
    | linear_fan_out | of consecutive experts on the same GPUs, without copies |
    | reduction | 1 - fan_out / linear_fan_out; None when linear touches one GPU only |
    | families | fan-out by family |
    | jain, max_violation, variation | of loads summed over layers |
    | worst_layer, median_layer | MaxVio of single layers |
    | layers | per layer: layer, fan_out, max_violation, jain, variation |
    | broken | the rule of slots that the placement breaks, or "" |
    """

    fan_out: float
    node_fan_out: float
    linear_fan_out: float
    reduction: float | None
    families: dict[str, float]
    jain: float
    max_violation: float
    variation: float
    worst_layer: float
    median_layer: float
    layers: tuple[dict[str, float], ...]
    broken: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def evaluate(
    placement: Placement,
    trace: Trace | Workload,
    *,
    load_tolerance: Fraction | float | str | None = None,
) -> Evaluation:
    """Judge a placement on a trace or its workload, which may be one it has never seen.

    Tokens are served by the cheapest copies. With a load tolerance a guard moves some to others until no GPU serves
    more than (1 + tolerance) x the mean, or as little above it as these copies allow. Raises ValueError when the
    experts differ, a layer is missing, or the expert sets are not recorded.
    """
    problem = _problem_of(placement, trace)
    traffic = served_traffic(placement, trace, load_tolerance=load_tolerance)
    linear = Traffic.of_placement(problem, _linear(problem)).fan_out
    worst = [max_violation(loads) for loads in traffic.loads]
    return Evaluation(
        fan_out=traffic.fan_out,
        node_fan_out=traffic.node_fan_out,
        linear_fan_out=linear,
        reduction=1 - traffic.fan_out / linear if linear else None,
        families=traffic.family_fan_out,
        jain=jain(traffic.summed),
        max_violation=max_violation(traffic.summed),
        variation=variation(traffic.summed),
        worst_layer=max(worst),
        median_layer=sorted(worst)[len(worst) // 2],
        layers=tuple(
            {
                "layer": layer,
                "fan_out": float(fan_out),
                "max_violation": max_violation(loads),
                "jain": jain(loads),
                "variation": variation(loads),
            }
            for layer, fan_out, loads in zip(
                traffic.layer_ids, traffic.layer_fan_out, traffic.loads, strict=True
            )
        ),
        broken=problem.violation(placement),
    )


def served_traffic(
    placement: Placement,
    trace: Trace | Workload,
    *,
    load_tolerance: Fraction | float | str | None = None,
) -> Traffic:
    """What `evaluate` counts: the traffic of a trace over a placement, served by the cheapest copies or guarded."""
    problem, tolerance = _problem_of(placement, trace), exact_tolerance(load_tolerance)
    if tolerance is None or placement.is_partition:
        return Traffic.of_placement(problem, placement)
    from moeopt.guard import guarded_plan

    cap = int((1 + tolerance) * problem.load_total / problem.cluster.gpus)
    weights = problem.multipliers
    plan = guarded_plan(
        problem.plan(placement), problem.workload, cluster=problem.cluster, weights=weights, cap=cap
    )
    return Traffic.of(problem, plan)


def _problem_of(placement: Placement, trace: Trace | Workload) -> Problem:
    """The loosest problem of the placement's shape: its slots, or what it uses where it breaks them."""
    if placement.n_experts != trace.n_experts:
        raise ValueError(
            f"the placement has {placement.n_experts} experts a layer, the trace {trace.n_experts}"
        )
    workload = Workload.from_layers(trace, placement.layer_ids)
    cluster = Cluster(placement.nodes, placement.gpus // placement.nodes, placement.slots)
    copies = int(placement.hosts.sum(axis=(1, 2)).max()) - placement.n_experts
    room = int(cluster.slots_of.clip(max=placement.n_experts).sum()) - placement.n_experts
    return Problem(workload, cluster, replicas=max(0, min(copies, room)))


def _linear(problem: Problem) -> Placement:
    free = replace(problem, load_tolerance=None, replicas=0, total_replicas=None)
    placement = solve(free, Linear()).placement
    if placement is None:
        raise RuntimeError("the linear placement of a feasible problem was refused")
    return placement


@dataclass(frozen=True)
class Row:
    """One method with one seed.

    | field | holds |
    |---|---|
    | method, seed, status, seconds | provenance; status of the weakest layer; a name that methods share is told apart |
    | fan_out | weighted as the objective is, on the traffic placed for; None without a placement or expert sets |
    | cost, bound | exact, summed over layers; the best verified bound of all methods compared with this seed |
    | certified_share | of the attainable saving |
    | max_violation | MaxVio of the median layer |
    | reduction | against linear, on the traffic the placement was made from |
    | held_out_fan_out, held_out_reduction | on the requests set aside; None when none were |
    """

    method: str
    seed: int
    status: str
    seconds: float
    fan_out: float | None
    cost: int | None
    bound: int | None
    certified_share: float | None
    max_violation: float | None
    reduction: float | None
    held_out_fan_out: float | None = None
    held_out_reduction: float | None = None


def compare(
    problem: Problem,
    methods: Sequence[str | Method],
    *,
    seeds: Sequence[int] = (0,),
    stop: Stop | None = None,
    trace: Trace | None = None,
    held_out: float = 0.0,
    executor: Executor | None = None,
    on_layer: Callable[[Result], object] = lambda result: None,
) -> list[Row]:
    """Every method with every seed on `problem`, judged alike.

    With `held_out` > 0 the requests of `trace` are split anew for each seed; methods see the larger part, and the
    placements are also judged on the rest. A method that places all layers together needs the trace as well; of a
    trace the layers of the problem count. Raises ValueError for an unknown method or one that does not treat the
    problem, before anything runs, and KeyboardInterrupt after Ctrl-C.
    """
    chosen = [registry.named_method(item) if isinstance(item, str) else item for item in methods]
    for method in chosen:
        if reason := objection(method, problem):
            raise ValueError(f"method {method.name} does not treat this problem: {reason}")
    if held_out and trace is None:
        raise ValueError("holding requests out needs the trace they come from")
    whole = [method for method in chosen if isinstance(method, ModelMethod)]
    own = None if trace is None or not (held_out or whole) else trace.layers(problem.workload.layer_ids)
    for method in whole:
        matching_trace(problem, own, name=method.name)
    names = _told_apart(methods, chosen)
    rows: list[Row] = []
    for seed in seeds:
        seen, part, rest = problem, own, None
        if held_out and own is not None:
            part, rest = own.split(held_out, seed=seed)
            seen = replace(problem, workload=Workload.from_trace(part))
        results = []
        for method in chosen:
            result = solve(
                seen, method, stop=stop, seed=seed, trace=part, executor=executor, on_layer=on_layer
            )
            if result.status == "interrupted":
                raise KeyboardInterrupt  # half a comparison compares nothing
            results.append(result)
        found = rows_of(seen, chosen, results=results, held_out=rest)
        rows += [replace(row, method=name) for row, name in zip(found, names, strict=True)]
    return rows


def _told_apart(asked: Sequence[str | Method], chosen: Sequence[Method]) -> list[str]:
    """Names of methods; of different ones that share a name, how each was asked for."""
    own: dict[str, set[str]] = {}
    words = [item if isinstance(item, str) else repr(item) for item in asked]
    for method, word in zip(chosen, words, strict=True):
        own.setdefault(method.name, set()).add(word)
    return [
        word if len(own[method.name]) > 1 else method.name for method, word in zip(chosen, words, strict=True)
    ]


def rows_of(
    problem: Problem, methods: Sequence[Method], *, results: Sequence[Result], held_out: Trace | None = None
) -> list[Row]:
    """A row for each method's result on the same problem, shares by the best verified bound of all of them."""
    bounds = _best_bounds(results)
    pairs = zip(methods, results, strict=True)
    return [_row(method, problem, result, bounds=bounds, rest=held_out) for method, result in pairs]


def _best_bounds(results: Sequence[Result]) -> int | None:
    """Sum over layers of the best verified bound that any method has."""
    total = 0
    for layers in zip(*(result.layers for result in results), strict=True):
        known = [layer.bound for layer in layers if layer.bound is not None]
        if not known:
            return None
        total += max(known)
    return total


def _row(method: Method, problem: Problem, result: Result, *, bounds: int | None, rest: Trace | None) -> Row:
    row = Row(
        method.name, result.seed, result.status, result.seconds, None, result.cost, bounds, None, None, None
    )
    if result.placement is None or result.cost is None:
        return row
    violations = sorted(max_violation(loads) for loads in served_loads(problem, result.placement))
    row = replace(
        row,
        certified_share=certified_share(reference=reference_cost(problem), cost=result.cost, bound=bounds),
        max_violation=violations[len(violations) // 2],
    )
    if problem.workload.complete:
        traffic = Traffic.of_placement(problem, result.placement)
        linear = Traffic.of_placement(problem, _linear(problem)).fan_out
        row = replace(
            row,
            fan_out=mean_fan_out(problem, result.placement),
            reduction=1 - traffic.fan_out / linear if linear else None,
        )
    if rest is None:
        return row
    judged = evaluate(result.placement, rest, load_tolerance=problem.load_tolerance)
    return replace(row, held_out_fan_out=judged.fan_out, held_out_reduction=judged.reduction)


def mean_fan_out(problem: Problem, placement: Placement) -> float:
    """Mean further GPUs per token and layer, tokens weighted as the objective weights them: with a tail, the worst."""
    traffic = Traffic.of_placement(problem, placement)
    if problem.risk is None:
        weighted = int((traffic.gpus_touched @ problem.multipliers).sum())
    else:
        costs = traffic.gpus_touched * problem.family_units
        weighted = sum(problem.risk.worst(layer) for layer in costs.tolist())
    return weighted / (problem.total_weight * len(traffic.layer_ids)) - 1
