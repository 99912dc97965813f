"""A trace in numbers, checked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from moeopt.characteristics import correlation, profile
from moeopt.trace import Trace

TRACE = Trace(
    np.array([[[0, 1]], [[0, 2]], [[1, 0]], [[0, 2]]]),
    4,
    layer_ids=np.array([6], np.int32),
    families=("code", "math", "empty"),
    family=np.array([0, 0, 1, 1], np.uint8),
    request=np.array([0, 0, 1, 1], np.int32),
    phase=np.array([0, 1, 0, 1], np.uint8),
    model="tiny",
)


def test_a_profile_counts_loads_families_and_phases() -> None:
    found = profile(TRACE)
    assert (found.model, found.tokens, found.requests, found.n_experts, found.top_k) == ("tiny", 4, 2, 4, 2)
    assert found.families == {"code": 2, "math": 2, "empty": 0}
    assert found.phases == {"prefill": 2, "decode": 2}
    (layer,) = found.layers
    assert (layer.layer, layer.idle, layer.distinct_sets) == (6, 1, 2)
    assert layer.max_over_mean == 2.0  # loads 4, 2, 2, 0
    assert found.similarity == {"code ~ math": pytest.approx(1.0)}
    assert layer.family_correlation == pytest.approx(1.0)
    prefill, decode = [2, 2, 0, 0], [2, 0, 2, 0]
    assert layer.phase_correlation == pytest.approx(np.corrcoef(prefill, decode)[0, 1])
    assert found.to_dict()["layers"][0]["layer"] == 6


def test_one_family_and_one_phase_have_nothing_to_correlate() -> None:
    found = profile(Trace(np.array([[[0, 1]]]), 2))
    assert found.similarity == {}
    assert (found.layers[0].family_correlation, found.layers[0].phase_correlation) == (None, None)


def test_a_constant_correlates_with_nothing() -> None:
    assert np.isnan(correlation(np.array([2, 2]), np.array([1, 3])))
    assert correlation(np.array([1, 2, 4]), np.array([4, 2, 1])) == pytest.approx(
        np.corrcoef([1, 2, 4], [4, 2, 1])[0, 1]
    )
