from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from numpy.typing import NDArray

from moeopt.control import null
from moeopt.expert_sets import ExpertSets
from moeopt.generator import PRESETS, Generator
from moeopt.trace import DECODE, PREFILL, Trace
from tests.strategies import same, traces

SMALL = Generator(layers=2, experts=16, top_k=3, tokens=4_000, requests=40, groups=3, group_size=4, seed=7)


@cache
def preset(name: str) -> Trace:
    return PRESETS[name].generate()


def loads(trace: Trace, layer: int) -> NDArray[np.float64]:
    """[families, experts]"""
    ids = [trace.experts[trace.family == family, layer] for family in range(len(trace.families))]
    return np.array([np.bincount(rows.ravel(), minlength=trace.n_experts) for rows in ids], np.float64)


def affinity(trace: Trace, layer: int = 0) -> NDArray[np.int64]:
    sets = ExpertSets.of(
        trace.experts[:, layer], np.ones((trace.n_tokens, 1), np.int64), n_experts=trace.n_experts
    )
    return sets.affinity(sets.counts[:, 0])


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_the_loads_of_real_traces(name: str) -> None:
    trace = preset(name)
    assert trace.n_experts == int(name.removeprefix("synthetic-"))
    assert trace.model == name
    for layer in range(trace.n_layers):
        by_family = loads(trace, layer)
        total = by_family.sum(axis=0)
        assert 2.5 <= total.max() / total.mean() <= 7
        correlation = np.atleast_2d(np.corrcoef(by_family))[np.triu_indices(len(by_family), 1)]
        assert 0 <= correlation.min() <= correlation.max() <= 0.8


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_both_phases_and_all_families_in_whole_requests(name: str) -> None:
    trace = preset(name)
    assert np.bincount(trace.phase)[[PREFILL, DECODE]].min() > 0.3 * trace.n_tokens
    assert np.bincount(trace.family, minlength=4).min() > 0.05 * trace.n_tokens
    first = np.flatnonzero(np.diff(trace.request, prepend=-1))
    assert len(first) == PRESETS[name].requests
    assert (trace.position[first] == 0).all()
    assert (np.diff(trace.position)[np.diff(trace.request) == 0] == 1).all()


def test_a_seed_gives_one_trace_and_another_seed_another() -> None:
    assert same(SMALL.generate(), SMALL.generate())
    assert not same(SMALL.generate(), replace(SMALL, seed=8).generate())


def test_more_layers_leave_the_first_ones_as_they_were() -> None:
    deeper = replace(SMALL, layers=3).generate()
    assert same(deeper.layers([0, 1]), SMALL.generate())


def test_the_widest_model_can_be_generated() -> None:
    wide = Generator(layers=58, experts=512, top_k=8, tokens=600, requests=30, groups=20).generate()
    assert wide.experts.shape == (600, 58, 8)
    assert wide.experts.dtype == np.uint16


def test_without_planted_structure_experts_are_chosen_evenly() -> None:
    trace = replace(
        SMALL,
        tokens=40_000,
        skew=0.0,
        family_skew=0.0,
        pull=0.0,
        phase_shift=0.0,
        position_drift=0.0,
        request_drift=0.0,
    ).generate()
    load = loads(trace, 0).sum(axis=0)
    np.testing.assert_allclose(load, load.mean(), rtol=0.05)
    pairs = affinity(trace)[np.triu_indices(16, 1)]
    np.testing.assert_allclose(pairs, pairs.mean(), rtol=0.15)


