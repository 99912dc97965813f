"""Cuts b'Yb >= least(b): every partition keeps them, the searches find broken ones, the sweeps mend them."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from moeopt.cliques import broken_triangles
from moeopt.hypermetric import WIDTH, broken_cuts, broken_triples, least_square, press, relax


def vector(cut: NDArray[np.int16], n: int) -> NDArray[np.float64]:
    b = np.zeros(n)
    for p in cut.tolist():
        if p:
            b[abs(p) - 1] = np.sign(p)
    return b


def shortfall(y: NDArray[np.float64], cut: NDArray[np.int16], groups: int) -> float:
    b = vector(cut, len(y))
    return float(least_square(int(b.sum()), groups) - b @ y @ b)


def random_y(seed: int, n: int) -> NDArray[np.float64]:
    upper = np.triu(np.random.default_rng(seed).random((n, n)), 1)
    return upper + upper.T + np.eye(n)


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_least_square_is_the_least_over_whole_numbers_of_that_sum(groups: int) -> None:
    for total in range(-5, 6):
        tried = product(range(-6, 7), repeat=groups)
        assert least_square(total, groups) == min(sum(x * x for x in xs) for xs in tried if sum(xs) == total)


@given(labels=st.lists(st.integers(0, 2), min_size=2, max_size=8), data=st.data())
def test_every_partition_keeps_every_cut(labels: list[int], data: st.DataObject) -> None:
    group = np.array(labels)
    b = np.array(data.draw(st.lists(st.integers(-2, 2), min_size=len(labels), max_size=len(labels))))
    y = (group[:, None] == group).astype(int)
    assert b @ y @ b >= least_square(int(b.sum()), 3)


@settings(deadline=None)
@given(seed=st.integers(0, 1000), n=st.integers(3, 9))
def test_broken_triples_are_the_broken_triangles(seed: int, n: int) -> None:
    y = random_y(seed, n)
    keys, excess = broken_triangles(y)
    wanted = {
        (int(i), int(j), int(k)) for (i, j, k), over in zip(keys, excess, strict=True) if 2 * over > 1e-3
    }
    found = set()
    for cut in broken_triples(y, 10_000):
        centre = next(-p - 1 for p in cut.tolist() if p < 0)
        ends = sorted(p - 1 for p in cut.tolist() if p > 0)
        found.add((ends[0], centre, ends[1]))
        assert shortfall(y, cut, n) > 0
    assert found == wanted


def test_few_broken_triples_are_the_most_broken_ones() -> None:
    y = random_y(0, 30)
    every = sorted((shortfall(y, cut, 30) for cut in broken_triples(y, 10_000)), reverse=True)
    some = sorted((shortfall(y, cut, 30) for cut in broken_triples(y, 50)), reverse=True)
    assert 25 <= len(some) <= 50
    assert some == pytest.approx(every[: len(some)], abs=3e-3)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), n=st.integers(5, 10), groups=st.integers(2, 4))
def test_larger_cuts_that_are_found_are_broken(seed: int, n: int, groups: int) -> None:
    y = random_y(seed, n)
    starts = np.stack(np.triu_indices(n, 1), axis=1).astype(np.int64)
    for cut in broken_cuts(y, starts, groups, 6):
        assert 4 <= np.count_nonzero(cut) <= 6
        assert shortfall(y, cut, groups) > 1e-3


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000))
def test_sweeps_lead_to_the_nearest_point_that_keeps_the_cuts(seed: int) -> None:
    n, groups = 7, 3
    point = random_y(seed, n) - 0.2
    cuts = broken_triples(np.maximum(point, 0), 1000)
    starts = np.stack(np.triu_indices(n, 1), axis=1).astype(np.int64)
    cuts = np.concatenate([cuts, broken_cuts(np.maximum(point, 0), starts, groups, 6)])
    forces, square = np.zeros(len(cuts)), np.triu(point, 1)
    relax(square, cuts, forces, groups, 3000)
    again = np.triu(point, 1)
    press(again, cuts, forces)
    np.testing.assert_allclose(np.triu(square, 1), np.triu(again, 1), atol=1e-9)
    upper = np.maximum(np.triu(square, 1), 0)
    y = upper + upper.T + np.eye(n)
    short = np.array([shortfall(y, cut, groups) for cut in cuts])
    assert (forces >= 0).all()
    assert (short < 1e-6).all()
    assert np.abs(forces * short).max(initial=0) < 1e-5


def test_a_cut_has_room_for_its_experts() -> None:
    assert WIDTH >= 8
