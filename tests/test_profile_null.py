"""Independent choice with the loads recorded: exact where it can be listed, and what a shuffled trace shows."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import moeopt as mo
from moeopt.expert_sets import ExpertSets
from moeopt.profile_null import associated, chosen_together

TRACE = mo.sample("tiny-moe").layers([4])


def sets_of(trace: mo.Trace) -> ExpertSets:
    return ExpertSets.of(
        trace.experts[:, 0], np.ones((trace.n_tokens, 1), np.int64), n_experts=trace.n_experts
    )


@st.composite
def weighted_subsets(draw: st.DrawFn) -> tuple[NDArray[np.int64], NDArray[np.float64], int]:
    """(loads, tokens that choose each pair, k): every k-subset as likely as the product of its weights."""
    experts = draw(st.integers(2, 7))
    k = draw(st.integers(2, experts))
    weights = draw(st.lists(st.floats(0.2, 5), min_size=experts, max_size=experts))
    subsets = list(combinations(range(experts), k))
    chance = np.array([np.prod([weights[e] for e in subset]) for subset in subsets])
    tokens = 10_000_000 * chance / chance.sum()
    load, pairs = np.zeros(experts), np.zeros((experts, experts))
    for subset, count in zip(subsets, tokens, strict=True):
        load[list(subset)] += count
        for i, j in combinations(subset, 2):
            pairs[i, j] += count
    return np.round(load).astype(np.int64), pairs, k


@settings(max_examples=40, deadline=None)
@given(weighted_subsets())
def test_the_expectation_is_that_of_the_choice_of_most_entropy(
    case: tuple[NDArray[np.int64], NDArray[np.float64], int],
) -> None:
    load, pairs, k = case
    assert chosen_together(load, top_k=k) == pytest.approx(pairs, abs=10_000)  # a thousandth of the tokens


@given(st.lists(st.integers(0, 50), min_size=4, max_size=9), st.integers(0, 2**32 - 1))
def test_partners_of_an_expert_are_k_less_one_times_its_load(extra: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    tokens = np.argsort(rng.random((200, len(extra))) * (np.array(extra) + 50), axis=1)[:, :3]
    load = np.bincount(tokens.ravel(), minlength=len(extra))
    expected = chosen_together(load, top_k=3)
    assert (expected + expected.T).sum(axis=0) == pytest.approx(2 * load, abs=1e-3 * 200)
    assert (np.tril(expected) == 0).all()
    assert (expected >= 0).all()
    assert (expected <= np.minimum.outer(load, load) + 1e-3 * 200).all()


def test_a_shuffled_trace_shows_noise_and_a_structured_one_much_more() -> None:
    found = []
    for trace in (TRACE, mo.null(TRACE, seed=1)):
        sets = sets_of(trace)
        one = associated(
            np.triu(sets.affinity(sets.counts[:, 0])), chosen_together(sets.load, top_k=sets.top_k)
        )
        assert one is not None
        found.append(one)
    structured, shuffled = found
    assert shuffled.excess < 1.1 * shuffled.noise
    assert structured.excess > 5 * structured.noise
    assert structured.links[0].lift > 1.5


def test_links_are_counted_by_hand() -> None:
    observed = np.array([[0, 30, 0], [0, 0, 10], [0, 0, 0]])
    expected = np.array([[0, 10.0, 20.0], [0, 0, 10.0], [0, 0, 0]])
    found = associated(observed, expected)
    assert found is not None
    assert found.excess == 20 / 40
    assert (found.top_share, found.top_lift) == (30 / 40, 3.0)
    (link,) = found.links
    assert (link.first, link.second, link.tokens, link.expected, link.lift) == (0, 1, 30, 10.0, 3.0)


def test_few_tokens_make_no_link() -> None:
    found = associated(np.array([[0, 4], [0, 0]]), np.array([[0, 1.0], [0, 0]]))
    assert found is not None
    assert found.links == ()


def test_top_1_and_silence_have_no_pairs() -> None:
    assert not chosen_together(np.array([3, 1]), top_k=1).any()
    assert not chosen_together(np.array([0, 0]), top_k=2).any()
    assert associated(np.zeros((2, 2), np.int64), np.zeros((2, 2))) is None


def test_experts_in_every_token_and_in_none_leave_the_others_alone() -> None:
    expected = chosen_together(np.array([100, 50, 50, 0]), top_k=2)
    assert expected == pytest.approx(
        np.array([[0, 50, 50, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]), abs=1
    )