def distance(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Total variation between the expert shares of two groups of tokens."""
    shares = [np.bincount(ids.ravel(), minlength=16) / ids.size for ids in (first, second)]
    return float(np.abs(shares[0] - shares[1]).sum() / 2)


def halves(trace: Trace) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    yield "phase_shift", trace.phase == PREFILL
    yield "position_drift", trace.position < np.bincount(trace.request)[trace.request] / 2
    yield "request_drift", trace.request < 200


@pytest.mark.parametrize("name", ["phase_shift", "position_drift", "request_drift"])
def test_each_shift_moves_what_it_names(name: str) -> None:
    calm = replace(
        SMALL, tokens=20_000, requests=400, prompt=0.5, phase_shift=0.0, position_drift=0.0, request_drift=0.0
    )
    change: dict[str, Any] = {name: 2.0}
    still, moved = calm.generate(), replace(calm, **change).generate()
    for trace, low, high in ((still, 0.0, 0.06), (moved, 0.12, 1.0)):
        mask = dict(halves(trace))[name]
        assert low <= distance(trace.experts[mask, 0], trace.experts[~mask, 0]) <= high


def test_family_skew_parts_the_families() -> None:
    alike = replace(SMALL, family_skew=0.0, shared=1.0, tokens=20_000, requests=400)
    apart = replace(alike, family_skew=1.5)
    assert np.corrcoef(loads(alike.generate(), 0)).min() > 0.9
    assert np.corrcoef(loads(apart.generate(), 0)).min() < 0.6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"experts": 0}, "experts must lie between 1 and 65536, found 0"),
        ({"top_k": 17}, "top_k must lie between 1 and 16, found 17"),
        ({"tokens": 39}, "tokens must lie between 40 and 2147483647, found 39"),
        ({"requests": 3}, "requests must lie between 4 and 2147483647, found 3"),
        ({"tokens": 1e4}, "tokens must be a whole number, found 10000.0"),
        ({"layers": True}, "layers must be a whole number, found True"),
        ({"pull": 9}, "pull must lie between 0 and 8, found 9"),
        ({"skew": float("nan")}, "skew must lie between 0 and 8, found nan"),
        ({"follow": 1.1}, "follow must lie between 0 and 1, found 1.1"),
        ({"loyalty": "high"}, "loyalty must be a number, found 'high'"),
        ({"families": ()}, r"families must be distinct names, found \[\]"),
        ({"families": ("a", "a")}, "families must be distinct names"),
        ({"shares": (1.0, 2.0)}, r"shares must be 4 positive numbers, found \[1.0, 2.0\]"),
        ({"shares": (1.0, 2.0, 0.0, 1.0)}, "shares must be 4 positive numbers"),
        ({"seed": -1}, "seed must lie between 0"),
    ],
)
def test_parameters_out_of_range_are_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **changes)


@settings(max_examples=60, deadline=None)
@given(trace=traces())
def test_the_null_keeps_every_load_and_everything_but_the_choices(trace: Trace) -> None:
    control = null(trace, seed=0)
    for layer in range(trace.n_layers):
        expected, found = (
            np.bincount(each.experts[:, layer].ravel(), minlength=trace.n_experts)
            for each in (trace, control)
        )
        assert (expected == found).all()
    assert same(replace(control, experts=trace.experts), trace)


def test_the_null_of_one_seed_is_one_trace() -> None:
    trace = SMALL.generate()
    assert same(null(trace, seed=1), null(trace, seed=1))
    assert not same(null(trace, seed=1), null(trace, seed=2))


def expected_pairs(load: NDArray[np.float64], *, k: int) -> NDArray[np.float64]:
    """Share of tokens that hold each pair when sets are independent given the loads.

    Among the distributions on k-sets with these loads the one of greatest entropy, P(S) ~ product of w_e,
    is what all assignments equally likely tend to; w by iterative scaling over all sets.
    """
    member = np.array(
        [[e in chosen for e in range(len(load))] for chosen in combinations(range(len(load)), k)]
    )
    weight = np.ones(len(load))
    for _ in range(2_000):
        chance = np.where(member, weight, 1.0).prod(axis=1)
        chance /= chance.sum()
        weight *= load / (chance @ member)
    return np.asarray((member * chance[:, None]).T @ member)


def test_the_null_has_the_co_activation_of_independent_choices_and_the_trace_has_not() -> None:
    trace = replace(SMALL, experts=8, layers=1, tokens=20_000, skew=0.8, pull=4.0, follow=1.0).generate()
    load = loads(trace, 0).sum(axis=0) / trace.n_tokens
    pairs = expected_pairs(load, k=3)[np.triu_indices(8, 1)]
    error = np.sqrt(trace.n_tokens * pairs * (1 - pairs))
    spread = [
        np.sqrt(np.mean(((affinity(each)[np.triu_indices(8, 1)] - trace.n_tokens * pairs) / error) ** 2))
        for each in (null(trace, seed=3), trace)
    ]
    assert spread[0] < 1.3  # standard errors
    assert spread[1] > 5


def test_the_null_forgets_the_families() -> None:
    trace = replace(SMALL, family_skew=1.5, tokens=20_000, requests=400).generate()
    assert np.corrcoef(loads(trace, 0)).min() < 0.6
    assert np.corrcoef(loads(null(trace, seed=0), 0)).min() > 0.97
