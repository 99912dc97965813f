"""Groups of experts by affinity: grown from seeds, improved by exchanges, brought to given sizes."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["affinity_inside", "exchanged", "fitted", "grown"]


def affinity_inside(affinity: NDArray[np.int64], gpu_of: NDArray[np.int64]) -> int:
    """Affinity of all pairs [experts, experts], symmetric with a zero diagonal, that share a GPU."""
    return int((affinity * (gpu_of[:, None] == gpu_of)).sum()) // 2


def grown(affinity: NDArray[np.int64], sizes: NDArray[np.int64], *, pairs: bool = False) -> NDArray[np.int64]:
    """int64 [experts]: one group after the other, each by the free expert of largest affinity to it.

    `sizes` int64 [gpus] sum to the experts. A group is opened by the free expert of largest degree, the sum of its
    affinities to all experts; with `pairs`, by the free pair of largest affinity where it holds two. Ties go to the
    lowest id.
    """
    degree = affinity.sum(axis=1)
    gpu_of = np.full(len(affinity), -1)
    free = np.ones(len(affinity), bool)
    for gpu, size in enumerate(sizes):
        toward = np.zeros(len(affinity), np.int64)
        for step in range(int(size)):
            score = toward if step else degree
            if pairs and not step and size > 1:
                score = np.where(free, affinity, -1).max(
                    axis=1
                )  # of the best free pair: its lower id comes first
            chosen = int(np.where(free, score, -1).argmax())
            gpu_of[chosen], free[chosen] = gpu, False
            toward = toward + affinity[chosen]
    return gpu_of


def exchanged(affinity: NDArray[np.int64], gpu_of: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64 [experts]: the swap of two experts that adds most affinity inside groups, while one adds any."""
    gpu_of = gpu_of.copy()
    experts = np.arange(len(gpu_of))
    toward = np.zeros((len(gpu_of), int(gpu_of.max(initial=0)) + 1), np.int64)  # of each expert to each group
    np.add.at(toward.T, gpu_of, affinity)
    while True:
        kept = toward[experts, gpu_of]
        reached = toward[:, gpu_of]  # [e, f]: of e to the group of f
        gain = reached + reached.T - kept[:, None] - kept - 2 * affinity
        gain[gpu_of[:, None] == gpu_of] = 0
        e, f = divmod(int(gain.argmax()), len(gain))
        if gain[e, f] <= 0:
            return gpu_of
        change = affinity[:, f] - affinity[:, e]
        toward[:, gpu_of[e]] += change
        toward[:, gpu_of[f]] -= change
        gpu_of[e], gpu_of[f] = gpu_of[f], gpu_of[e]


def fitted(
    affinity: NDArray[np.int64],
    group_of: NDArray[np.int64],
    *,
    least: NDArray[np.int64],
    most: NDArray[np.int64],
) -> NDArray[np.int64]:
    """int64 [experts]: the groups with between `least` and `most` int64 [groups] experts, few of them moved.

    Groups above `most` give up their members of least affinity inside, which join, largest affinity first, groups
    below `most`, as do experts of group -1; groups below `least` then take from those above it the experts that lose
    least affinity.
    Raises ValueError where the sizes cannot be kept.
    """
    if (least > most).any() or not least.sum() <= len(group_of) <= most.sum():
        raise ValueError(
            f"{len(group_of)} experts do not fill groups of {least.tolist()} to {most.tolist()} experts"
        )
    group_of = group_of.copy()
    for group, limit in enumerate(most.tolist()):
        while (members := np.flatnonzero(group_of == group)).size > limit:
            inside = affinity[np.ix_(members, members)].sum(axis=1)
            group_of[members[inside.argmin()]] = -1
    while (pool := np.flatnonzero(group_of < 0)).size:
        toward, sizes = _toward(affinity, group_of, groups=len(most))
        score = np.where(sizes < most, toward[pool], -1)
        row, chosen = divmod(int(score.argmax()), len(most))
        group_of[pool[row]] = chosen
    while True:
        toward, sizes = _toward(affinity, group_of, groups=len(most))
        if not (sizes < least).any():
            return group_of
        taker = int((least - sizes).argmax())
        givers = np.flatnonzero((sizes > least)[group_of])
        loss = toward[givers, group_of[givers]] - toward[givers, taker]
        group_of[givers[loss.argmin()]] = taker


def _toward(
    affinity: NDArray[np.int64], group_of: NDArray[np.int64], *, groups: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(int64 [experts, groups]: affinity of each expert to each group, int64 [groups]: sizes); -1 is in none."""
    inside = (group_of[:, None] == np.arange(groups)).astype(np.int64)
    return affinity @ inside, inside.sum(axis=0)
