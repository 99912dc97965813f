"""What requests show of their family and phase: imbalance, correlations, classification."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeopt.characteristics import correlation, loads_of
from moeopt.control import null
from moeopt.openings import OPENING, Openings
from moeopt.trace import DECODE, PREFILL, Trace

__all__ = ["Classification", "Imbalance", "RequestProfile", "classify", "request_profile"]

PHASES = {"prefill": PREFILL, "decode": DECODE}


@dataclass(frozen=True)
class Imbalance:
    """max_e n_e E / (k T): load of the busiest expert over the mean, of one layer, family and phase."""

    layer: int
    family: str
    phase: str
    factor: float


@dataclass(frozen=True)
class RequestProfile:
    """Families and phases compared, layer by layer. What has no tokens has no entry, what is constant None.

    | field | holds |
    |---|---|
    | layers | absolute indices |
    | imbalance | a row for each layer, family and phase |
    | family_correlation | by phase and pair "a ~ b": Pearson correlation of expert loads, one number a layer |
    | phase_correlation | by family: Pearson correlation of loads in prefill and decode; None for one phase |

    Source: arXiv 2604.23150, section 3 (imbalance factor, figures 3 to 5). It does not say whether layers are joined or
    averaged, nor whether requests are: here requests of a family are pooled and layers kept apart.
    """

    layers: tuple[int, ...]
    imbalance: tuple[Imbalance, ...]
    family_correlation: dict[str, dict[str, tuple[float | None, ...]]]
    phase_correlation: dict[str, tuple[float | None, ...] | None]

    def worst_imbalance(self, *, phase: str) -> dict[str, float]:
        """By family: the largest factor of any layer (figure 3)."""
        worst: dict[str, float] = {}
        for row in self.imbalance:
            if row.phase == phase:
                worst[row.family] = max(row.factor, worst.get(row.family, 0.0))
        return worst

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def request_profile(trace: Trace) -> RequestProfile:
    """Loads of every family in every phase, compared."""
    loads = {
        (name, phase): found
        for index, name in enumerate(trace.families)
        for phase, number in PHASES.items()
        if (found := loads_of(trace, (trace.family == index) & (trace.phase == number))) is not None
    }
    layers = tuple(int(layer) for layer in trace.layer_ids)
    rows = [
        Imbalance(layer, family, phase, float(found[at].max() / found[at].mean()))
        for at, layer in enumerate(layers)
        for (family, phase), found in loads.items()
    ]
    present = [name for name in trace.families if any((name, phase) in loads for phase in PHASES)]
    between = {
        phase: {
            f"{a} ~ {b}": _by_layer(loads[a, phase], loads[b, phase])
            for a, b in combinations([name for name in present if (name, phase) in loads], 2)
        }
        for phase in PHASES
        if any((name, phase) in loads for name in present)
    }
    across = {
        name: _by_layer(loads[name, "prefill"], loads[name, "decode"])
        if all((name, phase) in loads for phase in PHASES)
        else None
        for name in present
    }
    return RequestProfile(layers, tuple(rows), between, across)


@dataclass(frozen=True)
class Classification:
    """How well the first activations of a request tell its family.

    | field | holds |
    |---|---|
    | layers | absolute indices |
    | accuracy | of every layer, on the held-out requests |
    | majority | accuracy of always naming the family with most held-out requests |
    | families, left_out | classified; with too few requests to be on both sides |
    | learned, held_out | requests on either side |
    | decided_by | in words: the prefill, or an opening that stands for it |
    """

    layers: tuple[int, ...]
    accuracy: tuple[float, ...]
    majority: float
    families: tuple[str, ...]
    left_out: tuple[str, ...]
    learned: int
    held_out: int
    decided_by: str

    @property
    def mean(self) -> float:
        """Of the accuracy, over layers."""
        return float(np.mean(self.accuracy))

    @property
    def spread(self) -> float:
        """Standard deviation of the accuracy, over layers."""
        return float(np.std(self.accuracy))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, with mean and spread."""
        return {**asdict(self), "mean": self.mean, "spread": self.spread}


@dataclass(frozen=True)
class Classifications:
    """`recorded`: of the traffic; `shuffled`: of `moeopt.control.null`, which keeps lengths only."""

    recorded: Classification
    shuffled: Classification


def classify(trace: Trace, *, seed: int, held_out: float = 0.2, opening: float = OPENING) -> Classification:
    """Family of a request by multinomial logistic regression on the raw counts of its prefill, layer by layer.

    Of every family about `held_out` of the requests, at least one, are held out. The family of a request is that of
    its first token. `opening`: see `moeopt.openings.Openings`. Source: arXiv 2604.23150, section 5.1, which has as many
    requests of every type; here families are as large as recorded, see `majority`. Raw counts also tell how long a
    request is: compare with `moeopt.control.null`, which leaves nothing else to see.

    Raises ValueError for fewer than two families of two requests each, ImportError without scikit-learn (extra
    `profiles`).
    """
    from moeopt.logistic import regression

    if not 0 < held_out < 1:
        raise ValueError(f"held-out fraction must lie between 0 and 1, found {held_out}")
    parts = Openings.of(trace, share=opening)
    _, begin = np.unique(trace.request, return_index=True)
    label = trace.family[begin]
    sizes = np.bincount(label, minlength=len(trace.families))
    used = np.flatnonzero(sizes >= 2)
    if len(used) < 2:
        found = dict(zip(trace.families, sizes.tolist(), strict=True))
        raise ValueError(f"a classification needs two families of two requests each, found requests {found}")
    rng = np.random.default_rng(seed)
    aside = np.zeros(len(label), bool)
    for family in used:
        count = min(max(1, round(held_out * sizes[family])), sizes[family] - 1)
        aside[rng.permutation(np.flatnonzero(label == family))[:count]] = True
    kept = np.isin(label, used) & ~aside
    accuracy = []
    for layer in range(trace.n_layers):
        model = regression(parts.first[kept, layer], label[kept])
        named = model.predict(parts.first[aside, layer].astype(float))
        accuracy.append(float((named == label[aside]).mean()))
    return Classification(
        layers=tuple(int(layer) for layer in trace.layer_ids),
        accuracy=tuple(accuracy),
        majority=float(np.bincount(label[aside]).max() / aside.sum()),
        families=tuple(trace.families[family] for family in used),
        left_out=tuple(trace.families[family] for family in np.flatnonzero(sizes < 2)),
        learned=int(kept.sum()),
        held_out=int(aside.sum()),
        decided_by=parts.decided_by,
    )


def _by_layer(first: NDArray[np.int64], second: NDArray[np.int64]) -> tuple[float | None, ...]:
    """Pearson correlation of loads [layers, experts], layer by layer; None where one is constant."""
    found = (correlation(a, b) for a, b in zip(first, second, strict=True))
    return tuple(None if np.isnan(value) else value for value in found)


def classify_against_null(trace: Trace, *, seed: int) -> Classifications:
    """`classify` of the trace and of the trace without co-activation, families and phases; errors as of `classify`."""
    return Classifications(classify(trace, seed=seed), classify(null(trace, seed=seed), seed=seed))
