"""The compiled search finds the cheapest exact cover within its budget, however often it is paused."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeopt.exact_cover import DONE, PAUSED, Search

SCALE = 4


@st.composite
def covers(draw: st.DrawFn) -> dict[str, Any]:
    """Blocks of up to 3 of up to 7 experts with consistent prices: scale x cost = prices + group price + reduced."""
    experts, groups, m = draw(st.integers(1, 7)), draw(st.integers(1, 4)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    every = [block for size in range(1, m + 1) for block in combinations(range(experts), size)]
    chosen = [block for block in every if rng.random() < draw(st.sampled_from([0.3, 0.7, 1.0]))]
    members = np.full((len(chosen), m), -1, np.int16)
    for row, block in enumerate(chosen):
        members[row, : len(block)] = block
    cost = rng.integers(0, draw(st.sampled_from([2, 50])), len(chosen))
    prices = rng.integers(-20, 20, experts)
    slack = SCALE * cost - np.array([prices[list(block)].sum() for block in chosen], np.int64).reshape(-1)
    group = min(0, int(slack.min(initial=0)))
    return {
        "members": members,
        "cost": cost,
        "reduced": slack - group,
        "dual": int(prices.sum()) + groups * group,
        "empty": -group,
        "n_experts": experts,
        "groups": groups,
    }


def search_over(case: dict[str, Any], *, budget: int, ceiling: int) -> Search:
    return Search.over(
        case["members"],
        case["reduced"][:, None],
        cost=case["cost"][:, None],
        budgets=np.array([budget]),
        ceiling=ceiling,
        limits=lambda below: np.array([SCALE * (below - 1) - case["dual"]]),
        empty=np.array([case["empty"]]),
        n_experts=case["n_experts"],
        groups=case["groups"],
        labels=np.arange(len(case["cost"])) + 100,
    )


def every_cover(case: dict[str, Any]) -> list[tuple[int, int]]:
    """(cost, total reduced cost) of every exact cover, by enumeration."""
    blocks = [frozenset(row[row >= 0].tolist()) for row in case["members"]]
    found = []
    for size in range(case["groups"] + 1):
        for chosen in combinations(range(len(blocks)), size):
            if sum(len(blocks[b]) for b in chosen) == case["n_experts"] and (
                len(frozenset().union(*(blocks[b] for b in chosen))) == case["n_experts"]
            ):
                idle = (case["groups"] - size) * case["empty"]
                found.append(
                    (
                        int(sum(case["cost"][b] for b in chosen)),
                        int(sum(case["reduced"][b] for b in chosen)) + idle,
                    )
                )
    return found


@settings(max_examples=120, deadline=None)
@given(case=covers())
def test_no_cover_costs_less_than_the_one_found(case: dict[str, Any]) -> None:
    search = search_over(case, budget=1 << 40, ceiling=1 << 40)
    assert search.run(1 << 30) == DONE
    least = min((cost for cost, _ in every_cover(case)), default=None)
    if least is None:
        assert search.best.size == 0
        assert search.ceiling == 1 << 40
        return
    blocks = search.best - 100
    assert int(case["cost"][blocks].sum()) == least == search.ceiling
    held = case["members"][blocks]
    assert sorted(held[held >= 0].tolist()) == list(range(case["n_experts"]))


@settings(max_examples=120, deadline=None)
@given(case=covers(), budget=st.integers(0, 200), ceiling=st.integers(0, 120))
def test_only_covers_within_budget_and_below_the_ceiling_count(
    case: dict[str, Any], budget: int, ceiling: int
) -> None:
    search = search_over(case, budget=budget, ceiling=ceiling)
    assert search.run(1 << 30) == DONE
    within = [cost for cost, reduced in every_cover(case) if reduced <= budget and cost < ceiling]
    assert search.ceiling == min(within, default=ceiling)
    assert (search.best.size > 0) == bool(within)


@settings(max_examples=60, deadline=None)
@given(case=covers(), step=st.integers(1, 5))
def test_pauses_change_nothing(case: dict[str, Any], step: int) -> None:
    whole = search_over(case, budget=1 << 40, ceiling=1 << 40)
    whole.run(1 << 30)
    paused = search_over(case, budget=1 << 40, ceiling=1 << 40)
    while (state := paused.run(step)) != DONE:
        assert state == PAUSED
    assert (paused.best == whole.best).all()
    assert (paused.nodes, paused.ceiling, int(paused.budgets[0])) == (
        whole.nodes,
        whole.ceiling,
        int(whole.budgets[0]),
    )


@pytest.mark.parametrize("experts", [64, 65, 130])
def test_experts_beyond_one_machine_word_are_covered_too(experts: int) -> None:
    pairs = np.array([[e, e + 1] for e in range(experts - 1)], np.int16)
    if experts % 2:
        pairs = np.concatenate([pairs, np.array([[experts - 1, -1]], np.int16)])
    count = len(pairs)
    search = Search.over(
        pairs,
        np.zeros((count, 1), np.int64),
        cost=np.ones((count, 1), np.int64),
        budgets=np.array([10]),
        ceiling=10**6,
        limits=lambda below: np.array([below]),
        empty=np.array([0]),
        n_experts=experts,
        groups=(experts + 1) // 2,
        labels=np.arange(count),
    )
    assert search.run(1 << 20) == DONE
    held = pairs[search.best]
    assert sorted(held[held >= 0].tolist()) == list(range(experts))
