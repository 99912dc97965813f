"""Set partitioning over the possible contents of a node, each shared among its GPUs at least cost: exact fan-out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import comb
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from moeopt.columns import contents
from moeopt.formulation import unsupported_extras
from moeopt.placement import Placement
from moeopt.problem import Problem

if TYPE_CHECKING:
    from moeopt.matrix import Matrix

LARGEST_COUNT = 1_000_000  # columns
LARGEST_WORK = 4_000_000_000  # subsets visited to price them


@dataclass(frozen=True)
class TwoLevelBlocks:
    """Any GPUs, exact fan-out at both levels; z[B,k] = 1: the experts B, and no others, are on a node of kind k.

    Nodes are of one kind when their GPUs are alike in slots and load caps; N[k] of them. Where nodes have no price,
    or one GPU each, a GPU counts as a node. With prices p and q of a GPU and a node, and w(B) the weight of the sets
    that meet B:

        minimise    offset + sum over k and B of c[B,k] z[B,k]
        cover       sum over k and over B with e of z[B,k] = 1     for every e
        nodes       empty[k] + sum over B of z[B,k] = N[k]         for every k

        c[B,k] = q w(B) + the least sum of p w(A) over the GPUs of a node of kind k, whose contents A part B and keep
        slots and load caps;  offset = -(p + q) w(all experts)

    z is binary, empty whole. B that cannot be parted so are left out, or held at 0 where an expert has no others.

    Exact: a GPU lies in one node, so the fan-out is a sum over nodes, of the price of the node and of its GPUs, and
    what is in one node changes no price in another. The contents of GPUs need no variables: given those of the
    nodes, the best share is known. Nor does the relaxation mix shares, as it would with variables for both.
    """

    name: ClassVar[str] = "two-level-blocks"
    summary: ClassVar[str] = (
        "set partitioning over node contents; exact fan-out, nodes and GPUs, which may differ"
    )

    def supports(self, problem: Problem) -> str:
        if reason := unsupported_extras(problem):
            return reason
        if problem.objective != "fan-out":
            return (
                f'states the fan-out, not {problem.objective}: use objective="fan-out", or "two-level" for it'
            )
        experts, kinds = problem.workload.n_experts, _kinds(problem)
        if (count := sum(comb(experts, size) for kind in kinds for size in kind.sizes)) > LARGEST_COUNT:
            return f"{count:,} contents of a node, enumeration ends at {LARGEST_COUNT:,}"
        if (work := sum(kind.work(experts) for kind in kinds)) > LARGEST_WORK:
            return f"{work:,} shares of {count:,} contents of a node, the limit is {LARGEST_WORK:,}"
        return ""

    def build(self, problem: Problem) -> Any:
        import pyomo.environ as pyo

        table = _table(problem)
        columns, kinds = range(len(table.cost)), range(len(table.kinds))
        costs, upper = table.cost.tolist(), table.upper.tolist()
        holding = [
            np.flatnonzero((table.members == e).any(axis=1)).tolist()
            for e in range(problem.workload.n_experts)
        ]
        model = pyo.ConcreteModel(name=self.name)
        model.problem = problem
        model.z = pyo.Var(columns, domain=pyo.Binary, bounds=lambda _, b: (0, upper[b]))
        model.empty = pyo.Var(
            kinds, domain=pyo.NonNegativeIntegers, bounds=lambda _, k: (0, table.kinds[k].count)
        )
        model.fan_out = pyo.Objective(
            expr=table.offset + pyo.quicksum(costs[b] * model.z[b] for b in columns)
        )
        model.cover = pyo.Constraint(
            range(len(holding)), rule=lambda _, e: pyo.quicksum(model.z[b] for b in holding[e]) == 1
        )
        model.nodes = pyo.Constraint(
            kinds,
            rule=lambda _, k: (
                model.empty[k] + pyo.quicksum(model.z[b] for b in np.flatnonzero(table.kind_of == k).tolist())
                == table.kinds[k].count
            ),
        )
        return model

    def read(self, model: Any) -> Placement:
        values = np.array([variable.value for variable in model.z.values()], dtype=np.float64)
        placement = self.placement(model.problem, values)
        if placement is None:
            raise ValueError("the values of the model do not put every expert on one node")
        return placement

    def matrix(self, problem: Problem) -> Matrix:
        from scipy.sparse import csr_array

        from moeopt.matrix import Matrix

        table, experts = _table(problem), problem.workload.n_experts
        count, kinds = len(table.cost), len(table.kinds)
        column, _ = np.nonzero(table.members >= 0)
        rows = np.concatenate(
            [table.members[table.members >= 0], experts + table.kind_of, experts + np.arange(kinds)]
        )
        places = np.concatenate([column, np.arange(count + kinds)])
        nodes = np.array([kind.count for kind in table.kinds], float)
        right = np.append(np.ones(experts), nodes)
        cost, offset = self.costs(problem)
        return Matrix(
            cost=cost.astype(float),
            offset=float(offset),
            lower=np.zeros(cost.size),
            upper=np.append(table.upper, nodes),
            integer=np.ones(cost.size, bool),
            rows=csr_array((np.ones(rows.size), (rows, places)), shape=(right.size, cost.size)),
            row_lower=right,
            row_upper=right,
            column_names=(*(f"z[{b}]" for b in range(count)), *(f"empty[{k}]" for k in range(kinds))),
        )

    def costs(self, problem: Problem) -> tuple[NDArray[np.int64], int]:
        table = _table(problem)
        return np.append(table.cost, np.zeros(len(table.kinds), np.int64)), table.offset

    def placement(self, problem: Problem, x: NDArray[np.float64]) -> Placement | None:
        table, gpu_of = _table(problem), np.full(problem.workload.n_experts, -1)
        left = [list(kind.nodes) for kind in table.kinds]
        for b in np.flatnonzero(x[: len(table.cost)] > 0.5).tolist():
            held = table.members[b] >= 0
            members, nodes = table.members[b][held], left[table.kind_of[b]]
            if not nodes or (gpu_of[members] >= 0).any():
                return None
            gpu_of[members] = nodes.pop(0)[table.share[b][held]]
        return None if (gpu_of < 0).any() else problem.partition(gpu_of)


@dataclass(frozen=True, eq=False)
class _Kind:
    """Nodes that may be exchanged: int64 [gpus] ids of each, slots, load caps; sizes of contents that may occur."""

    nodes: list[NDArray[np.int64]]
    slots: NDArray[np.int64]
    caps: NDArray[np.int64]
    sizes: range

    @property
    def count(self) -> int:
        return len(self.nodes)

    def work(self, experts: int) -> int:
        """Subsets visited to price all contents."""
        gpus = len(self.slots)
        shares = sum(comb(experts, r) * ((3 << r) + int(3**r) * max(0, gpus - 2)) for r in self.sizes)
        return shares + sum(comb(experts, r) << r for r in range(1, int(self.slots.max()) + 1))


@dataclass(frozen=True, eq=False)
class _Table:
    """Columns: int16 [columns, r] members and the GPU of each within its node, -1 beyond; int64 [columns] the rest."""

    kinds: list[_Kind]
    members: NDArray[np.int16]
    share: NDArray[np.int16]
    kind_of: NDArray[np.int64]
    cost: NDArray[np.int64]
    upper: NDArray[np.int64]
    offset: int


def _prices(problem: Problem) -> tuple[int, int]:
    """Prices of a GPU and of a node that holds several; the node's is 0 where every GPU counts as one."""
    cluster = problem.cluster
    node = cluster.node_cost if cluster.nodes > 1 else 0
    return (cluster.gpu_cost + node, 0) if cluster.gpus_per_node == 1 else (cluster.gpu_cost, node)


