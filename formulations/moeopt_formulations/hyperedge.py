"""Hyperedges: which GPUs and nodes the tokens of every expert set touch."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from moeopt.formulation import unsupported_extras
from moeopt.levels import Level, priced_levels
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.symmetry import alike, first_rows, renumbered

if TYPE_CHECKING:
    from moeopt.matrix import Matrix
    from moeopt.widths import Rows

LARGEST_ENTRIES = 10_000_000  # coefficients of the rows of the sets


@dataclass(frozen=True)
class Hyperedge:
    """Any GPUs, exact fan-out; x[e,g] = 1: expert e is on GPU g, u[s,g] = 1: tokens of the set s touch GPU g.

    With w[s] the weight of a set of k experts, prices p and q of a GPU and a node, slots m[g], load caps c[g],
    |u[s]| = sum_g u[s,g], and y[e,f] = 1 when e < f share a GPU:

        minimise    sum over s of  w[s] (p (|u[s]| - 1)  +  q (|u_node[s]| - 1))
        once        sum_g x[e,g] = 1                                 for every e
        slots       sum_e x[e,g] <= m[g]                             for every g
        loads       sum_e load[e] x[e,g] <= c[g]                     for every g, with a load tolerance
        first       GPUs that are alike come in the order of their first experts
        touch       u[s,g] >= x[e,g]                                 for every s, g and e in s
        room        m[g] u[s,g] >= sum over e in s of x[e,g]         for every s and g with m[g] < k
        need        |u[s]| >= fewest GPUs that hold s                where one does not, by slots and load caps
        same        y[e,f] <= 1 - x[e,g] + x[f,g], and e, f swapped  for every e < f, g
        mates       sum_f y[e,f] <= sum_g (m[g] - 1) x[e,g]          for every e
        two         |u[s]| >= 2 - y[e,f]                             for every s and e < f in s
        spread      t (t+1) |u[s]| >= 2 (t k - sum over e < f in s of y[e,f])        for every s, 1 <= t < k
        nodes       touch to spread once more with u_node, y_node and the sum of x over the GPUs of a node;
                    y[e,f] <= y_node[e,f]

    x is binary; 0 <= u <= 1 is whole by itself, for w > 0: sets of weight 0 are left out. So are prices of 0, one
    node, and every set where k = 1; with one GPU a node, p + q is the price of a GPU. GPUs are alike when slots and
    load caps are equal, on one node where nodes have a price.

    once to touch are the model. The rest makes its relaxation say something, for x = 1/G touches one GPU a set.
    spread: e of s shares its GPU with r_e - 1 others of s, so s touches the sum of 1/r_e GPUs, and
    1/r >= (2t + 1 - r) / (t (t+1)) for whole r.
    """

    name: ClassVar[str] = "hyperedge"
    summary: ClassVar[str] = "touch variables of every expert set; exact fan-out, GPUs may differ, two levels"

    def supports(self, problem: Problem) -> str:
        if reason := unsupported_extras(problem):
            return reason
        if problem.objective != "fan-out":
            return f'states the fan-out, not {problem.objective}: use objective="fan-out", or "assignment"'
        (sets,), k = problem.workload.layers, problem.workload.top_k
        each = sum(k * (level.groups + problem.cluster.gpus + k * k) for level in priced_levels(problem))
        if (entries := len(sets) * each) > LARGEST_ENTRIES:
            return f"{entries:,} coefficients for {len(sets):,} sets, the limit is {LARGEST_ENTRIES:,}"
        return ""

    def build(self, problem: Problem) -> Any:
        import pyomo.environ as pyo

        (sets,), cluster = problem.workload.layers, problem.cluster
        members, weight = _priced(problem)
        held, k, caps, load = members.tolist(), sets.top_k, problem.load_caps, sets.load.tolist()
        experts, gpus, names = range(sets.n_experts), range(cluster.gpus), range(len(members))
        pairs = list(combinations(experts, 2))
        model = pyo.ConcreteModel(name=self.name)
        model.problem = problem
        model.x = x = pyo.Var(experts, gpus, domain=pyo.Binary)
        model.once = pyo.Constraint(experts, rule=lambda _, e: sum(x[e, g] for g in gpus) == 1)
        model.slots = pyo.Constraint(
            gpus, rule=lambda _, g: sum(x[e, g] for e in experts) <= int(cluster.slots_of[g])
        )
        if caps is not None:
            model.loads = pyo.Constraint(
                gpus, rule=lambda _, g: sum(load[e] * x[e, g] for e in experts) <= int(caps[g])
            )
        model.first = pyo.ConstraintList()
        for row in first_rows(_alike(problem), experts):
            later = sum(x[row.item, g] for g in row.later)
            model.first.add(later <= sum(x[e, row.before] for e in row.earlier))
        spent: Any = 0
        for level in priced_levels(problem):
            groups, room, need = range(level.groups), level.slots.tolist(), level.need(members).tolist()
            on = [[sum(x[e, g] for g in level.gpus[group].tolist()) for group in groups] for e in experts]
            block = model if level.symbol == "u" else pyo.Block()
            u, y = pyo.Var(names, groups, bounds=(0, 1)), pyo.Var(pairs, bounds=(0, 1))
            model.add_component(level.symbol, u)
            model.add_component(level.symbol.replace("u", "y"), y)
            if block is not model:
                model.nodes = block
            touched = [sum(u[s, g] for g in groups) for s in names]
            rows: dict[str, list[Any]] = {
                "touch": [u[s, g] >= on[e][g] for s in names for e in held[s] for g in groups],
                "room": [
                    room[g] * u[s, g] >= sum(on[e][g] for e in held[s])
                    for s in names
                    for g in groups
                    if room[g] < k
                ],
                "need": [touched[s] >= need[s] for s in names if need[s] > 1],
                "same": [
                    y[e, f] <= 1 - on[a][g] + on[b][g]
                    for e, f in pairs
                    for g in groups
                    for a, b in ((e, f), (f, e))
                ],
                "mates": [
                    sum(y[pair] for pair in pairs if e in pair)
                    <= sum((room[g] - 1) * on[e][g] for g in groups)
                    for e in experts
                ],
                "two": [touched[s] >= 2 - y[pair] for s in names for pair in combinations(held[s], 2)],
                "spread": [
                    t * (t + 1) * touched[s]
                    >= 2 * (t * k - sum(y[pair] for pair in combinations(held[s], 2)))
                    for s in names
                    for t in range(1, k)
                ],
            }
            for name, constraints in rows.items():
                block.add_component(name, pyo.ConstraintList())
                for constraint in constraints:
                    block.component(name).add(constraint)
            spent += level.price * sum(int(weight[s]) * (touched[s] - 1) for s in names)
        if len(priced_levels(problem)) == 2:
            model.nested = pyo.Constraint(pairs, rule=lambda _, e, f: model.y[e, f] <= model.y_node[e, f])
        model.fan_out = pyo.Objective(expr=spent)
        return model

    def read(self, model: Any) -> Placement:
        values = np.array([variable.value for variable in model.x.values()], dtype=np.float64)
        placement = self.placement(model.problem, values)
        if placement is None:
            raise ValueError("the values of the model do not put every expert on one GPU")
        return placement

    def matrix(self, problem: Problem) -> Matrix:
        from moeopt.matrix import Matrix
        from moeopt.widths import Rows

        (sets,), gpus, levels = problem.workload.layers, problem.cluster.gpus, priced_levels(problem)
        experts, (members, _) = sets.n_experts, _priced(problem)
        first, second = np.triu_indices(experts, 1)
        x = np.arange(experts * gpus).reshape(experts, gpus)
        rows = Rows()
        rows.add(x, lower=1, upper=1)
        rows.add(x.T, upper=problem.cluster.slots_of)
        if problem.load_caps is not None:
            rows.add(x.T, sets.load, upper=problem.load_caps)
        for item, later, earlier, before in first_rows(_alike(problem), range(experts)):
            entries = np.append(x[item, list(later)], x[list(earlier), before])
            rows.add(entries[None], np.repeat([1, -1], [len(later), len(earlier)]), upper=0)
        at = x.size
        squares: list[NDArray[np.int64]] = []  # of each level, the columns of y
        names = [f"x[{e},{g}]" for e in range(experts) for g in range(gpus)]
        inside = np.zeros((experts, experts), np.int64)
        inside[first, second] = np.arange(first.size)
        for level in levels:
            u = at + np.arange(len(members) * level.groups).reshape(len(members), level.groups)
            y = at + u.size + inside + inside.T  # the diagonal is not used
            at, squares = at + u.size + first.size, [*squares, y[first, second]]
            _add_rows(rows, level, x=x, u=u, y=y, members=members)
            names += [f"{level.symbol}[{s},{g}]" for s in range(len(members)) for g in range(level.groups)]
            symbol = level.symbol.replace("u", "y")
            names += [f"{symbol}[{e},{f}]" for e, f in zip(first.tolist(), second.tolist(), strict=True)]
        if len(levels) == 2:
            rows.add(np.stack(squares, axis=1), [1, -1], upper=0)
        cost, offset = self.costs(problem)
        return Matrix(
            cost=cost.astype(float),
            offset=float(offset),
            lower=np.zeros(at),
            upper=np.ones(at),
            integer=np.arange(at) < x.size,
            **rows.arrays(width=at),
            column_names=tuple(names),
        )

    def costs(self, problem: Problem) -> tuple[NDArray[np.int64], int]:
        _, weight = _priced(problem)
        experts, levels = problem.workload.n_experts, priced_levels(problem)
        parts = [np.zeros(experts * problem.cluster.gpus, np.int64)]
        for level in levels:
            parts += [
                np.repeat(level.price * weight, level.groups),
                np.zeros(experts * (experts - 1) // 2, np.int64),
            ]
        return np.concatenate(parts), -sum(level.price for level in levels) * int(weight.sum())

    def values(self, problem: Problem, placement: Placement) -> NDArray[np.float64]:
        """float [columns]: GPUs that are alike renamed as `first` wants them."""
        members, _ = _priced(problem)
        gpus, primary = problem.cluster.gpus, placement.primary[0]
        gpu_of = renumbered(primary, _alike(problem), groups=gpus)[primary]
        parts = [gpu_of[:, None] == np.arange(gpus)]
        first, second = np.triu_indices(gpu_of.size, 1)
        for level in priced_levels(problem):
            group_of = gpu_of // level.gpus.shape[1]
            parts.append((group_of[members][:, :, None] == np.arange(level.groups)).any(axis=1))
            parts.append(group_of[first] == group_of[second])
        return np.concatenate([part.ravel() for part in parts]).astype(float)

    def placement(self, problem: Problem, x: NDArray[np.float64]) -> Placement | None:
        experts, gpus = problem.workload.n_experts, problem.cluster.gpus
        on = x[: experts * gpus].reshape(experts, gpus) > 0.5
        return None if (on.sum(axis=1) != 1).any() else problem.partition(on.argmax(axis=1))


def _add_rows(
    rows: Rows,
    level: Level,
    *,
    x: NDArray[np.int64],
    u: NDArray[np.int64],
    y: NDArray[np.int64],
    members: NDArray[np.int32],
) -> None:
    """touch to spread for one level; columns x [experts, gpus], u [sets, groups], y [experts, experts]."""
    on = x[:, level.gpus]  # [experts, groups, GPUs of a group]
    held = np.moveaxis(on[members], 1, 2)  # [sets, groups, k, GPUs of a group]
    experts, k, size = len(x), members.shape[1], level.gpus.shape[1]
    rows.add(_beside(u[:, :, None], held), [1] + [-1] * size, lower=0)  # touch
    for group in np.flatnonzero(level.slots < k).tolist():  # room
        entries = np.append(u[:, [group]], held[:, group].reshape(-1, k * size), 1)
        rows.add(entries, [level.slots[group]] + [-1] * k * size, lower=0)
    need = level.need(members)
    rows.add(u[need > 1], lower=need[need > 1])
    first, second = np.triu_indices(experts, 1)
    for e, f in ((first, second), (second, first)):  # same
        entries = _beside(y[first, second, None], np.append(on[e], on[f], 2))
        rows.add(entries, np.repeat([1, 1, -1], [1, size, size]), upper=1)
    others = y[~np.eye(experts, dtype=bool)].reshape(experts, experts - 1)
    signs = np.append(np.ones(experts - 1), np.repeat(1 - level.slots, size))
    rows.add(np.append(others, on.reshape(experts, -1), 1), signs, upper=0)  # mates
    a, b = np.triu_indices(k, 1)
    pairs = y[members[:, a], members[:, b]]
    rows.add(np.append(pairs[..., None], np.repeat(u[:, None], a.size, 1), 2), lower=2)  # two
    for t in range(1, k):  # spread
        signs = np.repeat([t * (t + 1), 2], [level.groups, a.size])
        rows.add(np.append(u, pairs, 1), signs, lower=2 * t * k)


def _beside(column: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.int64]:
    """[..., 1 + width]: one more column number before those of every row of `others` [..., width]."""
    return np.append(np.broadcast_to(column, others.shape[:-1])[..., None], others, -1)


def _priced(problem: Problem) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """int32 [sets, k] and int64 [sets]: members and weights of the sets that can cost something."""
    (sets,) = problem.workload.layers
    weight = problem.set_weights(sets)
    kept = weight > 0 if priced_levels(problem) else np.zeros(len(sets), bool)
    return sets.members[kept], weight[kept]


def _alike(problem: Problem) -> list[tuple[int, ...]]:
    """GPUs that may be renamed among one another."""
    cluster = problem.cluster
    slots = np.minimum(cluster.slots_of, problem.workload.n_experts)
    caps = np.zeros(cluster.gpus) if problem.load_caps is None else problem.load_caps
    told_apart = cluster.node_cost > 0 and cluster.gpus_per_node > 1
    return alike(slots, caps, cluster.node_of if told_apart else np.zeros(cluster.gpus))
