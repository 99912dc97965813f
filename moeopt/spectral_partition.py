"""Groups of exact sizes by the eigenvectors of a graph: Laplacian, k-means, repair."""

import numpy as np
from numpy.typing import NDArray

from moeopt.kmeans import clusters

__all__ = ["embedded", "repaired", "spectral_groups"]


def spectral_groups(
    graph: NDArray[np.float64],
    *,
    sizes: NDArray[np.int64],
    rng: np.random.Generator,
    jitter: float = 1e-6,
    seeds: int = 10,
    unit_rows: bool = False,
) -> NDArray[np.int64]:
    """int64 [experts]: group of each expert, group g of sizes[g] experts, heavy edges inside.

    `graph` float [experts, experts], non-negative weights; `sizes` int64 [groups], summing to the experts. As many
    eigenvectors and clusters as there are sizes above 0; the largest cluster is given the largest size, and groups of
    one size are numbered by their lowest expert. The partition of arXiv 2606.01007, TACG: `embedded`, rows scaled to
    length 1 if `unit_rows`, k-means with `seeds` seedings, `repaired`. Raises ValueError for sizes that do not sum to
    the experts.
    """
    experts, used = len(graph), np.flatnonzero(sizes)
    if sizes.sum() != experts:
        raise ValueError(f"sizes must sum to the {experts} experts, found {int(sizes.sum())}")
    points = embedded(graph, dimensions=len(used), jitter=jitter)
    if unit_rows:
        length = np.linalg.norm(points, axis=1, keepdims=True)
        points = np.divide(points, length, out=np.zeros_like(points), where=length > 0)
    cluster, _ = clusters(points, k=len(used), rng=rng, restarts=seeds)
    held = np.bincount(cluster, minlength=len(used))
    group_of = np.empty(len(used), np.int64)
    group_of[np.argsort(-held, kind="stable")] = used[np.argsort(-sizes[used], kind="stable")]
    return _numbered(repaired(group_of[cluster], graph, sizes=sizes), sizes)


def embedded(graph: NDArray[np.float64], *, dimensions: int, jitter: float = 1e-6) -> NDArray[np.float64]:
    """float [experts, dimensions]: eigenvectors of the least eigenvalues of the normalised Laplacian.

    I - D^(-1/2) W D^(-1/2), W the graph made symmetric, scaled to a largest weight of 1, `jitter` on its diagonal. The
    jitter makes an expert without edges a component of its own; without it such an expert has no degree, and keeps the
    eigenvalue 1.
    """
    from scipy.linalg import eigh

    weights = (graph + graph.T) / 2
    weights = weights / (weights.max() or 1.0) + jitter * np.eye(len(graph))
    degree = weights.sum(axis=1)
    root = np.divide(1.0, np.sqrt(degree), out=np.zeros_like(degree), where=degree > 0)
    laplacian = np.eye(len(graph)) - root[:, None] * weights * root
    vectors: NDArray[np.float64] = eigh(laplacian, subset_by_index=(0, dimensions - 1))[1]
    return vectors


def repaired(
    labels: NDArray[np.int64], graph: NDArray[np.float64], *, sizes: NDArray[np.int64]
) -> NDArray[np.int64]:
    """int64 [experts]: the labels changed so that group g has exactly sizes[g] experts.

    An overfull group keeps the experts with the largest weight to the others of the group, the rest are pooled. Then,
    one at a time, the pooled expert and the group with room that have the largest weight to each other are joined; the
    source names no order among the pooled experts. Ties go to the lower id. Every expert finds room, since the sizes
    sum to the experts: the published exchange of mismatched experts that follows has nothing to do.
    """
    weights = (graph + graph.T) / 2
    group = labels.astype(np.int64).copy()
    for overfull in np.flatnonzero(np.bincount(labels, minlength=len(sizes)) > sizes):
        own = np.flatnonzero(labels == overfull)
        inside = weights[np.ix_(own, own)].sum(axis=1) - weights[own, own]
        group[own[np.argsort(-inside, kind="stable")][sizes[overfull] :]] = -1
    pool = np.flatnonzero(group < 0)
    placed = (group[:, None] == np.arange(len(sizes))).astype(float)
    gain = weights[pool] @ placed  # [pooled, groups]
    while (group < 0).any():
        gain[:, placed.sum(axis=0) >= sizes] = -np.inf
        row, found = np.unravel_index(gain.argmax(), gain.shape)
        group[pool[row]] = found
        placed[pool[row], found] = 1
        gain[:, found] += weights[pool, pool[row]]
        gain[row] = -np.inf
    return group


def _numbered(group: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Groups of one size in the order of their lowest experts: no GPU gets the hot group of every layer."""
    first = np.full(len(sizes), len(group))
    np.minimum.at(first, group, np.arange(len(group)))
    number = np.arange(len(sizes))
    for size in np.unique(sizes):
        alike = np.flatnonzero(sizes == size)
        number[alike[np.argsort(first[alike], kind="stable")]] = alike
    return number[group]
