"""What traffic looks like: loads, families, phases, co-activation, the way from layer to layer, drift."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from moeopt.profile_null import Association

if TYPE_CHECKING:
    from moeopt.profile_counts import Traffic
    from moeopt.request_profiles import Classifications
    from moeopt.trace import Trace

__all__ = ["Drift", "LayerProfile", "Profile", "correlation", "loads_of", "profile"]

WINDOWS = 10
Matrix = tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True)
class LayerProfile:
    """One layer; None for what the recording does not tell, see `Profile.missing`. r: Pearson correlation of loads.

    | field | holds |
    |---|---|
    | layer | absolute index |
    | max_over_mean | load of the busiest expert over the mean (imbalance factor); MaxVio is this less 1 |
    | variation | standard deviation of the loads over their mean (CV) |
    | gini | Gini coefficient of the loads: 0 even |
    | entropy | of the loads, over that of even ones: 1 even |
    | idle | experts never chosen |
    | distinct_sets | distinct expert sets; None without sets |
    | distinct_share | distinct sets over tokens |
    | common_share | share of the tokens that have one of the 10 commonest sets |
    | family_correlation | mean r between pairs of families; None for one family |
    | matrix | as `Profile.matrix`; None beyond 32 families |
    | halves | r of two halves of all requests, every other one by id: the yardstick of phases; None without tokens |
    | phase_correlation | r of prefill and decode; None for one phase |
    | phase_by_family | by family: the same of its tokens; None for one phase |
    | everywhere | experts in the busiest quarter of every family; None for one family |
    | somewhere | experts in the busiest quarter of one family alone |
    | generality | of each expert: share of families of which it is in the busiest quarter |
    | coactivation | pairs of a token, see `Association` |
    | flow | experts of this layer and the next that is profiled, see `Association`; None of the last layer |
    | drift | mean r of a window and the next |
    """

    layer: int
    max_over_mean: float
    variation: float
    gini: float
    entropy: float
    idle: int
    distinct_sets: int | None
    distinct_share: float | None
    common_share: float | None
    family_correlation: float | None
    matrix: Matrix | None
    halves: float | None
    phase_correlation: float | None
    phase_by_family: dict[str, float | None] | None
    everywhere: int | None
    somewhere: int | None
    generality: tuple[float, ...] | None
    coactivation: Association | None
    flow: Association | None
    drift: float | None


@dataclass(frozen=True)
class Drift:
    """Loads over time: consecutive windows of equally many tokens, in the order recorded; means over layers.

    | field | holds |
    |---|---|
    | windows | of them |
    | consecutive | r of a window and the next, windows - 1 numbers |
    | first | r of the first window and each later one |
    | steady | the same when each window gets every so many-th request: the yardstick; None for few requests |
    """

    windows: int
    consecutive: tuple[float | None, ...]
    first: tuple[float | None, ...]
    steady: float | None


@dataclass(frozen=True)
class Profile:
    """Traffic in numbers; None for what the recording does not tell.

    | field | holds |
    |---|---|
    | model, tokens, n_experts | shape |
    | top_k | experts that a token chooses; None where the recording does not tell |
    | requests | of them |
    | families | tokens by family |
    | family_requests | requests by family |
    | phases | tokens by phase |
    | similarity | by pair of families "a ~ b": r of loads, mean over layers |
    | compared | families that have tokens: rows and columns of `matrix` |
    | matrix | r between families, mean over layers; on the diagonal between the halves of the requests of one family |
    | imbalance | by phase and family: the largest max_over_mean of any layer; by family under "all" without phases |
    | recorded_pairs | share of the pairs of experts chosen together that the recording knows |
    | sampled | tokens that sets and pairs are of, where they are a sample of all |
    | layers | see `LayerProfile` |
    | drift | see `Drift` |
    | classification | how well the first activations of a request tell its family; None unless asked for |
    | missing | by topic: why the recording does not tell it |

    Source: arXiv 2604.23150, section 3, figures 3 to 5; Gini, null models, halves and drift are ours.
    """

    model: str
    tokens: int
    requests: int | None
    n_experts: int
    top_k: int | None
    families: dict[str, int]
    family_requests: dict[str, int] | None
    phases: dict[str, int] | None
    similarity: dict[str, float]
    compared: tuple[str, ...]
    matrix: Matrix | None
    imbalance: dict[str, dict[str, float]]
    recorded_pairs: float
    sampled: int | None
    layers: tuple[LayerProfile, ...]
    drift: Drift | None
    classification: Classifications | None
    missing: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, the fields as documented; every float is finite."""
        return asdict(self)

    def mean(self, name: str) -> float | None:
        """Of a field of the layers, where it is known; of an association its excess."""
        values = [getattr(layer, name) for layer in self.layers]
        found = [one.excess if isinstance(one, Association) else one for one in values if one is not None]
        return float(np.mean(found)) if found else None

    @property
    def within(self) -> float | None:
        """Mean of the diagonal of `matrix`: how alike two halves of one family are."""
        found = [row[at] for at, row in enumerate(self.matrix or ()) if row[at] is not None]
        return float(np.mean(np.array(found, float))) if found else None


def profile(traffic: Traffic, *, windows: int = WINDOWS, classify: bool = False) -> Profile:
    """Loads, families, phases, pairs and drift of every layer, of a trace, a workload or streamed traffic.

    A layer is in memory at a time. Requests of a family are pooled and layers kept apart: the source does not say how
    it does. At most so many `windows`, fewer where a mean expert would have less than 16 activations in each.
    `classify`: also how well a regression tells families apart, see `moeopt.request_profiles.classify`, seed 0. Raises
    ValueError for traffic without activations, fewer than 2 windows, and for what `classify` refuses or is no trace.
    """
    from moeopt.profile_layers import profiled_traffic

    if windows < 2:
        raise ValueError(f"drift is between windows, at least 2, found {windows}")
    return profiled_traffic(traffic, windows=windows, classify=classify)


def correlation(first: NDArray[np.int64], second: NDArray[np.int64]) -> float:
    """Pearson correlation; NaN when a vector is constant."""
    a, b = first - first.mean(), second - second.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale else float("nan")


def loads_of(trace: Trace, chosen: NDArray[np.bool_]) -> NDArray[np.int64] | None:
    """int64 [layers, experts]: loads by the tokens `chosen` bool [tokens]; None when there are none."""
    if not chosen.any():
        return None
    experts = trace.experts[chosen]
    return np.stack(
        [np.bincount(experts[:, layer].ravel(), minlength=trace.n_experts) for layer in range(trace.n_layers)]
    )
