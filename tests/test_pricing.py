"""Prices are valid whatever a solver says: rounding never makes a reduced cost negative nor a bound too high."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeopt.cluster import Cluster
from moeopt.columns import Columns
from moeopt.pricing import Prices, Relaxation, discounted
from moeopt.problem import Problem
from moeopt.stop import Stop
from moeopt.testing import brute_force, every_partition
from moeopt.trace import Trace
from moeopt_formulations.blocks import Blocks
from tests.problem_strategies import problems

BLOCKS = Blocks()
NASTY = st.one_of(
    st.floats(-1e4, 1e4), st.sampled_from([0.0, -0.0, 1e-300, 0.1 + 0.2, 1e18, -1e18, 1e9 + 0.5, 2.0**53 + 1])
)


@st.composite
def priced(draw: st.DrawFn) -> tuple[Problem, Columns, Prices]:
    """Prices from duals of every kind, with any triples and discounts."""
    problem = draw(problems(unequal=False, nodes=False, most_experts=6))
    columns = BLOCKS.columns(problem)
    if not len(columns):
        columns = BLOCKS.columns(replace(problem, load_tolerance=None))
    experts = columns.n_experts
    every = list(combinations(range(experts), 3))
    triples = draw(st.lists(st.sampled_from(every), max_size=4)) if every else []
    prices = Prices.of(
        columns,
        duals=np.array(draw(st.lists(NASTY, min_size=experts, max_size=experts))),
        group=draw(NASTY),
        triples=np.array(triples, np.int64).reshape(-1, 3),
        discounts=np.array(draw(st.lists(NASTY, min_size=len(triples), max_size=len(triples)))),
    )
    return problem, columns, prices


@settings(max_examples=150, deadline=None)
@given(case=priced())
def test_no_reduced_cost_is_negative_for_any_duals(case: tuple[Problem, Columns, Prices]) -> None:
    _, columns, prices = case
    for row, members in enumerate(columns.members.tolist()):
        held = {e for e in members if e >= 0}
        value = (
            prices.scale * int(columns.cost[row]) - prices.group - sum(int(prices.experts[e]) for e in held)
        )
        for triple, discount in zip(prices.triples.tolist(), prices.discounts.tolist(), strict=True):
            value += discount if len(held & set(triple)) >= 2 else 0
        assert value == prices.reduced[row] >= 0
    assert (prices.discounts > 0).all()
    assert prices.empty >= 0
    if not columns.full:
        assert prices.group <= 0


@settings(max_examples=100, deadline=None)
@given(case=priced())
def test_no_placement_costs_less_than_the_dual_bound(case: tuple[Problem, Columns, Prices]) -> None:
    problem, columns, prices = case
    least, _ = brute_force(problem)
    if least is not None:
        assert prices.bound(columns, searched=-1) <= least
        assert prices.scale * (least - columns.offset) >= prices.dual(columns)


def test_no_placement_costs_less_than_a_relaxation_says_and_rows_only_raise_it() -> None:
    rng = np.random.default_rng(3)
    improved = 0
    for _ in range(6):
        ids = np.array([[rng.permutation(8)[:3]] for _ in range(60)])
        problem = Problem.from_trace(Trace(ids, 8), Cluster(1, 3, 3))
        columns = BLOCKS.columns(problem)
        relaxation = Relaxation(columns, seed=0)
        clock = Stop(seconds=None).start()
        values = [relaxation.solve(clock).dual(columns)]
        scales = [relaxation.solve(clock).scale]
        while relaxation.cut() and len(values) < 5:
            prices = relaxation.solve(clock)
            values.append(prices.dual(columns))
            scales.append(prices.scale)
        least, _ = brute_force(problem)
        assert least is not None
        bounds = [value / scale for value, scale in zip(values, scales, strict=True)]
        assert all(bound <= least - columns.offset for bound in bounds)
        assert all(later >= earlier - 1e-3 for earlier, later in pairwise(bounds))
        improved += len(bounds) > 1
        assert len({tuple(row) for row in relaxation.triples.tolist()}) == len(relaxation.triples)
    assert improved  # some relaxation was fractional


@settings(max_examples=40, deadline=None)
@given(problem=problems(unequal=False, nodes=False), data=st.data())
def test_at_most_one_block_of_a_placement_holds_two_of_three_experts(
    problem: Problem, data: st.DataObject
) -> None:
    experts = problem.workload.n_experts
    if experts < 3:
        return
    triple = data.draw(st.sampled_from(list(combinations(range(experts), 3))))
    columns = BLOCKS.columns(replace(problem, load_tolerance=None))
    row_of = {tuple(row[row >= 0].tolist()): index for index, row in enumerate(columns.members)}
    held = discounted(
        columns.members, np.array([triple]), discounts=np.array([1]), n_experts=columns.n_experts
    )
    for placement in every_partition(replace(problem, load_tolerance=None)):
        groups: dict[int, list[int]] = {}
        for expert, gpu in enumerate(placement.primary[0].tolist()):
            groups.setdefault(gpu, []).append(expert)
        assert sum(int(held[row_of[tuple(group)]]) for group in groups.values()) <= 1


@pytest.mark.parametrize("cost", [0, 1, 2**40, 2**58])
def test_a_proof_stays_within_64_bits_at_every_magnitude(cost: int) -> None:
    columns = Columns(
        np.array([[0, 1], [0, 2], [1, 2], [0, -1], [1, -1], [2, -1]], np.int16), np.array([cost] * 6), 0, 3, 2
    )
    prices = Prices.of(
        columns,
        duals=np.full(3, cost / 3),
        group=0.0,
        triples=np.array([[0, 1, 2]]),
        discounts=np.array([cost / 7]),
    )
    exact: Any = [
        prices.scale * cost - sum(int(prices.experts[e]) for e in row if e >= 0)
        for row in columns.members.tolist()
    ]
    for row in range(3):
        exact[row] += sum(prices.discounts.tolist())
    assert [value - prices.group for value in exact] == prices.reduced.tolist()
    assert min(prices.reduced) >= 0
