"""Optimal set partitions: prices bound, an exact-cover search over the columns within the gap closes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from moeopt.columns import Columns
from moeopt.exact_cover import DONE, FULL, Search
from moeopt.matching import cheapest_matching, is_matching
from moeopt.method import Incumbent
from moeopt.pricing import Earlier, Prices, Relaxation
from moeopt.stop import Clock

SLICE = 25_000_000  # candidates looked at between two looks at the clock: a fraction of a second
PATIENCE = 100_000_000  # candidates looked at in one search before the relaxation is tightened instead
FIRST_CANDIDATES = 2_000
GROWTH = 1.5


@dataclass(frozen=True)
class Closing:
    """What search added to prices.

    | field | holds |
    |---|---|
    | searched | every cover of total reduced cost at most this was looked at; -1 when none was |
    | finished | the incumbent is as close to the bound as asked for, or there is no cover at all |
    | nodes | visited |
    """

    searched: int
    finished: bool
    nodes: int


@dataclass(frozen=True)
class Verdict:
    """What was proved of set partitions: no placement costs less than `bound`, for `numbers` (None: nothing is proved).

    `impossible`: there is no placement at all.
    """

    bound: int = 0
    numbers: Mapping[str, Any] | None = None
    impossible: bool = False


def prove_listed(
    columns: Columns, *, incumbent: Incumbent, clock: Clock, seed: int, earlier: Earlier | None = None
) -> Verdict:
    """The best bound proved in the time, for a certificate of kind "blocks"."""
    prices, closing = prove(columns, incumbent=incumbent, clock=clock, seed=seed, earlier=earlier)
    if closing.finished and incumbent.cost is None:
        return Verdict(impossible=True)
    bound = prices.bound(columns, searched=closing.searched)
    return Verdict(bound, prices.numbers(columns, bound=bound))


def prove(
    columns: Columns, *, incumbent: Incumbent, clock: Clock, seed: int, earlier: Earlier | None = None
) -> tuple[Prices, Closing]:
    """Prices, then search, then more rows for better prices while the search is long; valid however early it ends."""
    if is_matching(columns):
        matched = cheapest_matching(columns)
        if matched is not None:
            _offer(columns, matched, incumbent)
    relaxation = Relaxation(columns, seed=seed, earlier=earlier)
    prices = relaxation.solve(clock)
    nodes = 0
    while True:
        closing = close(columns, prices, incumbent=incumbent, clock=clock, patience=PATIENCE)
        nodes += closing.nodes
        if closing.finished or clock.expired:
            break
        if not relaxation.cut():
            closing = close(columns, prices, incumbent=incumbent, clock=clock, patience=None)
            break
        prices = relaxation.solve(clock)
    return prices, Closing(closing.searched, closing.finished, nodes)


def close(
    columns: Columns, prices: Prices, *, incumbent: Incumbent, clock: Clock, patience: int | None
) -> Closing:
    """Search covers by growing budget of reduced cost until the cheapest is found or the incumbent is proved.

    cost >= offset + (dual + total reduced cost) / scale, with equality without discounts; so a placement better than
    the incumbent has total reduced cost of at most scale x (cost - 1 - offset) - dual, and no column above that.
    """
    base = -prices.scale - prices.dual(columns)
    heaviest = (int(prices.reduced.max()) + prices.empty) * columns.groups
    searched, nodes = -1, 0
    budget = _first_budget(prices)
    while True:
        ceiling = _above_all(columns) if incumbent.cost is None else incumbent.cost - columns.offset
        limit = min(heaviest, prices.scale * ceiling + base)
        if searched >= limit:  # no cover lies above `heaviest`
            return Closing(max(prices.scale * ceiling + base, -1), True, nodes)
        if incumbent.cost is not None and clock.closes(
            incumbent.cost, prices.bound(columns, searched=searched)
        ):
            return Closing(searched, True, nodes)
        if searched >= 0 and clock.expired:
            return Closing(searched, False, nodes)
        budget = min(budget, limit)
        near = np.flatnonzero(prices.reduced <= budget)
        search = Search.over(
            columns.members[near],
            prices.reduced[near, None],
            cost=columns.cost[near, None],
            budgets=np.array([budget]),
            ceiling=ceiling,
            limits=lambda below: np.array([prices.scale * below + base]),
            empty=np.array([prices.empty]),
            n_experts=columns.n_experts,
            groups=columns.groups,
            labels=near,
        )
        finished = _run(search, clock, patience)
        nodes += search.nodes
        if search.ceiling < ceiling:
            _offer(columns, search.best.tolist(), incumbent)
        if not finished:
            return Closing(searched, False, nodes)
        # Where a cover was found, the search went on below it; above its budget nothing was looked at.
        searched = int(search.budgets[0])
        budget = max(int(budget * GROWTH), budget + 1)


def _run(search: Search, clock: Clock, patience: int | None) -> bool:
    """Whether the search came to its end before clock, patience or memory did."""
    while (state := search.run(SLICE)) != DONE:
        if state == FULL or clock.expired or (patience is not None and search.looks >= patience):
            return False
    return True


def _first_budget(prices: Prices) -> int:
    if len(prices.reduced) <= FIRST_CANDIDATES:
        return int(prices.reduced.max())
    return int(np.partition(prices.reduced, FIRST_CANDIDATES)[FIRST_CANDIDATES])


def _above_all(columns: Columns) -> int:
    """More than any cover costs."""
    return columns.groups * int(np.abs(columns.cost).max()) + 1


def _offer(columns: Columns, blocks: list[int], incumbent: Incumbent) -> None:
    before = incumbent.cost
    accepted = incumbent.offer(incumbent.problem.partition(columns.gpu_of(blocks)))
    if not accepted and (before is None or incumbent.reason):
        raise RuntimeError(f"a cover of admissible blocks was refused: {incumbent.reason}")
