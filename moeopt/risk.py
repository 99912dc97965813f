"""Worst families: the mean over the worst share of the task families, in whole numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import gcd, lcm
from typing import Self

import numpy as np
from numpy.typing import NDArray

from moeopt.weights import CEILING, family_multipliers

__all__ = ["Risk", "tail_share"]

SMALL = 1 << 24  # common multiple of token counts: float solvers still see single tokens beside it
FINEST = 1_000  # parts into which shares of families are divided where no smaller denominator is exact


@dataclass(frozen=True)
class Risk:
    """Conditional value at risk over families (Rockafellar, Uryasev, J. Risk 2, 2000), its dual form.

    With c_f the cost of family f per token, in one unit, the objective of a layer is the largest

        sum_f m_f c_f    over whole m with 0 <= m_f <= masses[f], sum_f m_f = total,

    which is `total` times the mean of c over the worst total / sum(masses) of the families. Every such m is a
    mixture: an ordinary weighting whose optimum no placement undercuts.

    | field | holds |
    |---|---|
    | masses | share of each family, whole numbers; 0: the family does not count |
    | total | the worst share, in the same parts; 1 with masses of 1 is the worst family |
    | units | cost of one token of each family in the common unit, as whole numbers |
    """

    masses: tuple[int, ...]
    total: int
    units: tuple[int, ...]

    @classmethod
    def of(
        cls,
        families: Sequence[str],
        tokens: NDArray[np.int64],
        *,
        weights: Mapping[str, float] | None,
        tail: Fraction,
    ) -> Self:
        """Families weigh as `weights` says, by their tokens without it; `tail` 0 is the worst family.

        Shares without a common denominator up to 1,000 are rounded to thousandths, at least one each.
        """
        if weights is None:
            shares = [Fraction(int(count)) for count in tokens]
        else:
            family_multipliers(families, tokens, weights=weights)  # says what is wrong with them
            shares = [Fraction(str(weights.get(name, 0))) for name in families]
        if tail == 0:
            masses, total = [int(share > 0) for share in shares], 1
        else:
            masses, total = _parts([share / sum(shares) for share in shares], tail)
        return cls(tuple(masses), total, _units(families, tokens, masses, ceiling=CEILING // total))

    def mixture(self, costs: Sequence[int]) -> tuple[int, ...]:
        """The m of the objective, given the cost of each family: the dearest families first."""
        left, mixture = self.total, [0] * len(costs)
        for family in sorted(range(len(costs)), key=lambda f: (-costs[f], f)):
            mixture[family] = min(self.masses[family], left)
            left -= mixture[family]
        return tuple(mixture)

    def worst(self, costs: Sequence[int]) -> int:
        """The objective, given the cost of each family in the common unit."""
        return sum(m * int(cost) for m, cost in zip(self.mixture(costs), costs, strict=True))

    def attainable(self, bound: int) -> int:
        """The least objective that an answer can have, given that it has no less than `bound`.

        That of the worst family is a multiple of the family's unit.
        """
        if self.total != 1:
            return bound
        return min(
            unit * -(-bound // unit) for unit, mass in zip(self.units, self.masses, strict=True) if mass
        )

    def multiple(self, weights: Sequence[int]) -> Fraction:
        """The largest x such that no answer has an objective below x times its cost at these token weights.

        That is, the largest for which m_f = x weights[f] / units[f] is a mixture but for its sum, which may be less.
        ValueError unless the weights are at least 0, some above, and 0 where a family does not count.
        """
        if len(weights) != len(self.masses):
            raise ValueError(
                f"a weight for each of {len(self.masses)} families is needed, found {len(weights)}"
            )
        shares = []
        for family, (weight, mass, unit) in enumerate(zip(weights, self.masses, self.units, strict=True)):
            if weight < 0 or (weight and not mass):
                raise ValueError(f"family {family} of mass {mass} must not weigh {weight}")
            if weight:
                shares.append((Fraction(weight, unit), mass))
        if not shares:
            raise ValueError("some family must weigh more than 0")
        whole = Fraction(self.total) / sum(share for share, _ in shares)
        return min(whole, *(mass / share for share, mass in shares))

    def refusal(self, mixture: Sequence[int]) -> str:
        """Why the numbers are no mixture; empty when they are one."""
        if len(mixture) != len(self.masses):
            return f"a mixture has a number for each of {len(self.masses)} families, found {len(mixture)}"
        for family, (part, mass) in enumerate(zip(mixture, self.masses, strict=True)):
            if not 0 <= part <= mass:
                return f"family {family} has {part} parts of the mixture, 0 to {mass} are allowed"
        if sum(mixture) != self.total:
            return f"the parts of the mixture sum to {sum(mixture)}, wanted {self.total}"
        return ""


def tail_share(value: Fraction | float | str | None) -> Fraction | None:
    """The share of the families whose mean counts: 0 the worst family, 1 and None the mean of all."""
    if value is None:
        return None
    try:
        share = value if isinstance(value, Fraction) else Fraction(str(value))
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(f"tail must be a number from 0 to 1, found {value!r}") from error
    if not 0 <= share <= 1:
        raise ValueError(f"tail must lie between 0 (the worst family) and 1 (the mean), found {value}")
    return None if share == 1 else share


def _units(
    families: Sequence[str], tokens: NDArray[np.int64], masses: Sequence[int], *, ceiling: int
) -> tuple[int, ...]:
    """The inverse token counts as whole numbers: exact where these have a small multiple in common, else rounded."""
    common = lcm(*(int(count) for count, mass in zip(tokens, masses, strict=True) if mass))
    if common <= SMALL:
        return tuple(common // int(count) if mass else 0 for count, mass in zip(tokens, masses, strict=True))
    counted = {name: 1.0 for name, mass in zip(families, masses, strict=True) if mass}
    return tuple(family_multipliers(families, tokens, weights=counted, ceiling=ceiling).tolist())


def _parts(shares: list[Fraction], tail: Fraction) -> tuple[list[int], int]:
    """Whole masses of the shares, which sum to 1, and the tail in the same parts."""
    common = lcm(*(share.denominator for share in shares), tail.denominator)
    masses = [int(share * common) for share in shares]
    total = tail * common
    divisor = gcd(*masses, int(total))
    if total.denominator == 1 and total // divisor <= FINEST:
        return [mass // divisor for mass in masses], int(total) // divisor
    masses = [max(1, round(share * FINEST)) if share else 0 for share in shares]
    return masses, max(1, round(tail * sum(masses)))
