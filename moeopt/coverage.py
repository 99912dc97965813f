"""The standard form of the formulation `covers`, written directly, and what its points stand for."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from moeopt.dispatch import Plan
from moeopt.dispatching import collected, filled, interleaved, spread_out
from moeopt.gatherings import Gatherings, togetherness
from moeopt.placement import Placement
from moeopt.problem import Problem

if TYPE_CHECKING:
    from moeopt.matrix import Matrix
    from moeopt.triplets import Triplets

__all__ = ["answer_of", "exact_costs", "point_of", "standard_form"]


def standard_form(problem: Problem) -> Matrix:
    """The standard form of `covers`, written without Pyomo; columns are named as Pyomo names them."""
    from moeopt.matrix import Matrix
    from moeopt.triplets import Triplets

    data = _gathered(problem)
    lay = _Layout.of(data)
    table = Triplets(lay.columns)
    z, m, demands = np.arange(len(data.contents)), np.arange(len(data.parts)), np.arange(len(data.sets))
    sizes = np.array([len(content) for content in data.contents])
    table.add(rows=0, columns=z, values=1, low=data.gpus, high=data.gpus)
    table.add(rows=0, columns=z, values=sizes, low=data.copies, high=data.copies)
    part, content = data.inside
    at = np.append(content, lay.m + m)
    sign = np.repeat([1, -1], [len(part), len(m)])
    table.add(rows=np.append(part, m), columns=at, values=sign, low=0, high=0, count=len(m))
    if lay.ways:
        y = lay.y + np.arange(len(demands) * lay.ways)
        low = data.tokens if data.capped else -np.inf
        rows = np.repeat(demands, lay.ways)
        table.add(rows=rows, columns=y, values=1, low=low, high=data.tokens, count=len(demands))
    for used, terms in togetherness(data.members.shape[1], most=data.slots):
        table.add(
            rows=np.tile(demands, len(used) + len(terms)),
            columns=np.concatenate(
                [lay.y + demands * lay.ways + way for way in used]
                + [lay.m + data.demand_parts[places] for places, _ in terms]
            ),
            values=np.concatenate(
                [np.ones(len(demands))] * len(used) + [-times * data.tokens for _, times in terms]
            ),
            high=0,
            count=len(demands),
        )
    if data.capped:
        _add_load_rows(table, data, lay, cap=problem.load_cap)
    cost, offset = exact_costs(problem)
    traffic = data.traffic[data.served[0]]
    integer = np.ones(lay.columns, bool)
    integer[lay.y : lay.u] = data.capped
    most = [
        np.full(len(z), 1 if data.capped else data.gpus),
        np.full(len(m), data.most_copies),
        np.repeat(data.tokens, lay.ways),
        traffic if data.capped else traffic[:0],
    ]
    lower = np.zeros(lay.columns)
    lower[lay.m : lay.m + problem.workload.n_experts] = 1
    return Matrix(
        cost=cost.astype(float),
        offset=float(offset),
        lower=lower,
        upper=np.concatenate(most).astype(float),
        integer=integer,
        rows=table.stacked(),
        row_lower=table.low,
        row_upper=table.high,
        column_names=tuple(lay.names(data)),
    )


def exact_costs(problem: Problem) -> tuple[NDArray[np.int64], int]:
    """int64 [columns] and the constant."""
    data = _gathered(problem)
    lay, k = _Layout.of(data), data.members.shape[1]
    cost = np.zeros(lay.columns, np.int64)
    further = np.array(
        [len(way) - (1 if data.capped else k) for way in data.partitions[: lay.ways]], np.int64
    )
    cost[lay.y : lay.u] = np.outer(data.weights, further).ravel()
    return cost, 0 if data.capped else (k - 1) * int(data.weights.sum())


def point_of(problem: Problem, answer: Placement | Plan) -> NDArray[np.float64]:
    """float [columns]: a placement, or a plan under a load tolerance; free slots are filled up to E + R copies."""
    data = _gathered(problem)
    lay = _Layout.of(data)
    plan = answer if isinstance(answer, Plan) and data.capped else problem.plan(_placement_of(answer))
    hosts = filled(plan.placement.hosts[0], slots=problem.cluster.slots_of, copies=data.copies)
    x = np.zeros(lay.columns)
    content_of: list[int] = []
    for held in hosts.T:
        content = frozenset(np.flatnonzero(held).tolist())
        again = sum(data.contents[at] == content for at in content_of) if data.capped else 0
        content_of.append(data.content_index[content, again])
        x[content_of[-1]] += 1
    part, at = data.inside
    np.add.at(x, lay.m + part, x[at])
    ways = {way: number for number, way in enumerate(data.partitions)}
    demands = {
        (int(s), f): d for d, s in enumerate(data.sets) for f in np.flatnonzero(data.families[d]).tolist()
    }
    served = {
        pair: number for number, pair in enumerate(zip(*(side.tolist() for side in data.served), strict=True))
    }
    (dispatch,) = plan.dispatches
    for s, gpus, tokens in zip(
        dispatch.sets.tolist(), dispatch.gpus.tolist(), dispatch.tokens.tolist(), strict=True
    ):
        way = _way(gpus)
        for family in np.flatnonzero(tokens).tolist():
            demand, amount = demands[s, family], tokens[family]
            if ways[way] < lay.ways:
                column = lay.y + demand * lay.ways + ways[way]
                x[column] = x[column] + amount if data.capped else 1
            if data.capped:
                for places in way:
                    part_of = int(data.demand_parts[places][demand])
                    x[lay.u + served[part_of, content_of[gpus[places[0]]]]] += amount
    return x


def answer_of(problem: Problem, x: NDArray[np.float64]) -> Placement | Plan | None:
    """The placement, under a load tolerance the plan, that a point stands for; GPUs in the order of contents."""
    data = _gathered(problem)
    chosen = np.rint(x[: len(data.contents)]).astype(np.int64)
    gpus = np.repeat(np.arange(len(chosen)), np.maximum(chosen, 0))
    hosts = np.zeros((problem.workload.n_experts, data.gpus), bool)
    if len(gpus) != data.gpus:
        return None
    for gpu, content in enumerate(gpus.tolist()):
        hosts[list(data.contents[content]), gpu] = True
    if not hosts.any(axis=1).all():
        return None
    workload, cluster = problem.workload, problem.cluster
    placement = Placement(
        hosts[None],
        hosts.argmax(axis=1)[None],
        cluster.nodes,
        cluster.slots,
        workload.layer_ids,
        workload.model,
    )
    if not data.capped:
        return placement
    gpu_of = {content: gpu for gpu, content in enumerate(gpus.tolist())}
    rows = _rows(problem, data, np.rint(x).astype(np.int64), gpu_of)
    dispatch = collected(rows, families=data.families.shape[1], k=data.members.shape[1])
    (sets,) = workload.layers
    return None if dispatch.violation(sets, hosts) else Plan(placement, (dispatch,))


@lru_cache(maxsize=2)  # problems compare by identity
def _gathered(problem: Problem) -> Gatherings:
    return Gatherings.of(problem)


class _Layout(NamedTuple):
    """Where each block of columns starts: z at 0, then m, y with `ways` a demand, u."""

    m: int
    y: int
    ways: int
    u: int
    columns: int

    @classmethod
    def of(cls, data: Gatherings) -> Self:
        m = len(data.contents)
        y = m + len(data.parts)
        ways = len(data.partitions) - (0 if data.capped else 1)
        u = y + ways * len(data.sets)
        return cls(m, y, ways, u, u + (len(data.served[0]) if data.capped else 0))

    def names(self, data: Gatherings) -> Iterator[str]:
        yield from (f"z[{b}]" for b in range(self.m))
        yield from (f"m[{a}]" for a in range(self.y - self.m))
        yield from (f"y[{s},{w}]" for s in range(len(data.sets)) for w in range(self.ways))
        if data.capped:
            yield from (f"u[{a},{b}]" for a, b in zip(*(side.tolist() for side in data.served), strict=True))


def _add_load_rows(table: Triplets, data: Gatherings, lay: _Layout, *, cap: int | None) -> None:
    """serve, host, loads and repeat."""
    part, content = data.served
    u, demands = lay.u + np.arange(len(part)), np.arange(len(data.sets))
    index, columns = [part], [u]
    for places, parts in data.demand_parts.items():
        for way, partition in enumerate(data.partitions):
            if places in partition:
                index.append(parts)
                columns.append(lay.y + demands * lay.ways + way)
    signs = np.repeat([1, -1], [len(u), sum(map(len, index)) - len(u)])
    kept, rows = np.unique(np.concatenate(index), return_inverse=True)
    table.add(rows=rows, columns=np.concatenate(columns), values=signs, low=0, high=0, count=len(kept))
    size = np.array([len(one) for one in data.parts])[part]
    experts = np.array([e for a in part.tolist() for e in data.parts[a]], np.int64)
    (kept, holder), rows = np.unique(
        np.stack([experts, np.repeat(content, size)]), axis=1, return_inverse=True
    )
    table.add(
        rows=np.append(rows, np.arange(len(kept))),
        columns=np.append(np.repeat(u, size), holder),
        values=np.append(np.ones(len(experts)), -data.traffic[kept]),
        high=0,
        count=len(kept),
    )
    kept, rows = np.unique(content, return_inverse=True)
    table.add(
        rows=np.append(rows, np.arange(len(kept))),
        columns=np.append(u, kept),
        values=np.append(size, np.full(len(kept), -(cap or 0))),
        high=0,
        count=len(kept),
    )
    again = np.flatnonzero(data.repeats)
    rows, signs = np.tile(np.arange(len(again)), 2), np.repeat([1, -1], len(again))
    table.add(rows=rows, columns=np.append(again, again - 1), values=signs, high=0, count=len(again))


def _placement_of(answer: Placement | Plan) -> Placement:
    return answer.placement if isinstance(answer, Plan) else answer


def _way(gpus: list[int]) -> tuple[tuple[int, ...], ...]:
    """Positions by GPU, in the form of `partitions`."""
    parts: dict[int, list[int]] = {}
    for place, gpu in enumerate(gpus):
        parts.setdefault(gpu, []).append(place)
    return tuple(tuple(part) for part in parts.values())


def _rows(
    problem: Problem, data: Gatherings, x: NDArray[np.int64], gpu_of: dict[int, int]
) -> Iterator[tuple[int, tuple[int, ...], NDArray[np.int64]]]:
    """The dispatch that y and u stand for: parts of every demand drawn from the tokens that GPUs serve of them."""
    (sets,) = problem.workload.layers
    lay = _Layout.of(data)
    stock: dict[int, list[list[int]]] = {}
    for part, content, tokens in zip(
        *(side.tolist() for side in data.served), x[lay.u :].tolist(), strict=True
    ):
        if tokens > 0 and content in gpu_of:
            stock.setdefault(part, []).append([gpu_of[content], tokens])

    def drawn(part: int, tokens: int) -> Iterator[tuple[int, int]]:
        while tokens and (queue := stock.get(part)):
            gpu, left = queue[-1]
            step = min(left, tokens)
            yield gpu, step
            tokens -= step
            queue[-1][1] -= step
            if not queue[-1][1]:
                queue.pop()

    for demand, s in enumerate(data.sets.tolist()):
        counts = np.where(data.families[demand], sets.counts[s], 0)
        taken: list[tuple[tuple[int, ...], int]] = []
        for way, tokens in enumerate(x[lay.y + demand * lay.ways :][: lay.ways].tolist()):
            if tokens > 0:
                parts = data.partitions[way]
                queues = [list(drawn(int(data.demand_parts[places][demand]), tokens)) for places in parts]
                place_of = {place: at for at, places in enumerate(parts) for place in places}
                for gpus, amount in interleaved(queues):
                    taken.append((tuple(gpus[place_of[place]] for place in range(len(place_of))), amount))
        yield from ((s, gpus, tokens) for gpus, tokens in spread_out(taken, counts))
