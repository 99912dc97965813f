"""Numbers of copies that add up: the cheapest and how often each is chosen, against all of them."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeopt.relaxations.copy_counts import cheapest_counts, chosen_counts


@given(st.integers(1, 4), st.integers(0, 3), st.integers(0, 2**32 - 1))
def test_both_agree_with_all_numbers_of_copies(experts: int, most: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    costs = rng.integers(-20, 20, (experts, most + 1))
    further = int(rng.integers(0, experts * most + 1))
    every = [c for c in product(range(most + 1), repeat=experts) if sum(c) == further]
    paid = np.array([sum(int(costs[e, n]) for e, n in enumerate(c)) for c in every])
    assert cheapest_counts(costs.tolist(), further) == paid.min()
    weight = np.exp(-(paid - paid.min()) / 5.0)
    weight /= weight.sum()
    wanted = np.zeros(costs.shape)
    for c, own in zip(every, weight, strict=True):
        wanted[np.arange(experts), list(c)] += own
    assert chosen_counts(costs.astype(float), further, heat=5.0) == pytest.approx(wanted, abs=1e-9)


def test_more_copies_than_experts_may_have_are_refused() -> None:
    with pytest.raises(ValueError, match="5 further copies, 2 experts have up to 2 each"):
        cheapest_counts([[0, 1, 2], [0, 1, 2]], 5)
