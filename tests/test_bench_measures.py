"""Measures of a sweep against their definitions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeopt.bench_measures import (
    best_bounds,
    front,
    gap_curve,
    named_rows,
    performance_profile,
    saving,
    shifted_mean,
    summaries,
    total_bounds,
)
from moeopt.bench_origins import stop_words, superseded
from moeopt.stop import Stop
from tests.made_rows import row

POINTS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 2)), max_size=12)
COSTS = st.dictionaries(
    st.sampled_from("abc"), st.dictionaries(st.integers(0, 4), st.integers(1, 20), max_size=5), max_size=3
)


@given(POINTS)
def test_a_point_is_on_the_front_when_no_other_beats_it(points: list[tuple[int, ...]]) -> None:
    def beats(one: Sequence[int], other: Sequence[int]) -> bool:
        return all(a <= b for a, b in zip(one, other, strict=True)) and tuple(one) != tuple(other)

    assert front(points) == [not any(beats(other, point) for other in points) for point in points]


@given(COSTS, st.lists(st.floats(1, 30), max_size=4))
def test_a_profile_counts_the_problems_within_a_ratio_of_the_best(
    costs: dict[str, dict[int, int]], ratios: list[float]
) -> None:
    problems = {one for own in costs.values() for one in own}
    found = performance_profile(costs, ratios=ratios)
    assert set(found) == set(costs)
    for name, ratio in product(costs, range(len(ratios))):
        within = 0
        for one in problems:
            best = min(own[one] for own in costs.values() if one in own)
            within += one in costs[name] and costs[name][one] <= ratios[ratio] * best
        assert found[name][ratio] == pytest.approx(within / len(problems) if problems else 0.0)


@given(COSTS)
def test_a_profile_never_falls_and_somebody_is_best(costs: dict[str, dict[int, int]]) -> None:
    found = performance_profile(costs, ratios=[1.0, 1.5, 100.0])
    for name, shares in found.items():
        assert shares == sorted(shares)
        assert shares[-1] == pytest.approx(
            len(costs[name]) / max(len({one for own in costs.values() for one in own}), 1)
        )
    if any(costs.values()):
        assert sum(shares[0] for shares in found.values()) >= 1 - 1e-12


@given(st.lists(st.floats(0, 1e4), min_size=1, max_size=8), st.floats(0.1, 100))
def test_a_shifted_mean_is_the_geometric_mean_of_shifted_values(values: list[float], shift: float) -> None:
    mean = math.prod(value + shift for value in values) ** (1 / len(values)) - shift
    assert shifted_mean(values, shift=shift) == pytest.approx(mean, rel=1e-9, abs=1e-6)
    assert min(values) - 1e-6 <= mean <= max(values) + 1e-6


def test_means_of_nothing_are_nothing() -> None:
    assert shifted_mean([]) is None
    assert front([]) == []
    assert performance_profile({}, ratios=[1.0]) == {}
    assert summaries([]) == []
    assert gap_curve([], times=[1.0]) == [None]
    assert saving({}) is None


STEPS = st.lists(
    st.tuples(st.floats(0, 10), st.one_of(st.none(), st.integers(50, 99)), st.none()), max_size=5
).map(lambda steps: sorted(steps, key=lambda step: step[0]))


@given(
    st.lists(st.tuples(STEPS, st.integers(0, 50)), min_size=1, max_size=3),
    st.lists(st.floats(0, 10), max_size=4),
)
def test_a_gap_is_that_of_the_last_cost_known(runs: list[tuple[list[Any], int]], times: list[float]) -> None:
    for time, value in zip(times, gap_curve(runs, times=times), strict=True):
        gaps = []
        for steps, least in runs:
            known = [cost for seconds, cost, _ in steps if cost is not None and seconds <= time]
            gaps.append(None if not known else (known[-1] - least) / known[-1])
        if None in gaps:
            assert value is None
        else:
            assert value == pytest.approx(np.mean([gap for gap in gaps if gap is not None]))


def test_a_cost_of_nothing_has_no_gap() -> None:
    assert gap_curve([([[0.0, 0, 0]], 0)], times=[1.0]) == [0.0]


def test_a_summary_adds_up_rows_made_by_hand() -> None:
    rows = [
        row("a", layer=0, cost=80, bound=80, status="certified-optimal"),
        row("a", layer=1, cost=90, bound=60, status="certified-gap"),
        row("a", layer=None, cost=170, seconds=2.0, fan_out=1.5, linear_fan_out=2.0, max_violation=0.2),
        row("b", layer=0, cost=100),
        row("b", layer=1, cost=75, bound=70),
        row("b", layer=None, cost=175, seconds=8.0, fan_out=1.0, linear_fan_out=2.0, max_violation=0.4,
            held_out={"fan_out": 1.8, "linear_fan_out": 2.0}),
        row("b", layer=None, seed=1, outcome="failed", reason="killed"),
    ]  # fmt: skip
    first, second = summaries(rows)
    assert (first.method, first.runs, first.failed, first.layers, first.optimal) == ("a", 1, 0, 2, 1)
    assert first.share == pytest.approx((1 + Fraction(10, 30)) / 2)
    assert first.gap == pytest.approx((0 + 20 / 90) / 2)
    assert first.seconds == pytest.approx(2.0)
    assert (first.reduction, first.held_out, first.max_violation) == (0.25, None, 0.2)
    assert (second.method, second.runs, second.failed, second.layers, second.optimal) == ("b", 2, 1, 2, 0)
    assert second.share == pytest.approx((0 + 25 / 30) / 2)
    assert second.gap == pytest.approx((20 / 100 + 5 / 75) / 2)
    assert second.seconds == pytest.approx(8.0)
    assert second.reduction == 0.5
    assert second.held_out == pytest.approx(0.1)
    assert best_bounds(rows) == {("c", 0, 0): 80, ("c", 0, 1): 70}
    assert total_bounds(rows) == {("c", 0): 150}


def test_bounds_of_all_layers_need_one_of_every_layer_or_of_the_whole() -> None:
    rows = [row("a", layer=0, cost=5, bound=3), row("a", layer=1, cost=5), row("a", layer=None, cost=10)]
    assert total_bounds(rows) == {}
    assert total_bounds([*rows, row("b", layer=None, cost=10, bound=7)]) == {("c", 0): 7}


def test_of_rows_about_the_same_the_last_counts() -> None:
    assert [one["found"]["cost"] for one in named_rows([row("a", cost=5), row("a", cost=4)])] == [4]


def test_a_failed_run_bears_the_name_of_its_method_when_another_run_tells_it() -> None:
    rows = [row("a", cost=5), row("a", seed=1, outcome="failed"), row("other", outcome="failed", layer=None)]
    assert [one["found"]["method"] for one in named_rows(rows)] == ["a", "a", "Other()"]


def test_settings_and_stops_are_told_apart_only_where_they_differ_on_a_case() -> None:
    short, long = "Stop(seconds=1.0, gap=0.0)", "Stop(seconds=9.0, gap=0.0)"
    apart = [row("a", cost=5, stop=short), row("a", cost=4, stop=long)]
    assert [one["found"]["method"] for one in named_rows(apart)] == ["a, 1 s a layer", "a, 9 s a layer"]
    cases = [row("a", cost=5, stop=short), row("a", case="d", cost=4, stop=long)]
    assert [one["found"]["method"] for one in named_rows(cases)] == ["a", "a"]
    settings = [row("a", cost=5, settings=f"A(rounds={rounds}, step=1)") for rounds in (2, 3)]
    assert [one["found"]["method"] for one in named_rows(settings)] == ["a, rounds=2", "a, rounds=3"]
    odd = [row("a", cost=5, settings=text) for text in ("A()", "A(1)")]
    assert [one["found"]["method"] for one in named_rows(odd)] == ["a, A()", "a, A(1)"]
    assert "method" in odd[0]["found"]
    assert odd[0]["found"]["method"] == "a"  # rows that are given stay as they are


def test_rows_of_the_same_run_elsewhere_are_told_apart() -> None:
    here, there = row("a", cost=5), {**row("a", cost=4), "machine": {"cpu": "y", "cores": 8}}
    older = {**here, "versions": {"python": "2"}}
    named = named_rows([here, there, here])
    assert [one["found"]["method"] for one in named] == ["a, x, 2 cores", "a, y, 8 cores"]
    assert [one["found"]["cost"] for one in named] == [5, 4]
    assert [one["found"]["method"] for one in named_rows([here, older])] == ["a, python 3", "a, python 2"]
    spread = named_rows([here, {**there, "seed": 1}])  # runs shared out among machines
    assert [one["found"]["method"] for one in spread] == ["a", "a"]


def test_a_failure_elsewhere_is_told_and_hides_no_answer() -> None:
    here = row("a", cost=5)
    there = {**row("a", outcome="failed", reason="killed"), "machine": {"cpu": "y", "cores": 8}}
    for rows in ([here, there], [there, here]):
        (shown,) = named_rows(rows)
        assert (shown["found"]["cost"], shown["found"]["method"]) == (5, "a")
        assert superseded(rows, [shown]) == [
            "1 failed row is not shown: on another machine or by other versions the same run has an answer."
        ]
    assert superseded([here, here], named_rows([here, here])) == []


def test_sources_of_a_method_of_one_s_own_are_told_apart() -> None:
    texts = [f"a(b).py:Own Own(size=1) [{digest}]" for digest in ("01234567", "89abcdef")]
    rows = [row("a(b).py:Own", cost=5, settings=text) for text in texts]
    names = ["a(b).py:Own, source 01234567", "a(b).py:Own, source 89abcdef"]
    assert [one["found"]["method"] for one in named_rows(rows)] == names


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (repr(Stop(seconds=1)), "1 s a layer"),
        (repr(Stop(seconds=0.5, gap=0.01)), "0.5 s a layer or a gap of 1 %"),
        (repr(Stop(seconds=None, candidates=2000)), "2,000 candidates a layer"),
        (repr(Stop(seconds=None)), "no limit"),
        ("Stop(seconds=soon)", "Stop(seconds=soon)"),
        ("Stop(rounds=3)", "Stop(rounds=3)"),
        ("by hand", "by hand"),
    ],
)
def test_stops_are_told_in_words(text: str, words: str) -> None:
    assert stop_words(text) == words
