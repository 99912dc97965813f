"""Prices of experts and triples for the worst families: a linear relaxation whose multipliers mix the families."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeopt.columns import Columns
from moeopt.matrix import Matrix
from moeopt.pricing import DEAR, TALLEST, Prices, Relaxation, coefficients, discounted, shared_session
from moeopt.stop import Clock
from moeopt.tail_columns import TailColumns, Weighted

FIRST = 6_000  # columns of the first linear program
BATCH = 3_000  # columns added a round
CUTS = 60  # rows added a round
VIOLATION = 0.02  # below it a row moves the bound less than it slows the rest
ROUNDS = 20  # of cuts


def priced_mean(columns: TailColumns, mixture: NDArray[np.float64], *, clock: Clock, seed: int) -> Weighted:
    """Prices of one mixture, with subset rows."""
    weights = columns.token_weights(mixture)
    relaxation = Relaxation(columns.weighted(weights), seed=seed)
    prices = relaxation.solve(clock)
    for _ in range(ROUNDS):
        if clock.expired or not relaxation.cut():
            break
        prices = relaxation.solve(clock)
    return Weighted.of(columns, weights=weights, prices=prices)


class TailRelaxation:
    """The linear relaxation of the worst families over all columns, by column and row generation.

    With c[B,f] the cost of block B for family f and the risk's units u, masses A and total K:

        minimise  K t + sum_f A[f] v[f]
        cover     sum over B containing e of z_B = 1           for every expert e
        gpus      sum_B z_B <= G                               where GPUs may stay empty
        worst     u[f] (offset[f] + sum_B c[B,f] z_B) <= t + v[f]    for every family that counts
        triples   sum over B holding two or more of three z_B <= 1   for those that `cut` adds

    The multipliers of `worst` are the mixture at which all prices are proved.
    """

    def __init__(self, columns: TailColumns, *, seed: int) -> None:
        self.columns = columns
        self.triples = np.empty((0, 3), np.int64)
        self.families = np.flatnonzero(np.array(columns.risk.masses))
        units = columns.units[self.families]
        self._table = columns.costs[:, self.families] * units.astype(float)
        self._unit = TALLEST / max(1.0, float(np.abs(self._table).max()))
        self._table *= self._unit
        self._shift = columns.offsets[self.families] * units * self._unit
        mean, rng = self._table.sum(axis=1), np.random.default_rng(seed)
        half = min(FIRST // 2, len(columns) - 1)
        self._entered = np.zeros(len(columns), bool)
        self._entered[np.argpartition(mean, half)[: half + 1]] = True
        self._entered[rng.integers(0, len(columns), FIRST // 2)] = True
        self._order = np.flatnonzero(self._entered)
        self.mixture = np.array(columns.risk.masses, float)
        self._duals, self._group, self._discounts = np.zeros(columns.n_experts), 0.0, np.empty(0)
        self._point = np.empty(0)
        self._load()

    def solve(self, clock: Clock) -> Weighted:
        """Prices of the relaxation with the rows so far; valid, if weaker, when the clock ends it early."""
        columns, experts = self.columns, self.columns.n_experts
        plain = Columns(
            columns.members, np.zeros(len(columns), np.int64), 0, experts, columns.groups
        )  # for sums of prices
        while True:
            outcome = self._session.resolve(seconds=clock.left, should_stop=lambda: clock.interrupted)
            if outcome.row_duals is None or outcome.x is None:
                break
            height, count = experts + (not columns.full), len(self.families)
            self._duals = outcome.row_duals[:experts]
            self._group = 0.0 if columns.full else min(0.0, float(outcome.row_duals[experts]))
            share = np.maximum(0.0, -outcome.row_duals[height : height + count])
            self._discounts = np.maximum(0.0, -outcome.row_duals[height + count :])
            self._point = outcome.x[experts + 1 + count :]
            self.mixture = np.zeros(len(columns.risk.masses))
            self.mixture[self.families] = share
            reduced = self._table @ share - plain.priced(self._duals) - self._group
            attractive = np.flatnonzero((reduced < -1e-6) & ~self._entered)
            if len(self.triples) and len(attractive):  # discounts only add: they make no others attractive
                reduced[attractive] += discounted(
                    columns.members[attractive], self.triples, discounts=self._discounts, n_experts=experts
                )
                attractive = attractive[reduced[attractive] < -1e-6]
            if not len(attractive) or clock.expired:
                break
            if len(attractive) > BATCH:
                attractive = attractive[np.argpartition(reduced[attractive], BATCH)[:BATCH]]
            self._enter(attractive)
        return self._proved()

    def cut(self) -> bool:
        """Add the most violated subset rows; False when none is violated enough."""
        from scipy import sparse

        from moeopt.triples import together

        columns, positive = self.columns, np.flatnonzero(self._point > 1e-7)
        held = columns.members[self._order[positive]]
        weight = together(held, self._point[positive], n_experts=columns.n_experts)
        i, j, k = np.nonzero(weight > 1 + VIOLATION)
        if not len(i):
            return False
        worst = np.argsort(-weight[i, j, k], kind="stable")[:CUTS]
        fresh = np.column_stack([i, j, k])[worst]
        self.triples = np.concatenate([self.triples, fresh])
        block = self._coefficients(self._order, triples=fresh)[-len(fresh) :]
        before = sparse.csr_array((len(fresh), columns.n_experts + 1 + len(self.families)))
        self._session.add_rows(
            rows=sparse.csr_array(sparse.hstack([before, block])),
            row_lower=np.full(len(fresh), -np.inf),
            row_upper=np.ones(len(fresh)),
        )
        return True

    def _proved(self) -> Weighted:
        """The prices in whole numbers, at whole token weights."""
        columns = self.columns
        weights = columns.token_weights(self.mixture)
        real = self.mixture * columns.units * self._unit
        stretch = float(weights.sum()) / max(float(real.sum()), 1e-300)
        discounts = np.zeros(len(self.triples))
        discounts[: len(self._discounts)] = self._discounts
        prices = Prices.of(
            columns.weighted(weights),
            duals=self._duals * stretch,
            group=self._group * stretch,
            triples=self.triples,
            discounts=discounts * stretch,
        )
        return Weighted.of(columns, weights=weights, prices=prices)

    def _coefficients(self, chosen: NDArray[np.int64], *, triples: NDArray[np.int64]) -> Any:
        """Sparse rows cover, gpus and worst, and those of `triples`, of these columns."""
        from scipy import sparse

        columns = self.columns
        some = Columns(
            columns.members[chosen],
            np.zeros(len(chosen), np.int64),
            0,
            columns.n_experts,
            columns.groups,
        )
        rows = sparse.csr_array(coefficients(some, np.arange(len(chosen)), triples=triples))
        height = columns.n_experts + (not columns.full)
        worst = sparse.csr_array(self._table[chosen].T)
        return sparse.csr_array(sparse.vstack([rows[:height], worst, rows[height:]]))

    def _enter(self, chosen: NDArray[np.int64]) -> None:
        from scipy import sparse

        self._entered[chosen] = True
        self._order = np.append(self._order, chosen)
        self._session.add_columns(
            cost=np.zeros(len(chosen)),
            lower=np.zeros(len(chosen)),
            upper=np.full(len(chosen), np.inf),
            columns=sparse.csc_array(self._coefficients(chosen, triples=self.triples)),
        )

    def _load(self) -> None:
        """The chosen columns behind one artificial column an expert, dearer than any cover, t and v."""
        from scipy import sparse

        columns, count = self.columns, len(self.families)
        experts, height = columns.n_experts, columns.n_experts + (not columns.full)
        dear = DEAR * (columns.groups + 1) * TALLEST * columns.risk.total
        front = sparse.block_array(
            [
                [sparse.eye_array(height, experts), None, None],
                [None, -np.ones((count, 1)), -sparse.eye_array(count)],
            ]
        )
        masses = np.array(columns.risk.masses, float)[self.families]
        width = experts + 1 + count + len(self._order)
        lower = np.zeros(width)
        lower[experts] = -np.inf
        upper = np.full(width, np.inf)
        upper[experts + 1 : experts + 1 + count] = np.where(masses < columns.risk.total, np.inf, 0.0)
        self._session = shared_session()
        self._session.load(
            Matrix(
                cost=np.concatenate(
                    [np.full(experts, dear), [columns.risk.total], masses, np.zeros(len(self._order))]
                ),
                lower=lower,
                upper=upper,
                integer=np.zeros(width, bool),
                rows=sparse.csr_array(
                    sparse.hstack([front, self._coefficients(self._order, triples=self.triples)])
                ),
                row_lower=np.concatenate(
                    [np.ones(experts), [] if columns.full else [-np.inf], np.full(count, -np.inf)]
                ),
                row_upper=np.concatenate(
                    [np.ones(experts), [] if columns.full else [columns.groups], -self._shift]
                ),
            )
        )
