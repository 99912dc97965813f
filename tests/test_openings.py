"""What decides and what is served, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from moeopt.openings import Openings, request_counts
from moeopt.trace import Trace
from tests.strategies import traces

# Request 7 has both phases, request 9 eight tokens of prefill alone, request 11 a single one.
TRACE = Trace(
    np.array([[[0]], [[1]], [[2]], *[[[3]]] * 2, *[[[0]]] * 6, [[2]]]),
    4,
    request=np.array([7, 7, 7, *[9] * 8, 11], np.int32),
    position=np.array([0, 1, 2, 7, 6, *range(6), 0], np.int32),
    phase=np.array([0, 1, 1, *[0] * 9], np.uint8),
)


def test_both_phases_part_a_request_and_an_opening_parts_the_others() -> None:
    parts = Openings.of(TRACE)
    assert parts.requests.tolist() == [7, 9, 11]
    assert parts.first[:, 0].tolist() == [[1, 0, 0, 0], [2, 0, 0, 0], [0, 0, 1, 0]]
    assert parts.rest[:, 0].tolist() == [[0, 1, 1, 0], [4, 0, 0, 2], [0, 0, 0, 0]]
    assert parts.opened == 2
    assert parts.decided_by == "the prefill decides, of 2 requests with one phase the opening"


def test_a_larger_opening_leaves_less_to_serve() -> None:
    assert Openings.of(TRACE, share=0.75).first[1, 0].tolist() == [6, 0, 0, 0]  # by position, not as recorded


def test_words_tell_what_decides() -> None:
    assert Openings.of(TRACE.take(TRACE.request == 7)).decided_by == "the prefill decides"
    assert Openings.of(TRACE.take(TRACE.request == 9)).decided_by == "the opening decides"


@settings(max_examples=60, deadline=None)
@given(trace=traces())
def test_every_activation_is_of_the_opening_or_served(trace: Trace) -> None:
    parts = Openings.of(trace)
    every = request_counts(trace, chosen=np.ones(trace.n_tokens, bool))
    assert np.array_equal(parts.first + parts.rest, every)
    assert (parts.first.sum(axis=(1, 2)) > 0).all()
    assert parts.rest.sum() == parts.served.sum() * trace.n_layers * trace.top_k


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, float("nan")])
def test_an_opening_is_a_share(share: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        Openings.of(TRACE, share=share)
