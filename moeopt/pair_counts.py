"""Traffic of which only the loads and the counts of pairs are known: enough for the cut, and for nothing else."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import comb
from typing import Any, ClassVar, NoReturn, Self, cast

import numpy as np
from numpy.typing import NDArray

from moeopt import storage
from moeopt.expert_sets import ExpertSets
from moeopt.workload import Workload

__all__ = ["UNRECORDED", "PairCounts", "recorded_share"]

UNRECORDED = (
    "the expert sets of the tokens are not recorded, only loads and pair counts: "
    'they serve objective="cut" without replicas, everything else needs a trace'
)
_LARGEST = 1 << 46  # of a load: sums over 65,536 experts stay in 64 bits


def _refuse(_: object) -> NoReturn:
    raise ValueError(UNRECORDED)


@dataclass(frozen=True, eq=False)
class PairCounts(ExpertSets):
    """Traffic of one layer without its expert sets: its cut is over the recorded pairs.

    A pair that is not recorded counts as never chosen together: where a recorder keeps the frequent pairs only, the
    cut is less than that of the whole traffic. Loads are whole. `members` raises ValueError, and with it all that
    would take pairs for expert sets.

    | field | holds |
    |---|---|
    | counts | int64 [pairs, families]: tokens that chose both experts |
    | n_experts | E |
    | pairs | int32 [pairs, 2]: experts i < j, rows in lexicographic order |
    | load | int64 [experts]: tokens that chose the expert, all families, unweighted |
    | top_k | experts that a token chooses |

    Pairs are taken in any order, and those without tokens left out. Raises ValueError naming the rule and the value
    that breaks it: a pair counts no more tokens than either expert, an expert has k - 1 partners in each token.
    """

    complete: ClassVar[bool] = False
    members: NDArray[np.int32] = field(init=False, repr=False, default=cast(Any, property(_refuse)))
    pairs: NDArray[np.int32] = field(kw_only=True)
    load: NDArray[np.int64] = field(kw_only=True)
    top_k: int = field(kw_only=True)

    def __post_init__(self) -> None:
        if isinstance(self.top_k, bool) or not 1 <= self.top_k <= self.n_experts:
            raise ValueError(f"top-k must lie between 1 and the {self.n_experts} experts, found {self.top_k}")
        load = _whole("load", self.load, shape=(self.n_experts,))
        pairs = np.sort(_whole("pairs", self.pairs, shape=(None, 2)), axis=1)
        counts = _whole("counts", self.counts, shape=(len(pairs), None))
        if (pairs >= self.n_experts).any():
            raise ValueError(f"pairs must be of ids below {self.n_experts}, found {pairs.max()}")
        used = np.lexsort(pairs.T[::-1])
        used = used[counts[used].any(axis=1)]
        _check_counts(pairs, counts, load=load, most=self.top_k - 1)
        held: dict[str, NDArray[Any]] = {
            "pairs": pairs[used].astype(np.int32),
            "counts": counts[used],
            "load": load,
        }
        for name, values in held.items():
            values.setflags(write=False)
            object.__setattr__(self, name, values)

    @classmethod
    def of_sets(cls, sets: ExpertSets) -> Self:
        """The loads and all pairs of known expert sets: the same cut, and much smaller."""
        by_family = [sets.affinity(counts) for counts in sets.counts.T]
        first, second = np.triu_indices(sets.n_experts, 1)
        counts = np.stack([affinity[first, second] for affinity in by_family], axis=1)
        pairs = np.stack([first, second], axis=1).astype(np.int32)
        return cls(counts, sets.n_experts, pairs=pairs, load=sets.load, top_k=sets.top_k)

    @property
    def coactivations(self) -> NDArray[np.int64]:
        """int64 [families]: tokens of the recorded pairs."""
        return np.asarray(self.counts.sum(axis=0))

    def affinity(self, weights: NDArray[np.int64]) -> NDArray[np.int64]:
        """int64 [experts, experts]: `weights` [pairs] of the recorded pairs, 0 elsewhere."""
        upper = np.zeros((self.n_experts, self.n_experts), np.int64)
        upper[self.pairs[:, 0], self.pairs[:, 1]] = weights
        return upper + upper.T

    def joined(self, other: ExpertSets, *, counts: NDArray[np.int64]) -> "PairCounts":
        """The traffic of both; `counts` int64 [own pairs, then the other's, families] replaces theirs."""
        if not isinstance(other, PairCounts):
            raise ValueError("pair counts and expert sets do not add: see PairCounts.of_sets")
        pairs, row = np.unique(np.concatenate([self.pairs, other.pairs]), axis=0, return_inverse=True)
        merged = np.zeros((len(pairs), counts.shape[1]), np.int64)
        np.add.at(merged, row.reshape(-1), counts)
        load = self.load + other.load
        return PairCounts(merged, self.n_experts, pairs=pairs, load=load, top_k=self.top_k)

    def misfit(self, tokens: NDArray[np.int64]) -> str:
        """Why loads and pairs are not those of `tokens` int64 [families]; empty when they may be."""
        total, k = sum(tokens.tolist()), self.top_k
        if (found := int(self.load.sum())) != total * k:
            return f"loads sum to {found}, {total} tokens of top-{k} make {total * k}"
        if (families := self.counts.shape[1]) != len(tokens):
            return f"pairs are counted for {families} families, tokens for {len(tokens)}"
        for expert in np.flatnonzero(self.load > total)[:1]:
            return f"expert {expert} is chosen by {self.load[expert]} of {total} tokens"
        for pair, family in np.argwhere(self.counts > tokens)[:1]:
            (i, j), count = self.pairs[pair], self.counts[pair, family]
            return (
                f"experts {i} and {j} are chosen together by {count} of {tokens[family]} tokens of a family"
            )
        for family, (found, count) in enumerate(
            zip(self.coactivations.tolist(), tokens.tolist(), strict=True)
        ):
            if found > (most := count * comb(k, 2)):
                return f"{found} pairs are counted in family {family}, {count} tokens of top-{k} have {most}"
        return ""

    @cached_property
    def digest(self) -> str:
        """SHA-256 of pairs, counts and loads, the same on every machine."""
        content = hashlib.sha256(f"moeopt-pairs 1 {self.n_experts} {self.top_k} {self.counts.shape}".encode())
        for part in (self.pairs.astype("<i4"), self.counts.astype("<i8"), self.load.astype("<i8")):
            content.update(part.tobytes())
        return content.hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: top_k, load, pairs and counts."""
        return {
            "top_k": self.top_k,
            "load": self.load.tolist(),
            "pairs": self.pairs.tolist(),
            "counts": self.counts.tolist(),
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any], *, n_experts: int, families: int) -> Self:
        """Inverse of `to_dict`; ValueError names what does not fit."""
        pairs, counts = (storage.whole_numbers(document, name) for name in ("pairs", "counts"))
        if not pairs.size and not counts.size:  # JSON keeps no shape of nothing
            pairs, counts = np.zeros((0, 2), np.int64), np.zeros((0, families), np.int64)
        return cls(
            counts,
            n_experts,
            pairs=pairs,
            load=storage.whole_numbers(document, "load"),
            top_k=storage.field(document, "top_k", kind=int),
        )


def recorded_share(workload: Workload) -> float:
    """The part of all pairs of experts chosen together that the workload knows; 1 where the sets are known."""
    each = int(workload.tokens.sum()) * comb(workload.top_k, 2)
    known = sum(int(sets.coactivations.sum()) for sets in workload.layers)
    return known / (each * len(workload.layers)) if each else 1.0


def _whole(name: str, values: object, *, shape: tuple[int | None, ...]) -> NDArray[np.int64]:
    """A copy of whole numbers from 0 on; None in the shape: any length."""
    found = np.asarray(values)
    if found.dtype.kind not in "iu":
        raise ValueError(f"{name} must be whole numbers, found dtype {found.dtype}")
    if found.ndim != len(shape) or any(
        wanted is not None and length != wanted for length, wanted in zip(found.shape, shape, strict=True)
    ):
        wanted = ", ".join("any" if length is None else str(length) for length in shape)
        raise ValueError(f"{name} must have shape ({wanted}), found {found.shape}")
    if found.size and (found.min() < 0 or found.max() >= _LARGEST):
        raise ValueError(f"{name} must lie from 0 to 2^46, found {found.min()} to {found.max()}")
    return found.astype(np.int64)


def _check_counts(
    pairs: NDArray[np.int64], counts: NDArray[np.int64], *, load: NDArray[np.int64], most: int
) -> None:
    """Counts that some tokens can have; `most` partners of an expert in one token."""
    order = np.lexsort(pairs.T[::-1])
    ordered = pairs[order]
    for i, j in pairs[pairs[:, 0] == pairs[:, 1]][:1].tolist():
        raise ValueError(f"a pair is of two experts, found {i} and {j}")
    for i, j in ordered[1:][(ordered[1:] == ordered[:-1]).all(axis=1)][:1].tolist():
        raise ValueError(f"experts {i} and {j} are counted twice")
    tokens = counts.sum(axis=1)
    for at in np.flatnonzero(tokens > load[pairs].min(axis=1))[:1]:
        i, j = pairs[at].tolist()
        raise ValueError(
            f"experts {i} and {j} are chosen together by {tokens[at]} tokens, alone by {load[i]} and {load[j]}"
        )
    together = np.zeros(len(load), np.int64)
    for column in pairs.T:
        np.add.at(together, column, tokens)
    for expert in np.flatnonzero(together > most * load)[:1]:
        raise ValueError(
            f"expert {expert} is in {together[expert]} pairs, {load[expert]} tokens of top-{most + 1} "
            f"have {most * load[expert]}"
        )
