"""Traffic of one layer: distinct expert sets with a count per task family."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from math import comb
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class ExpertSets:
    """Traffic of one layer.

    | field | holds |
    |---|---|
    | members | int32 [sets, k]: distinct expert sets, ids ascending in a row, rows in lexicographic order |
    | counts | int64 [sets, families]: tokens that chose the set |
    | n_experts | E |

    `complete` says that the sets are known, `paired` that pairs are: of `moeopt.pair_counts.PairCounts` loads and
    pairs are known, of `moeopt.load_counts.LoadCounts` loads alone.
    """

    complete: ClassVar[bool] = True
    paired: ClassVar[bool] = True
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

    @cached_property
    def tokens(self) -> NDArray[np.int64]:
        """int64 [families]: tokens counted."""
        return np.asarray(self.counts.sum(axis=0))

    @property
    def coactivations(self) -> NDArray[np.int64]:
        """int64 [families]: pairs of experts that tokens chose together, k (k - 1) / 2 of each."""
        return np.asarray(self.tokens * comb(self.top_k, 2))

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
