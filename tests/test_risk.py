"""Worst families: the objective is the dearest of all mixtures, which is the mean over the worst share."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from moeopt.risk import Risk, tail_share
from moeopt.weights import CEILING

NAMES = ("code", "math", "prose", "chat")
TAILS = [Fraction(0), Fraction(1, 10), Fraction(1, 3), Fraction(1, 2), Fraction(4, 5), Fraction(99, 100)]


@st.composite
def risks(draw: st.DrawFn, *, tails: list[Fraction] = TAILS) -> tuple[Risk, Fraction, list[Fraction]]:
    """A risk, the tail asked for, and the shares of the families, which sum to 1."""
    count = draw(st.integers(1, 4))
    tokens = draw(st.lists(st.integers(1, 60), min_size=count, max_size=count))
    names, weights = NAMES[:count], None
    shares = [Fraction(number) for number in tokens]
    if draw(st.booleans()):
        weights = {name: draw(st.sampled_from([0, 1, 2, 0.5])) for name in names}
        assume(any(weights.values()))
        shares = [Fraction(str(weights[name])) for name in names]
    tail = draw(st.sampled_from(tails))
    risk = Risk.of(names, np.array(tokens), weights=weights, tail=tail)
    return risk, tail, [share / sum(shares) for share in shares]


def mixtures(risk: Risk) -> list[tuple[int, ...]]:
    """Every whole mixture, by definition; too many are not listed."""
    ranges = [range(min(mass, risk.total) + 1) for mass in risk.masses]
    assume(np.prod([len(each) for each in ranges[1:]]) <= 5_000)
    listed = []
    for rest in product(*ranges[1:]):
        first = risk.total - sum(rest)
        if 0 <= first <= risk.masses[0]:
            listed.append((first, *rest))
    return listed


@given(case=risks(), costs=st.lists(st.integers(0, 10**6), min_size=4, max_size=4))
def test_the_objective_is_the_dearest_of_all_mixtures(
    case: tuple[Risk, Fraction, list[Fraction]], costs: list[int]
) -> None:
    risk, _, _ = case
    own = costs[: len(risk.masses)]
    listed = mixtures(risk)
    values = [sum(m * c for m, c in zip(mixture, own, strict=True)) for mixture in listed]
    assert risk.worst(own) == max(values)
    assert risk.mixture(own) in listed
    assert all(risk.refusal(mixture) == "" for mixture in listed)


@given(case=risks(tails=[Fraction(0)]), costs=st.lists(st.integers(0, 10**6), min_size=4, max_size=4))
def test_a_tail_of_zero_is_the_worst_family(
    case: tuple[Risk, Fraction, list[Fraction]], costs: list[int]
) -> None:
    risk, _, shares = case
    assert risk.total == 1
    assert risk.worst(costs[: len(shares)]) == max(
        cost for cost, share in zip(costs, shares, strict=False) if share
    )


@given(case=risks(tails=TAILS[1:]), costs=st.lists(st.integers(0, 1000), min_size=4, max_size=4))
def test_a_share_is_the_mean_over_the_worst_families_of_that_share(
    case: tuple[Risk, Fraction, list[Fraction]], costs: list[int]
) -> None:
    """By definition: families from the dearest on until their shares fill the tail, the last one in part."""
    risk, tail, shares = case
    exact = [Fraction(mass, sum(risk.masses)) for mass in risk.masses]
    assume(exact == shares and risk.total == tail * sum(risk.masses))  # otherwise rounded to thousandths
    left, mean = tail, Fraction(0)
    for cost, share in sorted(zip(costs, shares, strict=False), reverse=True):
        mean += cost * min(share, left)
        left -= min(share, left)
    assert Fraction(risk.worst(costs[: len(shares)]), sum(risk.masses)) == mean


@given(
    tokens=st.lists(st.integers(1, 10**9), min_size=1, max_size=4),
    tail=st.sampled_from([*TAILS[1:], Fraction(1, 10**6)]),
)
def test_shares_without_a_common_denominator_are_rounded_and_none_is_lost(
    tokens: list[int], tail: Fraction
) -> None:
    risk = Risk.of(NAMES[: len(tokens)], np.array(tokens), weights=None, tail=tail)
    parts = sum(risk.masses)
    assert all(mass >= 1 for mass in risk.masses)
    assert 1 <= risk.total <= parts
    for mass, count in zip(risk.masses, tokens, strict=True):
        assert abs(Fraction(mass, parts) - Fraction(count, sum(tokens))) < Fraction(1, 200)
    assert abs(Fraction(risk.total, parts) - tail) <= Fraction(1, 900)


@given(case=risks())
def test_families_are_compared_per_token_and_within_64_bits(
    case: tuple[Risk, Fraction, list[Fraction]],
) -> None:
    risk, _, shares = case
    for mass, unit, share in zip(risk.masses, risk.units, shares, strict=True):
        assert (mass > 0) == (unit > 0) == (share > 0)
    assert risk.total * max(risk.units) <= CEILING


def test_a_family_without_weight_does_not_count() -> None:
    tokens = np.array([10, 1000])
    risk = Risk.of(("code", "math"), tokens, weights={"code": 1}, tail=Fraction(0))
    assert risk.masses == (1, 0)
    assert risk.worst([5, 10**6]) == 5
    assert risk.mixture([5, 10**6]) == (1, 0)


def test_every_family_counts_the_same_per_token() -> None:
    """Twice the tokens at twice the cost is the same cost per token."""
    risk = Risk.of(("code", "math"), np.array([100, 200]), weights=None, tail=Fraction(0))
    code, math = (unit * count for unit, count in zip(risk.units, (100, 200), strict=True))
    assert code == pytest.approx(math, rel=1e-9)


def test_equal_costs_are_mixed_in_order() -> None:
    assert Risk((2, 3, 1), 4, (1, 1, 1)).mixture([7, 7, 9]) == (2, 1, 1)


@pytest.mark.parametrize(
    ("mixture", "words"),
    [
        ((1,), "a mixture has a number for each of 2 families, found 1"),
        ((3, 0), "family 0 has 3 parts of the mixture, 0 to 2 are allowed"),
        ((-1, 3), "family 0 has -1 parts of the mixture, 0 to 2 are allowed"),
        ((1, 1), "the parts of the mixture sum to 2, wanted 3"),
        ((2, 1), ""),
    ],
)
def test_what_is_no_mixture_is_refused(mixture: tuple[int, ...], words: str) -> None:
    assert Risk((2, 3), 3, (1, 1)).refusal(mixture) == words


@pytest.mark.parametrize(
    ("value", "share"),
    [
        (None, None),
        (1, None),
        ("1.0", None),
        (0, Fraction(0)),
        ("1/3", Fraction(1, 3)),
        (0.1, Fraction(1, 10)),
        (Fraction(2, 7), Fraction(2, 7)),
    ],
)
def test_a_tail_is_the_fraction_that_was_typed(value: float | str | None, share: Fraction | None) -> None:
    assert tail_share(value) == share


@pytest.mark.parametrize("value", ["worst", "1/0", float("nan"), float("inf"), True, ""])
def test_a_tail_that_is_no_number_is_refused(value: float | str) -> None:
    with pytest.raises(ValueError, match="tail must be a number from 0 to 1, found"):
        tail_share(value)


@pytest.mark.parametrize("value", [-0.1, "1.01", 2])
def test_a_tail_beyond_its_range_is_refused(value: float | str) -> None:
    with pytest.raises(ValueError, match=r"tail must lie between 0 \(the worst family\) and 1 \(the mean\)"):
        tail_share(value)


def test_weights_are_checked_before_they_count() -> None:
    with pytest.raises(ValueError, match="family 'maths' is not in the trace"):
        Risk.of(("code",), np.array([3]), weights={"maths": 1}, tail=Fraction(0))
    with pytest.raises(ValueError, match="family weights are all zero"):
        Risk.of(("code",), np.array([3]), weights={"code": 0}, tail=Fraction(1, 2))
