"""What was counted of one layer: its expert sets, a sample of its tokens, its loads; tallies merge."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from moeopt.expert_sets import ExpertSets

__all__ = ["SetTally", "order_of", "packing"]


def packing(n_experts: int, top_k: int) -> tuple[int, int, int]:
    """(bits of an id, ids of a word, words of a set): as few 64-bit words as hold it."""
    bits = max(1, (n_experts - 1).bit_length())
    return bits, 64 // bits, -(-top_k // (64 // bits))


@dataclass(frozen=True, eq=False)
class SetTally:
    """What was counted in one layer; tallies of disjoint tokens merge to that of all of them.

    | field | holds |
    |---|---|
    | n_experts, top_k | E, k |
    | limit | sets, and sampled tokens, that are kept at most |
    | loads | int64 [experts, families]: activations, of all tokens |
    | keys, counts | uint64 [sets, words], ascending, and uint32 [sets, families]; None: there are more than `limit` |
    | sample, family, level | uint64 [tokens, words], uint8, uint8 [tokens]: the tokens that reach the level `least` |
    | least | the least level that at most `limit` tokens reach |

    A token's level is drawn from its number in its file and says nothing of its experts, so that given how many tokens
    the sample has, all sets of so many tokens are equally likely: it is a simple random sample without replacement,
    and what merges is the sample that one pass would have drawn.
    """

    n_experts: int
    top_k: int
    limit: int
    loads: NDArray[np.int64]
    keys: NDArray[np.uint64] | None
    counts: NDArray[np.uint32] | None
    sample: NDArray[np.uint64]
    family: NDArray[np.uint8]
    level: NDArray[np.uint8]
    least: int

    @property
    def taken(self) -> int:
        """Tokens of the sample."""
        return len(self.sample)

    @property
    def exact(self) -> bool:
        """Whether every set is known with all its tokens."""
        return self.keys is not None

    def expert_sets(self, *, exact: bool) -> ExpertSets:
        """All sets, or those of the sample."""
        if not exact:
            families = self.loads.shape[1]
            keys, counts = _grouped(self.sample, self.family, families)
        elif self.keys is not None and self.counts is not None:
            keys, counts = self.keys, self.counts.astype(np.int64)
        else:
            raise ValueError(f"more than {self.limit} expert sets were found, only a sample is known")
        members = _unpacked(keys, self.n_experts, self.top_k)
        members.setflags(write=False)
        counts.setflags(write=False)
        return ExpertSets(members, counts, self.n_experts)

    def recoded(self, columns: NDArray[np.int64], *, families: int) -> "SetTally":
        """The same of `families` families, own family f being number columns[f] there."""
        loads = np.zeros((self.n_experts, families), np.int64)
        loads[:, columns] = self.loads
        counts = None
        if self.counts is not None:
            counts = np.zeros((len(self.counts), families), np.uint32)
            counts[:, columns] = self.counts
        family = columns.astype(np.uint8)[self.family]
        return replace(self, loads=loads, counts=counts, family=family)

    def merged(self, other: "SetTally") -> "SetTally":
        """Of both, which count the same families; the smaller limit holds."""
        limit = min(self.limit, other.limit)
        keys, counts = _united(self, other, limit)
        level = np.concatenate([self.level, other.level])
        least = max(self.least, other.least)
        while int((level >= least).sum()) > limit:
            least += 1
        kept = level >= least
        return SetTally(
            self.n_experts,
            self.top_k,
            limit,
            self.loads + other.loads,
            keys,
            counts,
            np.concatenate([self.sample, other.sample])[kept],
            np.concatenate([self.family, other.family])[kept],
            level[kept],
            least,
        )


def order_of(keys: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Of rows [sets, words] ascending: of the sets, lexicographic."""
    return np.argsort(keys[:, 0], kind="stable") if keys.shape[1] == 1 else np.lexsort(keys.T[::-1])


def _starts(keys: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Where another row begins in ordered ones."""
    return np.flatnonzero(np.append(True, (keys[1:] != keys[:-1]).any(axis=1))[: len(keys)])


def _united(
    a: SetTally, b: SetTally, limit: int
) -> tuple[NDArray[np.uint64] | None, NDArray[np.uint32] | None]:
    """Keys and counts of both; None beyond the limit."""
    if a.keys is None or a.counts is None or b.keys is None or b.counts is None:
        return None, None
    keys, counts = np.concatenate([a.keys, b.keys]), np.concatenate([a.counts, b.counts])
    order = order_of(keys)
    keys, counts = keys[order], counts[order]
    starts = _starts(keys)
    if len(starts) > limit:
        return None, None
    summed = np.add.reduceat(counts, starts, axis=0, dtype=np.uint32) if len(starts) else counts
    return keys[starts], summed


def _grouped(
    sample: NDArray[np.uint64], family: NDArray[np.uint8], families: int
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Distinct keys of tokens, and how many tokens of each family have them."""
    order = order_of(sample)
    keys = sample[order]
    starts = _starts(keys)
    which = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(keys))))
    cells = np.bincount(which * families + family[order], minlength=len(starts) * families)
    return keys[starts], cells.astype(np.int64).reshape(len(starts), families)


def _unpacked(keys: NDArray[np.uint64], n_experts: int, top_k: int) -> NDArray[np.int32]:
    """int32 [sets, k]: the ids of packed rows."""
    bits, per_word, words = packing(n_experts, top_k)
    members = np.empty((len(keys), top_k), np.int32)
    for word in range(words):
        first, last = word * per_word, min(top_k, (word + 1) * per_word)
        for at in range(first, last):
            shift, mask = np.uint64(bits * (last - 1 - at)), np.uint64((1 << bits) - 1)
            members[:, at] = (keys[:, word] >> shift) & mask
    return members
