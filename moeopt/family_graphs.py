"""What each task family does with the experts of a layer: usage, co-activation, and which experts it prefers."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from moeopt.problem import Problem

__all__ = ["NORMALISERS", "POOLINGS", "FamilyGraphs"]

NORMALISERS = ("frequency", "cosine", "lift", "uniform")
POOLINGS = ("families", "objective")
_LEAST = 1e-12  # added to a standard deviation before dividing by it


@dataclass(frozen=True, eq=False)
class FamilyGraphs:
    """Usage and co-activation of one layer by family: u and A of arXiv 2606.01007, TACG.

    | field | holds |
    |---|---|
    | usage | float [families, experts]: share of the family's tokens that choose the expert |
    | affinity | float [families, experts, experts]: A_f, normalised, diagonal 0 |
    | pooled | float [experts, experts]: their mean |

    Families without tokens are left out. Normalised by "frequency", A_f(i, j) is the share of the family's tokens that
    choose both: then every row sums to (k - 1) times the usage, and degrees say nothing that usage does not. "cosine"
    divides by the square root of usage(i) usage(j), "lift" by usage(i) usage(j); both are our readings of a source that
    names no other. "uniform" is 1 for every pair, whatever tokens choose: the published ablation without co-activation,
    where usage alone makes the preferences.
    """

    usage: NDArray[np.float64]
    affinity: NDArray[np.float64]
    pooled: NDArray[np.float64]

    @classmethod
    def of(cls, problem: Problem, *, normaliser: str = "frequency", pooling: str = "families") -> Self:
        """Those of a problem of one layer.

        `pooling` "families": the mean over the families, each counting the same, as published; "objective": each
        counting as its tokens do in the objective, or the same where none of them counts. Raises ValueError for other
        names.
        """
        for name, found, allowed in (
            ("normaliser", normaliser, NORMALISERS),
            ("pooling", pooling, POOLINGS),
        ):
            if found not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, found {found!r:.60}")
        (sets,) = problem.workload.layers
        tokens = problem.workload.tokens
        families = np.flatnonzero(tokens)
        counts = sets.counts[:, families].T
        usage = np.stack([sets.weighted_load(own) for own in counts]) / tokens[families, None]
        affinity = np.stack([sets.affinity(own) for own in counts]) / tokens[families, None, None]
        if normaliser == "uniform":
            affinity = np.broadcast_to(1.0 - np.eye(sets.n_experts), affinity.shape)
        elif normaliser != "frequency":
            scale = usage[:, :, None] * usage[:, None, :]
            scale = np.sqrt(scale) if normaliser == "cosine" else scale
            affinity = np.divide(affinity, scale, out=np.zeros_like(affinity), where=scale > 0)
        weights = np.ones(len(families))
        if pooling == "objective":
            counted = tokens[families] * problem.multipliers[families].astype(float)
            weights = counted if counted.any() else weights
        return cls(usage, affinity, np.average(affinity, axis=0, weights=weights))

    def preferences(self, *, tau: float) -> NDArray[np.float64]:
        """float [families, experts]: share of each family in an expert, a softmax over the families with scale `tau`.

        The score is z(du) + z(dc): usage and degree of the family less the mean of the other families, each in
        standard deviations over the experts. One family has all of every expert.
        """
        degree = self.affinity.sum(axis=2)
        score = (_standardised(_advantage(self.usage)) + _standardised(_advantage(degree))) / tau
        share = np.exp(score - score.max(axis=0))
        return np.asarray(share / share.sum(axis=0))


def _advantage(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """float [families, experts]: a family's value less the mean of the other families; 0 for a single one."""
    families = len(values)
    if families == 1:
        return np.zeros_like(values)
    return np.asarray(values - (values.sum(axis=0) - values) / (families - 1))


def _standardised(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each row in standard deviations from its mean."""
    spread = values - values.mean(axis=1, keepdims=True)
    return np.asarray(spread / (spread.std(axis=1, keepdims=True) + _LEAST))
