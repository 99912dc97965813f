"""Load tolerances: what a user typed, as an exact fraction, and back."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
from numpy.typing import NDArray

__all__ = ["exact_tolerance", "gpu_caps", "rounded_up"]

LOOSEST = 1_000_000  # load tolerance; with G GPUs G - 1 allows everything


def exact_tolerance(value: Fraction | float | str | None) -> Fraction | None:
    """A tolerance as the decimal fraction the user typed; ValueError says what is wrong with it."""
    if value is None:
        return None
    try:
        if abs(int(str(value).lower().partition("e")[2] or 0)) > 100:  # would take long to write out
            raise ValueError("exponent beyond 100")
        tolerance = value if isinstance(value, Fraction) else Fraction(str(value))
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(f"load tolerance must be a number, found {value!r}") from error
    if tolerance < 0:
        raise ValueError(f"load tolerance must not be negative, found {value}")
    if tolerance > LOOSEST:
        raise ValueError(f"load tolerance must be at most {LOOSEST}, found {value}")
    return tolerance


def gpu_caps(total: int, tolerance: Fraction, *, speeds: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64 [gpus]: the largest load of each GPU, its share by speed of `total` activations, and the tolerance."""
    together = int(speeds.sum())
    caps = [floor((1 + tolerance) * total * Fraction(int(speed), together)) for speed in speeds]
    return np.array([min(cap, total) for cap in caps], np.int64)


def rounded_up(value: Fraction) -> float:
    """Rounded up to four decimals, so that typing the number shown is enough."""
    return float(-(-value * 10_000 // 1)) / 10_000
