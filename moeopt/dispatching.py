"""The cheapest dispatch of a given placement under a load tolerance, and the pieces that dispatches are made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from moeopt.dispatch import Dispatch, Plan, cover_plan
from moeopt.expert_sets import ExpertSets
from moeopt.placement import Placement
from moeopt.problem import Problem

if TYPE_CHECKING:
    from moeopt.matrix import Matrix
    from moeopt.solvers.door import Session

__all__ = [
    "MOST_OPTIONS",
    "cap_prices",
    "cheapest_plan",
    "collected",
    "filled",
    "interleaved",
    "matched",
    "spread_out",
]

MOST_OPTIONS = 2_000_000
Segment = tuple[int, int]  # GPU, tokens
Row = tuple[int, tuple[int, ...], NDArray[np.int64]]  # set, GPU of each member, tokens of each family


def cheapest_plan(problem: Problem, placement: Placement, *, session: Session | None = None) -> Plan | None:
    """The placement with a dispatch of least cost within the load caps, in whole tokens; None when there is none.

    Without a load tolerance the cheapest cover of every set. With one, a small integer model for each layer whose
    cover overloads a GPU: sets whose members have the same hosts have the same choices and are one demand; of the
    assignments that put the same load on every GPU one is kept, for they touch the same GPUs. That the model is solved
    to its optimum is the solver's claim (HiGHS unless a session is given); cost and loads are the problem's own.

    Raises ValueError for a problem with a tail, whose cost is no sum over tokens, and for more than MOST_OPTIONS
    assignments of a layer.
    """
    if problem.risk is not None:
        raise ValueError(f"the cheapest dispatch is for the mean over families, the tail is {problem.tail}")
    cluster, caps = problem.cluster, problem.load_caps
    plan = cover_plan(placement, problem.workload, gpu_cost=cluster.gpu_cost, node_cost=cluster.node_cost)
    if caps is None:
        return plan
    if all((part.gpu_loads(cluster.gpus) <= caps).all() for part in plan.dispatches):
        return plan
    if placement.is_partition:
        return None
    from moeopt.solvers.door import Session

    own = Session() if session is None else session
    try:
        parts = []
        for index, part in enumerate(plan.dispatches):
            if (part.gpu_loads(cluster.gpus) > caps).any():
                found = _layer(problem, index, placement.hosts[index], own)
                if found is None:
                    return None
                part = found
            parts.append(part)
    finally:
        if session is None:
            own.close()
    best = Plan(placement, tuple(parts))
    if broken := problem.violation(best):
        raise RuntimeError(f"the solver's dispatch is not admissible: {broken}")
    return best


def cap_prices(problem: Problem, placement: Placement, *, session: Session) -> NDArray[np.float64] | None:
    """float [gpus]: what the objective of the cheapest dispatch of one layer loses when a GPU may serve one less.

    Multipliers of the load caps in the linear relaxation of `cheapest_plan`'s model, at least 0; None where it has no
    optimum. ValueError for more than MOST_OPTIONS assignments.
    """
    from moeopt.solvers.door import Status

    (sets,) = problem.workload.layers
    matrix, unit = _scaled(_Model(problem, sets, placement.hosts[0]).matrix())
    outcome = session.solve(matrix, relax=True)
    if outcome.status != Status.OPTIMAL or outcome.row_duals is None:
        return None
    return np.maximum(0.0, -outcome.row_duals[-problem.cluster.gpus :] * unit)


def filled(hosts: NDArray[np.bool_], *, slots: NDArray[np.int64], copies: int) -> NDArray[np.bool_]:
    """`hosts` bool [experts, gpus] with further copies until there are `copies`, in the order of GPUs and experts."""
    more = hosts.copy()
    for gpu, room in enumerate((slots - hosts.sum(axis=0)).tolist()):
        lacking = np.flatnonzero(~more[:, gpu])[: max(0, min(room, copies - int(more.sum())))]
        more[lacking, gpu] = True
    return more


def interleaved(parts: Sequence[Iterable[Segment]]) -> Iterator[tuple[tuple[int, ...], int]]:
    """(GPU by part, tokens): queues of (GPU, tokens), equally many tokens in each, read side by side."""
    queues = [iter(part) for part in parts]
    heads = [next(queue, (0, 0)) for queue in queues]
    while all(tokens for _, tokens in heads):
        step = min(tokens for _, tokens in heads)
        yield tuple(gpu for gpu, _ in heads), step
        for at, (gpu, tokens) in enumerate(heads):
            heads[at] = (gpu, tokens - step) if tokens > step else next(queues[at], (0, 0))


def matched(
    supply: NDArray[np.int64], room: NDArray[np.int64], *, allowed: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """int64 [sources, targets]: a largest flow from `supply` [sources] into `room` [targets] along `allowed` pairs.

    By shortest augmenting paths (Edmonds, Karp 1972), for a few sources and targets.
    """
    flow = np.zeros(allowed.shape, np.int64)
    left, free = supply.astype(np.int64), room.astype(np.int64)
    while True:
        came: dict[tuple[str, int], tuple[str, int] | None] = {
            ("s", s): None for s in np.flatnonzero(left).tolist()
        }
        queue, end = list(came), None
        for side, at in queue:
            if side == "t" and free[at]:
                end = at
                break
            reached = np.flatnonzero(allowed[at] if side == "s" else flow[:, at]).tolist()
            for node in [("t" if side == "s" else "s", other) for other in reached]:
                if node not in came:
                    came[node] = (side, at)
                    queue.append(node)
        if end is None:
            return flow
        path, node = [], ("t", end)
        while (before := came[node]) is not None:
            path.append((before[1], node[1], 1) if before[0] == "s" else (node[1], before[1], -1))
            node = before
        step = min(
            [int(left[node[1]]), int(free[end])] + [int(flow[s, t]) for s, t, sign in path if sign < 0]
        )
        for s, t, sign in path:
            flow[s, t] += sign * step
        left[node[1]] -= step
        free[end] -= step


def spread_out(
    rows: Iterable[tuple[tuple[int, ...], int]], counts: NDArray[np.int64]
) -> Iterator[tuple[tuple[int, ...], NDArray[np.int64]]]:
    """(GPUs, tokens of each family): tokens of families that are alike, dealt out in the order of families.

    `counts` int64 [families] sums to the tokens of the rows.
    """
    left = counts.copy()
    for gpus, tokens in rows:
        before = np.minimum(left.cumsum(), tokens)
        taken = np.diff(before, prepend=0)
        left -= taken
        yield gpus, taken


def collected(rows: Iterable[Row], *, families: int, k: int) -> Dispatch:
    """A dispatch in the order of sets and GPUs; rows that agree in both are added."""
    total: dict[tuple[int, tuple[int, ...]], NDArray[np.int64]] = {}
    for index, gpus, tokens in rows:
        total[index, gpus] = total.get((index, gpus), np.zeros(families, np.int64)) + tokens
    order = sorted(key for key, tokens in total.items() if tokens.any())
    return Dispatch(
        np.array([index for index, _ in order], np.int32),
        np.array([gpus for _, gpus in order], np.int32).reshape(-1, k),
        np.array([total[key] for key in order], np.int64).reshape(-1, families),
    )


def _layer(problem: Problem, index: int, hosts: NDArray[np.bool_], session: Session) -> Dispatch | None:
    from moeopt.solvers.door import Status

    sets = problem.workload.layers[index]
    model = _Model(problem, sets, hosts)
    outcome = session.solve(_scaled(model.matrix())[0])
    if outcome.status == Status.INFEASIBLE:
        return None
    if outcome.status != Status.OPTIMAL or outcome.x is None:
        raise RuntimeError(
            f"the dispatch of layer {problem.workload.layer_ids[index]} ended as {outcome.status}"
        )
    return model.dispatch(np.rint(outcome.x).astype(np.int64))


def _scaled(matrix: Matrix) -> tuple[Matrix, int]:
    """With costs in a unit that suits a float solver, and that unit."""
    from moeopt.statement import cost_unit

    unit = cost_unit(float(matrix.cost.max(initial=0.0)))
    return replace(matrix, cost=matrix.cost / unit), unit


class _Model:
    """Integer model of one layer: tokens of each demand on each of its assignments."""

    def __init__(self, problem: Problem, sets: ExpertSets, hosts: NDArray[np.bool_]) -> None:
        self.problem, self.sets = problem, sets
        host_of = [tuple(np.flatnonzero(row).tolist()) for row in hosts]
        values, self.group = np.unique(problem.multipliers, return_inverse=True)
        demands: dict[tuple[tuple[tuple[int, ...], ...], int], list[tuple[int, list[int]]]] = {}
        counts = np.stack([sets.counts[:, self.group == g].sum(axis=1) for g in range(len(values))], axis=1)
        for at, members in enumerate(sets.members.tolist()):
            order = sorted(range(len(members)), key=lambda place: host_of[members[place]])
            choices = tuple(host_of[members[place]] for place in order)
            for group in np.flatnonzero(counts[at]).tolist():
                demands.setdefault((choices, group), []).append((at, order))
        self.demands = list(demands.items())
        self.tokens = [sum(int(counts[at, key[1]]) for at, _ in found) for key, found in self.demands]
        self.options: list[list[tuple[int, ...]]] = []
        listed = 0
        for (choices, _), _ in self.demands:
            kept: dict[tuple[int, ...], tuple[int, ...]] = {}
            for option in product(*choices):
                kept.setdefault(tuple(sorted(option)), option)
            self.options.append(list(kept.values()))
            listed += len(kept)
            if listed > MOST_OPTIONS:
                raise ValueError(
                    f"more than {MOST_OPTIONS:,} assignments of expert sets to copies in a layer"
                )
        self.multipliers = values.tolist()

    def matrix(self) -> Matrix:
        """Every demand served, no GPU above its cap."""
        from moeopt.matrix import Matrix
        from moeopt.triplets import Triplets

        cluster, caps = self.problem.cluster, self.problem.load_caps
        node_of = cluster.node_of.tolist()
        cost: list[int] = []
        demand: list[int] = []
        load_rows: list[int] = []
        load_columns: list[int] = []
        for at, (((_, group), _), options) in enumerate(zip(self.demands, self.options, strict=True)):
            for option in options:
                touched, nodes = set(option), {node_of[gpu] for gpu in option}
                further = cluster.gpu_cost * (len(touched) - 1) + cluster.node_cost * (len(nodes) - 1)
                load_rows += option
                load_columns += [len(cost)] * len(option)
                cost.append(self.multipliers[group] * further)
                demand.append(at)
        table = Triplets(len(cost))
        table.add(
            rows=demand,
            columns=np.arange(len(cost)),
            values=1,
            low=self.tokens,
            high=self.tokens,
            count=len(self.tokens),
        )
        table.add(rows=load_rows, columns=load_columns, values=1, high=caps, count=cluster.gpus)  # type: ignore[arg-type]
        return Matrix(
            cost=np.array(cost, float),
            lower=np.zeros(len(cost)),
            upper=np.array(self.tokens, float)[demand],
            integer=np.ones(len(cost), bool),
            rows=table.stacked(),
            row_lower=table.low,
            row_upper=table.high,
        )

    def dispatch(self, tokens: NDArray[np.int64]) -> Dispatch:
        """The dispatch of a solution: the tokens of a demand go to its sets in their order."""
        rows: list[Row] = []
        first = 0
        for ((_, group), found), options in zip(self.demands, self.options, strict=True):
            pieces: list[Any] = list(zip(options, tokens[first : first + len(options)].tolist(), strict=True))
            first += len(options)
            for at, order in found:
                counts = np.where(self.group == group, self.sets.counts[at], 0)
                need, taken = int(counts.sum()), []
                while need:
                    option, amount = pieces.pop()
                    if amount > need:
                        pieces.append((option, amount - need))
                    taken.append((option, min(amount, need)))
                    need -= min(amount, need)
                for option, dealt in spread_out(taken, counts):
                    gpu_of = dict(zip(order, option, strict=True))
                    rows.append((at, tuple(gpu_of[place] for place in range(len(order))), dealt))
        return collected(rows, families=len(self.group), k=self.sets.top_k)
