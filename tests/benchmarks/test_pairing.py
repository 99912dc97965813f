"""Means, intervals, paired tests and ranks against known values."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from benchmarks.pairing import compared, described, mean_ranks, paired

SLEEP_FIRST = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SLEEP_SECOND = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
SHORT = st.lists(st.floats(-100, 100), min_size=2, max_size=12)


def test_a_sample_has_its_mean_its_deviation_and_an_interval_around_the_mean() -> None:
    sample = described([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (sample.count, sample.mean) == (5, 3.0)
    assert sample.deviation == pytest.approx(2.5**0.5)
    assert sample.low == pytest.approx(1.8)  # of the 5^5 means of resamples, as by enumeration
    assert sample.high == pytest.approx(4.2)
    assert described([1.0, 2.0, 3.0, 4.0, 5.0]) == sample


def test_one_value_has_no_spread_and_no_value_no_mean() -> None:
    assert described([7.0]).deviation is described([7.0]).low is described([7.0]).high is None
    with pytest.raises(ValueError, match="at least 1 value"):
        described([])
    with pytest.raises(ValueError, match="finite, found nan"):
        described([1.0, float("nan")])


@given(SHORT)
def test_the_interval_holds_between_the_extremes(values: list[float]) -> None:
    sample = described(values)
    assert sample.low is not None
    assert sample.high is not None
    assert min(values) - 1e-9 <= sample.low <= sample.high <= max(values) + 1e-9


def test_the_sleep_data_of_student_have_their_known_p_values() -> None:
    comparison = compared(SLEEP_SECOND, SLEEP_FIRST)
    assert (comparison.pairs, comparison.above, comparison.below) == (10, 9, 0)
    assert comparison.difference == pytest.approx(1.58)
    assert comparison.student == pytest.approx(0.00283289, rel=1e-5)
    assert comparison.wilcoxon == pytest.approx(2 / 2**9)  # nine differences of one sign, the zero dropped
    assert comparison.resampled is None


def test_overlapping_splits_make_a_difference_less_certain() -> None:
    comparison = compared(SLEEP_SECOND, SLEEP_FIRST, held_out=0.2)
    # t = 4.0621 of the ordinary test, times sqrt(0.1 / (0.1 + 0.25)), 9 degrees of freedom
    assert comparison.resampled == pytest.approx(0.0580, abs=5e-5)


@pytest.mark.parametrize(
    "differences", [range(1, 9), (1, -2, 3, 4, -5, 6, 7), (1, 1, 2, 2, 3, -1), (5, -5, 1, -1, 2, -2)]
)
def test_signed_ranks_are_those_of_scipy_with_and_without_ties(differences: Sequence[int]) -> None:
    values = [float(one) for one in differences]
    expected = stats.wilcoxon(values).pvalue
    assert compared(values, [0.0] * len(values)).wilcoxon == pytest.approx(expected)


def test_equal_lists_differ_by_nothing_and_have_no_p_value() -> None:
    comparison = compared([1.0] * 8, [1.0] * 8, held_out=0.2)
    assert (comparison.difference, comparison.above, comparison.below) == (0.0, 0, 0)
    assert comparison.student is comparison.resampled is comparison.wilcoxon is None
    assert compared([0.1 + 0.2] * 8, [0.3] * 8) == compared([1.0] * 8, [1.0] * 8)


def test_differences_that_are_all_the_same_have_no_t_test_but_ranks() -> None:
    comparison = compared([0.3, 0.4, 0.5, 0.6, 0.7, 0.8], [0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
    assert comparison.student is None
    assert comparison.wilcoxon == pytest.approx(2 / 2**6)


@pytest.mark.parametrize("count", range(6))
def test_fewer_than_six_differences_have_no_signed_ranks(count: int) -> None:
    comparison = compared([float(3**at) for at in range(count)], [0.0] * count)
    assert comparison.pairs == count
    assert comparison.wilcoxon is None
    assert (comparison.student is None) == (count < 2)
    assert (comparison.difference is None) == (count == 0)


@given(SHORT, st.data())
def test_the_order_of_the_two_lists_changes_only_the_sign(first: list[float], data: st.DataObject) -> None:
    second = data.draw(st.lists(st.floats(-100, 100), min_size=len(first), max_size=len(first)))
    one, other = compared(first, second, held_out=0.2), compared(second, first, held_out=0.2)
    assert (one.above, one.below) == (other.below, other.above)
    assert (one.student, one.resampled) == (other.student, other.resampled)
    assert one.wilcoxon == pytest.approx(other.wilcoxon)
    assert one.difference == -(other.difference or 0.0)


def test_lists_of_different_lengths_and_impossible_shares_are_refused() -> None:
    with pytest.raises(ValueError, match="one length, found 2 and 1"):
        compared([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match=r"between 0 and 1, found 1\.0"):
        compared([1.0, 2.0], [1.0, 3.0], held_out=1.0)


def test_pairs_are_the_seeds_that_both_have() -> None:
    comparison = paired({0: 1.0, 1: 2.0, 5: 9.0}, {5: 4.0, 1: 1.0, 7: 100.0})
    assert (comparison.pairs, comparison.above, comparison.difference) == (2, 2, 3.0)


def test_ranks_are_means_over_common_seeds_and_ties_share_them() -> None:
    values = {"a": {0: 3.0, 1: 3.0, 2: 0.0}, "b": {0: 2.0, 1: 3.0}, "c": {0: 1.0, 1: 1.0}}
    assert mean_ranks(values) == {"a": 1.25, "b": 1.75, "c": 3.0}
    assert mean_ranks(values, largest_first=False) == {"a": 2.75, "b": 2.25, "c": 1.0}
    assert mean_ranks({"a": {0: 1.0}, "b": {1: 1.0}}) == {}
    assert mean_ranks({}) == {}
