r"""Set partitioning over the possible contents of a GPU: exact fan-out, no GPU labels.

Sets      B in the contents a GPU may have, |B| <= m slots, load(B) <= cap;  e in experts
Data      c_B  cost of a GPU that holds B, any function of B alone:
              fan-out   c_B = w(sets that meet B),           offset = -w(all sets)
              cut       c_B = -w(pairs inside B),            offset =  w(all pairs)
Variables z_B in {0, 1}, whether some GPU holds exactly B;  z_0 >= 0 integer, GPUs left empty
Minimise  offset + sum_B c_B z_B
Such that sum_{B contains e} z_B = 1      for every expert e       (cover)
          z_0 + sum_B z_B = G                                      (gpus)

A token of set s touches as many GPUs as blocks meet s, so the fan-out is linear in z and exact. Family weights are
in w. Needs interchangeable GPUs (equal slots) and a cost that is additive over GPUs (one node, or no price on nodes).
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from moeopt.columns import Columns, block_sizes, column_count, contents
from moeopt.formulation import unsupported_extras
from moeopt.placement import Placement
from moeopt.problem import Problem

LARGEST_COUNT = 12_000_000  # columns; 16 bytes each, and a few arrays of their number
LARGEST_WORK = 4_000_000_000  # subsets visited by inclusion-exclusion


@dataclass(frozen=True)
class Blocks:
    """Set partitioning with every column enumerated: blocks of up to 4 experts, more where few enough exist."""

    name: ClassVar[str] = "blocks"
    summary: ClassVar[str] = (
        "set partitioning over GPU contents; exact fan-out or cut, proved by prices and search"
    )

    def supports(self, problem: Problem) -> str:
        """Why not; empty when it does."""
        if reason := common_reason(problem):
            return reason
        size, count = self._size(problem)
        if count > LARGEST_COUNT:
            return (
                f'{count:,} contents of {size} experts, enumeration ends at {LARGEST_COUNT:,}: use "priced"'
            )
        if problem.objective == "fan-out" and count << size > LARGEST_WORK:
            return f"inclusion-exclusion over {count:,} contents of {size} experts is too much work"
        return ""

    def _size(self, problem: Problem) -> tuple[int, int]:
        experts, gpus, slots = (
            problem.workload.n_experts,
            problem.cluster.gpus,
            int(problem.cluster.slots_of[0]),
        )
        return min(slots, experts), column_count(experts, gpus, slots=slots)

    def columns(self, problem: Problem) -> Columns:
        """Every content a GPU may have, with its exact cost; those above the load cap are left out."""
        (sets,) = problem.workload.layers
        experts, cluster = problem.workload.n_experts, problem.cluster
        weights = problem.set_weights(sets)
        unit = problem.cluster.further_gpu
        sizes = block_sizes(experts, cluster.gpus, slots=int(cluster.slots_of[0]))
        members: list[NDArray[np.int16]] = []
        costs: list[NDArray[np.int64]] = []
        for subsets in contents(experts, sizes):
            if problem.load_cap is not None:
                subsets = subsets[sets.load[subsets].sum(axis=1) <= problem.load_cap]
            cost = content_costs(problem, subsets, weights=weights)
            padding = np.full((len(subsets), sizes[-1] - subsets.shape[1]), -1, np.int16)
            members.append(np.concatenate([subsets, padding], axis=1))
            costs.append(unit * cost)
        offset = -problem.total_weight if problem.objective == "fan-out" else problem.pair_weight
        return Columns(np.concatenate(members), np.concatenate(costs), unit * offset, experts, cluster.gpus)

    def build(self, problem: Problem) -> Any:
        """The statement above in Pyomo; for sizes that can be listed."""
        import pyomo.environ as pyo

        columns = self.columns(problem)
        contents_of = [frozenset(row[row >= 0].tolist()) for row in columns.members]

        model = pyo.ConcreteModel(name=self.name)
        model.E = pyo.RangeSet(0, columns.n_experts - 1)
        model.B = pyo.RangeSet(0, len(columns) - 1)
        model.z = pyo.Var(model.B, domain=pyo.Binary)
        model.z_empty = pyo.Var(domain=pyo.NonNegativeIntegers, bounds=(0, columns.groups))
        model.cost = pyo.Objective(
            expr=columns.offset + sum(int(columns.cost[b]) * model.z[b] for b in model.B), sense=pyo.minimize
        )
        nothing = 0 * model.z_empty  # an expert that no admissible content holds still has its row
        model.cover = pyo.Constraint(
            model.E, rule=lambda m, e: nothing + sum(m.z[b] for b in m.B if e in contents_of[b]) == 1
        )
        model.gpus = pyo.Constraint(expr=model.z_empty + sum(model.z[b] for b in model.B) == columns.groups)
        model.problem, model.columns = problem, columns
        return model

    def read(self, model: Any) -> Placement:
        """The placement of a solved model."""
        return self._placement(model.problem, model.columns, [b for b in model.B if model.z[b].value > 0.5])

    def matrix(self, problem: Problem) -> Any:
        """The standard form of the statement, built directly; columns are named as Pyomo names them."""
        from scipy import sparse

        from moeopt.matrix import Matrix

        columns = self.columns(problem)
        count, experts = len(columns), columns.n_experts
        used = columns.members >= 0
        rows = np.append(columns.members[used], np.full(count + 1, experts))
        places = np.concatenate([np.nonzero(used)[0], np.arange(count), [count]])
        coefficients = sparse.csr_array((np.ones(len(rows)), (rows, places)), shape=(experts + 1, count + 1))
        right = np.append(np.ones(experts), columns.groups)
        return Matrix(
            cost=np.append(columns.cost, 0).astype(float),
            offset=float(columns.offset),
            lower=np.zeros(count + 1),
            upper=np.append(np.ones(count), columns.groups),
            integer=np.ones(count + 1, bool),
            rows=coefficients,
            row_lower=right,
            row_upper=right,
            column_names=(*(f"z[{b}]" for b in range(count)), "z_empty"),
        )

    def width(self, problem: Problem) -> int:
        """Columns of `matrix`, at most, known before any is listed."""
        return self._size(problem)[1] + 1

    def costs(self, problem: Problem) -> tuple[NDArray[np.int64], int]:
        """int64 [columns] and the constant: the objective of `matrix` in exact integers."""
        columns = self.columns(problem)
        return np.append(columns.cost, 0), columns.offset

    def values(self, problem: Problem, placement: Placement) -> NDArray[np.float64]:
        """float [columns]: a placement as a point of `matrix`; a content above the load cap has no column."""
        columns = self.columns(problem)
        x = np.zeros(len(columns) + 1)
        held = [np.flatnonzero(hosts) for hosts in placement.hosts[0].T if hosts.any()]
        for block in held:
            padded = np.full(max(columns.members.shape[1], len(block)), -1)
            padded[: len(block)] = block
            if len(padded) == columns.members.shape[1]:
                x[:-1][(columns.members == padded).all(axis=1)] = 1.0
        x[-1] = columns.groups - len(held)
        return x

    def placement(self, problem: Problem, x: NDArray[np.float64]) -> Placement | None:
        """The placement of a point of `matrix`; None when its blocks are no partition."""
        columns = self.columns(problem)
        blocks = np.flatnonzero(x[:-1] > 0.5)
        held = columns.members[blocks]
        covered = np.bincount(held[held >= 0], minlength=columns.n_experts)
        if len(blocks) > columns.groups or (covered != 1).any():
            return None
        return self._placement(problem, columns, blocks.tolist())

    def _placement(self, problem: Problem, columns: Columns, blocks: list[int]) -> Placement:
        gpu_of = columns.gpu_of(blocks)[None]
        workload = problem.workload
        return Placement.partition(
            gpu_of, problem.cluster, layer_ids=workload.layer_ids, model=workload.model
        )


def common_reason(problem: Problem) -> str:
    """Why set partitioning over the contents of a GPU does not state `problem`, however many there are; else empty."""
    if reason := unsupported_extras(problem):
        return reason
    cluster = problem.cluster
    if not cluster.equal:
        return (
            f"needs GPUs with equal slots and speeds, found slots {cluster.slots}, speeds {cluster.speeds}: "
            'use "hyperedge"'
        )
    if cluster.nodes > 1 and cluster.gpus_per_node > 1 and cluster.node_cost:
        return f"the cost of blocks is additive over GPUs, {cluster.nodes} nodes have node cost {cluster.node_cost}"
    return ""


def content_costs(
    problem: Problem, subsets: NDArray[np.int16], *, weights: NDArray[np.int64]
) -> NDArray[np.int64]:
    """int64 [blocks]: c_B for a GPU of price 1, of contents int16 [blocks, m], m >= 0, without padding."""
    (sets,) = problem.workload.layers
    if not subsets.shape[1]:
        return np.zeros(len(subsets), np.int64)
    if problem.objective == "cut":
        return -_inside(subsets, sets.affinity(weights))
    from moeopt.inclusion import meeting_weight

    return meeting_weight(subsets, sets.members, weights=weights, n_experts=sets.n_experts)


def _inside(subsets: NDArray[np.int16], affinity: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64 [blocks]: co-activation between the members of each block."""
    total = np.zeros(len(subsets), np.int64)
    for i in range(subsets.shape[1]):
        for j in range(i):
            total += affinity[subsets[:, i], subsets[:, j]]
    return total
