"""What methods need of a trace: distinct expert sets with a count per task family."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from math import comb
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from moeopt import storage
from moeopt.trace import Trace


@dataclass(frozen=True, eq=False)
class ExpertSets:
    """Traffic of one layer.

    | field | holds |
    |---|---|
    | members | int32 [sets, k]: distinct expert sets, ids ascending in a row, rows in lexicographic order |
    | counts | int64 [sets, families]: tokens that chose the set |
    | n_experts | E |

    `complete` says that the sets are known; of `moeopt.pair_counts.PairCounts` only loads and pairs are.
    """

    complete: ClassVar[bool] = True
    members: NDArray[np.int32]
    counts: NDArray[np.int64]
    n_experts: int

    @classmethod
    def of(cls, members: NDArray[Any], counts: NDArray[Any], *, n_experts: int) -> Self:
        """Any rows of ids with their counts, brought to the canonical form: sorted, merged, zero rows dropped."""
        rows = np.sort(np.asarray(members, np.int32), axis=1)
        occupied = counts.sum(axis=1) > 0
        rows, counts = rows[occupied], counts[occupied]
        if not len(rows):
            return cls._frozen(rows, np.asarray(counts, np.int64), n_experts)
        order = np.lexsort(_words(rows, n_experts))
        rows = rows[order]
        starts = np.flatnonzero(np.append(True, (rows[1:] != rows[:-1]).any(axis=1)))
        merged = np.add.reduceat(np.asarray(counts, np.int64)[order], starts, axis=0)
        return cls._frozen(rows[starts], merged, n_experts)

    @classmethod
    def _frozen(cls, members: NDArray[np.int32], counts: NDArray[np.int64], n_experts: int) -> Self:
        members.setflags(write=False)
        counts.setflags(write=False)
        return cls(members, counts, n_experts)

    def __len__(self) -> int:
        return len(self.members)

    @cached_property
    def top_k(self) -> int:
        return int(self.members.shape[1])

    @property
    def coactivations(self) -> NDArray[np.int64]:
        """int64 [families]: pairs of experts that tokens chose together, k (k - 1) / 2 of each."""
        return np.asarray(self.counts.sum(axis=0) * comb(self.top_k, 2))

    @cached_property
    def load(self) -> NDArray[np.int64]:
        """int64 [experts]: tokens whose set contains the expert, all families, unweighted."""
        return self.weighted_load(self.counts.sum(axis=1))

    def weighted_load(self, weights: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64 [experts]: sum of `weights` [sets] over the sets that contain the expert."""
        total = np.zeros(self.n_experts, np.int64)
        for column in self.members.T:
            np.add.at(total, column, weights)
        return total

    def affinity(self, weights: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64 [experts, experts]: co-activation, the weight of the sets that contain both; zero diagonal."""
        pairs = np.zeros(self.n_experts * self.n_experts, np.int64)
        k = self.top_k
        for first in range(k):
            for second in range(first + 1, k):
                np.add.at(pairs, self.members[:, first] * self.n_experts + self.members[:, second], weights)
        upper = pairs.reshape(self.n_experts, self.n_experts)
        return upper + upper.T

    def joined(self, other: "ExpertSets", *, counts: NDArray[np.int64]) -> "ExpertSets":
        """The traffic of both; `counts` int64 [own rows, then the other's, families] replaces theirs."""
        if not other.complete:
            raise ValueError("expert sets and pair counts do not add: see PairCounts.of_sets")
        members = np.concatenate([self.members, other.members])
        return ExpertSets.of(members, counts, n_experts=self.n_experts)

    def misfit(self, tokens: NDArray[np.int64]) -> str:
        """Why what was recorded beside the sets is not of `tokens` int64 [families]; empty: nothing was."""
        return ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: members and counts."""
        return {"members": self.members.tolist(), "counts": self.counts.tolist()}

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical content, the same on every machine."""
        content = hashlib.sha256(
            f"moeopt-sets 1 {self.n_experts} {self.members.shape} {self.counts.shape}".encode()
        )
        content.update(self.members.astype("<i4").tobytes())
        content.update(self.counts.astype("<i8").tobytes())
        return content.hexdigest()


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
    """One layer of a document, of either form."""
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


def _words(rows: NDArray[np.int32], n_experts: int) -> list[NDArray[np.uint64]]:
    """Rows packed into as few 64-bit keys as hold them, least significant first, for lexsort."""
    bits = max(1, int(n_experts - 1).bit_length())
    per_word = 64 // bits
    words = []
    for first in range(0, rows.shape[1], per_word):
        word = np.zeros(len(rows), np.uint64)
        for column in rows[:, first : first + per_word].T:
            word = (word << np.uint64(bits)) | column.astype(np.uint64)
        words.append(word)
    return words[::-1]


def _spread(values: NDArray[np.int64], own: tuple[str, ...], families: tuple[str, ...]) -> NDArray[np.int64]:
    """The last axis re-ordered from the families `own` to `families`, zero where one is missing."""
    spread = np.zeros((*values.shape[:-1], len(families)), np.int64)
    spread[..., [families.index(name) for name in own]] = values
    return spread
