"""Family weights as integer multipliers, so that every objective is an exact integer."""

from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

CEILING = 1 << 50
LARGEST = 1e15


def family_multipliers(
    families: Sequence[str],
    tokens: NDArray[np.int64],
    *,
    weights: Mapping[str, float] | None,
    ceiling: int = CEILING,
) -> NDArray[np.int64]:
    """int64 [families]: objective weight q_f of one token of each family.

    Without weights all are 1. With weights alpha_f, normalised to sum 1, q_f is the rounding of alpha_f / tokens_f on
    a scale that keeps sum_f q_f tokens_f below `ceiling`, 2^50: a common denominator of the token counts would
    overflow 64 bits on real traces. Rounding changes q_f by at most 1 in 2 q_f; `rounding_error` gives what a share
    really loses.
    Families that `weights` does not name get 0. Raises ValueError for an unknown family, a negative, non-finite
    or all-zero weight, a weight on a family without tokens, or more than ceiling / 64 tokens.
    """
    if weights is None:
        return np.ones(len(families), np.int64)
    shares = [Fraction(0)] * len(families)
    for name, weight in weights.items():
        if name not in families:
            raise ValueError(f"family {name!r} is not in the trace, whose families are {', '.join(families)}")
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not abs(weight) < LARGEST:
            raise ValueError(
                f"weight of family {name!r} must be a number below {LARGEST:g}, found {weight!r:.60}"
            )
        if weight < 0:
            raise ValueError(f"weight of family {name!r} must not be negative, found {weight}")
        index = families.index(name)
        if weight > 0 and tokens[index] == 0:
            raise ValueError(f"family {name!r} has weight {weight} but no tokens in the trace")
        shares[index] = Fraction(str(weight)) / int(tokens[index]) if weight > 0 else Fraction(0)
    total = sum((share * int(count) for share, count in zip(shares, tokens, strict=True)), Fraction(0))
    if total == 0:
        raise ValueError(f"family weights are all zero: {dict(weights)}")
    if (most := ceiling >> 6) < int(tokens.sum()):
        raise ValueError(
            f"too many tokens for whole family weights: {int(tokens.sum())}, weights are exact to 1 % up to {most}"
        )
    # Half a token each is the most that rounding up can add.
    scale = (ceiling - 1 - int(tokens.sum())) / total
    return np.array([round(share * scale) for share in shares], np.int64)


def rounding_error(
    families: Sequence[str], tokens: NDArray[np.int64], *, weights: Mapping[str, float]
) -> float:
    """Largest relative difference between a family's share of the objective and the weight asked for."""
    exact = family_multipliers(families, tokens, weights=weights)
    mass = [int(q) * int(t) for q, t in zip(exact, tokens, strict=True)]
    asked = sum((Fraction(str(w)) for w in weights.values()), Fraction(0))
    errors = [
        abs(Fraction(mass[families.index(name)], sum(mass)) * asked / Fraction(str(weight)) - 1)
        for name, weight in weights.items()
        if weight > 0
    ]
    return float(max(errors))