def _kinds(problem: Problem) -> list[_Kind]:
    cluster, experts = problem.cluster, problem.workload.n_experts
    slots = np.minimum(cluster.slots_of, experts)
    caps = np.full(cluster.gpus, problem.load_total) if problem.load_caps is None else problem.load_caps
    nodes = np.arange(cluster.gpus).reshape(cluster.nodes if _prices(problem)[1] else cluster.gpus, -1)
    alike: dict[tuple[int, ...], list[NDArray[np.int64]]] = {}
    for node in nodes:
        ordered = node[np.lexsort((caps[node], slots[node]))]
        alike.setdefault((*slots[ordered].tolist(), *caps[ordered].tolist()), []).append(ordered)
    total = int(slots.sum())
    found = []
    for same in alike.values():
        room = int(slots[same[0]].sum())
        sizes = range(max(1, experts - total + room), min(room, experts) + 1)
        if sizes:
            found.append(_Kind(same, slots[same[0]], caps[same[0]], sizes))
    return found


@lru_cache(maxsize=1)
def _table(problem: Problem) -> _Table:
    """Every content of a node of every kind, priced; the last problem's is kept, for it takes seconds."""
    from moeopt.inclusion import meeting_weight
    from moeopt.nesting import NEVER, cheapest_shares

    (sets,), experts = problem.workload.layers, problem.workload.n_experts
    weights, (gpu_price, node_price) = problem.set_weights(sets), _prices(problem)
    kinds = _kinds(problem)

    def meeting(subsets: NDArray[np.int16]) -> NDArray[np.int64]:
        return meeting_weight(subsets, sets.members, weights=weights, n_experts=experts)

    largest = max(int(kind.slots.max()) for kind in kinds)
    alone = [meeting(subsets) for subsets in contents(experts, range(1, largest + 1))]
    of_gpu = gpu_price * np.concatenate([np.zeros(1, np.int64), *alone])
    width = max(kind.sizes[-1] for kind in kinds)
    parts: list[tuple[NDArray[Any], ...]] = []
    for at, kind in enumerate(kinds):
        for subsets in contents(experts, kind.sizes):
            inner, share = cheapest_shares(subsets, of_gpu, load=sets.load, slots=kind.slots, caps=kind.caps)
            allowed = inner < NEVER
            cost = np.where(allowed, inner + (node_price * meeting(subsets) if node_price else 0), 0)
            beyond = np.full((len(subsets), width - subsets.shape[1]), -1, np.int16)
            padded = [np.concatenate([part, beyond], axis=1) for part in (subsets, share)]
            parts.append((*padded, np.full(len(subsets), at), cost, allowed.astype(np.int64)))
    members, share, kind_of, cost, upper = (np.concatenate(part) for part in zip(*parts, strict=True))
    bare = np.setdiff1d(np.arange(experts), members[upper > 0])
    kept = (upper > 0) | np.isin(members, bare).any(axis=1)
    offset = -(gpu_price + node_price) * int(weights.sum())
    return _Table(kinds, members[kept], share[kept], kind_of[kept], cost[kept], upper[kept], offset)
