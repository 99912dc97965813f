"""Compiled counting of expert sets: rows packed into 64-bit words, an open hash table, a sample of the tokens."""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["DONE", "SAMPLE_FULL", "TABLE_FULL", "count_keys", "pack_rows", "refill"]

DONE, TABLE_FULL, SAMPLE_FULL = 0, 1, 2  # why `count_keys` came back
LANES = 64  # rows packed side by side: their ids of one rank fill vector registers
EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)  # first word of a free slot; no set of distinct ids packs to it


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def mixed(value: int) -> Any:
    """uint64: a bijection that spreads every bit (the finaliser of SplitMix64; Steele, Lea and Flood, 2014)."""
    x = np.uint64(value)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def token_draw(salt: int, row: int) -> Any:
    """uint64 of a token, any of them as likely as any other."""
    return mixed(np.uint64(salt) + np.uint64(row + 1) * np.uint64(0x9E3779B97F4A7C15))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def level_of(draw: int) -> Any:
    """The level that a draw reaches: 4 c + m or more for (8 - m) / 8 of 2^-c of all draws, m = 0..3."""
    u, halvings = np.uint64(draw), 0
    while halvings < 60 and u >> np.uint64(63) == np.uint64(0):
        u <<= np.uint64(1)
        halvings += 1
    return 4 * halvings + 3 - np.int64((u >> np.uint64(61)) & np.uint64(3))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def last_draw(level: int) -> Any:
    """uint64: the largest draw that reaches a level; smaller ones do."""
    eighths = np.uint64(8 - level % 4)
    return (eighths << np.uint64(61 - level // 4)) - np.uint64(1)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def slot_of(table: NDArray[np.uint64], key: NDArray[np.uint64]) -> Any:
    """The slot of `key` [words] in `table` [slots, words], or the free one where it belongs: linear probing."""
    mask = len(table) - 1
    spread = np.uint64(0)
    for w in range(len(key)):
        spread = mixed(spread ^ key[w])
    slot = np.int64(spread & np.uint64(mask))
    while table[slot, 0] != EMPTY:
        w = 0
        while w < len(key) and table[slot, w] == key[w]:
            w += 1
        if w == len(key):
            break
        slot = (slot + 1) & mask
    return slot


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def refill(
    table: NDArray[np.uint64],
    counts: NDArray[np.uint32],
    larger: NDArray[np.uint64],
    larger_counts: NDArray[np.uint32],
) -> None:
    """Move what is in `table` into the empty `larger` one."""
    for old in range(len(table)):
        if table[old, 0] != EMPTY:
            slot = slot_of(larger, table[old])
            larger[slot] = table[old]
            larger_counts[slot] = counts[old]


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def exchange(lower: NDArray[np.uint16], upper: NDArray[np.uint16]) -> None:
    """The smaller of every two numbers to `lower`, the larger to `upper`."""
    for lane in range(len(lower)):
        a, b = lower[lane], upper[lane]
        lower[lane], upper[lane] = min(a, b), max(a, b)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def sorted_lanes(
    rows: NDArray[np.uint16], first: int, taken: NDArray[np.int16], experts: int, lanes: NDArray[np.uint16]
) -> Any:
    """Put rows[first:] into the columns of `lanes` [k, LANES], ids ascending.

    Says which of them is the first whose ids are out of range or not distinct, or -1; rows that `taken` has below 0 may
    hold anything. Odd-even transposition (Habermann, 1972): which ids are compared does not depend on them, so that all
    columns go at once.
    """
    k, many = len(lanes), min(lanes.shape[1], len(rows) - first)
    for lane in range(many):
        for i in range(k):
            lanes[i, lane] = rows[first + lane, i]
    for turn in range(k):
        for i in range(turn & 1, k - 1, 2):
            exchange(lanes[i], lanes[i + 1])
    equal, highest = 0, np.uint16(0)
    for i in range(k - 1):
        lower, upper = lanes[i], lanes[i + 1]
        for lane in range(many):
            equal += lower[lane] == upper[lane]
    last = lanes[k - 1]
    for lane in range(many):
        highest = max(highest, last[lane])
    if equal == 0 and highest < experts:
        return -1
    for lane in range(many):
        wrong = last[lane] >= experts
        for i in range(k - 1):
            wrong |= lanes[i, lane] == lanes[i + 1, lane]
        if wrong and taken[first + lane] >= 0:
            return lane
    return -1


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def pack_rows(
    rows: NDArray[np.uint16],
    taken: NDArray[np.int16],
    packing: tuple[int, int, int],
    keys: NDArray[np.uint64],
) -> Any:
    """Pack rows [rows, k] of expert ids into `keys` [rows, words], whatever their order in a row.

    `packing` is (experts, bits of an id, ids of a word). Says which row is the first whose ids are out of range or not
    distinct, or -1; rows that `taken` has below 0 may hold anything, and their keys say nothing.
    """
    experts, bits, per_word = packing
    k, words = rows.shape[1], keys.shape[1]
    lanes, packed = np.zeros((k, LANES), np.uint16), np.empty(LANES, np.uint64)
    for first in range(0, len(rows), LANES):
        wrong = sorted_lanes(rows, first, taken, experts, lanes)
        if wrong >= 0:
            return first + wrong
        for w in range(words):
            packed[:] = np.uint64(0)
            for i in range(w * per_word, min(k, (w + 1) * per_word)):
                ids = lanes[i]
                for lane in range(LANES):
                    packed[lane] = (packed[lane] << np.uint64(bits)) | np.uint64(ids[lane])
            for lane in range(min(LANES, len(rows) - first)):
                keys[first + lane, w] = packed[lane]
    return -1


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def count_keys(
    keys: NDArray[np.uint64],
    rows: NDArray[np.uint16],
    family: NDArray[np.int16],
    identity: tuple[int, int],
    table: NDArray[np.uint64],
    counts: NDArray[np.uint32],
    sample: tuple[NDArray[np.uint64], NDArray[np.uint8], NDArray[np.uint8]],
    state: NDArray[np.int64],
    loads: NDArray[np.int64],
) -> int:
    """Count packed rows [rows, words] from row state[0] on; says why it ended (DONE: all rows are counted).

    | argument | holds |
    |---|---|
    | rows | their expert ids [rows, k], in any order: what they add to the loads |
    | family | int16 [rows]: column of the counts; below 0: the row is left out |
    | identity | (salt, number of the first row): what a token's level is drawn from |
    | table, counts | uint64 [slots, words], uint32 [slots, families]; no slots: sets are not counted |
    | sample | keys uint64 [room, words], family and level uint8 [room] of tokens kept one by one |
    | state | next row, sets in the table, sets it may hold, tokens in the sample, level from which they are kept |
    | loads | int64 [experts, families]: every activation |

    The row that ends it is not counted in any of them: the caller makes room and goes on.
    """
    drawn, families, levels = sample
    exact, last = len(table) > 0, last_draw(state[4])
    for row in range(state[0], len(keys)):
        state[0] = row
        f = family[row]
        if f < 0:
            continue
        draw = token_draw(identity[0], identity[1] + row)
        kept = draw <= last
        if kept and state[3] == len(drawn):
            return SAMPLE_FULL
        if exact:
            slot = slot_of(table, keys[row])
            if table[slot, 0] == EMPTY:
                if state[1] == state[2]:
                    return TABLE_FULL
                state[1] += 1
                table[slot] = keys[row]
            counts[slot, f] += np.uint32(1)
        if kept:
            at = state[3]
            drawn[at] = keys[row]
            families[at], levels[at] = f, level_of(draw)
            state[3] += 1
        for i in range(rows.shape[1]):
            loads[rows[row, i], f] += 1
    state[0] = len(keys)
    return DONE
