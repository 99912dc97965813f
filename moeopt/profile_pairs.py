"""Co-activation of chosen layers as pictures: experts in the order of their GPUs, or of groups that fit together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from moeopt.profile_counts import MOST_PAIRED, Traffic, sets_of
from moeopt.profile_figures import LEVELS, SMALLEST
from moeopt.profile_null import LEAST, chosen_together

if TYPE_CHECKING:
    from moeopt.characteristics import Profile
    from moeopt.expert_sets import ExpertSets
    from moeopt.placement import Placement

__all__ = ["PairPicture", "chosen_layers", "pair_picture"]

GROUPS = 8  # of the spectral order
QUANTILE = 0.99  # of the ratios: where the shades end


@dataclass(frozen=True, eq=False)
class PairPicture:
    """Pairs of one layer, observed over expected.

    | field | holds |
    |---|---|
    | layer | absolute index |
    | levels | int64 [cells, cells]: shade, 0 where experts meet no more often than by independent choice |
    | edges | cells where another group begins |
    | groups | of experts |
    | darkest | the ratio from which a cell is darkest |
    | block | experts of a cell's side |
    | inside | share of the pairs with both experts in one group; of the recorded ones, where not all are |
    | expected | the same by independent choice |
    """

    layer: int
    levels: NDArray[np.int64]
    edges: tuple[int, ...]
    groups: int
    darkest: float
    block: int
    inside: float
    expected: float


def chosen_layers(profile: Profile, *, most: int = 3) -> tuple[int, ...]:
    """Positions of the layers with the least, median and largest excess of pairs; fewer where there are fewer."""
    found = [
        (layer.coactivation.excess, at)
        for at, layer in enumerate(profile.layers)
        if layer.coactivation is not None
    ]
    order = [at for _, at in sorted(found)]
    ends = {round(step * (len(order) - 1) / max(most - 1, 1)) for step in range(most)} if order else set()
    return tuple(order[end] for end in sorted(ends))


def pair_picture(traffic: Traffic, index: int, *, placement: Placement | None = None) -> PairPicture | None:
    """Of a layer by position; None without pairs. Groups: the GPUs of the placement's first copies, or else spectral.

    Raises ValueError for a placement of other experts, or without the layer.
    """
    sets, layer = sets_of(traffic, index), int(traffic.layer_ids[index])
    if not sets.paired or sets.top_k == 1 or sets.n_experts > MOST_PAIRED:
        return None
    affinity = sets.affinity(sets.counts.sum(axis=1))
    upper = chosen_together(sets.load, top_k=sets.top_k)
    if not affinity.any() or not upper.any():
        return None
    expected = upper + upper.T
    group = _spectral(affinity, sets) if placement is None else _of_gpus(placement, layer, sets.n_experts)
    order = np.argsort(group, kind="stable")
    same = group[:, None] == group
    np.fill_diagonal(same, False)
    partial = int(affinity.sum()) < int(sets.load.sum()) * (sets.top_k - 1)
    known = affinity > 0 if partial else np.ones_like(same)
    block = -(-len(order) // SMALLEST)
    seen, foreseen = (
        _blocks(affinity[np.ix_(order, order)], block),
        _blocks(expected[np.ix_(order, order)], block),
    )
    ratio = np.divide(seen, foreseen, out=np.zeros_like(seen), where=(foreseen > 0) & (seen >= LEAST))
    darkest = max(1.5, float(np.quantile(ratio, QUANTILE)))
    levels = np.clip(np.ceil(LEVELS * (ratio - 1) / (darkest - 1)), 0, LEVELS).astype(np.int64)
    sizes = np.bincount(group)
    edges = np.cumsum(sizes[sizes > 0])[:-1]
    return PairPicture(
        layer,
        levels,
        tuple(dict.fromkeys(np.round(edges / block).astype(int).tolist())),
        int((sizes > 0).sum()),
        darkest,
        block,
        float(affinity[same].sum() / affinity.sum()),
        float(expected[same & known].sum() / expected[known].sum()),
    )


def _spectral(affinity: NDArray[np.int64], sets: ExpertSets) -> NDArray[np.int64]:
    """int64 [experts]: groups of even sizes by the eigenvectors of the pairs, each over the root of both loads."""
    from moeopt.spectral_partition import spectral_groups

    experts = sets.n_experts
    groups = max(1, min(GROUPS, experts // 2))
    root = np.sqrt(np.maximum(sets.load, 1).astype(float))
    sizes = np.bincount(np.arange(experts) * groups // experts, minlength=groups)
    return spectral_groups(affinity / root[:, None] / root, sizes=sizes, rng=np.random.default_rng(0))


def _of_gpus(placement: Placement, layer: int, experts: int) -> NDArray[np.int64]:
    if placement.n_experts != experts:
        raise ValueError(f"the placement has {placement.n_experts} experts a layer, the recording {experts}")
    if layer not in placement.layer_ids:
        raise ValueError(
            f"layer {layer} is not in the placement, whose layers are {list(placement.layer_ids)}"
        )
    return np.asarray(placement.primary[placement.layer_ids.index(layer)], np.int64)


def _blocks(values: NDArray[np.int64] | NDArray[np.float64], block: int) -> NDArray[np.float64]:
    """Sums over squares of `block` rows and columns; the last ones may be cut."""
    starts = np.arange(0, len(values), block)
    return np.asarray(np.add.reduceat(np.add.reduceat(values.astype(float), starts, 0), starts, 1))
