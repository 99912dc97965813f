"""How far a placement in use is from the best one, with a certificate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

import numpy as np

from moeopt.api import solve
from moeopt.certificate import Certificate
from moeopt.checker import check_layer
from moeopt.cluster import Cluster
from moeopt.method import Method
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.reference import reference_cost
from moeopt.result import WEAKEST_FIRST, Result, certified_share
from moeopt.rules import served_loads
from moeopt.stop import Stop
from moeopt.tolerance import rounded_up
from moeopt.trace import Trace
from moeopt.workload import Workload

__all__ = ["Certified", "CertifiedLayer", "certify"]

INADMISSIBLE = "inadmissible"
UNDECIDED = ("disagreement", "infeasible-claimed", "none-found", "interrupted")


@dataclass(frozen=True)
class CertifiedLayer:
    """One layer of a placement in use.

    | field | holds |
    |---|---|
    | layer_id | absolute index |
    | status | of the placement in use: a word of `Result`, or "inadmissible" where it breaks the load tolerance |
    | cost | its exact cost, copies used as `Problem.plan` says |
    | bound | no admissible placement costs less: checked; or None |
    | share | certified share of the attainable saving that it has; None without a bound, or where inadmissible |
    | best_cost | of the cheapest admissible placement known, itself included; or None |
    | max_over_mean | load of the busiest GPU over the mean, recorded traffic |
    | tolerance | smallest load tolerance that it meets |
    | broken | the load rule that it breaks, with its numbers, or "" |
    | result | of the method, the placement in use its start |
    """

    layer_id: int
    status: str
    cost: int
    bound: int | None
    share: float | None
    best_cost: int | None
    max_over_mean: float
    tolerance: float
    broken: str
    result: Result

    @property
    def distance(self) -> int | None:
        """Cost - bound, at least 0; None without a bound, or where an inadmissible placement has none to keep."""
        return None if self.bound is None or self.broken else self.cost - self.bound


@dataclass(frozen=True, eq=False)
class Certified:
    """A placement in use, held against the best one.

    | field | holds |
    |---|---|
    | problem | what the placement answers: its GPUs, nodes, slots, and as many copies as its fullest layer has |
    | placement | the placement in use |
    | layers | see `CertifiedLayer` |
    | result | the best known, layer by layer: the placement in use wherever nothing cheaper was found |
    | message | one line for a person: what was chosen and why |
    """

    problem: Problem
    placement: Placement
    layers: tuple[CertifiedLayer, ...]
    result: Result
    message: str

    @property
    def status(self) -> str:
        """The weakest layer's."""
        if self.result.status in UNDECIDED:
            return self.result.status
        if self.broken:
            return INADMISSIBLE
        return min((layer.status for layer in self.layers), key=list[str](WEAKEST_FIRST).index)

    @property
    def cost(self) -> int:
        """Exact cost of the placement in use."""
        return sum(layer.cost for layer in self.layers)

    @property
    def bound(self) -> int | None:
        """No admissible placement costs less; None where a layer has no bound."""
        return self.result.bound

    @property
    def distance(self) -> int | None:
        """Cost - bound; None as in `CertifiedLayer`."""
        return None if self.bound is None or self.broken else self.cost - self.bound

    @cached_property
    def share(self) -> float | None:
        """Certified share of the attainable saving that the placement in use has."""
        if self.broken:
            return None
        return certified_share(reference=reference_cost(self.problem), cost=self.cost, bound=self.bound)

    @property
    def broken(self) -> str:
        """The first load rule that the placement breaks, with its numbers, or ""."""
        return next((layer.broken for layer in self.layers if layer.broken), "")

    @property
    def tolerance(self) -> float:
        """Smallest load tolerance that every layer meets."""
        return max(layer.tolerance for layer in self.layers)

    @property
    def certificate(self) -> Certificate | None:
        """Of the bound, with the placement of `result`."""
        return self.result.certificate

    @property
    def better(self) -> Placement | None:
        """A cheaper placement, or an admissible one where that in use is not; None when none was found."""
        found = self.result.placement
        if found is None or not (self.broken or (self.result.cost or 0) < self.cost):
            return None
        return None if np.array_equal(found.hosts, self.placement.hosts) else found


