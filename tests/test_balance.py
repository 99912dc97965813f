"""Packing keeps its room, levelling only ever lowers the highest load."""

from __future__ import annotations

from itertools import product
from math import ceil
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeopt.balance import balanced, levelled, lightest
from moeopt.problem import Problem
from tests.problem_strategies import problems


@st.composite
def packings(draw: st.DrawFn) -> tuple[Any, Any]:
    """(load [experts], slots [gpus]) with room for all."""
    load = np.array(draw(st.lists(st.integers(0, 50), min_size=1, max_size=9)))
    slots = np.array(draw(st.lists(st.integers(0, 9), min_size=1, max_size=4)))
    if slots.sum() < len(load):
        slots = slots + len(load)
    return load, slots


@settings(max_examples=150, deadline=None)
@given(case=packings())
def test_packing_keeps_the_slots_and_equal_counts_where_it_can(case: Any) -> None:
    load, slots = case
    gpu_of = balanced(load, slots)
    sizes = np.bincount(gpu_of, minlength=len(slots))
    assert (sizes <= slots).all()
    share = ceil(len(load) / len(slots))
    if np.minimum(slots, share).sum() >= len(load):
        assert sizes.max() <= share


@settings(max_examples=150, deadline=None)
@given(case=packings(), seed=st.integers(0, 99))
def test_levelling_keeps_the_slots_and_never_raises_the_highest_load(case: Any, seed: int) -> None:
    load, slots = case
    start = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(slots)), slots))[: len(load)]
    before = start.copy()
    gpu_of = levelled(load, start, slots=slots)
    assert (start == before).all()
    assert (np.bincount(gpu_of, minlength=len(slots)) <= slots).all()
    carried = np.bincount(gpu_of, weights=load, minlength=len(slots))
    assert carried.max() <= np.bincount(start, weights=load, minlength=len(slots)).max()
    fullest = int(carried.argmax())
    for expert in np.flatnonzero(gpu_of == fullest):  # no single swap or move lowers it further
        for other in np.flatnonzero(gpu_of != fullest):
            shift = load[expert] - load[other]
            assert max(carried[fullest] - shift, carried[gpu_of[other]] + shift) >= carried[fullest]
        for gpu in np.flatnonzero(np.bincount(gpu_of, minlength=len(slots)) < slots):
            if gpu != fullest:
                lowered = max(carried[fullest] - load[expert], carried[gpu] + load[expert])
                assert lowered >= carried[fullest]


@settings(max_examples=60, deadline=None)
@given(problem=problems(most_experts=6, most_gpus=3))
def test_nothing_is_much_lighter_than_the_lightest(problem: Problem) -> None:
    load, slots = problem.workload.layers[0].load, problem.cluster.slots_of
    placement = lightest(problem)
    carried = np.bincount(placement.primary[0], weights=load, minlength=len(slots))
    assert (np.bincount(placement.primary[0], minlength=len(slots)) <= slots).all()
    least = min(
        np.bincount(row, weights=load, minlength=len(slots)).max()
        for row in product(range(len(slots)), repeat=len(load))
        if (np.bincount(row, minlength=len(slots)) <= slots).all()
    )
    assert least <= carried.max() <= least + load.max()


@pytest.mark.parametrize(("slots", "gpu_of"), [([2, 2], [0, 1, 1, 0]), ([1, 3], [0, 1, 1, 1])])
def test_the_heaviest_expert_goes_first(slots: list[int], gpu_of: list[int]) -> None:
    assert balanced(np.array([9, 8, 2, 1]), np.array(slots)).tolist() == gpu_of
