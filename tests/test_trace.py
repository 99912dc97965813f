"""A trace is checked once at the door; parts of it keep their fields together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeopt.trace import Trace
from tests.strategies import same, traces

EXPERTS = np.array([[[0, 1], [2, 3]], [[1, 0], [3, 1]], [[2, 0], [0, 1]]])
FIELDS: dict[str, Any] = {
    "experts": EXPERTS,
    "n_experts": 4,
    "layer_ids": np.array([3, 7]),
    "families": ("code", "math"),
    "family": np.array([0, 1, 1]),
}


def trace(**changes: Any) -> Trace:
    return Trace(**(FIELDS | changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"experts": EXPERTS[0]}, r"axes \[tokens, layers, k\], found shape \(2, 2\)"),
        ({"experts": EXPERTS[:0]}, r"empty trace: experts has shape \(0, 2, 2\)"),
        ({"n_experts": 0}, "n_experts must be between 1 and 65536, found 0"),
        ({"n_experts": 65_537}, "found 65537"),
        ({"n_experts": 4.0}, r"n_experts must be a whole number, found 4\.0"),
        ({"n_experts": True}, "n_experts must be a whole number, found True"),
        ({"n_experts": 1}, "top-k 2 exceeds n_experts 1"),
        ({"n_experts": 3}, r"expert id 3 out of range 0\.\.2, token 0, layer index 1"),
        ({"experts": EXPERTS - 1}, r"expert id -1 out of range 0\.\.3, token 0, layer index 0"),
        ({"experts": EXPERTS.astype(float)}, "experts must be integers, found dtype float64"),
        (
            {"experts": np.array([[[0, 1], [2, 2]]]), "family": np.array([0])},
            r"within token 0, layer index 1",
        ),
        ({"families": ("code", "code")}, r"distinct names, found \['code', 'code'\]"),
        ({"families": ()}, r"distinct names, found \[\]"),
        ({"families": tuple(map(str, range(257)))}, "at most 256 families, found 257"),
        ({"families": ("code",)}, "family 1 out of range, there are 1 families"),
        ({"family": np.array([0, 1])}, r"family must have shape \(3,\), found \(2,\)"),
        ({"family": np.array([0.0, 1, 1])}, "family must be integers, found dtype float64"),
        ({"family": np.array([0, -1, 1])}, r"family must lie between 0 and 255, found -1\.\.1"),
        ({"phase": np.array([0, 2, 0])}, r"phase must be 0 \(prefill\) or 1 \(decode\), found 2"),
        ({"layer_ids": np.array([7, 3])}, r"layer_ids must ascend, found \[7, 3\]"),
        ({"layer_ids": np.array([3])}, r"layer_ids must have shape \(2,\), found \(1,\)"),
        ({"request": np.array([0, 0, 2**31])}, r"request must lie between 0 and 2147483647"),
    ],
)
def test_a_trace_that_makes_no_sense_is_refused_with_rule_and_value(changes: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        trace(**changes)


def test_omitted_columns_mean_one_request_in_order() -> None:
    plain = Trace(EXPERTS, 4)
    assert plain.layer_ids.tolist() == [0, 1]
    assert plain.families == ("all",)
    assert plain.position.tolist() == [0, 1, 2]
    assert plain.request.tolist() == plain.phase.tolist() == plain.family.tolist() == [0, 0, 0]
    assert (plain.n_tokens, plain.n_layers, plain.top_k) == (3, 2, 2)


def test_arrays_are_read_only_copies() -> None:
    given_ids = EXPERTS.astype(np.uint8)
    own = trace(experts=given_ids)
    given_ids[:] = 0
    assert own.experts.tolist() == EXPERTS.tolist()
    for array in (own.experts, own.family, own.request, own.position, own.phase, own.layer_ids):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


@pytest.mark.parametrize(("n_experts", "dtype"), [(256, np.uint8), (257, np.uint16), (65_536, np.uint16)])
def test_ids_take_the_narrowest_type(n_experts: int, dtype: type) -> None:
    assert Trace(np.array([[[n_experts - 1, 0]]]), n_experts).experts.dtype == dtype


def test_layers_are_chosen_by_absolute_id() -> None:
    part = trace().layers([7])
    assert part.layer_ids.tolist() == [7]
    assert part.experts[:, 0].tolist() == EXPERTS[:, 1].tolist()
    assert same(trace().layers([7, 3, 3]), trace())
    with pytest.raises(ValueError, match=r"layer 4 is not in the trace, whose layers are \[3, 7\]"):
        trace().layers([3, 4])


@given(found=traces(), seed=st.integers(0, 9))
def test_taking_all_tokens_in_order_changes_nothing(found: Trace, seed: int) -> None:
    assert same(found.take(np.ones(found.n_tokens, bool)), found)
    order = np.random.default_rng(seed).permutation(found.n_tokens)
    shuffled = found.take(order)
    assert same(shuffled.take(np.argsort(order)), found)


@settings(max_examples=50, deadline=None)
@given(found=traces(), fraction=st.floats(0.05, 0.95), seed=st.integers(0, 9))
def test_a_split_parts_requests_and_loses_no_token(found: Trace, fraction: float, seed: int) -> None:
    try:
        rest, held = found.split(fraction, seed=seed)
    except ValueError as error:
        if "leaves no request aside" not in str(error):
            raise
        return
    assert not set(rest.request.tolist()) & set(held.request.tolist())
    assert rest.n_tokens + held.n_tokens == found.n_tokens
    again = found.split(fraction, seed=seed)
    assert same(again[0], rest)
    assert same(again[1], held)


def test_a_split_takes_its_share_of_every_family_and_leaves_single_requests() -> None:
    family = np.repeat([0, 1, 2], [10, 20, 1])
    ids = np.tile(np.array([[[0, 1]]]), (31, 1, 1))
    found = Trace(ids, 4, families=("a", "b", "c"), family=family, request=np.arange(31, dtype=np.int32))
    rest, held = found.split(0.3, seed=0)
    assert np.bincount(held.family, minlength=3).tolist() == [3, 6, 0]
    assert np.bincount(rest.family, minlength=3).tolist() == [7, 14, 1]


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_a_fraction_that_leaves_one_side_empty_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1, found"):
        trace().split(fraction, seed=0)
