"""Compiled kernel: contents of a GPU of small reduced cost by local search, many at once."""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from moeopt.block_overlaps import Overlaps, remainders
from moeopt.block_range import BlockRange

_NOTHING = 1e300


def descents(
    contents: BlockRange, prices: NDArray[np.float64], *, starts: int, rng: np.random.Generator
) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """int16 [starts, slots] and float [starts]: contents that no change of one expert makes cheaper, and their value.

    The value of a content is its cost less the `prices` of its experts. The search starts from each expert in turn,
    adds the cheapest next one (with a little noise once every expert has had its turn), and then exchanges single
    experts for as long as the content is full. Rows without an admissible content hold -1 alone.
    """
    count, overlaps = contents.n_experts, contents.overlaps
    first = np.arange(starts) % count
    noise = np.where(np.arange(starts) < count, 0.0, 0.1)
    rows, values = _descend(
        contents.pair,
        contents.sets,
        contents.starts,
        contents.members,
        contents.weights,
        contents.n_sets,
        overlaps is not None,
        overlaps or Overlaps.nothing(),
        contents.load,
        np.int64(contents.load.sum()) if contents.cap is None else np.int64(contents.cap),
        contents.fewest,
        contents.slots,
        prices,
        first,
        rng.random((starts, count)) * noise[:, None],
    )
    return rows, values


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _descend(
    pair: NDArray[np.int64],
    sets: NDArray[np.int32],
    starts: NDArray[np.int64],
    members: NDArray[np.int16],
    weights: NDArray[np.int64],
    n_sets: int,
    listed: bool,
    overlaps: Overlaps,
    load: NDArray[np.int64],
    cap: int,
    fewest: int,
    slots: int,
    prices: NDArray[np.float64],
    first: NDArray[np.int64],
    noise: NDArray[np.float64],
) -> Any:
    experts = len(pair)
    rows = np.full((len(first), slots), -1, np.int16)
    values = np.full(len(first), _NOTHING)
    hits = np.zeros(0 if listed else n_sets, np.int32)  # members of each set in the content
    further = np.zeros(experts)  # what an expert adds to the cost of the content
    inside = np.zeros(experts, np.bool_)
    content = np.full(slots, -1, np.int64)
    for row in range(len(first)):
        hits[:] = 0
        inside[:] = False
        for e in range(experts):
            further[e] = pair[e, e]
        size, held, value = 0, 0, 0.0
        stale, growing = 0, True
        while growing or stale <= size:
            removed = -1
            if not growing and size == slots:
                removed = content[0]
                content[: size - 1] = content[1:size].copy()
                size -= 1
                inside[removed] = False
                held -= load[removed]
                if listed:
                    remainders(content, size, pair, overlaps, further)
                else:
                    _change(removed, -1, pair, sets, starts, members, weights, hits, further)
                value -= further[removed] - prices[removed]
            best, least = -1, _NOTHING
            for e in range(experts):
                if inside[e] or held + load[e] > cap or (growing and size == 0 and e != first[row]):
                    continue
                gain = further[e] - prices[e]
                if growing:
                    gain += noise[row, e] * abs(prices[e])
                elif e == removed:
                    gain -= 1e-9 * abs(prices[e])  # of equals the one that is there stays
                if gain < least:
                    best, least = e, gain
            if best < 0 or (size >= fewest and further[best] - prices[best] >= 0.0):
                break  # nothing to add: smaller than full, and as good as it gets by adding
            content[size] = best
            size += 1
            inside[best] = True
            held += load[best]
            value += further[best] - prices[best]
            if not listed:
                _change(best, 1, pair, sets, starts, members, weights, hits, further)
            elif size < slots:  # of a full content nobody asks
                remainders(content, size, pair, overlaps, further)
            stale = stale + 1 if best == removed else 0
            growing = growing and size < slots
        if size >= fewest:
            rows[row, :size] = np.sort(content[:size])
            values[row] = value
    return rows, values


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _change(
    e: int,
    sign: int,
    pair: NDArray[np.int64],
    sets: NDArray[np.int32],
    starts: NDArray[np.int64],
    members: NDArray[np.int16],
    weights: NDArray[np.int64],
    hits: NDArray[np.int32],
    further: NDArray[np.float64],
) -> None:
    """Keep `hits` and `further` true when e enters (sign 1) or leaves (-1)."""
    if not len(members):
        for f in range(len(pair)):
            further[f] -= sign * pair[e, f]
        return
    for at in range(starts[e], starts[e + 1]):
        s = sets[at]
        hits[s] += sign
        if hits[s] == (sign > 0):
            for j in range(members.shape[1]):
                further[members[at, j]] -= sign * weights[at]
