"""k-means: every point at its nearest centre, every centre the mean of its points."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from moeopt.kmeans import clusters


def drawn(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def spread(points: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Sum of squared distances to the means of the clusters."""
    parts = [points[labels == label] for label in np.unique(labels)]
    return float(sum(((part - part.mean(axis=0)) ** 2).sum() for part in parts))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 30),
    dimensions=st.integers(1, 4),
    k=st.integers(1, 8),
    grid=st.booleans(),
)
def test_points_are_at_their_nearest_centre_and_centres_are_means(
    seed: int, count: int, dimensions: int, k: int, grid: bool
) -> None:
    rng = drawn(seed)
    points = rng.integers(0, 3, (count, dimensions)) if grid else rng.normal(size=(count, dimensions))
    labels, centres = clusters(points, k=k, rng=rng, restarts=2)
    used = min(k, len(np.unique(points, axis=0)))
    assert centres.shape == (used, dimensions)
    assert sorted(set(labels.tolist())) == list(range(used))
    distance = ((points[:, None] - centres) ** 2).sum(axis=2)
    assert np.allclose(distance[np.arange(count), labels], distance.min(axis=1))
    for label in range(used):
        assert np.allclose(centres[label], points[labels == label].mean(axis=0))


@pytest.mark.parametrize("seed", range(10))
def test_tiny_sets_come_out_as_tight_as_any(seed: int) -> None:
    points = drawn(seed).normal(size=(7, 2))
    labels, _ = clusters(points, k=3, rng=drawn(seed), restarts=20)
    every = (np.array(labels) for labels in product(range(3), repeat=7))
    least = min(spread(points, labels) for labels in every)
    assert spread(points, labels) == pytest.approx(least)


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_clouds_far_apart_are_found_wherever_they_are(offset: float) -> None:
    rng = drawn(1)
    cloud = np.repeat(np.arange(5), 20)
    points = offset + 10.0 * cloud[:, None] + rng.normal(size=(100, 3))
    labels, centres = clusters(points, k=5, rng=rng)
    assert len({(int(a), int(b)) for a, b in zip(cloud, labels, strict=True)}) == 5
    assert np.allclose(np.sort(centres[:, 0]), offset + 10.0 * np.arange(5), atol=1.5)


def test_more_clusters_than_distinct_points_makes_one_of_each() -> None:
    points = np.array([[2.0, 0.0], [1.0, 5.0], [2.0, 0.0], [1.0, -0.0], [1.0, 0.0]])
    labels, centres = clusters(points, k=4, rng=drawn(0))
    assert labels.tolist() == [2, 1, 2, 0, 0]
    assert centres.tolist() == [[1.0, 0.0], [1.0, 5.0], [2.0, 0.0]]
    labels, centres = clusters(np.ones((6, 3)), k=2, rng=drawn(0))
    assert labels.tolist() == [0] * 6
    assert len(centres) == 1


def test_points_too_close_to_square_still_make_k_clusters() -> None:
    points = np.arange(5.0)[:, None] * 1e-200
    labels, centres = clusters(points, k=3, rng=drawn(0))
    assert len(centres) == 3
    assert set(labels.tolist()) == {0, 1, 2}


def test_the_same_generator_gives_the_same_answer() -> None:
    points = drawn(3).normal(size=(40, 3))
    first, second = (clusters(points, k=6, rng=drawn(7), restarts=3) for _ in range(2))
    assert (first[0] == second[0]).all()
    assert (first[1] == second[1]).all()


@pytest.mark.parametrize(
    ("points", "asked", "message"),
    [
        (np.zeros(3), {"k": 1}, r"points must be \[points, dimensions\], at least one, found shape \(3,\)"),
        (np.zeros((0, 2)), {"k": 1}, r"at least one, found shape \(0, 2\)"),
        (np.array([[0.0], [np.nan]]), {"k": 1}, "points must be finite, point 1 is not"),
        (np.zeros((3, 1)), {"k": 0}, "k must be at least 1, found 0"),
        (np.zeros((3, 1)), {"k": 1, "restarts": 0}, "restarts must be at least 1, found 0"),
    ],
)
def test_bad_input_is_named(points: NDArray[np.float64], asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        clusters(points, rng=drawn(0), **asked)
