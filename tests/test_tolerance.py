"""Tolerances are the decimals that were typed; caps are shares by speed, rounded down and never too tight."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeopt.tolerance import exact_tolerance, gpu_caps, rounded_up

SPEEDS = st.lists(st.integers(1, 50), min_size=1, max_size=8)
TOLERANCES = st.fractions(min_value=0, max_value=3, max_denominator=1000)


@given(total=st.integers(1, 10**12), tolerance=TOLERANCES, speeds=SPEEDS)
def test_a_cap_is_the_largest_load_within_the_share_and_the_tolerance(
    total: int, tolerance: Fraction, speeds: list[int]
) -> None:
    caps = gpu_caps(total, tolerance, speeds=np.array(speeds))
    assert caps.dtype == np.int64
    for cap, speed in zip(caps.tolist(), speeds, strict=True):
        allowed = (1 + tolerance) * Fraction(total * speed, sum(speeds))
        assert cap <= allowed
        assert cap == total or cap + 1 > allowed


@given(total=st.integers(1, 10**9), tolerance=TOLERANCES, gpus=st.integers(1, 9), speed=st.integers(1, 99))
def test_equal_speeds_are_like_none(total: int, tolerance: Fraction, gpus: int, speed: int) -> None:
    one, other = (gpu_caps(total, tolerance, speeds=np.full(gpus, pace)) for pace in (1, speed))
    assert one.tolist() == other.tolist()
    assert len(set(one.tolist())) == 1


@given(total=st.integers(1, 10**9), speeds=SPEEDS)
def test_a_tolerance_of_the_gpus_less_one_allows_everything_at_equal_speeds(
    total: int, speeds: list[int]
) -> None:
    gpus = len(speeds)
    assert gpu_caps(total, Fraction(gpus - 1), speeds=np.ones(gpus, np.int64)).tolist() == [total] * gpus


def test_no_cap_overflows() -> None:
    caps = gpu_caps(1 << 62, Fraction(1_000_000), speeds=np.array([1 << 31, 1]))
    assert caps.tolist() == [1 << 62, ((1 << 62) * 1_000_001) // ((1 << 31) + 1)]


@pytest.mark.parametrize(
    ("value", "exact"),
    [
        (None, None),
        (0.1, Fraction(1, 10)),
        ("0.1", Fraction(1, 10)),
        ("1/3", Fraction(1, 3)),
        (2, Fraction(2)),
        ("1e-3", Fraction(1, 1000)),
        ("1E6", Fraction(10**6)),
    ],
)
def test_a_tolerance_is_what_was_typed(value: float | str | None, exact: Fraction | None) -> None:
    assert exact_tolerance(value) == exact


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("much", "must be a number, found 'much'"),
        ("1/0", "must be a number"),
        ("1e101", "must be a number"),
        ("1e-101", "must be a number"),
        ("1e", "must be a number"),
        (float("nan"), "must be a number"),
        (True, "must be a number, found True"),
        (-1, "must not be negative, found -1"),
        ("1000001", "must be at most 1000000, found 1000001"),
    ],
)
def test_what_is_no_tolerance_is_refused(value: float | str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        exact_tolerance(value)


@given(value=st.fractions(min_value=0, max_value=1000))
def test_the_number_shown_is_enough_and_hardly_more(value: Fraction) -> None:
    shown = Fraction(str(rounded_up(value)))
    assert value <= shown < value + Fraction(1, 10_000)
