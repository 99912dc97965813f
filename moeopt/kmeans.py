"""k-means: points to the nearest of k centres, each centre the mean of its points."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["clusters"]

MOST_ROUNDS = 300  # of Lloyd's iteration


def clusters(
    points: NDArray[Any], *, k: int, rng: np.random.Generator, restarts: int = 10
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(int64 [points]: cluster of each point, float [clusters, dimensions]: their means).

    `points` is [points, dimensions]. k-means++ seeding (Arthur and Vassilvitskii, SODA 2007), Lloyd's iteration, the
    least sum of squared distances of `restarts` runs. A centre that loses its points takes the farthest point of those
    that share theirs, so that there are k clusters, none empty. Where at most k points are distinct, each of them is a
    cluster, in lexicographic order, and there are no others. Same `rng`, same answer. Raises ValueError for k or
    restarts below 1, no points, points not finite.
    """
    points = np.asarray(points, float) + 0.0  # no negative zeros: they are equal, and would be told apart
    if points.ndim != 2 or not points.size:
        raise ValueError(f"points must be [points, dimensions], at least one, found shape {points.shape}")
    if not np.isfinite(points).all():
        raise ValueError(
            f"points must be finite, point {int(np.argwhere(~np.isfinite(points))[0, 0])} is not"
        )
    for name, value in (("k", k), ("restarts", restarts)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, found {value}")
    distinct, row = np.unique(points, axis=0, return_inverse=True)
    if len(distinct) <= k:
        return row.reshape(-1).astype(np.int64), distinct
    middle = points.mean(axis=0)  # near the origin, products lose no digits
    runs = (_settled(points - middle, _seeds(points - middle, k, rng)) for _ in range(restarts))
    labels, centres, _ = min(runs, key=lambda run: run[2])
    return labels, centres + middle


def _seeds(points: NDArray[np.float64], k: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """float [k, dimensions]: points drawn one by one, by their squared distance to those drawn before."""
    drawn = [int(rng.integers(len(points)))]
    distance = ((points - points[drawn[0]]) ** 2).sum(axis=1)
    while len(drawn) < k:
        reach = distance.cumsum()
        if reach[-1] > 0:
            point = int(np.searchsorted(reach, rng.random() * reach[-1], side="right"))
            point = min(point, int(distance.nonzero()[0][-1]))  # the product may round up to the sum
        else:  # distances too small to square
            point = int(rng.choice(np.setdiff1d(np.arange(len(points)), drawn)))
        drawn.append(point)
        distance = np.minimum(distance, ((points - points[point]) ** 2).sum(axis=1))
    return points[drawn]


def _settled(
    points: NDArray[np.float64], centres: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64], float]:
    """(labels, centres, sum of squared distances) when no point changes its centre any more."""
    k, norms = len(centres), (points**2).sum(axis=1)
    labels = np.full(len(points), -1)
    for _ in range(MOST_ROUNDS):
        distance = norms[:, None] - 2 * points @ centres.T + (centres**2).sum(axis=1)
        nearest = _without_empty(distance.argmin(axis=1), distance)
        if (nearest == labels).all():
            break
        labels = nearest
        members = (labels == np.arange(k)[:, None]).astype(float)
        centres = members @ points / members.sum(axis=1, keepdims=True)
    return labels, centres, float(((points - centres[labels]) ** 2).sum())


def _without_empty(nearest: NDArray[np.int64], distance: NDArray[np.float64]) -> NDArray[np.int64]:
    """The labels, an empty cluster having taken the farthest point of those that are not alone."""
    sizes = np.bincount(nearest, minlength=distance.shape[1])
    far = distance[np.arange(len(nearest)), nearest]
    for empty in np.flatnonzero(sizes == 0):
        point = int(np.where(sizes[nearest] > 1, far, -np.inf).argmax())
        sizes[nearest[point]] -= 1
        sizes[empty] = 1
        nearest[point] = empty
    return nearest
