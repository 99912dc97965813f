"""The expert sets of one layer counted as they come: all of them up to a limit, beside a sample of the tokens."""

import numpy as np
from numpy.typing import NDArray

from moeopt.expert_sets import ExpertSets
from moeopt.set_tallies import SetTally, order_of, packing
from moeopt.trace import Trace

__all__ = ["SetCounter", "count_sets"]

FIRST_SLOTS = 1 << 10
FULL = 0.6  # of the slots: probes stay short


def count_sets(trace: Trace) -> tuple[ExpertSets, ...]:
    """The expert sets of every layer, those of `ExpertSets.of`, by compiled code: worth its start on large traces."""
    family, layers = trace.family.astype(np.int16), []
    for layer in range(trace.n_layers):
        counter = SetCounter(
            trace.n_experts,
            top_k=trace.top_k,
            families=len(trace.families),
            limit=trace.n_tokens,
            sampled=False,
        )
        counter.add(trace.experts[:, layer].astype(np.uint16), family)
        layers.append(counter.tally().expert_sets(exact=True))
    return tuple(layers)


class SetCounter:
    """Counts rows of one layer as they come; `tally` is what was counted so far.

    At most `limit` distinct sets are counted; one more, and only a sample of at most `limit` tokens is known of them.
    Loads are of all tokens, always. `sampled=False` keeps no sample: then more than `limit` sets are an error.
    """

    def __init__(
        self, n_experts: int, *, top_k: int, families: int, limit: int, sampled: bool = True
    ) -> None:
        self.bits, self.per_word, self.words = packing(n_experts, top_k)
        self.n_experts, self.top_k, self.limit, self.sampled = n_experts, top_k, limit, sampled
        self._loads = np.zeros((n_experts, families), np.int64)
        self._table, self._counts = self._empty(FIRST_SLOTS)
        room = min(limit, FIRST_SLOTS) if sampled else 0
        self._sample = (
            np.empty((room, self.words), np.uint64),
            np.empty(room, np.uint8),
            np.empty(room, np.uint8),
        )
        # next row, sets, sets that fit, sampled tokens, level from which tokens are kept
        self._state = np.array([0, 0, self._fits(), 0, 0 if sampled else 256], np.int64)

    def add(
        self, rows: NDArray[np.uint16], family: NDArray[np.int16], *, salt: int = 0, first: int = 0
    ) -> None:
        """Count rows [rows, k] of ids; tokens of a family below 0 are left out.

        `salt` names the file and `first` the number there of the first row: a token is drawn by both, in every layer
        alike. Raises ValueError naming the token whose experts are out of range or not distinct.
        """
        from moeopt.set_kernels import DONE, SAMPLE_FULL, TABLE_FULL, count_rows

        self._state[0] = 0
        numbers = (self.n_experts, self.bits, self.per_word)
        while True:
            why = count_rows(
                rows,
                family,
                (salt, first),
                numbers,
                self._table,
                self._counts,
                self._sample,
                self._state,
                self._loads,
            )
            if why == DONE:
                return
            if why == TABLE_FULL:
                self._enlarge_table()
            elif why == SAMPLE_FULL:
                self._enlarge_sample()
            else:
                at = int(self._state[0])
                raise ValueError(
                    f"token {first + at}: experts must be distinct ids below {self.n_experts}, "
                    f"found {rows[at].tolist()}"
                )

    def tally(self) -> SetTally:
        """What was counted so far, in arrays of its own."""
        keys = counts = None
        if len(self._table):
            filled = self._table[:, 0] != np.uint64(0xFFFFFFFFFFFFFFFF)
            keys, counts = self._table[filled], self._counts[filled]
            order = order_of(keys)
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
            if not self.sampled:
                raise ValueError(f"more than {self.limit} expert sets")
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
