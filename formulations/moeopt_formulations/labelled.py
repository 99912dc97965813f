"""Set partitioning with named GPUs: exact fan-out where GPUs differ, and a budget of moves from an incumbent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import comb
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from moeopt.columns import contents
from moeopt.formulation import unsupported_extras
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt_formulations.blocks import content_costs

if TYPE_CHECKING:
    from moeopt.matrix import Matrix

LARGEST_COUNT = 400_000  # columns


@dataclass(frozen=True)
class Labelled:
    r"""Any GPUs, costs additive over them; z[i] = 1: GPU g[i] holds exactly the experts B[i].

    One column for every content B that GPU g may have: |B| <= m[g], load(B) <= c[g], and, with a budget of moves,

        |B \ I[g]| + |{e in I[g] \ B : e is on no other GPU of the incumbent}| <= max_moves,

    I[g] being the incumbent content: what arrives at g moves, and what leaves it without another copy moves as well.

        minimise    offset + sum_i cost(B[i]) z[i]              cost and offset of `blocks`
        cover       sum over i with e in B[i] of z[i] = 1       for every e
        gpus        sum over i with g[i] = g of z[i] = 1        for every g; the empty content is one
        moves       sum_i |B[i] \ I[g[i]]| z[i] <= max_moves    with a budget of moves

    z is binary. Where no content fits a GPU or holds an expert, the row has the variable none = 0 alone. Small
    budgets make small models; the relaxation is nearly whole.
    """

    name: ClassVar[str] = "labelled"
    summary: ClassVar[str] = "set partitioning with named GPUs; exact fan-out or cut, GPUs may differ, moves"

    def supports(self, problem: Problem) -> str:
        if reason := unsupported_extras(problem, moves=True):
            return reason
        cluster = problem.cluster
        if cluster.nodes > 1 and cluster.gpus_per_node > 1 and cluster.node_cost:
            return f"the cost is additive over GPUs, {cluster.nodes} nodes have node cost {cluster.node_cost}"
        if (count := self.width(problem)) > LARGEST_COUNT:
            return f"{count:,} contents of named GPUs, enumeration ends at {LARGEST_COUNT:,}"
        return ""

    def width(self, problem: Problem) -> int:
        """Columns of `matrix`, at most, known before any is listed."""
        return sum(
            comb(shape.held.size, shape.kept) * comb(shape.others.size, shape.new)
            for shape in _shapes(problem)
        )

    def build(self, problem: Problem) -> Any:
        import pyomo.environ as pyo

        table = _listed(problem)
        held = [row[row >= 0].tolist() for row in table.members]
        columns, costs, moved = range(len(held)), table.cost.tolist(), table.moved.tolist()
        containing: list[list[int]] = [[] for _ in range(problem.workload.n_experts)]
        for i, block in enumerate(held):
            for e in block:
                containing[e].append(i)
        of_gpu = [np.flatnonzero(table.gpu == g).tolist() for g in range(problem.cluster.gpus)]
        model = pyo.ConcreteModel(name=self.name)
        model.problem = problem
        model.z = pyo.Var(columns, domain=pyo.Binary)
        model.cost = pyo.Objective(
            expr=table.offset + pyo.quicksum(costs[i] * model.z[i] for i in columns if costs[i])
        )

        if table.bare.size:
            model.none = pyo.Var(bounds=(0, 0))

        def once(group: list[int]) -> Any:
            return (pyo.quicksum(model.z[i] for i in group) if group else model.none) == 1

        model.cover = pyo.Constraint(range(len(containing)), rule=lambda _, e: once(containing[e]))
        model.gpus = pyo.Constraint(range(len(of_gpu)), rule=lambda _, g: once(of_gpu[g]))
        if problem.max_moves is not None and table.moved.any():
            model.moves = pyo.Constraint(
                expr=pyo.quicksum(moved[i] * model.z[i] for i in columns if moved[i]) <= problem.max_moves
            )
        return model

    def read(self, model: Any) -> Placement:
        values = np.array([variable.value for variable in model.z.values()], dtype=np.float64)
        placement = self.placement(model.problem, values)
        if placement is None:
            raise ValueError("the values of the model do not put every expert on one GPU")
        return placement

    def matrix(self, problem: Problem) -> Matrix:
        from scipy.sparse import csr_array

        from moeopt.matrix import Matrix

        table, experts, gpus = _listed(problem), problem.workload.n_experts, problem.cluster.gpus
        count = table.cost.size
        used, every = table.members >= 0, np.arange(count)
        rows: list[NDArray[Any]] = [table.members[used], experts + table.gpu]
        places = [np.nonzero(used)[0], every]
        data = [np.ones(len(rows[0])), np.ones(count)]
        if table.bare.size:
            rows.append(table.bare)
            places.append(np.full(table.bare.size, count))
            data.append(np.ones(table.bare.size))
        right = np.ones(experts + gpus)
        lower, upper = right, right
        if problem.max_moves is not None and table.moved.any():
            rows.append(np.full(count, experts + gpus))
            places.append(every)
            data.append(table.moved.astype(float))
            lower, upper = np.append(right, -np.inf), np.append(right, problem.max_moves)
        cost, offset = self.costs(problem)
        names = [f"z[{i}]" for i in range(count)] + ["none"] * (cost.size - count)
        entries = (np.concatenate(data), (np.concatenate(rows), np.concatenate(places)))
        return Matrix(
            cost=cost.astype(float),
            offset=float(offset),
            lower=np.zeros(cost.size),
            upper=(np.arange(cost.size) < count).astype(float),
            integer=np.arange(cost.size) < count,
            rows=csr_array(entries, shape=(lower.size, cost.size)),
            row_lower=lower,
            row_upper=upper,
            column_names=tuple(names),
        )

    def costs(self, problem: Problem) -> tuple[NDArray[np.int64], int]:
        table = _listed(problem)
        return np.append(table.cost, np.zeros(int(table.bare.size > 0), np.int64)), table.offset

    def values(self, problem: Problem, placement: Placement) -> NDArray[np.float64]:
        """float [columns]: a placement as a point of the matrix; a content without a column is left out."""
        table = _listed(problem)
        x = np.zeros(table.cost.size + int(table.bare.size > 0))
        for gpu, hosts in enumerate(placement.hosts[0].T):
            block = np.flatnonzero(hosts)
            if block.size <= table.members.shape[1]:
                padded = np.append(block, np.full(table.members.shape[1] - block.size, -1))
                x[: table.cost.size][(table.gpu == gpu) & (table.members == padded).all(axis=1)] = 1.0
        return x

    def placement(self, problem: Problem, x: NDArray[np.float64]) -> Placement | None:
        table, workload = _listed(problem), problem.workload
        hosts = np.zeros((workload.n_experts, problem.cluster.gpus), np.int64)
        for i in np.flatnonzero(x[: table.cost.size] > 0.5):
            block = table.members[i]
            hosts[block[block >= 0], table.gpu[i]] += 1
        if (hosts.sum(axis=1) != 1).any():
            return None
        return problem.partition(hosts.argmax(axis=1))


@dataclass(frozen=True, eq=False)
class _Contents:
    """members int16 [columns, m] padded with -1; gpu, cost, moved (|B minus I[g]|) int64 [columns].

    bare: the rows, experts and then GPUs, that no content is in.
    """

    members: NDArray[np.int16]
    gpu: NDArray[np.int64]
    cost: NDArray[np.int64]
    moved: NDArray[np.int64]
    offset: int
    bare: NDArray[np.int64]

    @classmethod
    def of(cls, problem: Problem) -> _Contents:
        (sets,), cluster = problem.workload.layers, problem.cluster
        weights, unit = problem.set_weights(sets), cluster.gpu_cost
        if cluster.gpus_per_node == 1 and cluster.nodes > 1:
            unit += cluster.node_cost
        width = max(1, int(min(cluster.slots_of.max(), sets.n_experts)))
        shapes = list(_shapes(problem))
        listed = [_contents_of(problem, shape) for shape in shapes]
        costs = _costs_of(problem, listed, weights=weights)
        members = [np.zeros((0, width), np.int16)]
        numbers = [np.zeros((3, 0), np.int64)]  # GPU, cost, moved
        for shape, rows, cost in zip(shapes, listed, costs, strict=True):
            members.append(np.pad(rows, ((0, 0), (0, width - rows.shape[1])), constant_values=-1))
            numbers.append(
                np.stack([np.full(len(rows), shape.gpu), unit * cost, np.full(len(rows), shape.new)])
            )
        offset = -problem.total_weight if problem.objective == "fan-out" else problem.pair_weight
        blocks = np.concatenate(members)
        gpu, cost, moved = np.concatenate(numbers, axis=1)
        known = np.concatenate([blocks[blocks >= 0], sets.n_experts + gpu])
        bare = np.setdiff1d(np.arange(sets.n_experts + cluster.gpus), known)
        return cls(blocks, gpu, cost, moved, unit * offset, bare)


def _contents_of(problem: Problem, shape: _Shape) -> NDArray[np.int16]:
    """int16 [contents, m]: what a GPU of this shape may hold, ascending."""
    stay, come = _choices(shape.held, shape.kept), _choices(shape.others, shape.new)
    if problem.max_moves is not None:
        gone = shape.bound.size - np.isin(stay, shape.bound).sum(axis=1)
        stay = stay[gone + shape.new <= problem.max_moves]
    rows = np.sort(np.hstack([np.repeat(stay, len(come), axis=0), np.tile(come, (len(stay), 1))]), axis=1)
    if problem.load_caps is not None:
        rows = rows[problem.workload.layers[0].load[rows].sum(axis=1) <= problem.load_caps[shape.gpu]]
    return rows


def _costs_of(
    problem: Problem, listed: Sequence[NDArray[np.int16]], *, weights: NDArray[np.int64]
) -> list[NDArray[np.int64]]:
    """Costs for a GPU of price 1; contents of one size at once, for what they share is counted once."""
    sizes = np.array([rows.shape[1] for rows in listed])
    costs = [np.zeros(0, np.int64)] * len(listed)
    for size in np.unique(sizes):
        alike = np.flatnonzero(sizes == size).tolist()
        found = content_costs(problem, np.concatenate([listed[at] for at in alike]), weights=weights)
        for at, part in zip(
            alike, np.split(found, np.cumsum([len(listed[at]) for at in alike])[:-1]), strict=True
        ):
            costs[at] = part
    return costs


@lru_cache(maxsize=2)
def _listed(problem: Problem) -> _Contents:
    """The contents of a problem, which is immutable: a run asks for them over and over."""
    return _Contents.of(problem)


class _Shape(NamedTuple):
    """Contents of one GPU that keep so many of the experts it holds and take so many of the others.

    held, others, bound: expert ids, the last those of `held` that are on no other GPU of the incumbent.
    """

    gpu: int
    held: NDArray[np.int16]
    others: NDArray[np.int16]
    bound: NDArray[np.int16]
    kept: int
    new: int


def _shapes(problem: Problem) -> Iterator[_Shape]:
    """Every shape that the slots allow, and the budget of moves where there is one."""
    experts = problem.workload.n_experts
    slots = np.minimum(problem.cluster.slots_of, experts).tolist()
    budget = experts if problem.max_moves is None else problem.max_moves
    hosts = np.zeros((experts, len(slots)), bool)
    if problem.incumbent is not None and problem.max_moves is not None:
        hosts = problem.incumbent.hosts[0]
    alone = hosts.sum(axis=1) == 1
    for gpu, room in enumerate(slots):
        least = experts - (sum(slots) - room)  # what the other GPUs cannot hold
        held, others, bound = (
            np.flatnonzero(chosen).astype(np.int16)
            for chosen in (hosts[:, gpu], ~hosts[:, gpu], hosts[:, gpu] & alone)
        )
        for kept in range(held.size, -1, -1):
            gone = max(0, bound.size - kept)
            for new in range(max(0, least - kept), min(room - kept, others.size, budget - gone) + 1):
                yield _Shape(gpu, held, others, bound, kept, new)


def _choices(items: NDArray[np.int16], size: int) -> NDArray[np.int16]:
    """int16 [choices, size]: all ways to choose from the items."""
    return items[contents(items.size, [size])[0]] if size else np.zeros((1, 0), np.int16)
