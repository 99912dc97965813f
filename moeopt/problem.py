"""One placement problem: traffic, cluster, budgets, objective. Its `cost` is the only judge."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from moeopt import admission, rules, storage
from moeopt.cluster import Cluster
from moeopt.dispatch import Plan, cover_plan, touched
from moeopt.expert_sets import ExpertSets
from moeopt.hop_counts import partition_touches
from moeopt.objectives import cut, fullest
from moeopt.placement import Placement
from moeopt.risk import Risk, tail_share
from moeopt.tolerance import exact_tolerance, gpu_caps
from moeopt.trace import Trace
from moeopt.weights import family_multipliers
from moeopt.workload import Workload

FORMAT = "moeopt-problem"
OBJECTIVES = ("fan-out", "cut", "load")


@dataclass(frozen=True, eq=False)
class Problem:
    """Place the experts of every layer so that tokens touch few GPUs.

    | field | holds |
    |---|---|
    | workload | traffic |
    | cluster | GPUs, nodes, slots, the cost of touching them |
    | replicas | copies beyond the first, per layer at most |
    | family_weights | share of the objective by family name; None: every token counts the same |
    | objective | "fan-out": GPUs and nodes touched; "cut": pairs apart, partitions only; "load": of the fullest GPU |
    | load_tolerance | each GPU serves at most (1 + tolerance) x its share, by speed, of recorded traffic; None: free |
    | tail | a layer counts the mean over the worst share `tail` of its families; 0: the worst one; None: all of them |
    | incumbent | placement to change; None: none |
    | max_moves | copies of a layer that may sit where the incumbent has none; None: any number |
    | total_replicas | copies beyond the first, over all layers at most; None: no such budget |

    The objective is an integer: a set of experts weighs sum_f counts[f] * multipliers[f]; with a tail see `risk`.
    Raises ValueError for what arithmetic alone rules out.
    """

    workload: Workload
    cluster: Cluster
    replicas: int = 0
    family_weights: Mapping[str, float] | None = None
    objective: str = "fan-out"
    load_tolerance: Fraction | float | str | None = None
    tail: Fraction | float | str | None = None
    incumbent: Placement | None = None
    max_moves: int | None = None
    total_replicas: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.replicas, bool) or not isinstance(self.replicas, int) or self.replicas < 0:
            raise ValueError(f"replicas must be a whole number, at least 0, found {self.replicas!r}")
        if self.objective not in OBJECTIVES:
            raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}, found {self.objective!r}")
        if self.objective == "cut" and self.replicas:
            raise ValueError(f"the cut is defined for partitions: replicas must be 0, found {self.replicas}")
        object.__setattr__(self, "load_tolerance", exact_tolerance(self.load_tolerance))
        object.__setattr__(self, "tail", tail_share(self.tail))
        if self.family_weights is not None:
            object.__setattr__(self, "family_weights", dict(self.family_weights))
        admission.check(self)

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
        tail: Fraction | float | str | None = None,
        incumbent: Placement | None = None,
        max_moves: int | None = None,
        total_replicas: int | None = None,
    ) -> Self:
        """The problem of a whole trace."""
        return cls(
            Workload.from_trace(trace),
            cluster,
            replicas,
            family_weights,
            objective,
            load_tolerance,
            tail,
            incumbent,
            max_moves,
            total_replicas,
        )

    @cached_property
    def multipliers(self) -> NDArray[np.int64]:
        """int64 [families]: objective weight of one token of each family; with a tail, of the mean over all."""
        return family_multipliers(self.workload.families, self.workload.tokens, weights=self.family_weights)

    @cached_property
    def risk(self) -> Risk | None:
        """How the costs of the families make the objective; None without a tail."""
        if self.tail is None:
            return None
        families, tokens = self.workload.families, self.workload.tokens
        return Risk.of(families, tokens, weights=self.family_weights, tail=Fraction(self.tail))

    @property
    def family_units(self) -> NDArray[np.int64]:
        """int64 [families]: weight of one token of each family in the unit that a tail compares them in."""
        if self.risk is None:
            raise ValueError("families are compared with a tail only: the problem has none")
        return np.array(self.risk.units, np.int64)

    def mixed(self, mixture: Sequence[int]) -> "Problem":
        """Without the tail, family f weighing mixture[f] * family_units[f]: its optimum bounds this one from below."""
        from moeopt.mixtures import Mixed

        return Mixed.of(self, (np.asarray(mixture, np.int64) * self.family_units).tolist())

    @cached_property
    def total_weight(self) -> int:
        """Objective weight of all tokens: the cost of one further GPU for everybody is this times gpu_cost."""
        if self.risk is not None:
            return self.risk.worst((self.family_units * self.workload.tokens).tolist())
        return sum(int(q) * int(t) for q, t in zip(self.multipliers, self.workload.tokens, strict=True))

    @cached_property
    def pair_weight(self) -> int:
        """Objective weight of all pairs, summed over layers: the cut of every expert apart is this times its prices."""
        return sum(self.together(sets.coactivations) for sets in self.workload.layers)

    @property
    def load_total(self) -> int:
        """Expert activations of one layer, recorded traffic."""
        return int(self.workload.tokens.sum()) * self.workload.top_k

    @cached_property
    def load_caps(self) -> NDArray[np.int64] | None:
        """int64 [gpus]: largest load that the tolerance allows, in activations; None without a tolerance."""
        if self.load_tolerance is None:
            return None
        return gpu_caps(self.load_total, Fraction(self.load_tolerance), speeds=self.cluster.speeds_of)

    @property
    def load_cap(self) -> int | None:
        """The cap of every GPU, where all run at the same speed; None without a tolerance."""
        if self.load_caps is None:
            return None
        if not isinstance(self.cluster.speeds, int):
            raise ValueError(f"GPUs of unequal speed have no common cap: speeds are {self.cluster.speeds}")
        return int(self.load_caps[0])

    def set_weights(self, sets: ExpertSets) -> NDArray[np.int64]:
        """int64 [sets]: objective weight of each expert set."""
        return sets.counts @ self.multipliers

    def layer(self, index: int) -> Self:
        """The problem of one layer, by position; a budget over all layers is not its business."""
        incumbent = None if self.incumbent is None else self.incumbent.layer(index)
        return replace(self, workload=self.workload.layer(index), incumbent=incumbent, total_replicas=None)

    def partition(self, gpu_of: NDArray[Any]) -> Placement:
        """The placement of one copy each: `gpu_of` int [experts] for a problem of one layer, [layers, experts] else."""
        rows = np.atleast_2d(gpu_of)
        workload = self.workload
        return Placement.partition(rows, self.cluster, layer_ids=workload.layer_ids, model=workload.model)

    def plan(self, placement: Placement) -> Plan:
        """A dispatch of the workload: the cheapest without a load tolerance, the guarded one with it."""
        rules.check_shape(self, placement)
        plan = cover_plan(
            placement, self.workload, gpu_cost=self.cluster.gpu_cost, node_cost=self.cluster.node_cost
        )
        cap = None if placement.is_partition or self.cluster.speeds != 1 else self.load_cap
        if cap is None:
            return plan
        from moeopt.guard import guarded_plan

        return guarded_plan(plan, self.workload, cluster=self.cluster, weights=self.multipliers, cap=cap)

    def cost(self, candidate: Placement | Plan) -> int:
        """Exact objective, summed over layers; a placement with copies is judged by `plan`."""
        return sum(self.layer_costs(candidate))

    def layer_costs(self, candidate: Placement | Plan) -> list[int]:
        """Exact objective of each layer."""
        placement = candidate.placement if isinstance(candidate, Plan) else candidate
        rules.check_shape(self, placement)
        if self.objective == "cut":
            if not placement.is_partition:
                raise ValueError("the cut is defined for partitions: the placement has copies")
            pairs = zip(self.workload.layers, placement.primary, strict=True)
            return [cut(self, sets, gpu_of=gpu_of) for sets, gpu_of in pairs]
        if self.objective == "load":
            held = zip(self.workload.layers, placement.hosts, strict=True)
            return [fullest(self, sets, hosts=hosts) for sets, hosts in held]
        if candidate is placement and placement.is_partition and self.workload.complete:
            pairs = zip(self.workload.layers, placement.primary, strict=True)
            return [self._hops(*partition_touches(one, at, cluster=self.cluster)) for one, at in pairs]
        plan = candidate if isinstance(candidate, Plan) else self.plan(candidate)
        costs: list[int] = []
        for sets, part in zip(self.workload.layers, plan.dispatches, strict=True):
            if broken := part.violation(sets, placement.hosts[len(costs)]):
                raise ValueError(f"layer {self.workload.layer_ids[len(costs)]}: {broken}")
            nodes = self.cluster.node_of[part.gpus]
            costs.append(self._hops(touched(part.gpus) @ part.tokens, touched(nodes) @ part.tokens))
        return costs

    def _hops(self, gpus: NDArray[np.int64], nodes: NDArray[np.int64]) -> int:
        """The objective of a layer, given the GPUs and the nodes that the tokens of each family touch."""
        tokens, cluster = self.workload.tokens, self.cluster
        return self.together(cluster.gpu_cost * (gpus - tokens) + cluster.node_cost * (nodes - tokens))

    def together(self, costs: NDArray[np.int64]) -> int:
        """The objective of a layer, given the cost of each family by token count."""
        if self.risk is None:
            return int(costs @ self.multipliers)
        return self.risk.worst((costs * self.family_units).tolist())

    def moves(self, placement: Placement) -> list[int]:
        """Copies of each layer that sit where the incumbent has none."""
        if self.incumbent is None:
            raise ValueError("moves are counted from an incumbent: the problem has none")
        return (placement.hosts & ~self.incumbent.hosts).sum(axis=(1, 2)).tolist()  # type: ignore[no-any-return]

    def violation(self, candidate: Placement | Plan) -> str:
        """The first rule that the placement or plan breaks, with its numbers; empty when it breaks none."""
        return rules.violation_of(self, candidate)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of traffic, cluster, budgets and objective."""
        text = json.dumps(self.fields(), sort_keys=True, default=storage.plain)
        return hashlib.sha256(f"{self.workload.digest} {text}".encode()).hexdigest()

    def attainable(self, bound: int) -> int:
        """The least cost that a placement of one layer can have, given that none costs less than `bound`."""
        return bound if self.risk is None else self.risk.attainable(bound)

    def candidates(self) -> Iterator[Placement | Plan]:
        """Every placement of one tiny layer, and its best dispatch where that is a choice under a tolerance."""
        from moeopt.brute import every_candidate

        return every_candidate(self)

    def fields(self) -> dict[str, Any]:
        """Everything but the traffic, JSON-ready: what a certificate carries."""
        return {
            "cluster": self.cluster.to_dict(),
            "replicas": self.replicas,
            "family_weights": None if self.family_weights is None else dict(self.family_weights),
            "objective": self.objective,
            "load_tolerance": None if self.load_tolerance is None else str(self.load_tolerance),
            **({} if self.tail is None else {"tail": str(self.tail)}),
            **({} if self.incumbent is None else {"incumbent": self.incumbent.to_dict()}),
            **({} if self.max_moves is None else {"max_moves": self.max_moves}),
            **({} if self.total_replicas is None else {"total_replicas": self.total_replicas}),
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
            storage.field(fields, "tail", kind=str) if "tail" in fields else None,
            Placement.from_dict(storage.field(fields, "incumbent", kind=dict))
            if "incumbent" in fields
            else None,
            storage.field(fields, "max_moves", kind=int) if "max_moves" in fields else None,
            storage.field(fields, "total_replicas", kind=int) if "total_replicas" in fields else None,
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
