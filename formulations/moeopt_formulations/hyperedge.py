"""Hyperedges: which GPUs and nodes the tokens of every expert set touch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from moeopt.formulation import unsupported_extras
from moeopt.placement import Placement
from moeopt.problem import Problem

if TYPE_CHECKING:
    from moeopt.matrix import Matrix

LARGEST_ENTRIES = 10_000_000  # coefficients of the rows `touch`


@dataclass(frozen=True)
class Hyperedge:
    """Any GPUs, exact fan-out; x[e,g] = 1: expert e is on GPU g, u[s,g] = 1: tokens of the set s touch GPU g.

    With w[s] the weight of a set of k experts, prices p and q of a GPU and a node, slots m[g], load caps c[g]:

        minimise    sum over s of  w[s] (p (sum_g u[s,g] - 1)  +  q (sum_n u_node[s,n] - 1))
        once        sum_g x[e,g] = 1                           for every e
        slots       sum_e x[e,g] <= m[g]                       for every g
        loads       sum_e load[e] x[e,g] <= c[g]               for every g, with a load tolerance
        touch       u[s,g] >= x[e,g]                           for every s, g and e in s
        room        m[g] u[s,g] >= sum over e in s of x[e,g]   for every s and g with m[g] < k
        need        sum_g u[s,g] >= fewest GPUs that hold s    for every s that no GPU holds, by slots and load
        order       sum of x[e,h] over h = g and after it <= sum over f<e of x[f,g']     for every e and g
        same node   touch, room, need once more with u_node[s,n], x_node[e,n]: the sum of x[e,g] over g in n

    x is binary; 0 <= u <= 1 is whole by itself, because w > 0: sets of weight 0 are left out. So are prices of 0,
    the nodes where there is one, and the sets where k = 1; with one GPU a node, p + q is the price of a GPU.
    order removes the names of GPUs that are alike: equal slots and load cap, and the same node where nodes have a
    price. They come in the order of their first experts, empty ones last; g' is the one before g. Nodes of GPUs
    that are alike one by one are ordered in the same way, through x_node.
    """

    name: ClassVar[str] = "hyperedge"
    summary: ClassVar[str] = "touch variables of every expert set; exact fan-out, GPUs may differ, two levels"

    def supports(self, problem: Problem) -> str:
        if reason := unsupported_extras(problem):
            return reason
        if problem.objective != "fan-out":
            return (
                f'states the fan-out, not {problem.objective}: use objective="fan-out", or "assignment" for it'
            )
        (sets,) = problem.workload.layers
        groups = sum(level.groups + problem.cluster.gpus for level in _levels(problem))
        if (entries := len(sets) * sets.top_k * groups) > LARGEST_ENTRIES:
            return f"{entries:,} coefficients of {len(sets):,} sets, the limit is {LARGEST_ENTRIES:,}"
        return ""

    def build(self, problem: Problem) -> Any:
        import pyomo.environ as pyo

        (sets,), cluster = problem.workload.layers, problem.cluster
        members, weight = _priced(problem)
        experts, gpus = range(sets.n_experts), range(cluster.gpus)
        model = pyo.ConcreteModel(name=self.name)
        model.problem = problem
        model.x = pyo.Var(experts, gpus, domain=pyo.Binary)
        model.once = pyo.Constraint(experts, rule=lambda _, e: sum(model.x[e, g] for g in gpus) == 1)
        model.slots = pyo.Constraint(
            gpus, rule=lambda _, g: sum(model.x[e, g] for e in experts) <= int(cluster.slots_of[g])
        )
        if (caps := problem.load_caps) is not None:
            load = sets.load.tolist()
            model.loads = pyo.Constraint(
                gpus, rule=lambda _, g: sum(load[e] * model.x[e, g] for e in experts) <= int(caps[g])
            )

        def inside(e: int, group: Any) -> Any:
            return sum(model.x[e, g] for g in group)

        touching: Any = 0
        names, held = range(len(members)), members.tolist()
        for level in _levels(problem):
            parts = [np.flatnonzero(level.group_of == group).tolist() for group in range(level.groups)]
            groups, room, need = range(level.groups), level.slots.tolist(), level.need(members).tolist()
            u = pyo.Var(names, groups, bounds=(0, 1))
            model.add_component(level.symbol, u)
            touch = pyo.Constraint(
                [(s, e, g) for s in names for e in held[s] for g in groups],
                rule=lambda _, s, e, g, u=u, parts=parts: u[s, g] >= inside(e, parts[g]),
            )
            model.add_component(f"touch_{level.symbol}", touch)
            rooms = pyo.Constraint(
                [(s, g) for s in names for g in groups if room[g] < sets.top_k],
                rule=lambda _, s, g, u=u, parts=parts, room=room: (
                    room[g] * u[s, g] >= sum(inside(e, parts[g]) for e in held[s])
                ),
            )
            model.add_component(f"room_{level.symbol}", rooms)
            needs = pyo.Constraint(
                [s for s in names if need[s] > 1],
                rule=lambda _, s, u=u, groups=groups, need=need: sum(u[s, g] for g in groups) >= need[s],
            )
            model.add_component(f"need_{level.symbol}", needs)
            touching += level.price * sum(
                int(weight[s]) * (sum(u[s, g] for g in groups) - 1) for s in names
            )
        model.order = pyo.ConstraintList()
        for chain in _chains(problem):
            for before, later in zip(chain.tolist(), _tails(chain), strict=False):
                for e in experts:
                    earlier = sum(inside(f, before) for f in experts if f < e)
                    model.order.add(inside(e, later.tolist()) <= earlier)
        model.fan_out = pyo.Objective(expr=touching)
        return model

    def read(self, model: Any) -> Placement:
        values = np.array([variable.value for variable in model.x.values()], dtype=np.float64)
        placement = self.placement(model.problem, values)
        if placement is None:
            raise ValueError("the values of the model do not put every expert on one GPU")
        return placement

    def matrix(self, problem: Problem) -> Matrix:
        from scipy.sparse import block_array, coo_array, csr_array, eye_array, kron

        from moeopt.matrix import Matrix

        (sets,), gpus = problem.workload.layers, problem.cluster.gpus
        experts, levels = sets.n_experts, _levels(problem)
        members, _ = _priced(problem)
        count, k = members.shape
        of_gpu = eye_array(gpus, format="csr")
        blocks: list[list[Any]] = [
            [kron(eye_array(experts), np.ones((1, gpus)))],
            [kron(np.ones((1, experts)), of_gpu)],
        ]
        lower = [np.ones(experts), np.full(gpus, -np.inf)]
        upper = [np.ones(experts), problem.cluster.slots_of.astype(float)]
        if problem.load_caps is not None:
            blocks.append([kron(sets.load[None, :].astype(float), of_gpu)])
            lower.append(np.full(gpus, -np.inf))
            upper.append(problem.load_caps.astype(float))
        for chain in _chains(problem):
            width, before = chain.shape[1], np.tril(np.ones((experts, experts)), -1)
            for row, later in zip(chain, _tails(chain), strict=False):
                ahead = coo_array((np.ones(width), (np.zeros(width, int), row)), shape=(1, gpus))
                behind = coo_array((np.ones(later.size), (np.zeros(later.size, int), later)), shape=(1, gpus))
                blocks.append([kron(eye_array(experts), behind) - kron(before, ahead)])
                lower.append(np.full(experts, -np.inf))
                upper.append(np.zeros(experts))
        for position, level in enumerate(levels if count else []):
            groups = level.groups
            inside = csr_array((np.ones(gpus), (level.group_of, np.arange(gpus))), shape=(groups, gpus))
            ones, entries = np.ones(members.size), (np.arange(members.size), members.ravel())
            each = csr_array((ones, entries), shape=(members.size, experts))  # a row an expert of a set
            whole = csr_array((ones, (entries[0] // k, entries[1])), shape=(count, experts))  # a row a set
            of_set, of_group = eye_array(count, format="csr"), eye_array(groups, format="csr")
            small, scarce = np.flatnonzero(level.slots < k), np.flatnonzero(level.need(members) > 1)
            rooms = csr_array((level.slots.astype(float), (range(groups), range(groups))))[small]
            needs = level.need(members)[scarce].astype(float)
            for on_x, on_u, least in (
                (-kron(each, inside), kron(kron(of_set, np.ones((k, 1))), of_group), 0.0),
                (-kron(whole, inside[small]), kron(of_set, rooms), 0.0),
                (None, kron(of_set[scarce], np.ones((1, groups))), needs),
            ):
                row: list[Any] = [on_x] + [None] * len(levels)
                row[1 + position] = on_u
                blocks.append(row)
                lower.append(np.broadcast_to(least, on_u.shape[0]))
                upper.append(np.full(on_u.shape[0], np.inf))
        cost, offset = self.costs(problem)
        width = 1 + (len(levels) if count else 0)
        full = [(part + [None] * width)[:width] for part in blocks if any(p is not None and p.shape[0] for p in part)]
        names = [f"x[{e},{g}]" for e in range(experts) for g in range(gpus)]
        names += [f"{part.symbol}[{s},{g}]" for part in levels for s in range(count) for g in range(part.groups)]
        return Matrix(
            cost=cost.astype(float),
            offset=float(offset),
            lower=np.zeros(cost.size),
            upper=np.ones(cost.size),
            integer=np.arange(cost.size) < experts * gpus,
            rows=block_array(full, format="csr"),
            row_lower=np.concatenate(lower),
            row_upper=np.concatenate(upper),
            column_names=tuple(names),
        )

    def costs(self, problem: Problem) -> tuple[NDArray[np.int64], int]:
        _, weight = _priced(problem)
        levels = _levels(problem)
        parts = [np.repeat(level.price * weight, level.groups) for level in levels]
        x = np.zeros(problem.workload.n_experts * problem.cluster.gpus, np.int64)
        return np.concatenate([x, *parts]), -sum(level.price for level in levels) * int(weight.sum())

    def values(self, problem: Problem, placement: Placement) -> NDArray[np.float64]:
        """float [columns]: alike GPUs and nodes renamed as `order` wants them."""
        members, _ = _priced(problem)
        gpu_of = _renamed(problem, placement.primary[0].astype(np.int64))
        parts = [gpu_of[:, None] == np.arange(problem.cluster.gpus)]
        for level in _levels(problem):
            parts.append((level.group_of[gpu_of][members][:, :, None] == np.arange(level.groups)).any(axis=1))
        return np.concatenate([part.ravel() for part in parts]).astype(float)

    def placement(self, problem: Problem, x: NDArray[np.float64]) -> Placement | None:
        experts, gpus = problem.workload.n_experts, problem.cluster.gpus
        on = x[: experts * gpus].reshape(experts, gpus) > 0.5
        if (on.sum(axis=1) != 1).any():
            return None
        return problem.partition(on.argmax(axis=1))


class _Level(NamedTuple):
    """Groups of GPUs that cost something to touch; group_of int64 [gpus], slots and caps int64 [groups]."""

    symbol: str
    price: int
    group_of: NDArray[np.int64]
    slots: NDArray[np.int64]
    caps: NDArray[np.int64] | None
    load: NDArray[np.int64]

    @property
    def groups(self) -> int:
        return len(self.slots)

    def need(self, members: NDArray[np.int32]) -> NDArray[np.int64]:
        """int64 [sets]: fewest groups whose slots, and whose load caps, hold the experts of a set."""
        fewest = np.full(len(members), 1 + _short(self.slots, members.shape[1]))
        if self.caps is not None:
            fewest = np.maximum(fewest, 1 + _short(self.caps, self.load[members].sum(axis=1)))
        return fewest


def _short(room: NDArray[np.int64], amount: Any) -> Any:
    """How many of the roomiest groups together still do not hold the amount; all but one at most."""
    return np.minimum(np.searchsorted(np.cumsum(np.sort(room)[::-1]), amount), len(room) - 1)


def _levels(problem: Problem) -> list[_Level]:
    """The levels that cost something."""
    (sets,), cluster = problem.workload.layers, problem.cluster
    if sets.top_k == 1:
        return []
    nodes_cost = cluster.node_cost if cluster.nodes > 1 else 0
    each_a_node = cluster.gpus_per_node == 1
    found = []
    for symbol, price, group_of in (
        ("u", cluster.gpu_cost + nodes_cost * each_a_node, np.arange(cluster.gpus)),
        ("u_node", nodes_cost * (not each_a_node), cluster.node_of),
    ):
        if price:
            slots, caps = (
                None if of is None else np.bincount(group_of, of).astype(np.int64)
                for of in (np.minimum(cluster.slots_of, sets.n_experts), problem.load_caps)
            )
            found.append(_Level(symbol, price, group_of, slots, caps, sets.load))
    return found


def _priced(problem: Problem) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """int32 [sets, k] and int64 [sets]: members and weights of the sets that can cost something."""
    (sets,) = problem.workload.layers
    weight = problem.set_weights(sets)
    kept = weight > 0 if _levels(problem) else np.zeros(len(sets), bool)
    return sets.members[kept], weight[kept]


def _chains(problem: Problem) -> list[NDArray[np.int64]]:
    """int64 [links, GPUs of a link]: two links or more that may be exchanged without change to any cost or limit.

    Nodes first, the GPUs of a node then: so renamed, GPUs keep the order of their nodes.
    """
    cluster = problem.cluster
    slots = np.minimum(cluster.slots_of, problem.workload.n_experts).tolist()
    caps = [0] * cluster.gpus if problem.load_caps is None else problem.load_caps.tolist()
    kinds = list(zip(slots, caps, strict=True))
    told_apart = cluster.node_cost > 0 and cluster.nodes > 1 and cluster.gpus_per_node > 1
    rows = np.arange(cluster.gpus).reshape(cluster.nodes if told_apart else 1, -1)
    chains = [links for links in _alike([[kinds[g] for g in row] for row in rows.tolist()])]
    found = [rows[links] for links in chains]
    for row in rows:
        found += [row[links][:, None] for links in _alike([kinds[g] for g in row])]
    return found


def _alike(kinds: list[Any]) -> Iterator[list[int]]:
    """Positions of equal kinds, where there are two or more."""
    order = sorted(range(len(kinds)), key=lambda at: (kinds[at], at))
    for _, same in groupby(order, key=lambda at: kinds[at]):
        if len(links := list(same)) > 1:
            yield links


def _tails(chain: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """For every link but the last, the GPUs of all links behind it."""
    return [chain[at:].ravel() for at in range(1, len(chain))]


def _renamed(problem: Problem, gpu_of: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64 [experts]: the links of every chain in the order of their first experts, empty ones last."""
    for chain in _chains(problem):
        first = np.full(problem.cluster.gpus, gpu_of.size)
        np.minimum.at(first, gpu_of, np.arange(gpu_of.size))
        order = np.argsort(first[chain].min(axis=1), kind="stable")
        name = np.arange(problem.cluster.gpus)
        name[chain[order]] = chain
        gpu_of = name[gpu_of]
    return gpu_of
