"""How much more often experts meet than independent choice would have them meet."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Association", "Link", "associated", "chosen_together"]

ROUNDS = 200  # of fitting; 20 are enough where no expert is in nearly every token
LINKS = 5  # listed
CLOSE = 1e-9  # of an inclusion probability
LEAST = 5  # tokens of a link that is listed: below, a ratio says nothing


@dataclass(frozen=True)
class Link:
    """Two experts that meet: of one layer, or of a layer and the next.

    | field | holds |
    |---|---|
    | first, second | expert ids |
    | tokens | that chose both |
    | expected | tokens that would, by independent choice |
    | lift | tokens over expected |
    """

    first: int
    second: int
    tokens: int
    expected: float
    lift: float


@dataclass(frozen=True)
class Association:
    """Pairs of experts counted, against independent choice with the same loads.

    | field | holds |
    |---|---|
    | excess | share of the pairs that lie elsewhere than by independent choice; at least, where pairs are unrecorded |
    | noise | the excess that independent choice itself shows in so many tokens, at most about |
    | top_share | share of the pairs in the 1 % of cells that exceed their expectation most |
    | top_lift | their mass over the expected one; None where nothing is expected |
    | links | those of most tokens beyond expectation, see `Link` |
    """

    excess: float
    noise: float
    top_share: float
    top_lift: float | None
    links: tuple[Link, ...]


def associated(observed: NDArray[np.int64], expected: NDArray[np.float64]) -> Association | None:
    """Both [experts, experts]: pairs i < j of one layer (lower triangle 0), or experts of a layer and the next.

    None where no pair is counted.
    """
    total = float(expected.sum())
    if not total > 0 or not observed.any():
        return None
    beyond = observed - expected
    order = np.argsort(-beyond, axis=None, kind="stable")
    pairs = max(1, round(np.count_nonzero(expected) / 100))
    top = order[:pairs]
    mass, foreseen = int(observed.ravel()[top].sum()), float(expected.ravel()[top].sum())
    links = []
    for cell in order[:LINKS].tolist():
        i, j = divmod(cell, observed.shape[1])
        if beyond[i, j] > 0 and observed[i, j] >= LEAST and expected[i, j] > 0:
            ratio = float(observed[i, j] / expected[i, j])
            links.append(Link(i, j, int(observed[i, j]), float(expected[i, j]), ratio))
    return Association(
        excess=min(1.0, float(np.maximum(beyond, 0).sum()) / total),
        noise=min(1.0, float(np.minimum(np.sqrt(2 * expected / np.pi), 2 * expected).sum()) / 2 / total),
        top_share=min(1.0, mass / total),
        top_lift=mass / foreseen if foreseen > 0 else None,
        links=tuple(links),
    )


def chosen_together(load: NDArray[np.int64], *, top_k: int) -> NDArray[np.float64]:
    """float [experts, experts]: tokens expected to choose both i and j, i < j; 0 elsewhere.

    `load` int [experts] of sum(load) / k tokens. Each token chooses k distinct experts, such that experts have these
    loads and nothing else is known: the choice of most entropy. Sums over the partners of an expert are k - 1 times its
    load, as they are in any recording. Source: X.-H. Chen, A. P. Dempster, J. S. Liu, Weighted finite population
    sampling to maximize entropy, Biometrika 81 (1994): its fixed point for the weights, its recursion over k.
    """
    experts = len(load)
    if top_k < 2 or not load.any():
        return np.zeros((experts, experts))
    tokens = load.sum() / top_k
    target = load / tokens
    weights = target / target.sum()
    for _ in range(ROUNDS):
        chance = _chances(weights, top_k)[0][-1]
        if np.abs(chance - target).max() < CLOSE:
            break
        weights = weights * np.divide(target, chance, out=np.zeros_like(chance), where=chance > 0)
        weights /= weights.sum()
    chances, ratios = _chances(weights, top_k)
    both = np.zeros((experts, experts))
    product = np.multiply.outer(weights, weights)
    for size in range(2 + top_k % 2, top_k + 1, 2):
        single = chances[size - 2]
        both = product / (ratios[size] * ratios[size - 1]) * (1 - single[:, None] - single + both)
        np.fill_diagonal(both, 0.0)
    return np.asarray(np.triu(np.maximum(both, 0.0), 1) * tokens)


def _chances(weights: NDArray[np.float64], top_k: int) -> tuple[list[NDArray[np.float64]], list[float]]:
    """(float [experts]: chance of each expert in samples of 0 to k experts, e_m / e_(m-1) of the weights for those m).

    e_m is the elementary symmetric polynomial: P(m)_i = w_i (1 - P(m-1)_i) e_(m-1) / e_m, and they sum to m.
    """
    chances, ratios = [np.zeros_like(weights)], [1.0]
    for size in range(1, top_k + 1):
        free = weights * np.maximum(1 - chances[-1], 0.0)
        ratio = float(free.sum()) / size
        chances.append(free / ratio if ratio > 0 else np.zeros_like(weights))
        ratios.append(ratio if ratio > 0 else 1.0)
    return chances, ratios
