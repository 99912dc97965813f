"""The expert sets of one layer counted as they come: all of them up to a limit, beside a sample of the tokens."""

import numpy as np
from numpy.typing import NDArray

from moeopt.set_tallies import SetTally, packing

__all__ = ["SetCounter"]

FIRST_SLOTS = 1 << 10
FULL = 0.6  # of the slots: probes stay short


class SetCounter:
    """Counts rows of one layer as they come; `tally` is what was counted so far.

    At most `limit` distinct sets are counted; one more, and only a sample of at most `limit` tokens is known of them.
    Loads are of all tokens, always.
    """

    def __init__(self, n_experts: int, *, top_k: int, families: int, limit: int) -> None:
        self.bits, self.per_word, self.words = packing(n_experts, top_k)
        self.n_experts, self.top_k, self.limit = n_experts, top_k, limit
        self._loads = np.zeros((n_experts, families), np.int64)
        self._table, self._counts = self._empty(FIRST_SLOTS)
        room = min(limit, FIRST_SLOTS)
        self._sample = (
            np.empty((room, self.words), np.uint64),
            np.empty(room, np.uint8),
            np.empty(room, np.uint8),
        )
        # next row, sets, sets that fit, sampled tokens, level from which tokens are kept
        self._state = np.array([0, 0, self._fits(), 0, 0], np.int64)

    def add(
        self, rows: NDArray[np.uint16], family: NDArray[np.int16], *, salt: int = 0, first: int = 0
    ) -> None:
        """Count rows [rows, k] of ids; tokens of a family below 0 are left out.

        `salt` names the file and `first` the number there of the first row: a token is drawn by both, in every layer
        alike. Raises ValueError naming the token whose experts are out of range or not distinct.
        """
        from moeopt.set_kernels import DONE, TABLE_FULL, count_keys, pack_rows

        keys = np.empty((len(rows), self.words), np.uint64)
        at = pack_rows(rows, family, (self.n_experts, self.bits, self.per_word), keys)
        if at >= 0:
            raise ValueError(
                f"token {first + at}: experts must be distinct ids below {self.n_experts}, found {rows[at].tolist()}"
            )
        self._state[0], identity = 0, (salt, first)
        why = None
        while why != DONE:
            table, counts, loads = self._table, self._counts, self._loads
            why = count_keys(keys, rows, family, identity, table, counts, self._sample, self._state, loads)
            if why == TABLE_FULL:
                self._enlarge_table()
            elif why != DONE:
                self._enlarge_sample()

    def tally(self) -> SetTally:
        """What was counted so far, in arrays of its own."""
        from moeopt.set_sorting import ascending

        keys = counts = None
        if len(self._table):
            filled = self._table[:, 0] != np.uint64(0xFFFFFFFFFFFFFFFF)
            keys, counts = self._table[filled], self._counts[filled]
            order, _ = ascending(keys)
            keys, counts = keys[order], counts[order]
        taken = int(self._state[3])
        keys_drawn, family, level = self._sample
        return SetTally(
            self.n_experts,
            self.top_k,
            self.limit,
            self._loads.copy(),
            keys,
            counts,
            keys_drawn[:taken].copy(),
            family[:taken].copy(),
            level[:taken].copy(),
            int(self._state[4]),
        )

    def _empty(self, slots: int) -> tuple[NDArray[np.uint64], NDArray[np.uint32]]:
        families = self._loads.shape[1]
        return np.full((slots, self.words), 0xFFFFFFFFFFFFFFFF, np.uint64), np.zeros(
            (slots, families), np.uint32
        )

    def _fits(self) -> int:
        return min(int(FULL * len(self._table)), self.limit)

    def _enlarge_table(self) -> None:
        from moeopt.set_kernels import refill

        if self._state[1] == self.limit:
            self._table, self._counts = self._empty(0)
            return
        larger = self._empty(2 * len(self._table))
        refill(self._table, self._counts, *larger)
        self._table, self._counts = larger
        self._state[2] = self._fits()

    def _enlarge_sample(self) -> None:
        room = len(self._sample[0])
        if room < self.limit:
            more = min(room, self.limit - room)
            self._sample = (
                np.concatenate([self._sample[0], np.empty((more, self.words), np.uint64)]),
                np.concatenate([self._sample[1], np.empty(more, np.uint8)]),
                np.concatenate([self._sample[2], np.empty(more, np.uint8)]),
            )
            return
        self._state[4] += 1
        kept = np.flatnonzero(self._sample[2] >= self._state[4])
        for part in self._sample:
            part[: len(kept)] = part[kept]
        self._state[3] = len(kept)
