"""What methods need of a trace: the expert sets of every layer, by family."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from moeopt import storage
from moeopt.expert_sets import ExpertSets
from moeopt.trace import Trace

COMPILED = 1 << 22  # tokens x layers from which compiled counting is worth its start

FORMAT = "moeopt-workload"


@dataclass(frozen=True, eq=False)
class Workload:
    """Traffic of all layers; `a + b` is the workload of both traces together.

    | field | holds |
    |---|---|
    | layers | ExpertSets of each layer |
    | layer_ids | absolute layer indices |
    | families | names |
    | tokens | int64 [families]: tokens of each family |
    | model | name of the model |

    Raises ValueError where recorded loads or pair counts are not those of the tokens.
    """

    layers: tuple[ExpertSets, ...]
    layer_ids: tuple[int, ...]
    families: tuple[str, ...]
    tokens: NDArray[np.int64]
    model: str = ""

    def __post_init__(self) -> None:
        for layer, sets in zip(self.layer_ids, self.layers, strict=True):
            if reason := sets.misfit(self.tokens):
                raise ValueError(f"layer {layer}: {reason}")

    @classmethod
    def from_trace(cls, trace: Trace) -> Self:
        """One pass over the trace, a layer at a time."""
        if isinstance(trace, Workload):
            raise ValueError(
                "a trace holds the experts of every token, found a workload, which has counts only"
            )
        families = len(trace.families)
        if trace.n_tokens * trace.n_layers >= COMPILED:
            from moeopt.set_sorting import count_sets

            layers = count_sets(trace)
        else:
            one_hot = np.zeros((trace.n_tokens, families), np.int64)
            one_hot[np.arange(trace.n_tokens), trace.family] = 1
            layers = tuple(
                ExpertSets.of(trace.experts[:, layer], one_hot, n_experts=trace.n_experts)
                for layer in range(trace.n_layers)
            )
        tokens = np.bincount(trace.family, minlength=families).astype(np.int64)
        tokens.setflags(write=False)
        return cls(layers, tuple(trace.layer_ids.tolist()), trace.families, tokens, trace.model)

    @classmethod
    def from_layers(cls, traffic: "Trace | Workload", ids: Iterable[int]) -> "Workload":
        """That of the layers with these absolute ids, of a trace or of a workload."""
        if isinstance(traffic, Workload):
            return traffic.only(ids)
        return cls.from_trace(traffic.layers(ids))

    @property
    def n_experts(self) -> int:
        return self.layers[0].n_experts

    @property
    def top_k(self) -> int:
        return self.layers[0].top_k

    @property
    def complete(self) -> bool:
        """Whether the expert sets of every layer are known; without them there are loads and pair counts."""
        return all(sets.complete for sets in self.layers)

    @property
    def paired(self) -> bool:
        """Whether it is known of every layer how often two experts are chosen together; else there are loads alone."""
        return all(sets.paired for sets in self.layers)

    def layer(self, index: int) -> Self:
        """The workload of one layer, by position."""
        return type(self)(
            (self.layers[index],), (self.layer_ids[index],), self.families, self.tokens, self.model
        )

    def only(self, ids: Iterable[int]) -> Self:
        """The layers with these absolute ids, in ascending order; ValueError names one that is not there."""
        at = {layer: index for index, layer in enumerate(self.layer_ids)}
        wanted = tuple(sorted(set(ids)))
        if missing := [layer for layer in wanted if layer not in at]:
            raise ValueError(f"layer {missing[0]} is not recorded, the layers are {list(self.layer_ids)}")
        return replace(self, layers=tuple(self.layers[at[layer]] for layer in wanted), layer_ids=wanted)

    def __add__(self, other: Self) -> Self:
        """Counts summed; families are united by name."""
        for name in ("layer_ids", "n_experts", "top_k"):
            if getattr(self, name) != getattr(other, name):
                raise ValueError(
                    f"workloads differ in {name}: {getattr(self, name)} and {getattr(other, name)}"
                )
        families = tuple(dict.fromkeys(self.families + other.families))
        layers = tuple(
            a.joined(
                b,
                counts=np.concatenate(
                    [_spread(a.counts, self.families, families), _spread(b.counts, other.families, families)]
                ),
            )
            for a, b in zip(self.layers, other.layers, strict=True)
        )
        tokens = _spread(self.tokens, self.families, families) + _spread(
            other.tokens, other.families, families
        )
        return type(self)(layers, self.layer_ids, families, tokens, self.model)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the digests of the layers, their ids and the families."""
        head = f"moeopt-workload 1 {self.layer_ids} {self.families} {self.tokens.tolist()} "
        return hashlib.sha256((head + " ".join(sets.digest for sets in self.layers)).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: the form of every layer (see `ExpertSets` and `PairCounts`), family names and tokens."""
        return {
            "model": self.model,
            "n_experts": self.n_experts,
            "layer_ids": list(self.layer_ids),
            "families": list(self.families),
            "tokens": self.tokens.tolist(),
            "layers": [sets.to_dict() for sets in self.layers],
        }

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> Self:
        """Inverse of `to_dict`; ValueError names what does not fit."""
        experts = storage.field(document, "n_experts", kind=int)
        families = tuple(storage.field(document, "families", kind=list))
        if not all(isinstance(name, str) for name in families) or len(set(families)) != len(families):
            raise ValueError(f"families must be distinct names, found {list(families)}")
        tokens = storage.whole_numbers(document, "tokens")
        if tokens.shape != (len(families),) or (tokens < 0).any():
            raise ValueError(f"tokens must count those of {len(families)} families, found {tokens.tolist()}")
        layers = []
        for layer in storage.field(document, "layers", kind=list):
            if not isinstance(layer, dict):
                raise ValueError(f"a layer must be an object, found {layer!r:.60}")
            layers.append(_read_layer(layer, experts, tokens))
        ids = tuple(storage.field(document, "layer_ids", kind=list))
        if len(ids) != len(layers) or not layers:
            raise ValueError(f"{len(ids)} layer ids for {len(layers)} layers")
        if any(type(layer) is not int for layer in ids) or list(ids) != sorted(set(ids)):
            raise ValueError(f"layer_ids must be ascending whole numbers, found {list(ids)}")
        if len(found := {sets.top_k for sets in layers}) > 1:
            raise ValueError(f"layers must have one top-k, found {sorted(found)}")
        return cls(tuple(layers), ids, families, tokens, storage.field(document, "model", kind=str))


def _read_layer(layer: dict[str, Any], experts: int, tokens: NDArray[np.int64]) -> ExpertSets:
    """One layer of a document, of any form."""
    if "loads" in layer:
        from moeopt.load_counts import LoadCounts

        return LoadCounts.from_dict(layer, n_experts=experts)
    if "pairs" in layer:
        from moeopt.pair_counts import PairCounts

        return PairCounts.from_dict(layer, n_experts=experts, families=len(tokens))
    members = storage.whole_numbers(layer, "members", dtype=np.int32)
    counts = storage.whole_numbers(layer, "counts")
    if members.ndim != 2 or counts.shape != (len(members), len(tokens)):
        raise ValueError(f"members and counts do not fit: {members.shape}, {counts.shape}")
    ordered = np.sort(members, axis=1)
    if members.size and (ordered.min() < 0 or ordered.max() >= experts or (np.diff(ordered) == 0).any()):
        raise ValueError(f"members must be distinct ids below {experts}")
    if (counts < 0).any() or (counts.sum(axis=0) != tokens).any():
        raise ValueError(f"counts must be non-negative and sum to the tokens {tokens.tolist()}")
    return ExpertSets.of(members, counts, n_experts=experts)


def _spread(values: NDArray[np.int64], own: tuple[str, ...], families: tuple[str, ...]) -> NDArray[np.int64]:
    """The last axis re-ordered from the families `own` to `families`, zero where one is missing."""
    spread = np.zeros((*values.shape[:-1], len(families)), np.int64)
    spread[..., [families.index(name) for name in own]] = values
    return spread
