"""Traffic in numbers, checked by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import moeopt as mo
from moeopt.characteristics import correlation, profile
from moeopt.load_counts import load_workload
from moeopt.pair_counts import PairCounts
from moeopt.streaming import stream_workload
from moeopt.trace import Trace
from moeopt.workload import Workload
from tests.strategies import traces

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
SAMPLE = mo.sample("tiny-moe")


def pairs_of(trace: Trace) -> Workload:
    workload = Workload.from_trace(trace)
    return replace(workload, layers=tuple(PairCounts.of_sets(sets) for sets in workload.layers))


def loads_of(trace: Trace) -> Workload:
    workload = Workload.from_trace(trace)
    loads = np.stack([[sets.weighted_load(own) for own in sets.counts.T] for sets in workload.layers])
    return load_workload(
        loads.transpose(0, 2, 1),
        layer_ids=workload.layer_ids,
        families=workload.families,
        top_k=trace.top_k,
        model=trace.model,
    )


def test_a_profile_counts_loads_families_and_phases() -> None:
    found = profile(TRACE)
    assert (found.model, found.tokens, found.requests, found.n_experts, found.top_k) == ("tiny", 4, 2, 4, 2)
    assert found.families == {"code": 2, "math": 2, "empty": 0}
    assert found.family_requests == {"code": 1, "math": 1, "empty": 0}
    assert found.phases == {"prefill": 2, "decode": 2}
    (layer,) = found.layers
    assert (layer.layer, layer.idle, layer.distinct_sets) == (6, 1, 2)
    assert (layer.distinct_share, layer.common_share) == (0.5, 1.0)
    assert layer.max_over_mean == 2.0  # loads 4, 2, 2, 0
    assert layer.gini == 0.375
    assert layer.variation == pytest.approx(2**-0.5)
    assert layer.entropy == pytest.approx(1.5 / 2)  # bits
    assert found.similarity == {"code ~ math": pytest.approx(1.0)}
    assert layer.family_correlation == pytest.approx(1.0)
    prefill, decode = [2, 2, 0, 0], [2, 0, 2, 0]
    assert layer.phase_correlation == pytest.approx(np.corrcoef(prefill, decode)[0, 1])
    assert layer.phase_by_family == dict.fromkeys(("code", "math"), layer.phase_correlation)
    assert (layer.everywhere, layer.somewhere, layer.generality) == (1, 0, (1.0, 0.0, 0.0, 0.0))
    assert found.imbalance == {"prefill": {"code": 2.0, "math": 2.0}, "decode": {"code": 2.0, "math": 2.0}}
    assert found.to_dict()["layers"][0]["layer"] == 6


def test_one_family_and_one_phase_have_nothing_to_correlate() -> None:
    found = profile(Trace(np.array([[[0, 1]]]), 2))
    assert found.similarity == {}
    assert (found.layers[0].family_correlation, found.layers[0].phase_correlation) == (None, None)
    assert found.missing["families"] == "one family"
    assert found.missing["phase correlation"] == "one phase"
    assert found.missing["flow"] == "one layer"
    assert "too few tokens" in found.missing["drift"]


def test_a_constant_correlates_with_nothing() -> None:
    assert np.isnan(correlation(np.array([2, 2]), np.array([1, 3])))
    assert correlation(np.array([1, 2, 4]), np.array([4, 2, 1])) == pytest.approx(
        np.corrcoef([1, 2, 4], [4, 2, 1])[0, 1]
    )


@settings(max_examples=40, deadline=None)
@given(traces(), st.integers(2, 12))
def test_every_number_of_a_profile_is_finite_or_null(trace: Trace, windows: int) -> None:
    found = profile(trace, windows=windows)
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert [layer["layer"] for layer in document["layers"]] == trace.layer_ids.tolist()
    for layer in found.layers:
        between = [value for row in layer.matrix or () for value in row if value is not None]
        assert all(-1 <= value <= 1 for value in between)


@settings(max_examples=30, deadline=None)
@given(traces())
def test_counts_tell_what_the_trace_tells_as_far_as_they_go(trace: Trace) -> None:
    whole = profile(trace)
    for traffic in (Workload.from_trace(trace), pairs_of(trace), loads_of(trace)):
        found = profile(traffic)
        assert (found.tokens, found.n_experts) == (whole.tokens, whole.n_experts)
        assert found.top_k == whole.top_k or (whole.top_k, found.top_k) == (1, None)  # of loads alone
        assert (found.requests, found.phases, found.drift) == (None, None, None)
        for ours, theirs in zip(found.layers, whole.layers, strict=True):
            assert (ours.max_over_mean, ours.gini, ours.idle) == (
                theirs.max_over_mean,
                theirs.gini,
                theirs.idle,
            )
            for name in ("distinct_sets", "generality", "coactivation", "family_correlation"):
                value = getattr(ours, name)
                assert value is None or value == pytest.approx(getattr(theirs, name)), name


def test_what_a_form_of_counts_cannot_tell_is_named() -> None:
    sets, pairs, loads = (profile(one(SAMPLE)) for one in (Workload.from_trace, pairs_of, loads_of))
    for found in (sets, pairs, loads):
        assert {"requests", "phases", "flow", "drift"} <= set(found.missing)
        assert "needs tokens" in found.missing["drift"]
    assert "sets" not in sets.missing
    assert "coactivation" not in pairs.missing
    assert "families" in pairs.missing
    assert loads.missing["coactivation"] == "needs tokens or pair counts, not loads"
    assert [one.layers[0].coactivation is None for one in (sets, pairs, loads)] == [False, False, True]
    assert [one.layers[0].family_correlation is None for one in (sets, pairs, loads)] == [False, True, False]


def test_pairs_recorded_in_part_give_an_excess_that_is_at_least_so_much() -> None:
    whole = pairs_of(SAMPLE.layers([0]))
    (sets,) = whole.layers
    assert isinstance(sets, PairCounts)
    often = sets.counts.sum(axis=1) > np.median(sets.counts.sum(axis=1))
    part = replace(sets, pairs=sets.pairs[often], counts=sets.counts[often])
    found, full = profile(replace(whole, layers=(part,))), profile(whole)
    assert 0.5 < found.recorded_pairs < 1
    assert "of the pairs are recorded" in found.missing["coactivation"]
    (ours,), (theirs,) = found.layers, full.layers
    assert ours.coactivation is not None
    assert theirs.coactivation is not None
    assert 0.5 * theirs.coactivation.excess < ours.coactivation.excess < theirs.coactivation.excess


def test_streamed_traffic_has_the_loads_of_all_tokens_and_pairs_of_a_sample() -> None:
    exact = stream_workload(SAMPLE)
    sampled = stream_workload(SAMPLE, most_sets=2000)
    whole, found = profile(Workload.from_trace(SAMPLE)), profile(sampled)
    assert replace(profile(exact), model="") == replace(whole, model="")
    assert whole.sampled is None
    assert found.sampled == sampled.sample.taken
    assert (found.matrix, found.imbalance) == (whole.matrix, whole.imbalance)
    for ours, theirs in zip(found.layers, whole.layers, strict=True):
        assert ours.max_over_mean == theirs.max_over_mean
        assert ours.coactivation is not None
        assert theirs.coactivation is not None
        assert ours.coactivation.noise > theirs.coactivation.noise


def test_halves_of_a_family_are_alike_and_the_order_of_tokens_is_no_matter() -> None:
    found = profile(SAMPLE)
    shuffled = profile(SAMPLE.take(np.random.default_rng(0).permutation(SAMPLE.n_tokens)))
    assert found.within is not None
    assert found.within > 0.9
    assert found.matrix == shuffled.matrix
    assert found.layers[0].flow == shuffled.layers[0].flow
    assert found.layers[0].coactivation == shuffled.layers[0].coactivation


def test_drift_sees_the_moment_at_which_experts_change() -> None:
    rng = np.random.default_rng(0)
    early = np.argsort(rng.random((6000, 2, 8)) * np.array([1, 1, 1, 1, 4, 4, 4, 4]), axis=2)[:, :, :2]
    experts = np.concatenate([early, 7 - early[::-1]])
    found = profile(Trace(experts, 8, request=np.arange(12000, dtype=np.int32) // 100), windows=6)
    assert found.drift is not None
    assert found.drift.windows == 6
    steps = np.array(found.drift.consecutive, float)
    assert steps.argmin() == 2  # between the third window and the fourth
    assert steps[2] < 0 < 0.9 < min(steps[[0, 1, 3, 4]])
    assert found.drift.first[-1] is not None
    assert found.drift.first[-1] < 0
    steady = profile(
        Trace(np.concatenate([early, early]), 8, request=np.arange(12000, dtype=np.int32) // 100)
    )
    assert steady.drift is not None
    assert steady.drift.steady is not None
    assert min(np.array(steady.drift.consecutive, float)) > 0.9 < steady.drift.steady


def test_a_layer_that_copies_the_one_before_flows_all_one_way() -> None:
    rng = np.random.default_rng(0)
    first = np.argsort(rng.random((4000, 16)), axis=1)[:, :1]
    found = profile(Trace(np.stack([first, 15 - first, np.roll(first, 7, axis=0)], axis=1), 16))
    copied, free, last = (layer.flow for layer in found.layers)
    assert copied is not None
    assert free is not None
    assert last is None
    assert copied.excess == pytest.approx(15 / 16, abs=0.01)
    assert all(link.first + link.second == 15 for link in copied.links)
    assert free.excess < 1.2 * free.noise


def test_many_families_have_no_matrix_in_every_layer() -> None:
    trace = Trace(
        np.argsort(np.random.default_rng(0).random((400, 2, 8)), axis=2)[:, :, :2],
        8,
        families=tuple(f"family {at}" for at in range(40)),
        family=np.arange(400).astype(np.uint8) % 40,
    )
    found = profile(trace)
    assert found.matrix is not None
    assert len(found.matrix) == 40
    assert found.layers[0].matrix is None


def test_bad_traffic_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2, found 1"):
        profile(TRACE, windows=1)
    silent: Any = load_workload(np.array([[1, 2], [0, 0]]), layer_ids=[3, 5])
    with pytest.raises(ValueError, match="layer 5: no expert has any load"):
        profile(silent)
