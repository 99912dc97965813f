"""Clusters of requests, their three mappings, and the greedy placement."""

from __future__ import annotations

import re
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeopt.micro_batches import MicroBatches, greedy_hosts, mapped
from moeopt.node_volumes import between_nodes
from moeopt.trace import Trace
from tests.batch_strategies import family_trace


def test_as_many_clusters_as_groups_are_mapped_one_to_one() -> None:
    owned = mapped(np.array([[[5, 9, 1]]]), 3, seed=0)
    assert (owned.sum(axis=0) == 1).all()
    assert (owned.sum(axis=1) == 1).all()


def test_further_groups_go_round_robin_to_the_largest_clusters() -> None:
    owned = mapped(np.array([[[5, 9, 1]]]), 5, seed=0)
    assert owned.sum(axis=1).tolist() == [2, 2, 1]
    assert mapped(np.array([[[5, 9, 1]]]), 4, seed=0).sum(axis=1).tolist() == [1, 2, 1]


def test_further_clusters_are_clustered_by_their_totals() -> None:
    totals = np.array([[[90, 88, 0, 1], [0, 1, 50, 52]]])
    owned = mapped(totals, 2, seed=0)
    assert owned[0].tolist() == owned[1].tolist()
    assert owned[2].tolist() == owned[3].tolist()
    assert (owned.sum(axis=1) == 1).all()
    assert owned[0].tolist() != owned[2].tolist()


def test_the_hottest_expert_chooses_first_and_full_groups_are_passed_over() -> None:
    used = np.array([[[9, 8], [7, 0], [6, 5], [1, 2]]])
    assert greedy_hosts(used, held=2)[0].argmax(axis=1).tolist() == [0, 0, 1, 1]


def test_the_second_phase_adds_the_absent_experts_of_most_usage() -> None:
    used = np.array([[[9, 8], [7, 0], [6, 5], [1, 2]]])
    assert greedy_hosts(used, held=3)[0].tolist() == [
        [True, True],
        [True, False],
        [True, True],
        [False, True],
    ]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), groups=st.sampled_from([1, 2, 3, 4]), more=st.integers(0, 2))
def test_groups_hold_exactly_their_share_and_every_expert_lives_somewhere(
    seed: int, groups: int, more: int
) -> None:
    held = -(-7 // groups) + more
    if held > 7:
        return
    hosts = greedy_hosts(np.random.default_rng(seed).integers(0, 9, (2, 7, groups)), held=held)
    assert (hosts.sum(axis=1) == held).all()
    assert hosts.any(axis=2).all()


@pytest.mark.parametrize("router", ["centroid", "regression"])
@pytest.mark.parametrize("overflow", ["as-is", "balanced"])
@pytest.mark.parametrize("phases", [1, 2])
@pytest.mark.parametrize(("groups", "clusters"), [(2, None), (4, 2), (2, 3)])
def test_families_with_experts_of_their_own_stay_on_their_nodes(
    router: Any, overflow: Any, phases: int, groups: int, clusters: int | None
) -> None:
    if router == "regression":
        pytest.importorskip("sklearn")
    trace = family_trace(phases=phases, requests=10)
    batches = MicroBatches(groups, clusters=clusters, router=router, overflow=overflow)
    found = batches.fit(trace, seed=0)
    assert found.placement.is_partition
    assert found.ranks(trace).tolist() == found.assign(trace)[trace.request - 10].tolist()
    if overflow == "balanced":
        assert set(np.bincount(found.assign(trace), minlength=groups)) == {20 // groups}
    if (groups, clusters) == (2, None):
        remote = between_nodes(found.placement, trace, ranks=found.ranks(trace)).remote
        assert remote == 0
        assert found.request_group.tolist() == found.assign(trace).tolist()
    again = batches.fit(trace, seed=0)
    assert found.placement == again.placement
    assert (found.assign(trace) == again.assign(trace)).all()


def test_fewer_clusters_than_families_are_fine() -> None:
    found = MicroBatches(2, clusters=1).fit(family_trace(families=4), seed=0)
    assert np.bincount(found.request_group).tolist() == [12, 12]  # one cluster owns both groups


def test_one_cluster_needs_no_regression() -> None:
    trace = family_trace()
    found = MicroBatches(2, clusters=1, router="regression").fit(trace, seed=0)
    assert np.bincount(found.assign(trace)).tolist() == [6, 6]


def test_only_the_chosen_layers_are_clustered() -> None:
    trace = family_trace()
    blurred = trace.experts.copy()
    blurred[:, 0] = np.array([0, 7])
    mixed = Trace(
        blurred,
        8,
        layer_ids=trace.layer_ids,
        request=trace.request,
        position=trace.position,
        phase=trace.phase,
    )
    assert len(set(MicroBatches(2, layers=(3,)).fit(mixed, seed=0).request_group[:6])) == 2  # nothing to tell
    assert len(set(MicroBatches(2, layers=(4,)).fit(mixed, seed=0).request_group[:6])) == 1


def test_replicas_save_activations() -> None:
    trace = family_trace(families=1, requests=12)
    bare = MicroBatches(2).fit(trace, seed=0)
    more = MicroBatches(2, replicas=4).fit(trace, seed=0)
    ranks = bare.ranks(trace)
    assert more.placement.hosts.sum() == 2 * 12
    assert (
        between_nodes(more.placement, trace, ranks=ranks).remote
        < between_nodes(bare.placement, trace, ranks=ranks).remote
    )


def test_without_scikit_learn_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(ImportError, match=re.escape("pip install 'moeopt[profiles]'")):
        MicroBatches(2, router="regression").fit(family_trace(), seed=0)


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"groups": 16}, "do not part into 16"),
        ({"groups": 3}, "do not part into 3"),
        ({"groups": 2, "clusters": 13}, "clusters must be at most the 12 requests, found 13"),
        ({"groups": 2, "layers": (9,)}, "layer 9 is not in the trace"),
        ({"groups": 2, "opening": 2.0}, "between 0 and 1"),
    ],
)
def test_what_cannot_be_learned_is_refused(settings_: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MicroBatches(**settings_).fit(family_trace(), seed=0)


def test_more_groups_than_requests_and_nothing_to_serve_are_refused() -> None:
    with pytest.raises(ValueError, match="groups must be at most the 2 requests, found 4"):
        MicroBatches(4).fit(family_trace(requests=1), seed=0)
    with pytest.raises(ValueError, match="each of the 12 requests ends with its opening"):
        MicroBatches(2).fit(family_trace(tokens=1, phases=1), seed=0)


@pytest.mark.parametrize(("name", "value"), [("overflow", "none"), ("router", "guess"), ("clusters", 0)])
def test_unknown_settings_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        MicroBatches(**{name: value})
