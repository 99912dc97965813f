"""The relaxation agrees with a solver of cones, and none of its steps claims less than the best partition has."""

from __future__ import annotations

import warnings
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from moeopt.hypermetric import WIDTH
from moeopt.semidefinite import Relaxation, eigen_of_sum_zero, pressed


def random_weights(seed: int, n: int) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.integers(0, 50, (n, n)) * rng.integers(0, 2, (n, n)), 1).astype(float)
    return np.asarray(upper + upper.T)


def heaviest(weights: NDArray[np.float64], slots: int) -> float:
    """Most weight inside the groups of a partition into equal groups."""

    def best(left: tuple[int, ...]) -> float:
        if not left:
            return 0.0
        first, rest = left[0], left[1:]
        found = -np.inf
        for mates in combinations(rest, slots - 1):
            group = np.array([first, *mates])
            inside = weights[np.ix_(group, group)].sum() / 2
            found = max(found, inside + best(tuple(i for i in rest if i not in mates)))
        return float(found)

    return best(tuple(range(len(weights))))


def every_triangle_cut(n: int) -> NDArray[np.int16]:
    rows = []
    for triple in combinations(range(1, n + 1), 3):
        for centre in triple:
            row = [-i if i == centre else i for i in triple]
            rows.append(row + [0] * (WIDTH - 3))
    return np.array(rows, np.int16)


def by_cones(weights: NDArray[np.float64], groups: int, slots: int, *, triangles: bool) -> float:
    cvxpy = pytest.importorskip("cvxpy", reason="the reference needs cvxpy")
    n = len(weights)
    z = cvxpy.Variable((n, n), PSD=True)
    y = z + 1 / groups
    rules: list[Any] = [cvxpy.diag(y) == 1, y >= 0, cvxpy.sum(y, axis=1) == slots]
    for i, j, k in combinations(range(n), 3) if triangles else ():
        for a, b, c in ((i, j, k), (j, k, i), (k, i, j)):
            rules.append(y[a, b] + y[b, c] - y[a, c] <= 1)
    problem = cvxpy.Problem(cvxpy.Maximize(cvxpy.sum(cvxpy.multiply(weights, y)) / 2), rules)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        problem.solve(solver="CLARABEL")
    return float(problem.value)


@pytest.mark.parametrize("triangles", [False, True])
@pytest.mark.parametrize(
    ("groups", "slots", "seed"), [(2, 4, 0), (4, 2, 1), (3, 3, 2), (5, 2, 3), (2, 5, 4), (3, 2, 5)]
)
def test_after_many_steps_the_bound_is_that_of_a_solver_of_cones(
    groups: int, slots: int, seed: int, triangles: bool
) -> None:
    weights = random_weights(seed, groups * slots)
    relaxation = Relaxation(groups, slots)
    relaxation.aim(weights)
    if triangles:
        relaxation.cuts = every_triangle_cut(groups * slots)
        relaxation.forces = np.zeros(len(relaxation.cuts))
    for _ in range(2000):
        relaxation.step()
    wanted = by_cones(weights, groups, slots, triangles=triangles)
    assert relaxation.bound() == pytest.approx(wanted, rel=1e-3)
    assert relaxation.bound() >= wanted - 1e-5 * abs(wanted)


@settings(max_examples=25, deadline=None)
@given(
    shape=st.sampled_from([(2, 2), (2, 3), (3, 2), (2, 4), (4, 2), (3, 3)]),
    seed=st.integers(0, 10_000),
    steps=st.integers(1, 40),
)
def test_the_multipliers_of_every_step_bound_all_partitions(
    shape: tuple[int, int], seed: int, steps: int
) -> None:
    groups, slots = shape
    weights = random_weights(seed, groups * slots)
    best = heaviest(weights, slots)
    relaxation = Relaxation(groups, slots)
    relaxation.aim(weights)
    rng = np.random.default_rng(seed)
    for step in range(steps):
        relaxation.step()
        if step % 5 == 4:
            relaxation.refine(rng=rng, larger=True)
        assert relaxation.bound() >= best - 1e-9 * (1 + best)


def test_cuts_close_a_gap_that_the_plain_relaxation_leaves() -> None:
    groups, slots = 3, 3
    gaps = {False: 0.0, True: 0.0}
    for seed in range(6):
        weights = random_weights(seed, groups * slots)
        for cuts in gaps:
            relaxation, rng = Relaxation(groups, slots), np.random.default_rng(0)
            relaxation.aim(weights)
            for step in range(600):
                relaxation.step()
                if cuts and step % 50 == 49:
                    relaxation.refine(rng=rng, larger=True)
            gaps[cuts] += relaxation.bound() - heaviest(weights, slots)
    assert gaps[True] < 0.6 * gaps[False]


def test_new_weights_keep_the_state_and_old_cuts_without_force_go() -> None:
    relaxation, rng = Relaxation(3, 3), np.random.default_rng(0)
    relaxation.aim(random_weights(2, 9))
    for _ in range(60):
        relaxation.step()
    added = relaxation.refine(rng=rng, larger=True)
    assert added == len(relaxation.cuts) > 0
    relaxation.aim(7.0 * random_weights(2, 9))
    before = relaxation.bound()
    assert relaxation.unit == pytest.approx(7.0 * random_weights(2, 9)[np.triu_indices(9, 1)].std())
    for _ in range(300):
        relaxation.step()
    assert relaxation.bound() <= before + 1e-6
    relaxation.cuts = every_triangle_cut(9)
    relaxation.forces = np.zeros(len(relaxation.cuts))
    relaxation.refine(rng=rng, larger=False)
    assert len(relaxation.cuts) < len(every_triangle_cut(9))


def test_eigenvectors_are_of_sums_zero() -> None:
    square = random_weights(3, 6) - 5.0
    values, vectors = eigen_of_sum_zero(square)
    assert np.abs(vectors.sum(axis=0)).max() < 1e-9
    basis = np.linalg.qr(np.column_stack([np.ones(6), np.eye(6)[:, :5]]))[0][:, 1:]
    np.testing.assert_allclose(values, np.linalg.eigvalsh(basis.T @ square @ basis), atol=1e-8)


def test_pressed_weights_are_symmetric_and_leave_the_diagonal() -> None:
    cuts = every_triangle_cut(4)[:1]
    square = pressed(np.zeros((4, 4)), cuts, forces=np.array([2.0]))
    np.testing.assert_array_equal(square[:3, :3], [[0, -2, -2], [-2, 0, 2], [-2, 2, 0]])
    assert not square[3].any()
