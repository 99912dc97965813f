"""Compiled counting of expert sets: the same as NumPy's, exact up to a limit, a fair and mergeable sample beyond."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeopt import workload as workloads
from moeopt.expert_sets import ExpertSets
from moeopt.set_counting import SetCounter
from moeopt.set_kernels import last_draw, level_of, token_draw
from moeopt.set_samples import Sample
from moeopt.set_sorting import ascending, count_sets
from moeopt.set_tallies import SetTally, packing
from moeopt.trace import Trace
from moeopt.workload import Workload
from tests.strategies import traces


def drawn(rows: int, *, experts: int = 16, k: int = 3, seed: int = 0) -> np.ndarray:
    """uint16 [rows, k] of distinct ids, low ones more often."""
    rng = np.random.default_rng(seed)
    return np.argsort(rng.gumbel(size=(rows, experts)) + np.arange(experts) * 0.1, axis=1)[:, :k].astype(
        np.uint16
    )


def counted(
    rows: np.ndarray,
    *,
    experts: int = 16,
    limit: int = 10**6,
    family: np.ndarray | None = None,
    families: int = 1,
    salt: int = 7,
    first: int = 0,
    step: int = 97,
) -> SetTally:
    counter = SetCounter(experts, top_k=rows.shape[1], families=families, limit=limit)
    family = np.zeros(len(rows), np.int16) if family is None else family
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        counter.add(rows[part], family[part], salt=salt, first=first + start)
    return counter.tally()


def levels_of(salt: int, rows: int) -> np.ndarray:
    return np.array([level_of(np.uint64(token_draw(salt, row))) for row in range(rows)])


def same(a: SetTally, b: SetTally) -> bool:
    """Whether both hold the same, the sample in any order."""
    if a.exact != b.exact or (a.limit, a.least) != (b.limit, b.least) or (a.loads != b.loads).any():
        return False
    sets = [part.expert_sets(exact=exact).digest for part in (a, b) for exact in {False, a.exact}]
    half = len(sets) // 2
    return sets[:half] == sets[half:] and sorted(a.level) == sorted(b.level)


@settings(max_examples=60, deadline=None)
@given(trace=traces())
def test_compiled_counting_gives_the_same_bits_as_numpy(trace: Trace) -> None:
    for compiled, sets in zip(count_sets(trace), Workload.from_trace(trace).layers, strict=True):
        assert compiled.members.dtype == sets.members.dtype
        assert compiled.counts.dtype == sets.counts.dtype
        assert compiled.digest == sets.digest


@pytest.mark.parametrize(
    ("experts", "k"), [(1, 1), (2, 2), (256, 8), (257, 8), (512, 10), (65_536, 9), (8, 8)]
)
def test_sets_of_several_words_are_counted_in_the_canonical_order(experts: int, k: int) -> None:
    rng = np.random.default_rng(0)
    pool = np.array([rng.choice(experts, k, replace=False) for _ in range(300)])
    rows = pool[rng.integers(300, size=900)].astype(np.uint16)
    family = rng.integers(3, size=900).astype(np.int16)
    one_hot = np.eye(3, dtype=np.int64)[family]
    found = counted(rows, experts=experts, family=family, families=3).expert_sets(exact=True)
    assert found.digest == ExpertSets.of(rows, one_hot, n_experts=experts).digest


def test_a_table_grows_without_losing_a_token() -> None:
    rows = drawn(20_000, experts=256, k=8)
    sets = counted(rows, experts=256).expert_sets(exact=True)
    assert len(sets) > 10_000
    assert sets.digest == ExpertSets.of(rows, np.ones((20_000, 1), np.int64), n_experts=256).digest


def test_large_traces_are_counted_by_compiled_code_with_the_same_digest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trace = Trace(drawn(500)[:, None], 16)
    plain = Workload.from_trace(trace).digest
    monkeypatch.setattr(workloads, "COMPILED", 500)
    monkeypatch.setattr(ExpertSets, "of", None)
    assert Workload.from_trace(trace).digest == plain


def test_sets_are_exact_up_to_the_limit_and_sampled_from_one_more_on() -> None:
    rows = drawn(3000)
    distinct = len(np.unique(np.sort(rows, axis=1), axis=0))
    assert counted(rows, limit=distinct).exact
    tally = counted(rows, limit=distinct - 1)
    assert not tally.exact
    with pytest.raises(ValueError, match=f"more than {distinct - 1} expert sets"):
        tally.expert_sets(exact=True)


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 600), limit=st.integers(1, 200), salt=st.integers(0, 2**63 - 1))
def test_the_sample_is_the_tokens_of_the_least_level_that_fits(rows: int, limit: int, salt: int) -> None:
    ids = drawn(rows)
    levels = levels_of(salt, rows)
    tally = counted(ids, limit=limit, salt=salt)
    assert (levels >= tally.least).sum() <= limit
    assert tally.least == 0 or (levels >= tally.least - 1).sum() > limit
    chosen = ids[levels >= tally.least]
    expected = ExpertSets.of(chosen, np.ones((len(chosen), 1), np.int64), n_experts=16)
    assert tally.expert_sets(exact=False).digest == expected.digest


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(2, 400), cut=st.floats(0, 1), limits=st.tuples(st.integers(1, 300), st.integers(1, 300))
)
def test_merged_tallies_are_what_one_pass_finds(rows: int, cut: float, limits: tuple[int, int]) -> None:
    ids, at = drawn(rows), round(cut * rows)
    parts = [
        counted(ids[:at], limit=limits[0]),
        counted(ids[at:], limit=limits[1], first=at),
    ]
    whole = counted(ids, limit=min(limits))
    assert same(parts[0].merged(parts[1]), whole)
    assert same(parts[0].merged(parts[1]), parts[1].merged(parts[0]))


def test_loads_stay_exact_beyond_the_limit() -> None:
    rows, family = drawn(2000), (np.arange(2000) % 3).astype(np.int16)
    loads = np.zeros((16, 3), np.int64)
    for column in rows.T:
        np.add.at(loads, (column, family), 1)
    tally = counted(rows, limit=20, family=family, families=3)
    assert not tally.exact
    assert (tally.loads == loads).all()


def test_tokens_of_families_left_out_are_not_counted_and_move_no_other() -> None:
    rows, family = drawn(1000), (np.arange(1000) % 2 - 1).astype(np.int16)
    tally = counted(rows, limit=60, family=family)
    levels = levels_of(7, 1000)
    assert tally.loads.sum() == 500 * 3
    assert tally.taken == ((levels >= tally.least) & (family == 0)).sum()


@pytest.mark.parametrize("wrong", [[0, 1, 16], [0, 1, 65_535], [5, 1, 5], [2, 2, 2]])
def test_a_token_with_wrong_experts_is_named(wrong: list[int]) -> None:
    rows = drawn(300)
    rows[211] = wrong
    with pytest.raises(
        ValueError, match=f"token 1211: experts must be distinct ids below 16, found .{wrong[0]}, "
    ):
        counted(rows, first=1000)


def test_what_is_left_out_may_hold_anything() -> None:
    rows, family = drawn(300), np.zeros(300, np.int16)
    rows[[3, 211]], family[[3, 211]] = [[5, 1, 5], [0, 1, 65_535]], -1
    kept = np.delete(rows, [3, 211], axis=0)
    ones = np.ones((298, 1), np.int64)
    tally = counted(rows, family=family)
    assert tally.expert_sets(exact=True).digest == ExpertSets.of(kept, ones, n_experts=16).digest
    rows[250] = [7, 7, 1]  # of the same lanes
    with pytest.raises(ValueError, match="token 250: "):
        counted(rows, family=family, step=300)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(0, 300),
    words=st.integers(1, 3),
    values=st.sampled_from([1, 2, 40, 2**33, 2**64 - 1]),
    seed=st.integers(0, 99),
)
def test_packed_rows_are_sorted_as_numpy_sorts_them(rows: int, words: int, values: int, seed: int) -> None:
    keys = np.random.default_rng(seed).integers(0, values, (rows, words), np.uint64, endpoint=True)
    order, distinct = ascending(keys)
    assert (order == np.lexsort(keys.T[::-1])).all()
    assert distinct == len(np.unique(keys, axis=0))


def test_the_last_draw_of_a_level_reaches_it_and_the_next_does_not() -> None:
    for level in range(239):
        last = int(last_draw(level))
        assert level_of(np.uint64(last)) == level
        assert level == 0 or level_of(np.uint64(last + 1)) == level - 1


def test_levels_have_the_shares_they_promise() -> None:
    n = 100_000
    levels = levels_of(123, n)
    for level in range(1, 20):
        share = (8 - level % 4) / 8 / 2 ** (level // 4)
        found = (levels >= level).mean()
        assert abs(found - share) < 5 * np.sqrt(share * (1 - share) / n)
    other = levels_of(124, n)
    both = ((levels >= 4) & (other >= 4)).mean()
    assert abs(both - 0.25) < 5 * np.sqrt(0.25 * 0.75 / n)


def test_means_of_the_sample_are_unbiased_and_err_as_stated() -> None:
    """Loads, pairs and the fan-out of a fixed placement, over 600 draws of about 130 of 2000 tokens."""
    n, draws = 2000, 600
    rows = drawn(n)
    gpu = np.arange(16) % 4
    fan_out = np.array([len(set(gpu[row])) for row in rows], float)
    first = (rows == 0).any(axis=1).astype(float)
    pair = first * (rows == 1).any(axis=1)
    quantities = np.stack([fan_out, first, pair])
    truth, deviation = quantities.mean(axis=1), quantities.std(axis=1, ddof=1)
    scores, covered = [], 0
    for salt in range(draws):
        sets = counted(rows, limit=150, salt=salt, step=n).expert_sets(exact=False)
        sample = Sample(int(sets.counts.sum()), n)
        assert 80 < sample.taken <= 150
        weight = sets.counts[:, 0] / sample.taken
        has = [(sets.members == expert).any(axis=1) for expert in (0, 1)]
        fans = np.array([len(set(gpu[row])) for row in sets.members])
        means = np.array([weight @ fans, weight @ has[0], weight @ (has[0] & has[1])])
        scores.append((means - truth) / [sample.standard_error(deviation=value) for value in deviation])
        covered += abs(means[0] - truth[0]) <= sample.bound(span=2, confidence=0.95)
    standing = np.array(scores)
    assert (np.abs(standing.mean(axis=0)) < 4 / np.sqrt(draws)).all()  # unbiased
    assert (np.abs(standing.std(axis=0) - 1) < 0.12).all()  # of the error stated
    assert covered >= 0.95 * draws


def test_an_exact_sample_has_no_error_and_a_bound_never_exceeds_the_span() -> None:
    assert Sample(5, 5).bound(span=3) == Sample(5, 5).standard_error(deviation=2) == 0
    assert Sample(0, 5).bound(span=3) == Sample(1, 5).bound(span=3) == 3
    assert Sample(1000, 10**6).bound(span=3) < Sample(1000, 10**6).bound(span=3, quantities=10**6) < 3
    assert Sample(1000, 2000).standard_error(deviation=1) == pytest.approx(np.sqrt(0.5 / 1000))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Sample(3, 2), "0 to 2 of them, found 3"),
        (lambda: Sample(1, 2).bound(span=-1), "span >= 0"),
        (lambda: Sample(1, 2).bound(span=1, confidence=1), "confidence"),
        (lambda: Sample(1, 2).standard_error(deviation=float("nan")), "at least 0, found nan"),
    ],
)
def test_errors_of_no_meaning_are_refused(call: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()  # type: ignore[operator]


def test_words_hold_as_many_ids_as_fit() -> None:
    assert packing(256, 8) == (8, 8, 1)
    assert packing(257, 8) == (9, 7, 2)
    assert packing(1, 1) == (1, 64, 1)


def test_pairs_of_a_sample_are_those_of_its_tokens() -> None:
    sets = counted(drawn(2000), limit=100).expert_sets(exact=False)
    weights = sets.counts.sum(axis=1)
    assert sets.affinity(weights).sum() == 2 * comb(3, 2) * weights.sum()
