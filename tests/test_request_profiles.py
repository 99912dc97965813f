"""Families and phases compared, checked by hand and against numpy."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace

import numpy as np
import pytest

from moeopt.request_profiles import classify, request_profile
from moeopt.trace import Trace
from tests.batch_strategies import family_trace

TRACE = Trace(
    np.array([[[0, 1]], [[0, 2]], [[1, 0]], [[0, 3]]]),
    4,
    layer_ids=np.array([6], np.int32),
    families=("code", "math", "empty"),
    family=np.array([0, 0, 1, 1], np.uint8),
    request=np.array([0, 0, 1, 1], np.int32),
    phase=np.array([0, 1, 0, 0], np.uint8),
)


def test_imbalance_is_the_busiest_load_over_the_mean() -> None:
    found = {(row.family, row.phase): row.factor for row in request_profile(TRACE).imbalance}
    assert found == {("code", "prefill"): 2.0, ("code", "decode"): 2.0, ("math", "prefill"): 2.0}


def test_families_are_compared_within_a_phase_and_phases_within_a_family() -> None:
    found = request_profile(TRACE)
    between, across = found.family_correlation, found.phase_correlation
    assert {phase: list(pairs) for phase, pairs in between.items()} == {
        "prefill": ["code ~ math"],
        "decode": [],
    }
    (found_between,) = between["prefill"]["code ~ math"]
    assert found_between == pytest.approx(np.corrcoef([1, 1, 0, 0], [2, 1, 0, 1])[0, 1])
    assert list(across) == ["code", "math"]
    assert across["code"] is not None
    assert list(across["code"]) == pytest.approx([np.corrcoef([1, 1, 0, 0], [1, 0, 1, 0])[0, 1]])
    assert across["math"] is None
    assert found.worst_imbalance(phase="decode") == {"code": 2.0}
    assert json.loads(json.dumps(found.to_dict()))["layers"] == [6]


def test_constant_loads_correlate_with_nothing() -> None:
    even = replace(TRACE, experts=np.array([[[0, 1, 2, 3]]] * 4))
    assert request_profile(even).phase_correlation["code"] == (None,)


def test_families_with_experts_of_their_own_are_told_apart() -> None:
    pytest.importorskip("sklearn")
    found = classify(family_trace(families=4, requests=10), seed=0)
    assert (found.learned, found.held_out, found.layers) == (32, 8, (3, 4))
    assert (found.mean, found.spread, found.majority) == (1.0, 0.0, 0.25)
    assert found.decided_by == "the prefill decides"
    assert classify(family_trace(phases=1), seed=0).decided_by == "the opening decides"
    assert json.loads(json.dumps(found.to_dict()))["mean"] == 1.0


def test_families_without_signal_are_guessed() -> None:
    pytest.importorskip("sklearn")
    trace = family_trace(requests=40)
    shuffled = replace(trace, experts=np.random.default_rng(0).permutation(trace.experts))
    assert classify(shuffled, seed=0, held_out=0.5).mean < 0.7


def test_a_family_of_one_request_is_left_out_and_named() -> None:
    pytest.importorskip("sklearn")
    trace = family_trace(families=4, requests=4)
    found = classify(trace.take((trace.family < 3) | (trace.request == 22)), seed=0)
    assert found.families == ("family 0", "family 1", "family 2")
    assert found.left_out == ("family 3",)


def test_one_family_has_nothing_to_classify() -> None:
    with pytest.raises(
        ValueError, match=r"two families of two requests each, found requests {'family 0': 6}"
    ):
        classify(family_trace(families=1), seed=0)
    with pytest.raises(ValueError, match="between 0 and 1, found 1"):
        classify(family_trace(), seed=0, held_out=1)


def test_without_scikit_learn_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(ImportError, match=re.escape("pip install 'moeopt[profiles]'")):
        classify(family_trace(), seed=0)
