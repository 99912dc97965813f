"""Worst families over set partitions: prices at mixtures of the families, then a search within all their budgets.

A mixture of the families is a weighting that no placement undercuts, so its prices bound the objective, and budget the
reduced costs of every placement below a ceiling. One mixture, that of the linear relaxation, says which blocks matter.
Over those, subset rows tighten it; mixtures that lean towards each family cut the search where a family's blocks are
already too dear.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeopt.exact_cover import DONE, FULL, Goal, Search
from moeopt.method import Incumbent
from moeopt.set_partition import Verdict
from moeopt.stop import Clock
from moeopt.tail_columns import TailColumns, Weighted
from moeopt.tail_prices import ROUNDS, TailRelaxation, priced_mean

SLICE = 25_000_000  # candidates looked at between two looks at the clock
FIRST, GROWTH = 1 / 400, 1.25  # of the bound: how far above it the first search looks, and the next ones
LEAN = 1 / 3  # of a family in the mixture that leans towards it
MOST = 1_000_000  # blocks of a search


def prove_tail(
    columns: TailColumns,
    *,
    incumbent: Incumbent,
    clock: Clock,
    seed: int,
    on_bound: Callable[[int], object] = int,
) -> Verdict:
    """The best bound proved in the time; better placements found on the way go to `incumbent`."""
    outer = TailRelaxation(columns, seed=seed).solve(clock)
    bound, inner = outer.bound, list[Weighted]()
    on_bound(bound)
    step = max(1, int(bound * FIRST))
    highest = _highest(columns)
    while not clock.expired:
        top = highest if incumbent.cost is None else incumbent.cost
        if bound >= top or (incumbent.cost is not None and clock.closes(incumbent.cost, bound)):
            break
        ceiling = min(top, bound + step)
        if 2 * step > top - bound:
            ceiling = top
        near = columns.chosen(outer.near(ceiling))
        sets = list[Weighted]()
        if len(near) > MOST:
            break
        if len(near):
            near, sets = _narrowed(near, ceiling=ceiling, clock=clock, seed=seed)
        search = _search(near, sets, outer=outer, ceiling=ceiling)
        finished = search is None or _run(search, clock)
        if search is not None and search.best.size:
            chosen = near.weighted(outer.weights).gpu_of(search.best.tolist())
            incumbent.offer(incumbent.problem.partition(chosen))
            ceiling = search.ceiling
        if not finished:
            if search is None or not search.best.size:
                break
            continue  # with the fewer blocks that matter below the better placement
        bound, inner = ceiling, sets
        on_bound(bound)
        step = int(GROWTH * step)
    if incumbent.cost is not None:
        bound = min(bound, incumbent.cost)
    elif bound >= highest:
        return Verdict(impossible=True)
    return Verdict(bound, _numbers(outer, inner, bound=bound))


def _run(search: Search, clock: Clock) -> bool:
    """Whether the search came to its end before the clock did, or a cover below which far fewer blocks matter."""
    first, reduced = len(search.members), search.reduced
    while (state := search.run(SLICE)) != DONE:
        if state == FULL or clock.expired:
            return False
        if search.best.size and 2 * int((reduced <= search.budgets).all(axis=1).sum()) < first:
            return False
    return True


def _narrowed(
    near: TailColumns, *, ceiling: int, clock: Clock, seed: int
) -> tuple[TailColumns, list[Weighted]]:
    """The blocks that are left after subset rows, and after mixtures that lean; and all prices, in this order.

    Every set of prices is over the blocks that the earlier ones leave.
    """
    relaxation = TailRelaxation(near, seed=seed)
    first = relaxation.solve(clock)
    for _ in range(ROUNDS):
        if clock.expired or first.budget(ceiling) < 0 or not relaxation.cut():
            break
        first = relaxation.solve(clock)
    sets = [first]
    near = near.chosen(first.near(ceiling))
    mixture = relaxation.mixture / max(float(relaxation.mixture.sum()), 1e-300)
    for family in relaxation.families:
        if clock.expired or not len(near) or sets[-1].budget(ceiling) < 0:
            break
        leaning = (1 - LEAN) * mixture
        leaning[family] += LEAN
        sets.append(priced_mean(near, leaning, clock=clock, seed=seed))
        near = near.chosen(sets[-1].near(ceiling))
    return near, sets


def _search(near: TailColumns, sets: list[Weighted], *, outer: Weighted, ceiling: int) -> Search | None:
    """The search that is left; None where nothing is."""
    if not len(near) or any(one.budget(ceiling) < 0 for one in (outer, *sets)):
        return None
    risk = near.risk
    every = [outer, *sets]

    def limits(below: int) -> NDArray[np.int64]:
        return np.array([one.budget(below) for one in every], np.int64)

    return Search.over(
        near.members,
        np.stack([one.prices.reduced_costs(near.weighted(one.weights)) for one in every], axis=1),
        cost=near.costs,
        budgets=limits(ceiling),
        ceiling=ceiling,
        limits=limits,
        empty=np.array([0 if near.full else -one.prices.group for one in every], np.int64),
        n_experts=near.n_experts,
        groups=near.groups,
        labels=np.arange(len(near)),
        goal=Goal(near.offsets, near.units, np.array(risk.masses, np.int64), risk.total),
    )


def _numbers(outer: Weighted, inner: list[Weighted], *, bound: int) -> dict[str, Any]:
    """Of a certificate: no more sets of prices than the bound needs."""
    own = {name: value for name, value in outer.numbers().items() if name not in ("triples", "discounts")}
    needed = list[Weighted]()
    for one in inner if outer.budget(bound) >= 0 else []:
        needed.append(one)
        if one.budget(bound) < 0:
            break
    return {"outer": own, "inner": [one.numbers() for one in needed]}


def _highest(columns: TailColumns) -> int:
    """More than the objective of any placement."""
    most = columns.offsets + columns.groups * np.abs(columns.costs).max(axis=0, initial=0)
    return columns.risk.worst((np.abs(most) * columns.units).tolist()) + 1
