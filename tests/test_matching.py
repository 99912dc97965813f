"""Two experts a GPU: the matching is the cheapest of all pairings."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeopt.columns import Columns
from moeopt.matching import cheapest_matching, is_matching


def columns(pairs: list[tuple[int, int]], cost: list[int], experts: int) -> Columns:
    return Columns(np.array(pairs, np.int16), np.array(cost, np.int64), 0, experts, experts // 2)


def pairings(experts: list[int]) -> Iterator[list[tuple[int, int]]]:
    if not experts:
        yield []
        return
    first, *rest = experts
    for other in rest:
        for further in pairings([e for e in rest if e != other]):
            yield [(first, other), *further]


@settings(max_examples=80, deadline=None)
@given(half=st.integers(1, 4), seed=st.integers(0, 2**32 - 1), kept=st.sampled_from([0.3, 0.6, 1.0]))
def test_no_pairing_costs_less_than_the_matching(half: int, seed: int, kept: float) -> None:
    rng = np.random.default_rng(seed)
    pairs = [pair for pair in combinations(range(2 * half), 2) if rng.random() < kept] or [(0, 1)]
    cost = rng.integers(-(2**50), 2**50, len(pairs)).tolist()
    known = dict(zip(pairs, cost, strict=True))
    whole = [made for made in pairings(list(range(2 * half))) if all(pair in known for pair in made)]
    found = cheapest_matching(columns(pairs, cost, 2 * half))
    if not whole:
        assert found is None
        return
    assert found is not None
    assert sorted(expert for block in found for expert in pairs[block]) == list(range(2 * half))
    assert sum(cost[block] for block in found) == min(sum(known[pair] for pair in made) for made in whole)


@pytest.mark.parametrize(
    ("members", "experts", "groups", "answer"),
    [([[0, 1]], 2, 1, True), ([[0, 1]], 2, 2, False), ([[0]], 2, 2, False), ([[0, 1, 2]], 3, 1, False)],
)
def test_a_matching_has_two_experts_in_every_block(
    members: list[list[int]], experts: int, groups: int, answer: bool
) -> None:
    assert (
        is_matching(Columns(np.array(members, np.int16), np.zeros(1, np.int64), 0, experts, groups)) is answer
    )