def certify(
    placement: Placement,
    trace: Trace | Workload,
    *,
    method: str | Method = "auto",
    objective: str = "fan-out",
    family_weights: Mapping[str, float] | None = None,
    load_tolerance: Fraction | float | str | None = None,
    gpu_cost: int = 1,
    node_cost: int = 0,
    speeds: int | tuple[int, ...] = 1,
    tail: Fraction | float | str | None = None,
    replicas: int | None = None,
    stop: Stop | None = None,
    seed: int = 0,
    executor: Executor | None = None,
    on_layer: Callable[[Result], object] = lambda result: None,
) -> Certified:
    """How far `placement` is from the best one for its layers of `trace`, layer by layer and in sum.

    The problem has the placement's GPUs, nodes and slots, and per layer as many copies as its fullest layer
    (`replicas`: more). `method` solves it from the placement as its start; see `moeopt.solve` for `stop`, `seed`,
    `executor` and `on_layer`, and `Problem` for the others. A placement that breaks the load tolerance is reported with
    what it breaks, and is no admissible one: it has no distance.

    Raises ValueError when experts or layers differ, a GPU holds more than its slots, or `replicas` are too few.
    """
    if placement.n_experts != trace.n_experts:
        raise ValueError(
            f"the placement has {placement.n_experts} experts a layer, the trace {trace.n_experts}"
        )
    if sorted(set(placement.layer_ids)) != list(placement.layer_ids):
        raise ValueError(f"layer ids must be distinct and ascending, found {list(placement.layer_ids)}")
    cluster = Cluster(
        placement.nodes, placement.gpus // placement.nodes, placement.slots, gpu_cost, node_cost, speeds
    )
    running = replace(placement, slots=cluster.slots)
    problem = Problem(
        Workload.from_layers(trace, placement.layer_ids),
        cluster,
        replicas=_copies(running, cluster, asked=replicas),
        family_weights=family_weights,
        objective=objective,
        load_tolerance=load_tolerance,
        tail=tail,
    )
    found = solve(problem, method, stop=stop, seed=seed, start=running, executor=executor, on_layer=on_layer)
    layers, results = [], []
    for index, part in enumerate(found.layers):
        layer = _layer(problem.layer(index), part, running.layer(index))
        layers.append(layer)
        results.append(layer.result)
    joined = Result.join(results)
    if found.status == "interrupted":
        joined = replace(joined, status="interrupted")
    message = "; ".join(filter(None, [_chosen(problem, running), joined.message]))
    return Certified(problem, running, tuple(layers), joined, message)


def _copies(placement: Placement, cluster: Cluster, *, asked: int | None) -> int:
    """Copies beyond the first of the fullest layer, or as many as asked; ValueError for too many on a GPU or in all."""
    held = placement.hosts.sum(axis=1)
    for layer, gpu in np.argwhere(held > cluster.slots_of)[:1]:
        raise ValueError(
            f"layer {placement.layer_ids[layer]}: GPU {gpu} holds {held[layer, gpu]} experts, "
            f"its slots are {cluster.slots_of[gpu]}"
        )
    copies = held.sum(axis=1) - placement.n_experts
    fullest = int(copies.argmax())
    if asked is not None and asked < copies[fullest]:
        raise ValueError(
            f"replicas must be at least the {copies[fullest]} of layer {placement.layer_ids[fullest]}, found {asked}"
        )
    return int(copies[fullest]) if asked is None else asked


def _layer(problem: Problem, part: Result, running: Placement) -> CertifiedLayer:
    """What is known of one layer of the placement in use."""
    judged = problem.plan(running) if problem.workload.complete else running
    cost, broken = problem.cost(judged), problem.violation(judged)
    loads, speeds = served_loads(problem, judged)[0], problem.cluster.speeds_of
    paces = (Fraction(int(load), int(speed)) for load, speed in zip(loads, speeds, strict=True))
    tolerance = rounded_up(max(paces) * int(speeds.sum()) / problem.load_total - 1)
    part = part if broken else _kept(problem, part, running, cost)
    share = None
    if not broken:
        share = certified_share(reference=reference_cost(problem), cost=cost, bound=part.bound)
    return CertifiedLayer(
        layer_id=problem.workload.layer_ids[0],
        status=_status(part, cost, broken),
        cost=cost,
        bound=part.bound,
        share=share,
        best_cost=part.cost,
        max_over_mean=float(loads.max() / loads.mean()),
        tolerance=tolerance,
        broken=broken,
        result=part,
    )


def _kept(problem: Problem, part: Result, running: Placement, cost: int) -> Result:
    """The result of a layer, the placement in use in it unless a cheaper one was found."""
    if part.cost is not None and (part.cost < cost or part.placement == running):
        return part
    certificate, status, message = part.certificate, part.status, part.message
    if certificate is not None:
        (proof,) = certificate.proofs
        proof = replace(proof, cost=cost, optimal=proof.bound == cost, dispatch=None)
        if refused := check_layer(problem, proof, placement=running):
            return replace(part, status="disagreement", message=f"of the placement in use: {refused}")
        certificate = replace(certificate, proofs=(proof,), placement=running)
        if status == "certified-gap" and proof.optimal:
            status = "certified-optimal"
    if status == "interrupted":
        message = "interrupted: the placement in use is kept"
    return replace(
        part, placement=running, cost=cost, certificate=certificate, status=status, message=message
    )


def _status(part: Result, cost: int, broken: str) -> str:
    """The word for the placement in use; `part` is about the best known."""
    if part.status in UNDECIDED:
        return part.status
    if broken:
        return INADMISSIBLE
    if part.bound is None:
        return "feasible"
    return "certified-optimal" if part.bound == cost else "certified-gap"


def _chosen(problem: Problem, placement: Placement) -> str:
    """The problem that the placement answers, in words."""
    cluster = problem.cluster
    slots = cluster.slots if isinstance(cluster.slots, int) else "/".join(map(str, cluster.slots))
    nodes = "" if cluster.nodes == 1 else f" on {cluster.nodes} nodes"
    text = f"{cluster.gpus} GPUs of {slots} slots{nodes} as in the placement"
    if problem.replicas:
        copies = placement.hosts.sum(axis=(1, 2)) - placement.n_experts
        fewer = int((copies < problem.replicas).sum())
        text += f", {problem.replicas} copies a layer" + (f" ({fewer} layers have fewer)" if fewer else "")
    recorded = problem.workload.model
    if placement.model and recorded and placement.model != recorded:
        text += f"; the placement is of model {placement.model!r}, the trace of {recorded!r}"
    return text
