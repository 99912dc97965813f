"""One placement problem: traffic, cluster, budgets, objective. Its `cost` is the only judge."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from moeopt import storage
from moeopt.cluster import Cluster
from moeopt.dispatch import Plan, cover_plan, touched
from moeopt.placement import Placement
from moeopt.trace import Trace
from moeopt.weights import family_multipliers
from moeopt.workload import ExpertSets, Workload

FORMAT = "moeopt-problem"
OBJECTIVES = ("fan-out", "cut")
LOOSEST = 1_000_000  # load tolerance; with G GPUs G - 1 allows everything


@dataclass(frozen=True, eq=False)
class Problem:
    """Place the experts of every layer so that tokens touch few GPUs.

    | field | holds |
    |---|---|
    | workload | traffic |
    | cluster | GPUs, nodes, slots, the cost of touching them |
    | replicas | copies beyond the first, per layer at most |
    | family_weights | share of the objective by family name; None: every token counts the same |
    | objective | "fan-out" (GPUs and nodes touched, exact) or "cut" (pairs separated; partitions only) |
    | load_tolerance | each GPU serves at most (1 + tolerance) x mean of the recorded traffic; None: free |

    The objective is an integer: a set of experts weighs sum_f counts[f] * multipliers[f].
    Raises ValueError for what arithmetic alone rules out.
    """

    workload: Workload
    cluster: Cluster
    replicas: int = 0
    family_weights: Mapping[str, float] | None = None
    objective: str = "fan-out"
    load_tolerance: Fraction | float | str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.replicas, bool) or not isinstance(self.replicas, int) or self.replicas < 0:
            raise ValueError(f"replicas must be a whole number, at least 0, found {self.replicas!r}")
        if self.objective not in OBJECTIVES:
            raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}, found {self.objective!r}")
        if self.objective == "cut" and self.replicas:
            raise ValueError(f"the cut is defined for partitions: replicas must be 0, found {self.replicas}")
        object.__setattr__(self, "load_tolerance", _tolerance(self.load_tolerance))
        if self.family_weights is not None:
            object.__setattr__(self, "family_weights", dict(self.family_weights))
        self._check_slots()
        self._check_magnitude()
        self._check_loads()

    def _check_slots(self) -> None:
        experts, slots = self.workload.n_experts, np.minimum(self.cluster.slots_of, self.workload.n_experts)
        if slots.sum() < experts:
            raise ValueError(
                f"too few slots: {self.cluster.gpus} GPUs offer {int(slots.sum())} slots a layer "
                f"for {experts} experts"
            )
        if experts + self.replicas > slots.sum():
            raise ValueError(
                f"replicas {self.replicas} cannot be placed: {experts} experts leave "
                f"{int(slots.sum()) - experts} of {int(slots.sum())} slots free"
            )

    def _check_magnitude(self) -> None:
        # Pairs of one token bound both objectives; 2^60 leaves room for sums of prices in 64 bits.
        k = self.workload.top_k
        unit = self.cluster.gpu_cost + self.cluster.node_cost
        if self.total_weight * unit * max(k * (k - 1) // 2, 1) >= 1 << 60:
            raise ValueError(
                f"objective too large for exact 64-bit arithmetic: weight {self.total_weight}, cost unit {unit}"
            )

    def _check_loads(self) -> None:
        cap = self.load_cap
        if cap is None:
            return
        gpus, total = self.cluster.gpus, self.load_total
        if cap * gpus < total:
            least = Fraction(-(-total // gpus) * gpus, total) - 1
            raise ValueError(
                f"load tolerance {float(self.load_tolerance or 0):g} cannot be met: {gpus} GPUs may serve {cap} "
                f"activations each, there are {total}; at least {rounded_up(least)} is needed"
            )
        copies = 1 if self.replicas == 0 else min(self.replicas + 1, self.cluster.gpus)
        for layer, sets in zip(self.workload.layer_ids, self.workload.layers, strict=True):
            expert = int(sets.load.argmax())
            if (load := int(sets.load[expert])) > cap * copies:
                least = Fraction(load * self.cluster.gpus, copies * self.load_total) - 1
                raise ValueError(
                    f"load tolerance {float(self.load_tolerance or 0):g} cannot be met: layer {layer}, expert {expert} "
                    f"alone serves {load} activations, a GPU may serve {cap}; at least {rounded_up(least)} is needed"
                )

    @classmethod
    def from_trace(
        cls,
        trace: Trace,
        cluster: Cluster,
        *,
        replicas: int = 0,
        family_weights: Mapping[str, float] | None = None,
        objective: str = "fan-out",
        load_tolerance: Fraction | float | str | None = None,
    ) -> Self:
        """The problem of a whole trace."""
        return cls(Workload.from_trace(trace), cluster, replicas, family_weights, objective, load_tolerance)

    @cached_property
    def multipliers(self) -> NDArray[np.int64]:
        """int64 [families]: objective weight of one token of each family."""
        return family_multipliers(self.workload.families, self.workload.tokens, weights=self.family_weights)

    @cached_property
    def total_weight(self) -> int:
        """Objective weight of all tokens: the cost of one further GPU for everybody is this times gpu_cost."""
        return sum(int(q) * int(t) for q, t in zip(self.multipliers, self.workload.tokens, strict=True))

    @property
    def load_total(self) -> int:
        """Expert activations of one layer, recorded traffic."""
        return int(self.workload.tokens.sum()) * self.workload.top_k

    @cached_property
    def load_cap(self) -> int | None:
        """Largest load of a GPU that the tolerance allows, in activations; None without a tolerance."""
        if self.load_tolerance is None:
            return None
        return int((1 + Fraction(self.load_tolerance)) * Fraction(self.load_total, self.cluster.gpus))

    def set_weights(self, sets: ExpertSets) -> NDArray[np.int64]:
        """int64 [sets]: objective weight of each expert set."""
        return sets.counts @ self.multipliers

    def layer(self, index: int) -> Self:
        """The problem of one layer, by position."""
        return replace(self, workload=self.workload.layer(index))

    def partition(self, gpu_of: NDArray[Any]) -> Placement:
        """The placement of one copy each: `gpu_of` int [experts] for a problem of one layer, [layers, experts] else."""
        rows = np.atleast_2d(gpu_of)
        workload = self.workload
        return Placement.partition(rows, self.cluster, layer_ids=workload.layer_ids, model=workload.model)

    def plan(self, placement: Placement) -> Plan:
        """A dispatch of the workload: the cheapest without a load tolerance, the guarded one with it."""
        self._check_shape(placement)
        plan = cover_plan(
            placement, self.workload, gpu_cost=self.cluster.gpu_cost, node_cost=self.cluster.node_cost
        )
        if self.load_cap is None or placement.is_partition:
            return plan
        from moeopt.guard import guarded_plan

        return guarded_plan(
            plan, self.workload, cluster=self.cluster, weights=self.multipliers, cap=self.load_cap
        )

    def cost(self, candidate: Placement | Plan) -> int:
        """Exact objective, summed over layers; a placement with copies is judged by `plan`."""
        return sum(self.layer_costs(candidate))

    def layer_costs(self, candidate: Placement | Plan) -> list[int]:
        """Exact objective of each layer."""
        placement = candidate.placement if isinstance(candidate, Plan) else candidate
        self._check_shape(placement)
        if self.objective == "cut":
            if not placement.is_partition:
                raise ValueError("the cut is defined for partitions: the placement has copies")
            pairs = zip(self.workload.layers, placement.primary, strict=True)
            return [self._cut(sets, gpu_of) for sets, gpu_of in pairs]
        plan = candidate if isinstance(candidate, Plan) else self.plan(candidate)
        costs: list[int] = []
        for sets, part in zip(self.workload.layers, plan.dispatches, strict=True):
            if broken := part.violation(sets, placement.hosts[len(costs)]):
                raise ValueError(f"layer {self.workload.layer_ids[len(costs)]}: {broken}")
            further = self.cluster.gpu_cost * (touched(part.gpus) - 1)
            further += self.cluster.node_cost * (touched(self.cluster.node_of[part.gpus]) - 1)
            costs.append(int(further @ (part.tokens @ self.multipliers)))
        return costs

    def _cut(self, sets: ExpertSets, gpu_of: NDArray[np.int32]) -> int:
        affinity = np.triu(sets.affinity(self.set_weights(sets)))
        node_of = self.cluster.node_of[gpu_of]
        apart = self.cluster.gpu_cost * (gpu_of[:, None] != gpu_of).astype(np.int64)
        apart += self.cluster.node_cost * (node_of[:, None] != node_of).astype(np.int64)
        return int((affinity * apart).sum())

    def violation(self, candidate: Placement | Plan) -> str:
        """The first rule that the placement or plan breaks, with its numbers; empty when it breaks none."""
        placement = candidate.placement if isinstance(candidate, Plan) else candidate
        self._check_shape(placement)
        held, slots = placement.hosts.sum(axis=1), self.cluster.slots_of
        for layer, gpu in np.argwhere(held > slots)[:1]:
            name = self.workload.layer_ids[layer]
            return f"layer {name}: GPU {gpu} holds {held[layer, gpu]} experts, slots are {slots[gpu]}"
        copies = placement.hosts.sum(axis=(1, 2)) - placement.n_experts
        for layer in np.flatnonzero(copies > self.replicas)[:1]:
            return f"layer {self.workload.layer_ids[layer]}: {copies[layer]} replicas, the budget is {self.replicas}"
        plan = candidate if isinstance(candidate, Plan) else self.plan(candidate)
        for index, (sets, part) in enumerate(zip(self.workload.layers, plan.dispatches, strict=True)):
            if broken := part.violation(sets, placement.hosts[index]):
                return f"layer {self.workload.layer_ids[index]}: {broken}"
            loads = part.gpu_loads(self.cluster.gpus)
            if self.load_cap is not None and loads.max() > self.load_cap:
                return (
                    f"layer {self.workload.layer_ids[index]}: GPU {int(loads.argmax())} serves {loads.max()} "
                    f"activations, load tolerance {float(self.load_tolerance or 0):g} allows {self.load_cap}"
                )
        return ""

    def _check_shape(self, placement: Placement) -> None:
        for name, found, wanted in (
            ("layers", placement.layer_ids, self.workload.layer_ids),
            ("experts", placement.n_experts, self.workload.n_experts),
            ("GPUs", placement.gpus, self.cluster.gpus),
            ("nodes", placement.nodes, self.cluster.nodes),
        ):
            if found != wanted:
                raise ValueError(f"placement and problem differ in {name}: {found} and {wanted}")

    def fields(self) -> dict[str, Any]:
        """Everything but the traffic, JSON-ready: what a certificate carries."""
        return {
            "cluster": self.cluster.to_dict(),
            "replicas": self.replicas,
            "family_weights": None if self.family_weights is None else dict(self.family_weights),
            "objective": self.objective,
            "load_tolerance": None if self.load_tolerance is None else str(self.load_tolerance),
        }

    @classmethod
    def from_fields(cls, fields: dict[str, Any], workload: Workload) -> Self:
        """Inverse of `fields`, on a workload."""
        weights = storage.field(fields, "family_weights", kind=(dict, type(None)))
        tolerance = storage.field(fields, "load_tolerance", kind=(str, type(None)))
        return cls(
            workload,
            Cluster.from_dict(storage.field(fields, "cluster", kind=dict)),
            storage.field(fields, "replicas", kind=int),
            weights,
            storage.field(fields, "objective", kind=str),
            tolerance,
        )

    def to_dict(self) -> dict[str, Any]:
        """The documented JSON form, version 1: the fields and the whole workload."""
        return {"format": FORMAT, "version": 1, "fields": self.fields(), "workload": self.workload.to_dict()}

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> Self:
        """Inverse of `to_dict`."""
        storage.expect(document, kind=FORMAT)
        workload = Workload.from_dict(storage.field(document, "workload", kind=dict))
        return cls.from_fields(storage.field(document, "fields", kind=dict), workload)


def _tolerance(value: Fraction | float | str | None) -> Fraction | None:
    """A tolerance as the decimal fraction the user typed."""
    if value is None:
        return None
    try:
        if abs(int(str(value).lower().partition("e")[2] or 0)) > 100:  # would take long to write out
            raise ValueError("exponent beyond 100")
        tolerance = value if isinstance(value, Fraction) else Fraction(str(value))
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(f"load tolerance must be a number, found {value!r}") from error
    if tolerance < 0:
        raise ValueError(f"load tolerance must not be negative, found {value}")
    if tolerance > LOOSEST:
        raise ValueError(f"load tolerance must be at most {LOOSEST}, found {value}")
    return tolerance


def rounded_up(value: Fraction) -> float:
    """Rounded up to four decimals, so that typing the number shown is enough."""
    return float(-(-value * 10_000 // 1)) / 10_000
