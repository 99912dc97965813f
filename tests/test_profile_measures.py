"""How even loads are and how alike, by hand and by NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeopt.profile_measures import correlations, entropy, generality, gini, known, mean_of, successive

LOADS = st.lists(st.integers(0, 2**40), min_size=1, max_size=12).filter(any)


def test_even_loads_and_one_busy_expert_are_the_ends() -> None:
    assert gini(np.array([5, 5, 5, 5])) == 0.0
    assert entropy(np.array([5, 5, 5, 5])) == pytest.approx(1.0)
    assert (gini(np.array([0, 0, 0, 9])), entropy(np.array([0, 0, 0, 9]))) == (0.75, 0.0)
    assert (gini(np.array([7])), entropy(np.array([7]))) == (0.0, 1.0)
    assert gini(np.array([1, 3])) == 0.25


@given(LOADS)
def test_gini_is_half_the_mean_difference_over_the_mean(loads: list[int]) -> None:
    values = np.array(loads)
    differences = np.abs(np.subtract.outer(values.astype(float), values)).mean()
    assert gini(values) == pytest.approx(differences / (2 * values.mean()), abs=1e-9)
    assert 0 <= gini(values) < 1
    assert 0 <= entropy(values) <= 1


@given(st.integers(2, 5), st.integers(2, 9), st.integers(0, 2**32 - 1))
def test_correlations_are_those_of_numpy(rows: int, experts: int, seed: int) -> None:
    loads = np.random.default_rng(seed).integers(0, 1000, (rows, experts))
    loads[:, 0] = 2000  # no row is constant
    found = correlations(loads)
    assert found == pytest.approx(np.corrcoef(loads), abs=1e-9)
    assert successive(loads) == pytest.approx(np.diag(found, 1))


def test_a_constant_row_correlates_with_nothing() -> None:
    found = correlations(np.array([[3, 3, 3], [1, 2, 3]]))
    assert np.isnan(found[0]).all()
    assert np.isnan(found[1, 0])
    assert found[1, 1] == pytest.approx(1.0)
    assert np.isnan(successive(np.array([[3, 3], [1, 2]]))).all()


def test_generality_is_the_share_of_families_in_whose_busiest_quarter_an_expert_is() -> None:
    families = np.array([[9, 8, 1, 1, 1, 1, 1, 1], [9, 1, 8, 1, 1, 1, 1, 1]])
    assert generality(families).tolist() == [1.0, 0.5, 0.5, 0, 0, 0, 0, 0]


def test_experts_that_tie_at_the_edge_are_general_nowhere() -> None:
    assert not generality(np.full((3, 8), 7)).any()
    assert generality(np.array([[5, 2, 2, 2, 2, 1, 1, 1]])).tolist() == [1.0, 0, 0, 0, 0, 0, 0, 0]
    assert generality(np.array([[4]])).tolist() == [1.0]


def test_what_is_not_a_number_is_left_out() -> None:
    assert (known(np.nan), known(np.float64(0.5))) == (None, 0.5)
    assert mean_of(np.array([np.nan, 1.0, 3.0])) == 2.0
    assert mean_of(np.array([np.nan])) is None
