"""Compiled counting of expert sets: rows packed into 64-bit words, an open hash table, a sample of the tokens."""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["DONE", "SAMPLE_FULL", "TABLE_FULL", "WRONG", "count_rows", "refill"]

DONE, TABLE_FULL, SAMPLE_FULL, WRONG = 0, 1, 2, 3  # why `count_rows` came back
EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)  # first word of a free slot; no set of distinct ids packs to it


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def mixed(value: int) -> Any:
    """uint64: a bijection that spreads every bit (the finaliser of SplitMix64; Steele, Lea and Flood, 2014)."""
    x = np.uint64(value)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def token_level(salt: int, row: int) -> Any:
    """The level that a token reaches: 4 c + m or more for (8 - m) / 8 of 2^-c of all tokens, m = 0..3."""
    u = mixed(np.uint64(salt) + np.uint64(row + 1) * np.uint64(0x9E3779B97F4A7C15))
    halvings = 0
    while halvings < 60 and u >> np.uint64(63) == np.uint64(0):
        u <<= np.uint64(1)
        halvings += 1
    return 4 * halvings + 3 - np.int64((u >> np.uint64(61)) & np.uint64(3))


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
def count_rows(
    rows: NDArray[np.uint16],
    family: NDArray[np.int16],
    identity: tuple[int, int],
    packing: tuple[int, int, int],
    table: NDArray[np.uint64],
    counts: NDArray[np.uint32],
    sample: tuple[NDArray[np.uint64], NDArray[np.uint8], NDArray[np.uint8]],
    state: NDArray[np.int64],
    loads: NDArray[np.int64],
) -> int:
    """Count rows [rows, k] of expert ids from row state[0] on; says why it ended (DONE: all rows are counted).

    | argument | holds |
    |---|---|
    | family | int16 [rows]: column of the counts; below 0: the row is left out |
    | identity | (salt, number of the first row): what a token's level is drawn from |
    | packing | (experts, bits of an id, ids of a word) |
    | table, counts | uint64 [slots, words], uint32 [slots, families]; no slots: sets are not counted |
    | sample | keys uint64 [room, words], family and level uint8 [room] of tokens kept one by one |
    | state | next row, sets in the table, sets it may hold, tokens in the sample, level from which they are kept |
    | loads | int64 [experts, families]: every activation |

    The row that ends it is not counted in any of them: the caller makes room and goes on.
    """
    experts, bits, per_word = packing
    keys, families, levels = sample
    k, words, exact = rows.shape[1], table.shape[1], len(table) > 0
    ids, key = np.empty(k, np.int64), np.empty(words, np.uint64)
    for row in range(state[0], len(rows)):
        state[0] = row
        f = family[row]
        if f < 0:
            continue
        equal, highest = 0, np.int64(0)
        for i in range(k):  # each id goes to its rank: no branch to mispredict
            e, rank = rows[row, i], 0
            for j in range(k):
                rank += rows[row, j] < e
                equal += rows[row, j] == e
            ids[rank] = e
            if e > highest:
                highest = np.int64(e)
        if equal > k or highest >= experts:
            return WRONG
        for w in range(words):
            word = np.uint64(0)
            for i in range(w * per_word, min(k, (w + 1) * per_word)):
                word = (word << np.uint64(bits)) | np.uint64(ids[i])
            key[w] = word
        level = token_level(identity[0], identity[1] + row)
        kept = level >= state[4]
        if kept and state[3] == len(keys):
            return SAMPLE_FULL
        if exact:
            slot = slot_of(table, key)
            if table[slot, 0] == EMPTY:
                if state[1] == state[2]:
                    return TABLE_FULL
                state[1] += 1
                for w in range(words):
                    table[slot, w] = key[w]
            counts[slot, f] += np.uint32(1)
        if kept:
            at = state[3]
            for w in range(words):
                keys[at, w] = key[w]
            families[at], levels[at] = f, level
            state[3] += 1
        for i in range(k):
            loads[ids[i], f] += 1
    state[0] = len(rows)
    return DONE
