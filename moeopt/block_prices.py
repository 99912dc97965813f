"""Prices of experts and GPUs where blocks are too many to list: column generation, boxed and smoothed."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from moeopt.block_descents import descents
from moeopt.block_range import BlockRange
from moeopt.columns import Columns
from moeopt.matrix import Matrix
from moeopt.pricing import TALLEST, coefficients, shared_session
from moeopt.solvers.door import Outcome
from moeopt.stop import Clock

BOX = 0.3  # of a price: how far it may move before the box does
SMOOTH = 0.5  # of the best prices so far in those that blocks are sought for
NEGATIVE = 1e-9  # of the largest cost: reduced costs below it count as negative
BATCH = 300  # blocks that enter after an exact search


class BlockPrices:
    """The linear relaxation over the blocks found so far, and its dual prices.

    Columns come from many local searches at once, at prices smoothed towards the best so far (Wentges, International
    Transactions in Operational Research 4, 1997), inside a box that moves (du Merle, Villeneuve, Desrosiers, Hansen,
    Discrete Mathematics 194, 1999). They start from those of an earlier run, or a
    partition, whose every block splits its cost among its experts.

    | field | holds |
    |---|---|
    | duals | float [experts]: price of each expert, of the last linear program |
    | group | price of one more GPU; 0 where every slot is used |
    | value | of the last linear program, without the offset |
    """

    def __init__(
        self,
        blocks: BlockRange,
        gpu_of: NDArray[np.int64],
        *,
        seed: int,
        prices: Sequence[float] | None = None,
    ) -> None:
        self.blocks = blocks
        self._rng = np.random.default_rng(seed)
        self.duals = shares(blocks, gpu_of) if prices is None else np.array(prices, float)
        self.group, self.value = 0.0, 0.0
        self._rows = np.empty((0, blocks.slots), np.int16)
        self._costs = np.empty(0, np.int64)
        self._known: set[bytes] = set()
        self._box = self._best = self.duals
        self._best_value = -np.inf
        self._slack = 0.0
        self._add(blocks.held(gpu_of))
        self._unit = TALLEST / max(
            1.0, float(blocks.pair.max()), float(np.abs(self.duals).sum()) / blocks.groups
        )
        self._starts = 2 * blocks.n_experts
        self._load()

    @property
    def known(self) -> NDArray[np.int16]:
        """int16 [columns, slots]: the blocks of the linear program."""
        return self._rows

    def approach(self, clock: Clock) -> None:
        """Add what local search finds until it finds nothing at the prices of the linear program; needs no proof."""
        before = -np.inf  # value when the box last moved
        dearest = float(
            np.abs(self.blocks.pair).sum()
        )  # than which no partition is dearer: beyond there is none
        while not clock.expired:
            if not self._resolve(clock):
                return
            smooth = SMOOTH * self._best + (1 - SMOOTH) * self.duals
            if self._search(smooth) or self._search(self.duals):
                continue
            if self._slack < 1e-7 or not before + NEGATIVE * abs(self.value) < self.value < dearest:
                return
            self._box, before = self.duals, self.value
            self._load()

    def enter(self, found: NDArray[np.int16], values: NDArray[np.int64]) -> int:
        """Let the blocks of least value enter; how many are new."""
        return self._enter(found[np.argsort(values, kind="stable")[:BATCH]])

    def _search(self, prices: NDArray[np.float64]) -> int:
        """Blocks of negative reduced cost that local search at `prices` finds; how many entered."""
        rows, values = descents(self.blocks, prices, starts=self._starts, rng=self._rng)
        used = rows[:, 0] >= 0
        if not used.any():
            return 0
        least = float(values[used].min())
        rest = least if self.blocks.full else min(0.0, least)
        if (value := float(prices.sum()) + self.blocks.groups * rest) > self._best_value:
            self._best, self._best_value = prices, value
        rows = np.unique(rows[used], axis=0)
        extended = np.append(self.duals, 0.0)
        reduced = self.blocks.costs(rows) - extended[rows].sum(axis=1) - self.group
        return self._enter(rows[reduced < -NEGATIVE * TALLEST / self._unit])

    def _enter(self, rows: NDArray[np.int16]) -> int:
        known = len(self._rows)
        self._add(rows)
        if fresh := len(self._rows) - known:
            self._session.add_columns(
                cost=np.asarray(self._costs[known:] * self._unit, float),
                lower=np.zeros(fresh),
                upper=np.full(fresh, np.inf),
                columns=self._coefficients(self._rows[known:]),
            )
        return fresh

    def _add(self, rows: NDArray[np.int16]) -> None:
        fresh = [row for row in rows if row.tobytes() not in self._known]
        if self.blocks.cap is not None:
            load = np.append(self.blocks.load, 0)
            fresh = [row for row in fresh if load[row].sum() <= self.blocks.cap]
        if fresh:
            self._known.update(row.tobytes() for row in fresh)
            added = np.stack(fresh)
            self._rows = np.concatenate([self._rows, added])
            self._costs = np.append(self._costs, self.blocks.costs(added))

    def _coefficients(self, rows: NDArray[np.int16]) -> Any:
        """Each block in the rows of its experts, and in the last one where GPUs may stay empty."""
        blocks = self.blocks
        columns = Columns(rows, np.zeros(len(rows), np.int64), 0, blocks.n_experts, blocks.groups)
        return coefficients(columns, np.arange(len(rows)))

    def _load(self) -> None:
        """Hand the whole program to the worker, with the box where it is now."""
        experts, full = self.blocks.n_experts, self.blocks.full
        spread = max(float(np.abs(self._box).mean()), float(self.blocks.pair.max()) / 100)
        width = BOX * (np.abs(self._box) + spread)
        ends = sparse.vstack([sparse.eye_array(experts), sparse.csr_array((0 if full else 1, experts))])
        self._session = shared_session()
        columns = 2 * experts + len(self._rows)
        cost = np.concatenate([self._box + width, width - self._box, self._costs]) * self._unit
        self._session.load(
            Matrix(
                cost=cost,
                lower=np.zeros(columns),
                upper=np.full(columns, np.inf),
                integer=np.zeros(columns, bool),
                rows=sparse.csr_array(sparse.hstack([ends, -ends, self._coefficients(self._rows)])),
                row_lower=np.append(np.ones(experts), [] if full else [-np.inf]),
                row_upper=np.append(np.ones(experts), [] if full else [self.blocks.groups]),
            )
        )

    def _resolve(self, clock: Clock) -> bool:
        """Whether the linear program was solved in the time."""
        outcome: Outcome = self._session.resolve(
            seconds=clock.left, options={"solver": "simplex"}, should_stop=lambda: clock.interrupted
        )
        if outcome.row_duals is None or outcome.x is None or outcome.objective is None:
            return False
        experts = self.blocks.n_experts
        self.duals = outcome.row_duals[:experts] / self._unit
        self.group = 0.0 if self.blocks.full else min(0.0, float(outcome.row_duals[experts]) / self._unit)
        self.value = outcome.objective / self._unit
        self._slack = float(outcome.x[: 2 * experts].max())
        return True


def shares(blocks: BlockRange, gpu_of: NDArray[np.int64]) -> NDArray[np.float64]:
    """float [experts]: the cost of each block of a partition, split evenly among the members of each set there."""
    if not blocks.n_sets:
        together = gpu_of[:, None] == gpu_of
        return np.asarray(-(blocks.pair * together).sum(axis=1) / 2, float)
    own = np.repeat(np.arange(blocks.n_experts), np.diff(blocks.starts))
    inside = (gpu_of[blocks.members] == gpu_of[own][:, None]).sum(axis=1)
    return np.asarray(np.bincount(own, blocks.weights / inside, minlength=blocks.n_experts), float)
