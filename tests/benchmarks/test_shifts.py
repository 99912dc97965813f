"""Streams of held-out requests whose mix of families shifts."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.shifts import (
    BURST,
    COMPARED,
    DOMINANT,
    FEWEST_TOKENS,
    LAST,
    arrivals,
    families_kept,
    mixes,
    serve,
    shifts,
    streams_of,
)
from moeopt import Cluster, Problem, Trace, sample, solve
from moeopt.stop import Stop

SEEN, HELD = sample("tiny-moe").split(0.2, seed=0)


def test_four_families_make_thirteen_streams() -> None:
    names = [stream.name for stream in mixes(("a", "b", "c", "d"))]
    assert len(names) == len(set(names)) == 13
    assert len(mixes(("a", "b", "c"))) == 1 + 2 * 3 + 2 + 2


def test_shares_come_out_within_five_points_and_every_stream_is_as_long_as_what_is_held_out() -> None:
    families, _ = families_kept(HELD)
    for stream, trace in streams_of(HELD, seed=0):
        counts = np.bincount(trace.family, minlength=len(HELD.families)) / trace.n_tokens
        found = [counts[HELD.families.index(name)] for name in families]
        assert found == pytest.approx(stream.shares, abs=0.05), stream.name
        assert sum(stream.shares) == pytest.approx(1)
        assert trace.n_tokens == pytest.approx(HELD.n_tokens, rel=0.01)


def test_a_stream_has_nothing_of_the_requests_that_the_placement_has_seen() -> None:
    for _, trace in streams_of(HELD, seed=0):
        assert not np.isin(trace.request, SEEN.request).any()
        assert np.isin(trace.request, HELD.request).all()


def test_the_same_seed_gives_every_scheme_the_same_stream_and_another_seed_another() -> None:
    once, again, other = (list(streams_of(HELD, seed=seed)) for seed in (3, 3, 4))
    for (_, first), (_, second), (_, third) in zip(once, again, other, strict=True):
        assert (first.experts == second.experts).all()
        assert (first.request == second.request).all()
        assert not np.array_equal(first.experts, third.experts)


def test_requests_are_whole_but_for_the_last_of_each_family() -> None:
    families = list(range(len(HELD.families)))
    stream = mixes(HELD.families)[0]
    rows = arrivals(HELD, families, stream=stream, tokens=4_000, rng=np.random.default_rng(0))
    times = np.bincount(rows, minlength=HELD.n_tokens)
    partial = [
        request
        for request in np.unique(HELD.request)
        if len(set(times[HELD.request == request].tolist())) > 1
    ]
    assert len(partial) <= len(families)


def test_a_phase_has_its_dominant_family_and_a_burst_only_its_own() -> None:
    streams = {stream.name: trace.family for stream, trace in streams_of(HELD, seed=0)}
    slow = streams["phases, slow"]
    quarter = len(slow) // 4
    for index in range(4):
        assert (slow[index * quarter : (index + 1) * quarter] == index).mean() == pytest.approx(
            DOMINANT, abs=0.05
        )
    burst = streams[f"bursts of {HELD.families[0]}"]
    length = round(BURST / 4 * len(burst))
    pure = max((burst[at : at + length - 2] == 0).mean() for at in range(0, len(burst) - length))
    assert pure == 1.0


def test_a_small_family_is_named_and_left_out() -> None:
    family = np.zeros(2_000, np.uint8)
    family[1_000:] = 1
    family[1_990:] = 2
    request = (np.arange(2_000) // 10).astype(np.int32)
    trace = Trace(
        np.tile(np.arange(2, dtype=np.uint8), (2_000, 1, 1)),
        4,
        families=("a", "b", "c"),
        family=family,
        request=request,
    )
    kept, left = families_kept(trace)
    assert kept == ["a", "b"]
    assert left == {"c": "1 requests and 10 tokens held out"}
    assert FEWEST_TOKENS > 10


def test_one_family_does_not_shift() -> None:
    with pytest.raises(ValueError, match="at least 2 families, found 1"):
        mixes(("a",))


def test_every_scheme_is_judged_on_every_stream_under_each_serving() -> None:
    seen = SEEN.layers([0])
    single = solve(Problem.from_trace(seen, Cluster.of(gpus=8, slots=4)), "linear").placement
    copies = solve(
        Problem.from_trace(seen, Cluster.of(gpus=8, slots=5), replicas=8), "eplb", stop=Stop(seconds=1)
    ).placement
    assert single is not None
    assert copies is not None
    served, facts = serve({"linear": single, "copies": copies}, HELD.layers([0]), seed=0)
    assert list(served["linear"]) == list(served["copies"]) == list(facts)
    assert all(one["cover"]["reduction"] == 0 for one in served["linear"].values())
    assert all(
        set(one) == {"cover", "guard", "published guard", "priced"} for one in served["copies"].values()
    )
    assert max(facts["code 80%"]["shares"].values()) == pytest.approx(0.8, abs=0.05)


def test_a_task_has_a_key_of_its_own_and_its_rows_end_with_it() -> None:
    tasks = list(shifts())
    assert len({task.key for task in tasks}) == len(tasks) == 22
    assert COMPARED[-1] == LAST
    assert all(task.key.method.startswith(LAST) for task in tasks)
