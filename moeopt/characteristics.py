"""What a trace looks like: loads, families, phases."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeopt.trace import DECODE, PREFILL, Trace


@dataclass(frozen=True)
class LayerProfile:
    """One layer.

    | field | holds |
    |---|---|
    | layer | absolute index |
    | max_over_mean | load of the busiest expert over the mean (imbalance factor) |
    | idle | experts never chosen |
    | distinct_sets | distinct expert sets |
    | family_correlation | mean Pearson correlation of expert loads between pairs of families; None for one family |
    | phase_correlation | Pearson correlation of expert loads in prefill and decode; None for one phase |
    """

    layer: int
    max_over_mean: float
    idle: int
    distinct_sets: int
    family_correlation: float | None
    phase_correlation: float | None


@dataclass(frozen=True)
class Profile:
    """A trace in numbers.

    | field | holds |
    |---|---|
    | model, tokens, requests, n_experts, top_k | shape |
    | families | tokens by family |
    | phases | tokens by phase |
    | similarity | by pair of families "a ~ b": Pearson correlation of expert loads, mean over layers |
    | layers | see LayerProfile |
    """

    model: str
    tokens: int
    requests: int
    n_experts: int
    top_k: int
    families: dict[str, int]
    phases: dict[str, int]
    similarity: dict[str, float]
    layers: tuple[LayerProfile, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def profile(trace: Trace) -> Profile:
    """Loads, families and phases of every layer (the characterisation of arXiv 2604.23150, section 3)."""
    from moeopt.workload import Workload

    workload = Workload.from_trace(trace)
    by_phase = [loads_of(trace, trace.phase == phase) for phase in (PREFILL, DECODE)]
    present = [i for i, tokens in enumerate(workload.tokens) if tokens]
    pairs = [(a, b) for i, a in enumerate(present) for b in present[i + 1 :]]
    correlations = np.full((len(workload.layers), len(pairs)), np.nan)
    layers = []
    for index, sets in enumerate(workload.layers):
        families = [sets.weighted_load(sets.counts[:, family]) for family in range(len(workload.families))]
        for column, (a, b) in enumerate(pairs):
            correlations[index, column] = correlation(families[a], families[b])
        both = all(loads is not None for loads in by_phase)
        layers.append(
            LayerProfile(
                layer=workload.layer_ids[index],
                max_over_mean=float(sets.load.max() / sets.load.mean()),
                idle=int((sets.load == 0).sum()),
                distinct_sets=len(sets),
                family_correlation=_mean(correlations[index]),
                phase_correlation=_mean(
                    np.array([correlation(by_phase[0][index], by_phase[1][index])])  # type: ignore[index]
                )
                if both
                else None,
            )
        )
    similarity = {
        f"{workload.families[a]} ~ {workload.families[b]}": mean
        for column, (a, b) in enumerate(pairs)
        if (mean := _mean(correlations[:, column])) is not None
    }
    phases = np.bincount(trace.phase, minlength=2)
    return Profile(
        model=trace.model,
        tokens=trace.n_tokens,
        requests=len(np.unique(trace.request)),
        n_experts=trace.n_experts,
        top_k=trace.top_k,
        families=dict(zip(workload.families, workload.tokens.tolist(), strict=True)),
        phases={"prefill": int(phases[PREFILL]), "decode": int(phases[DECODE])},
        similarity=similarity,
        layers=tuple(layers),
    )


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


def _mean(values: NDArray[np.float64]) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None
