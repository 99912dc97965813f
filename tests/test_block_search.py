"""The search for blocks of small reduced cost finds what enumeration finds, at the same costs."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moeopt.block_descents import descents
from moeopt.block_range import BlockRange
from moeopt.block_search import BlockSearch, scale_for
from moeopt.cluster import Cluster
from moeopt.problem import Problem
from moeopt.stop import Stop
from moeopt.trace import Trace
from moeopt_formulations.blocks import Blocks
from moeopt_formulations.priced import Priced
from tests.problem_strategies import problems

FREELY = Stop(seconds=None)
RELAXED = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def every_block(blocks: BlockRange) -> np.ndarray:
    """int16 [blocks, slots]: all admissible ones, one by one."""
    rows = [
        [*chosen, *[-1] * (blocks.slots - size)]
        for size in range(blocks.fewest, blocks.slots + 1)
        for chosen in combinations(range(blocks.n_experts), size)
        if blocks.cap is None or blocks.load[list(chosen)].sum() <= blocks.cap
    ]
    return np.array(rows, np.int16).reshape(-1, blocks.slots)


def reduced_costs(
    blocks: BlockRange, rows: np.ndarray, prices: np.ndarray, *, group: int, scale: int
) -> np.ndarray:
    return np.asarray(blocks.costs(rows) * scale - np.append(prices, 0)[rows].sum(axis=1) - group)


@RELAXED
@given(problem=problems())
def test_a_range_costs_its_blocks_as_the_list_does(problem: Problem) -> None:
    if Priced().supports(problem) or Blocks().supports(problem):
        return
    blocks, listed = Priced().block_range(problem), Blocks().columns(problem)
    assert blocks.costs(listed.members).tolist() == listed.cost.tolist()
    assert {tuple(row) for row in every_block(blocks).tolist()} == {
        tuple(row) for row in listed.members.tolist()
    }
    assert (blocks.offset, blocks.groups, blocks.full) == (listed.offset, listed.groups, listed.full)


@RELAXED
@given(problem=problems(most_experts=9), seed=st.integers(0, 2**32 - 1))
def test_the_search_finds_every_block_below_its_threshold_once(problem: Problem, seed: int) -> None:
    if Priced().supports(problem):
        return
    blocks, rng = Priced().block_range(problem), np.random.default_rng(seed)
    rows = every_block(blocks)
    highest = int(blocks.alone.max(initial=4)) + 1
    prices = rng.integers(-highest, 5 * highest, blocks.n_experts)
    group, threshold = int(rng.integers(-9, 9)), int(rng.integers(-4 * highest, 4 * highest))
    search = BlockSearch.over(blocks, prices, group=group, scale=4, threshold=threshold, most=10_000)
    search.run(FREELY.start())
    values = reduced_costs(blocks, rows, prices, group=group, scale=4)
    assert search.complete
    assert not search.full
    found = dict(zip(map(tuple, search.found.tolist()), search.values.tolist(), strict=True))
    assert len(found) == len(search.found)
    wanted = values <= threshold
    assert found == dict(zip(map(tuple, rows[wanted].tolist()), values[wanted].tolist(), strict=True))


@RELAXED
@given(problem=problems(most_experts=9), seed=st.integers(0, 2**32 - 1))
def test_a_descent_ends_in_an_admissible_block_of_the_value_it_says(problem: Problem, seed: int) -> None:
    if Priced().supports(problem):
        return
    blocks, rng = Priced().block_range(problem), np.random.default_rng(seed)
    prices = rng.random(blocks.n_experts) * (1 + blocks.alone.max(initial=0))
    rows, values = descents(blocks, prices, starts=2 * blocks.n_experts, rng=rng)
    ended = rows[:, 0] >= 0
    known = {tuple(row) for row in every_block(blocks).tolist()}
    assert all(tuple(row) in known for row in rows[ended].tolist())
    exact = reduced_costs(blocks, rows[ended], prices, group=0, scale=1)
    assert np.allclose(values[ended], exact)


@RELAXED
@given(problem=problems(most_experts=9), seed=st.integers(0, 2**32 - 1))
def test_tables_and_walks_through_the_sets_lead_to_the_same_contents(problem: Problem, seed: int) -> None:
    if Priced().supports(problem):
        return
    listed, walked = Priced().block_range(problem), Priced().block_range(problem)
    walked.__dict__["overlaps"] = None
    rng = np.random.default_rng(seed)
    prices = rng.random(listed.n_experts) * (1 + listed.alone.max(initial=0))
    found = [
        descents(blocks, prices, starts=3 * blocks.n_experts, rng=np.random.default_rng(seed))
        for blocks in (listed, walked)
    ]
    assert np.array_equal(found[0][0], found[1][0])
    assert np.allclose(found[0][1], found[1][1])


def middling(experts: int = 24, tokens: int = 2_000) -> BlockRange:
    rng = np.random.default_rng(3)
    ids = np.array([[rng.permutation(experts)[:4]] for _ in range(tokens)])
    problem = Problem.from_trace(Trace(ids, experts), Cluster.of(gpus=4, slots=6))
    return BlockRange.of(problem, unit=1, offset=-problem.total_weight)


def test_a_search_without_room_says_so_and_is_not_complete() -> None:
    blocks = middling()
    search = BlockSearch.over(
        blocks, np.zeros(24, np.int64), group=0, scale=1, threshold=1 << 40, most=1_000
    ).run(FREELY.start())
    assert search.full
    assert not search.complete
    assert len(search.found) > 0


def test_an_expired_clock_pauses_a_search_that_can_go_on() -> None:
    blocks = middling()
    real = np.full(24, blocks.alone.mean() * 0.8)
    scale = scale_for(blocks, real)
    prices = (real * scale).astype(np.int64)
    whole = BlockSearch.over(blocks, prices, group=0, scale=scale, threshold=0, most=200_000)
    parts = BlockSearch.over(blocks, prices, group=0, scale=scale, threshold=0, most=200_000)
    spent = Stop(seconds=None, candidates=1).start()
    spent.candidates = 1
    runs = 0
    while not parts.complete:
        parts.run(spent)
        runs += 1
        assert runs < 10_000
        assert not parts.full
    whole.run(FREELY.start())
    assert parts.found.tolist() == whole.found.tolist()
    assert parts.nodes == whole.nodes > 0


def test_single_experts_are_not_searched() -> None:
    trace = Trace(np.array([[[0, 1]], [[1, 2]]]), 3)
    problem = Problem.from_trace(trace, Cluster.of(gpus=3, slots=1))
    assert "prices contents of 2 to 16 experts" in Priced().supports(problem)
    with pytest.raises(ValueError, match="blocks of at least 2 experts are searched, found slots 1"):
        BlockSearch.over(
            Priced().block_range(problem), np.zeros(3, np.int64), group=0, scale=1, threshold=0, most=10
        )
