"""What an expert adds to a small content, from tables: inclusion and exclusion over the experts that are there.

A set that holds an expert f and h of the experts of a content counts for f where h = 0. Of all sets with f, take away
those with each of them, give back those with each two, take away those with all three.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from moeopt.swaps import index

if TYPE_CHECKING:
    from moeopt.block_range import BlockRange

__all__ = ["Overlaps", "remainders"]

MOST_SLOTS = 4  # of contents: beyond, there are more terms than sets to walk through
MOST_EXPERTS = 128  # the table of triples takes 8 x experts^3 bytes: 16 MiB


class Overlaps(NamedTuple):
    """Tables of one layer.

    | field | holds |
    |---|---|
    | triples | float [experts, experts, experts]: weight of the sets that contain all three |
    | pair_starts, of_pair | int64 [experts^2 + 1] and set indices: the sets with both e < f, at e * experts + f |
    | members, weights | int16 [sets, k]; float [sets] |
    """

    triples: NDArray[np.float64]
    pair_starts: NDArray[np.int64]
    of_pair: NDArray[np.int32]
    members: NDArray[np.int16]
    weights: NDArray[np.float64]

    @classmethod
    def nothing(cls) -> "Overlaps":
        """Empty tables."""
        return cls(
            np.zeros((0, 0, 0)),
            np.zeros(1, np.int64),
            np.zeros(0, np.int32),
            np.zeros((0, 2), np.int16),
            np.zeros(0),
        )

    @classmethod
    def of(cls, contents: "BlockRange") -> "Overlaps | None":
        """The tables of contents; None where contents are too large or sets not known."""
        if contents.slots > MOST_SLOTS or contents.n_experts > MOST_EXPERTS or not contents.n_sets:
            return None
        members = np.zeros((contents.n_sets, contents.top_k), np.int16)
        weights = np.zeros(contents.n_sets)
        members[contents.sets], weights[contents.sets] = contents.members, contents.weights
        _, _, pair_starts, of_pair = index(members, contents.n_experts)
        return cls(_triples(members, weights, contents.n_experts), pair_starts, of_pair, members, weights)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _triples(members: NDArray[np.int16], weights: NDArray[np.float64], experts: int) -> NDArray[np.float64]:
    """`triples` of `Overlaps`: every order of three different experts."""
    found = np.zeros((experts, experts, experts))
    k = members.shape[1]
    for s in range(len(members)):
        for a in range(k):
            for b in range(k):
                if a != b:
                    for c in range(k):
                        if c != a and c != b:
                            found[members[s, a], members[s, b], members[s, c]] += weights[s]
    return found


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def remainders(
    content: NDArray[np.int64],
    size: int,
    pair: NDArray[np.int64],
    overlaps: Overlaps,
    further: NDArray[np.float64],
) -> None:
    """`further` [experts]: weight of the sets with an expert and none of the first `size` <= 3 of `content`.

    What it says of the experts of the content itself means nothing.
    """
    experts = len(further)
    for f in range(experts):
        further[f] = pair[f, f]
    for i in range(size):
        own = pair[content[i]]
        for f in range(experts):
            further[f] -= own[f]
        for j in range(i):
            both = overlaps.triples[content[i], content[j]]
            for f in range(experts):
                further[f] += both[f]
    if size == 3:
        _all_three(content, experts, overlaps, further)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _all_three(
    content: NDArray[np.int64], experts: int, overlaps: Overlaps, further: NDArray[np.float64]
) -> None:
    """Take the sets with all three of `content` away: those on two ascending lists of pairs, the shortest two."""
    ends = np.empty((3, 2), np.int64)
    for which in range(3):
        a, b = content[which], content[(which + 1) % 3]
        at = min(a, b) * experts + max(a, b)
        ends[which, 0], ends[which, 1] = overlaps.pair_starts[at], overlaps.pair_starts[at + 1]
    longest = 0
    for which in range(1, 3):
        if ends[which, 1] - ends[which, 0] > ends[longest, 1] - ends[longest, 0]:
            longest = which
    one, two = (longest + 1) % 3, (longest + 2) % 3
    i, j = ends[one, 0], ends[two, 0]
    while i < ends[one, 1] and j < ends[two, 1]:
        s, t = overlaps.of_pair[i], overlaps.of_pair[j]
        if s == t:
            for place in range(overlaps.members.shape[1]):
                further[overlaps.members[s, place]] -= overlaps.weights[s]
        i += s <= t
        j += t <= s
