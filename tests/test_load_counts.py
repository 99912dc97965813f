"""Loads without expert sets: whole numbers by layer, expert and family, and nothing that nobody recorded."""

import numpy as np
import pytest
from hypothesis import given, settings

from moeopt.load_counts import UNPAIRED, LoadCounts, load_workload
from moeopt.trace import Trace
from moeopt.workload import Workload
from tests.strategies import traces


def loads_of(trace: Trace) -> np.ndarray:
    """int64 [layers, experts, families]: counted one token at a time."""
    loads = np.zeros((trace.n_layers, trace.n_experts, len(trace.families)), np.int64)
    for token, family in enumerate(trace.family):
        for layer in range(trace.n_layers):
            loads[layer, trace.experts[token, layer], family] += 1
    return loads


@settings(max_examples=40, deadline=None)
@given(trace=traces())
def test_loads_of_a_trace_are_those_of_its_workload(trace: Trace) -> None:
    whole = Workload.from_trace(trace)
    loads = load_workload(
        loads_of(trace), layer_ids=whole.layer_ids, families=whole.families, top_k=trace.top_k
    )
    assert loads.tokens.tolist() == whole.tokens.tolist()
    assert (loads.top_k, loads.n_experts) == (whole.top_k, whole.n_experts)
    multipliers = np.arange(1, len(whole.families) + 1)
    for known, found in zip(whole.layers, loads.layers, strict=True):
        assert found.load.tolist() == known.load.tolist()
        weighted = known.weighted_load(known.counts @ multipliers)
        assert found.weighted_load(found.counts @ multipliers).tolist() == weighted.tolist()


@settings(max_examples=30, deadline=None)
@given(trace=traces())
def test_two_recordings_add_and_come_back_from_a_document(trace: Trace) -> None:
    ids = trace.layer_ids.tolist()
    one = load_workload(loads_of(trace), layer_ids=ids, families=trace.families)
    two = load_workload(loads_of(trace) * 2, layer_ids=ids, families=trace.families)
    three = load_workload(loads_of(trace) * 3, layer_ids=ids, families=trace.families)
    assert (one + two).digest == three.digest
    assert Workload.from_dict(three.to_dict()).digest == three.digest
    assert one.digest != two.digest


def test_what_is_not_recorded_is_refused_with_the_reason() -> None:
    sets = load_workload([[1, 2, 3]], layer_ids=[5]).layers[0]
    assert not sets.complete
    assert not sets.paired
    for ask in (
        lambda: sets.members,
        lambda: sets.coactivations,
        lambda: sets.affinity(np.ones(3, np.int64)),
    ):
        with pytest.raises(ValueError, match="only the loads of the experts are recorded"):
            ask()
    with pytest.raises(ValueError, match="loads and other traffic do not add"):
        sets.joined(Workload.from_trace(Trace(np.array([[[0, 1]]]), 3)).layers[0], counts=sets.counts)
    assert "moeopt.loads.LoadProblem" in UNPAIRED


def test_layers_may_count_different_totals_and_whole_floats_are_taken() -> None:
    found = load_workload(np.array([[4.0, 2.0], [3.0, 0.0]]), layer_ids=[1, 2], top_k=2)
    assert found.tokens.tolist() == [3]
    assert [sets.load.tolist() for sets in found.layers] == [[4, 2], [3, 0]]


@pytest.mark.parametrize(
    ("loads", "message"),
    [
        ([[1.5, 2]], "layer 7, expert 0: a load is a whole number from 0 to 2\\^46, found 1.5"),
        ([[1, -2]], "layer 7, expert 1: .* found -2"),
        ([[1, np.nan]], "layer 7, expert 1: .* found nan"),
        ([[1, np.inf]], "layer 7, expert 1: .* found inf"),
        ([[1, 2**46]], "layer 7, expert 1: .* found 70368744177664"),
        ([["a", "b"]], "loads must be numbers"),
        ([[]], "loads must be numbers"),
        ([[1, 2], [3, 4]], r"need 2 layer ids and 1 families, found 1 and 1"),
    ],
)
def test_loads_that_nobody_counted_are_refused(loads: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_workload(np.array(loads), layer_ids=[7])


@pytest.mark.parametrize(
    ("counts", "top_k", "message"),
    [
        ([[1], [2]], 3, "top-k must lie between 1 and the 2 experts, found 3"),
        ([[1]], 1, r"loads must be whole numbers \[2 experts, families\]"),
        ([[1], [-1]], 1, "loads must lie from 0 to 2\\^46, found -1 to 1"),
    ],
)
def test_a_layer_checks_its_loads(counts: list[list[int]], top_k: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LoadCounts(np.array(counts), 2, top_k=top_k)
