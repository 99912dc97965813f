"""Layers measured one by one, then summed up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from moeopt.characteristics import Drift, LayerProfile, Matrix, Profile
from moeopt.pair_counts import recorded_share
from moeopt.profile_counts import MOST_PAIRED, LayerCounts, Tokens, Traffic, counted, whole_workload
from moeopt.profile_measures import correlations, entropy, generality, gini, known, mean_of, successive
from moeopt.profile_null import Association, associated, chosen_together
from moeopt.streamed import Streamed
from moeopt.trace import DECODE, PREFILL, Trace

if TYPE_CHECKING:
    from moeopt.request_profiles import Classifications

__all__ = ["profiled_traffic"]

MOST_MATRICES = 32  # families up to which every layer has its matrix
COMMON = 10  # sets
PHASES = {"prefill": PREFILL, "decode": DECODE}


def profiled_traffic(traffic: Traffic, *, windows: int, classify: bool) -> Profile:
    """The profile; see `moeopt.characteristics.profile`."""
    trace = traffic if isinstance(traffic, Trace) else None
    if classify and trace is None:
        raise ValueError("requests are classified by their first tokens: a trace is needed, not counts")
    tokens = None if trace is None else Tokens.of(trace, windows=windows)
    sizes = (
        traffic.tokens
        if not isinstance(traffic, Trace)
        else np.bincount(traffic.family, minlength=len(traffic.families))
    )
    study = _Study(traffic.families, np.flatnonzero(sizes), tokens)
    ids = [int(layer) for layer in traffic.layer_ids]
    pairs = zip(ids, counted(traffic, tokens), strict=True)
    layers = tuple(study.measured(layer, counts) for layer, counts in pairs)
    matrix = _layer_mean(study.matrices)
    return Profile(
        model=traffic.model,
        tokens=int(sizes.sum()),
        requests=None if tokens is None else tokens.n_requests,
        n_experts=traffic.n_experts,
        top_k=_top_k(traffic),
        families=dict(zip(traffic.families, sizes.tolist(), strict=True)),
        family_requests=None
        if tokens is None
        else dict(zip(traffic.families, tokens.requests.tolist(), strict=True)),
        phases=None
        if trace is None
        else {name: int((trace.phase == phase).sum()) for name, phase in PHASES.items()},
        similarity=_by_pair(matrix, study.names),
        compared=study.names,
        matrix=None if matrix is None else _cells(matrix),
        imbalance=study.worst,
        recorded_pairs=_pairs_known(traffic),
        sampled=traffic.sample.taken if isinstance(traffic, Streamed) and not traffic.exact else None,
        layers=layers,
        drift=study.drift(),
        classification=_classified(trace) if classify and trace is not None else None,
        missing=study.missing(traffic),
    )


@dataclass
class _Study:
    """One profile in the making: what is told apart, and what layers leave behind for the whole."""

    families: tuple[str, ...]
    present: NDArray[np.int64]
    tokens: Tokens | None
    matrices: list[NDArray[np.float64]] = field(default_factory=list)
    consecutive: list[NDArray[np.float64]] = field(default_factory=list)
    first: list[NDArray[np.float64]] = field(default_factory=list)
    steady: list[NDArray[np.float64]] = field(default_factory=list)
    worst: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.families[family] for family in self.present)

    def measured(self, layer: int, counts: LayerCounts) -> LayerProfile:
        """One layer."""
        load, sets, many = counts.load, counts.sets, len(self.present) > 1
        if not load.any():
            raise ValueError(f"layer {layer}: no expert has any load")
        own = None if counts.families is None else counts.families[self.present]
        matrix = None if own is None else self._matrix(own, counts)
        spread = generality(own) if own is not None and many else None
        weights = np.asarray(sets.counts.sum(axis=1)) if sets.complete else None
        self._weigh(counts)
        phases = self._phases(counts)
        return LayerProfile(
            layer=layer,
            max_over_mean=float(load.max() / load.mean()),
            variation=float(load.std() / load.mean()),
            gini=gini(load),
            entropy=entropy(load),
            idle=int((load == 0).sum()),
            distinct_sets=None if weights is None else len(weights),
            distinct_share=None if weights is None else float(len(weights) / weights.sum()),
            common_share=None if weights is None else float(np.sort(weights)[-COMMON:].sum() / weights.sum()),
            family_correlation=None if matrix is None else mean_of(matrix[np.triu_indices(len(matrix), 1)]),
            matrix=None if matrix is None or len(matrix) > MOST_MATRICES else _cells(matrix),
            halves=None if counts.parts is None else known(successive(counts.parts.sum(axis=(0, 1)))[0]),
            phase_correlation=None if phases is None else known(phases[0]),
            phase_by_family=None
            if phases is None
            else dict(zip(self.names, map(known, phases[1:]), strict=True)),
            everywhere=None if spread is None else int((spread > 1 - 1e-9).sum()),
            somewhere=None if spread is None else int(np.isclose(spread, 1 / len(self.present)).sum()),
            generality=None if spread is None else tuple(spread.tolist()),
            coactivation=_coactivation(counts),
            flow=None if counts.flow is None else _flow(counts.flow),
            drift=self._drift(counts),
        )

    def drift(self) -> Drift | None:
        """Of all layers."""
        if not self.consecutive or self.tokens is None:
            return None
        steady = None if not self.steady else mean_of(np.concatenate(self.steady))
        steps, first = (_layer_mean(found) for found in (self.consecutive, self.first))
        return Drift(self.tokens.n_windows, _row(steps), _row(first), steady)

    def missing(self, traffic: Traffic) -> dict[str, str]:
        """Why fields are None."""
        why: dict[str, str] = {}
        if self.tokens is None:
            why |= dict.fromkeys(("requests", "phases", "flow", "drift"), "needs tokens: a trace, not counts")
        else:
            if len(traffic.layer_ids) == 1:
                why["flow"] = "one layer"
            if not self.tokens.n_windows:
                why["drift"] = "too few tokens for two windows with 16 activations of a mean expert"
            if len(np.unique(self.tokens.part // 2 % 2)) == 1:
                why["phase correlation"] = "one phase"
        if not self.matrices:
            why["families"] = "pair counts tell the loads of all families together only"
        elif len(self.present) == 1:
            why["families"] = "one family"
        workload = None if isinstance(traffic, Trace) else whole_workload(traffic)
        if workload is not None and not workload.complete:
            why["sets"] = "needs expert sets: a trace, not loads or pair counts"
        if _top_k(traffic) == 1:
            why["coactivation"] = "a token chooses one expert"
        elif workload is not None and not workload.paired:
            why["coactivation"] = "needs tokens or pair counts, not loads"
        elif _pairs_known(traffic) < 1:
            why["coactivation"] = (
                f"{_pairs_known(traffic):.1%} of the pairs are recorded: excess is at least so much"
            )
        if traffic.n_experts > MOST_PAIRED:
            why |= dict.fromkeys(("coactivation", "flow"), f"more than {MOST_PAIRED} experts a layer")
        return why

    def _matrix(self, own: NDArray[np.int64], counts: LayerCounts) -> NDArray[np.float64]:
        """float [families, families] of those present; diagonal: the halves of each, NaN where they are not known."""
        matrix = correlations(own)
        np.fill_diagonal(matrix, np.nan)
        if counts.parts is not None:
            for row, halves in enumerate(counts.parts.sum(axis=1)[self.present]):
                matrix[row, row] = successive(halves)[0]
        self.matrices.append(matrix)
        return matrix

    def _phases(self, counts: LayerCounts) -> NDArray[np.float64] | None:
        """float [1 + families present]: prefill with decode, of all tokens, then by family; None for one phase."""
        if counts.parts is None:
            return None
        phases = counts.parts.sum(axis=2)
        if not phases.any(axis=(0, 2)).all():
            return None
        return np.array([successive(one)[0] for one in (phases.sum(axis=0), *phases[self.present])])

    def _weigh(self, counts: LayerCounts) -> None:
        """Keep the largest load over the mean, by phase and family."""
        if counts.families is None:
            return
        by_phase = {"all": counts.families}
        if counts.parts is not None:
            phases = counts.parts.sum(axis=2)
            by_phase = {name: phases[:, number] for name, number in PHASES.items()}
        for phase, loads in by_phase.items():
            for name, load in zip(self.families, loads, strict=True):
                if load.any():
                    own = self.worst.setdefault(phase, {})
                    own[name] = max(own.get(name, 0.0), float(load.max() / load.mean()))

    def _drift(self, counts: LayerCounts) -> float | None:
        if counts.mixed is not None:
            self.steady.append(successive(counts.mixed))
        if counts.windows is None:
            return None
        self.consecutive.append(successive(counts.windows))
        self.first.append(correlations(counts.windows)[0, 1:])
        return mean_of(self.consecutive[-1])


def _coactivation(counts: LayerCounts) -> Association | None:
    """Of all pairs that are recorded; None where none are."""
    sets = counts.sets
    if not sets.paired or sets.top_k == 1 or sets.n_experts > MOST_PAIRED:
        return None
    observed = np.triu(sets.affinity(sets.counts.sum(axis=1)))
    return associated(observed, chosen_together(sets.load, top_k=sets.top_k))


def _flow(observed: NDArray[np.int64]) -> Association | None:
    """Against independent choice: load here x load there over the tokens."""
    here, there = observed.sum(axis=1).astype(float), observed.sum(axis=0)
    return associated(observed, np.multiply.outer(here, there) / max(here.sum(), 1.0))


def _top_k(traffic: Traffic) -> int | None:
    """None for loads of which nobody said it: they count every activation as a token."""
    if isinstance(traffic, Trace) or whole_workload(traffic).paired or traffic.top_k > 1:
        return traffic.top_k
    return None


def _pairs_known(traffic: Traffic) -> float:
    """Share of the pairs of experts chosen together that is recorded; 1 for top-1, where there are none."""
    if isinstance(traffic, Trace) or traffic.top_k == 1:
        return 1.0
    workload = whole_workload(traffic)
    return recorded_share(workload) if workload.paired else 0.0


def _by_pair(matrix: NDArray[np.float64] | None, names: tuple[str, ...]) -> dict[str, float]:
    """r above the diagonal, where it is known."""
    if matrix is None:
        return {}
    pairs = zip(*np.triu_indices(len(names), 1), strict=True)
    return {f"{names[a]} ~ {names[b]}": float(matrix[a, b]) for a, b in pairs if np.isfinite(matrix[a, b])}


def _layer_mean(found: list[NDArray[np.float64]]) -> NDArray[np.float64] | None:
    """Mean of arrays of one shape where they are numbers, NaN where none is; None of no arrays."""
    if not found:
        return None
    stacked = np.stack(found)
    sums, counts = np.nansum(stacked, axis=0), np.isfinite(stacked).sum(axis=0)
    return np.asarray(np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0))


def _classified(trace: Trace) -> Classifications:
    from moeopt.request_profiles import classify_against_null

    return classify_against_null(trace, seed=0)


def _row(values: NDArray[np.float64] | None) -> tuple[float | None, ...]:
    return () if values is None else tuple(map(known, values))


def _cells(matrix: NDArray[np.float64]) -> Matrix:
    return tuple(map(_row, matrix))
