"""Contents of a GPU by what they cost each task family, and proved prices of them at one weighting of the families."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from moeopt.columns import Columns
from moeopt.pricing import Prices
from moeopt.risk import Risk

FINE = 20  # bits of the largest token weight, fewer where all traffic would exceed HEAVY
HEAVY = 1 << 44


@dataclass(frozen=True, eq=False)
class TailColumns:
    """Contents of a GPU, and what each costs each family.

    | field | holds |
    |---|---|
    | members | int16 [columns, m]: as of `moeopt.columns.Columns` |
    | costs | int64 [columns, families]: of the family's tokens, each weighing 1 |
    | offsets | int64 [families]: cost of a placement = offset + sum of the costs of its blocks |
    | risk | how the families' costs become the objective |
    """

    members: NDArray[np.int16]
    costs: NDArray[np.int64]
    offsets: NDArray[np.int64]
    risk: Risk
    n_experts: int
    groups: int

    def __len__(self) -> int:
        return len(self.members)

    @cached_property
    def units(self) -> NDArray[np.int64]:
        """int64 [families]: of the costs."""
        return np.array(self.risk.units, np.int64)

    @cached_property
    def full(self) -> bool:
        """Whether every slot is used."""
        return bool(self.members.shape[1] * self.groups == self.n_experts)

    def chosen(self, keep: NDArray[Any]) -> Self:
        """Some of the columns."""
        return type(self)(
            self.members[keep], self.costs[keep], self.offsets, self.risk, self.n_experts, self.groups
        )

    def weighted(self, weights: NDArray[np.int64]) -> Columns:
        """The columns of the mean at these token weights."""
        cost, offset = self.costs @ weights, int(self.offsets @ weights)
        return Columns(self.members, cost, offset, self.n_experts, self.groups)

    def token_weights(self, mixture: NDArray[np.float64]) -> NDArray[np.int64]:
        """int64 [families]: whole token weights in nearly the proportions of a mixture of the families."""
        real = np.maximum(mixture, 0.0) * self.units
        if not real.any():
            real = np.array(self.risk.masses) * self.units.astype(float)
        real = real / real.max()
        heaviest = max(
            1, int(np.abs(self.costs).max(initial=1)) * self.groups, int(np.abs(self.offsets).max())
        )
        bits = max(1, min(FINE, (HEAVY // heaviest).bit_length() - 1))
        return np.asarray(np.rint(real * (1 << bits)), np.int64)


@dataclass(frozen=True, eq=False)
class Weighted:
    """Proved prices at one weighting of the families: reduced costs of some blocks, and budgets for their sum.

    | field | holds |
    |---|---|
    | columns | at these weights |
    | weights | int64 [families]: of a token |
    | prices | of the columns |
    | risk | of the problem |
    """

    columns: Columns
    weights: NDArray[np.int64]
    prices: Prices
    risk: Risk

    @classmethod
    def of(cls, columns: TailColumns, *, weights: NDArray[np.int64], prices: Prices) -> Self:
        """Prices that were found for `columns.weighted(weights)`."""
        return cls(columns.weighted(weights), weights, prices, columns.risk)

    @property
    def bound(self) -> int:
        """No placement of these blocks has a smaller objective."""
        multiple = self.risk.multiple(self.weights.tolist())
        least = max(0, self.prices.bound(self.columns, searched=-1))
        return -(-multiple.numerator * least // multiple.denominator)

    def budget(self, ceiling: int) -> int:
        """What the reduced costs of a placement of a lower objective sum to at most; below 0: there is none."""
        multiple = self.risk.multiple(self.weights.tolist())
        limit = (ceiling - 1) * multiple.denominator // multiple.numerator
        return int(self.prices.scale * (limit - self.columns.offset) - self.prices.dual(self.columns))

    def near(self, ceiling: int) -> NDArray[np.int64]:
        """Indices of the blocks that such a placement may use."""
        return np.flatnonzero(self.prices.reduced <= self.budget(ceiling))

    def numbers(self) -> dict[str, Any]:
        """What a certificate carries of them."""
        prices = self.prices
        return {
            "weights": self.weights.tolist(),
            "scale": prices.scale,
            "prices": prices.experts.tolist(),
            "group_price": prices.group,
            "triples": prices.triples.tolist(),
            "discounts": prices.discounts.tolist(),
        }
