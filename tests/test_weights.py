"""Family weights are integers that keep every share and stay far below 64 bits."""

from __future__ import annotations

import os
from fractions import Fraction
from math import lcm
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeopt.recording import read_trace
from moeopt.weights import CEILING, family_multipliers, rounding_error
from moeopt.workload import Workload

NAMES = ("code", "math", "chat", "general", "safety")
TRACES = Path(os.environ.get("MOEOPT_TRACES", Path(__file__).parents[2] / "shared" / "data"))


def shares(multipliers: Any, tokens: Any) -> list[Fraction]:
    mass = [int(q) * int(t) for q, t in zip(multipliers, tokens, strict=True)]
    return [Fraction(part, sum(mass)) for part in mass]


def test_without_weights_every_token_counts_one() -> None:
    assert family_multipliers(NAMES, np.arange(5), weights=None).tolist() == [1] * 5


@settings(max_examples=100, deadline=None)
@given(
    tokens=st.lists(st.integers(1, 10**7), min_size=5, max_size=5),
    weights=st.lists(st.integers(1, 100), min_size=5, max_size=5),
)
def test_every_share_is_right_and_the_total_below_the_ceiling(tokens: list[int], weights: list[int]) -> None:
    given_weights = dict(zip(NAMES, weights, strict=True))
    found = family_multipliers(NAMES, np.array(tokens), weights=given_weights)
    assert sum(int(q) * t for q, t in zip(found, tokens, strict=True)) < CEILING
    worst = max(
        abs(share * sum(weights) / weight - 1)
        for share, weight in zip(shares(found, tokens), weights, strict=True)
    )
    assert worst < 1e-5
    assert rounding_error(NAMES, np.array(tokens), weights=given_weights) == pytest.approx(
        float(worst), rel=1e-9
    )


@settings(max_examples=50, deadline=None)
@given(tokens=st.lists(st.integers(1, 10**6), min_size=5, max_size=5), factor=st.sampled_from([3, 0.5, 1e6]))
def test_only_the_ratios_of_weights_matter(tokens: list[int], factor: float) -> None:
    weights = {name: float(index + 1) for index, name in enumerate(NAMES)}
    scaled = {name: weight * factor for name, weight in weights.items()}
    found = family_multipliers(NAMES, np.array(tokens), weights=weights)
    assert (family_multipliers(NAMES, np.array(tokens), weights=scaled) == found).all()


def test_families_without_a_weight_count_nothing() -> None:
    assert family_multipliers(NAMES, np.full(5, 7), weights={"math": 2, "chat": 0}).astype(bool).tolist() == [
        False,
        True,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (
            {"maths": 1},
            "family 'maths' is not in the trace, whose families are code, math, chat, general, safety",
        ),
        ({"code": -0.5}, "weight of family 'code' must not be negative, found -0.5"),
        ({"code": float("nan")}, "weight of family 'code' must be a number.*found nan"),
        ({"code": float("inf")}, "found inf"),
        ({"code": 10**400}, "weight of family 'code' must be a number"),
        ({"code": True}, "found True"),
        ({"code": "1"}, "found '1'"),
        ({"code": 0}, "family weights are all zero"),
        ({}, "family weights are all zero"),
        ({"safety": 1}, "family 'safety' has weight 1 but no tokens"),
    ],
)
def test_weights_that_make_no_sense_are_refused_with_rule_and_value(weights: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        family_multipliers(NAMES, np.array([5, 5, 5, 5, 0]), weights=weights)


def test_equal_families_of_real_traffic_fit_where_a_common_denominator_does_not() -> None:
    path = TRACES / "gpt_oss_20b_decode.npz"
    if not path.is_file():
        pytest.skip(f"real traces are not at {TRACES}; MOEOPT_TRACES names their folder")
    workload = Workload.from_trace(read_trace(path).layers([0]))
    assert lcm(*workload.tokens.tolist()) >= 1 << 63
    weights = dict.fromkeys(workload.families, 1.0)
    found = family_multipliers(workload.families, workload.tokens, weights=weights)
    assert sum(int(q) * int(t) for q, t in zip(found, workload.tokens, strict=True)) < CEILING
    for share in shares(found, workload.tokens):
        assert abs(share - Fraction(1, len(workload.families))) < Fraction(1, 10**9)
    assert rounding_error(workload.families, workload.tokens, weights=weights) < 1e-9
