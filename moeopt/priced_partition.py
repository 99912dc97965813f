"""Set partitions where blocks are too many to list: prices proved by search, then the few blocks that matter."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeopt.block_prices import BlockPrices
from moeopt.block_range import BlockRange
from moeopt.block_search import BlockSearch, scale_for
from moeopt.columns import Columns
from moeopt.matrix import Matrix
from moeopt.method import Incumbent
from moeopt.pricing import ROOM, TALLEST, Earlier, coefficients, shared_session
from moeopt.set_partition import Verdict, prove
from moeopt.stop import Clock

LISTED = 200_000  # blocks that a search for negative reduced costs keeps
FEW, MANY = 2_000, 100_000  # blocks of the first closing search, at least and at most
NEAR = 64_000_000  # experts in all blocks of the last one; 2 bytes each, and some 50 bytes a block on the way
GROWTH = 1.5  # from one closing search to the next, of the reduced cost that a block may have
# Reduced costs below - a mean block's cost / 2^FIRST_LEVEL are sought first, / 2^level later, in the end all below 0.
FIRST_LEVEL, LEVELS = 3, 10
QUICK = 0.002  # of the time left: searches shorter than that need no levels
MOST = 1 << 62
# Of the time left: for prices before anything is proved, and for a closing search that is not the last.
PRICING_SHARE, CLOSING_SHARE = 0.5, 0.5


@dataclass(frozen=True, eq=False)
class Proved:
    """Prices at which no block has a negative reduced cost.

    | field | holds |
    |---|---|
    | scale | of prices |
    | prices | int64 [experts] |
    | group | price of one more GPU; at most 0 where GPUs may stay empty |
    """

    blocks: BlockRange
    scale: int
    prices: NDArray[np.int64]
    group: int

    @property
    def dual(self) -> int:
        """Scaled bound on the sum of block costs."""
        return int(self.prices.sum()) + self.blocks.groups * self.group

    def bound(self, searched: int) -> int:
        """Of every placement that uses a block of reduced cost above `searched`; of all placements for -1."""
        return self.blocks.offset - (-(self.dual + searched + 1) // self.scale)

    def spare(self, cost: int) -> int:
        """The most that the reduced costs of a placement cheaper than `cost` can sum to; below 0: there is none."""
        return self.scale * (cost - 1 - self.blocks.offset) - self.dual

    def numbers(self, *, bound: int, inner: "Inner | None") -> dict[str, Any]:
        """What a certificate of kind "priced" carries: no more search than the bound needs."""
        searched = max(-1, self.spare(bound))
        return {
            "scale": self.scale,
            "prices": self.prices.tolist(),
            "group_price": self.group,
            "dual": self.dual,
            "searched": searched,
            "inner": None if searched < 0 or inner is None else inner(bound),
        }


Inner = Callable[[int], dict[str, Any]]  # the numbers that prove a bound of the blocks within the search


def prove_priced(
    blocks: BlockRange,
    *,
    incumbent: Incumbent,
    gpu_of: NDArray[np.int64],
    earlier: Earlier | None = None,
    clock: Clock,
    seed: int,
    on_bound: Callable[[int], object] = int,
) -> Verdict:
    """The best bound proved in the time.

    Prices start from those of an earlier run, or else from the partition `gpu_of`. Placements found on the way go
    to `incumbent`.
    """
    relaxation = BlockPrices(blocks, gpu_of, prices=None if earlier is None else earlier.prices, seed=seed)
    relaxation.approach(clock.part(PRICING_SHARE))
    proved = None
    for proved in _levels(relaxation, clock):
        on_bound(proved.bound(-1))
        if incumbent.cost is not None and clock.closes(incumbent.cost, proved.bound(-1)):
            break
    if proved is None:
        return Verdict()
    return _close(relaxation, proved, incumbent=incumbent, clock=clock, seed=seed, on_bound=on_bound)


def _levels(relaxation: BlockPrices, clock: Clock) -> Iterator[Proved]:
    """Better and better prices, each proved by a complete search; the last are those of the linear relaxation.

    The search for all blocks below a level is the shorter the lower the level is: bounds come early, and rise.
    """
    blocks, level = relaxation.blocks, FIRST_LEVEL
    best: Proved | None = None
    while not clock.expired:
        scale = scale_for(blocks, relaxation.duals)
        prices = np.rint(relaxation.duals * scale).astype(np.int64)
        step = scale * max(1, int(np.abs(blocks.costs(relaxation.known)).mean())) >> level
        rounding = blocks.slots + 1
        below = -rounding - (step if level < LEVELS else 0)
        begun = clock.elapsed
        search = BlockSearch.over(blocks, prices, group=0, scale=scale, threshold=below, most=LISTED).run(
            clock
        )
        entered = relaxation.enter(search.found, search.values)
        if search.complete:
            least = int(search.values.min(initial=below + 1))
            proved = Proved(blocks, scale, prices, least if blocks.full else min(0, least))
            if best is None or proved.dual * best.scale > best.dual * proved.scale:
                best = proved
                yield proved
        if entered:
            relaxation.approach(clock)
        elif search.complete and level == LEVELS:
            return
        elif search.complete:
            quick = clock.left is None or clock.elapsed - begun < QUICK * clock.left
            level = LEVELS if quick else level + 1


def _close(
    relaxation: BlockPrices,
    proved: Proved,
    *,
    incumbent: Incumbent,
    clock: Clock,
    seed: int,
    on_bound: Callable[[int], object],
) -> Verdict:
    """Search the placements of blocks of small reduced cost, with a growing limit, until the incumbent is proved."""
    blocks = proved.blocks
    best, inner = proved.bound(-1), None
    if not _ended(incumbent, clock, best):
        _improve(relaxation, incumbent=incumbent, clock=clock.part(CLOSING_SHARE / 2), seed=seed)
    budget, room = max(1, _spare(proved, incumbent) >> 4), MANY
    while not _ended(incumbent, clock, best):
        limit = _spare(proved, incumbent)
        budget = limit if 1.5 * budget > limit else budget
        search = BlockSearch.over(
            blocks, proved.prices, group=proved.group, scale=proved.scale, threshold=budget, most=room
        ).run(clock)
        if search.full and room == MANY and budget > 1:
            budget //= 4
            continue
        if not search.complete:
            break
        if len(search.found) < FEW and budget < limit and room == MANY:
            budget *= 2
            continue
        room = NEAR // blocks.slots
        finished, bound, numbers = _inside(
            blocks.columns(search.found),
            proved,
            incumbent=incumbent,
            clock=clock if budget == limit else clock.part(CLOSING_SHARE),
            seed=seed,
        )
        bound = min(bound, proved.bound(budget))
        if incumbent.cost is None and budget == limit and finished:
            return Verdict(impossible=True)
        bound = bound if incumbent.cost is None else min(bound, incumbent.cost)
        if bound > best:
            best, inner = bound, numbers
            on_bound(best)
        if budget == limit or not finished:
            break
        budget = int(GROWTH * budget) + 1
    if incumbent.cost is not None:
        best = min(best, incumbent.cost)
    return Verdict(best, proved.numbers(bound=best, inner=inner))


def _inside(
    columns: Columns, proved: Proved, *, incumbent: Incumbent, clock: Clock, seed: int
) -> tuple[bool, int, Inner]:
    """Whether the placements of these blocks were searched to the end, what none of them costs less than, and why."""
    blocks = proved.blocks
    if len(columns):
        prices, closing = prove(columns, incumbent=incumbent, clock=clock, seed=seed)
        bound = prices.bound(columns, searched=closing.searched)

        def searched(bound: int) -> dict[str, Any]:
            """Few blocks may leave single prices free, and so large that no checker adds them up: others do as well."""
            numbers = prices.numbers(columns, bound=bound)
            largest = max(numbers["searched"], *map(abs, numbers["prices"]))
            if blocks.slots * blocks.groups * largest < ROOM:
                return numbers
            numbers = proved.numbers(bound=bound, inner=None)
            del numbers["inner"]
            return {**numbers, "triples": [], "discounts": []}

        return closing.finished, bound, searched

    def numbers(bound: int) -> dict[str, Any]:
        """No block has a reduced cost: any prices will do."""
        prices = [bound - columns.offset] + [0] * (columns.n_experts - 1)
        rest = {"group_price": 0, "triples": [], "discounts": [], "dual": prices[0], "searched": -1}
        return {"scale": 1, "prices": prices, **rest}

    return True, MOST, numbers


def _ended(incumbent: Incumbent, clock: Clock, bound: int) -> bool:
    return clock.expired or (incumbent.cost is not None and clock.closes(incumbent.cost, bound))


def _improve(relaxation: BlockPrices, *, incumbent: Incumbent, clock: Clock, seed: int) -> None:
    """Offer the best partition into blocks of the linear program."""
    from scipy import sparse

    columns = relaxation.blocks.columns(relaxation.known)
    count, experts, full = len(columns), columns.n_experts, columns.full
    matrix = Matrix(
        cost=np.asarray(columns.cost * (TALLEST / max(int(np.abs(columns.cost).max()), 1)), float),
        lower=np.zeros(count),
        upper=np.ones(count),
        integer=np.ones(count, bool),
        rows=sparse.csr_array(coefficients(columns, np.arange(count))),
        row_lower=np.append(np.ones(experts), [] if full else [-np.inf]),
        row_upper=np.append(np.ones(experts), [] if full else [columns.groups]),
    )

    def offer(x: NDArray[np.float64], _: float) -> None:
        chosen = np.flatnonzero(x > 0.5)
        held = columns.members[chosen]
        if (np.bincount(held[held >= 0], minlength=experts) == 1).all() and len(chosen) <= columns.groups:
            incumbent.offer(incumbent.problem.partition(columns.gpu_of(chosen.tolist())))

    outcome = shared_session().solve(
        matrix, seconds=clock.left, seed=seed, on_incumbent=offer, should_stop=lambda: clock.interrupted
    )
    if outcome.x is not None:
        offer(outcome.x, 0.0)


def _spare(proved: Proved, incumbent: Incumbent) -> int:
    """Of the incumbent; without one, of what no placement exceeds."""
    if incumbent.cost is not None:
        return proved.spare(incumbent.cost)
    dearest = int(np.abs(proved.blocks.pair).sum())
    return proved.spare(proved.blocks.offset + dearest)
