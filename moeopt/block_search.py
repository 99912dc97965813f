"""Blocks of small reduced cost, found among all that there are without listing them."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from moeopt.block_kernel import DONE, FULL, descend
from moeopt.block_range import BlockRange
from moeopt.stop import Clock

SLICE = 50_000_000  # looks between two looks at the clock: a fraction of a second
ROOM = 1 << 55  # of scaled costs: a bound multiplies them by a few numbers below 64


@dataclass(eq=False)
class BlockSearch:
    """All blocks of reduced cost at most `threshold`: scale x cost - sum of their prices - group price.

    | field | holds |
    |---|---|
    | threshold | of the reduced cost |
    | complete | every block was looked at |
    | full | more blocks than there was room for |
    | nodes, looks | partial blocks visited, and numbers looked at: what time goes by |
    """

    blocks: BlockRange
    threshold: int
    _traffic: tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int16], NDArray[np.int64]]
    _stack: tuple[NDArray[np.int64], ...]
    _touched: NDArray[np.int8]
    _found: NDArray[np.int16]
    _values: NDArray[np.int64]
    _state: NDArray[np.int64]
    complete: bool = False
    full: bool = False

    @classmethod
    def over(
        cls,
        blocks: BlockRange,
        prices: NDArray[np.int64],
        *,
        group: int,
        scale: int,
        threshold: int,
        most: int,
    ) -> Self:
        """A search that has not started; `most` blocks are kept. `prices` int64 [experts] and `group` are scaled.

        Memory: 8 x slots x experts^2 bytes, and 2 x slots + 8 for each block kept.
        """
        experts, slots = blocks.n_experts, blocks.slots
        if slots < 2:
            raise ValueError(f"blocks of at least 2 experts are searched, found slots {slots}")
        names, alone, orders, shared = (np.zeros((slots, experts), np.int64) for _ in range(4))
        pairs = np.zeros((slots, experts, experts), np.int64)
        numbers = np.zeros((slots, 5), np.int64)
        names[0] = np.argsort(-prices, kind="stable")
        alone[0] = (blocks.alone * scale - prices)[names[0]]
        pairs[0] = blocks.pair[np.ix_(names[0], names[0])] * scale
        numbers[0, 0], numbers[0, 3] = experts, -group
        room = most + experts * experts  # a node is entered where all its pairs fit
        return cls(
            blocks,
            threshold,
            (blocks.sets, blocks.starts, blocks.members, blocks.weights * scale),
            (names, alone, pairs, orders, shared, numbers, np.zeros(slots, np.int64)),
            np.zeros(blocks.n_sets, np.int8),
            np.empty((room, slots), np.int16),
            np.empty(room, np.int64),
            np.array([0, 1, 0, 0, 0], np.int64),
        )

    def run(self, clock: Clock) -> Self:
        """Go on until every block was looked at, there is no more room, or the clock expires."""
        cap = int(self.blocks.load.sum()) if self.blocks.cap is None else self.blocks.cap
        while not self.complete and not self.full:
            code = descend(
                *self._traffic,
                self.blocks.load,
                cap,
                self.blocks.fewest,
                self.threshold,
                self._touched,
                *self._stack,
                self._found,
                self._values,
                self._state,
                SLICE,
            )
            self.complete, self.full = code == DONE, code == FULL
            if clock.expired:
                break
        return self

    @property
    def nodes(self) -> int:
        return int(self._state[3])

    @property
    def looks(self) -> int:
        return int(self._state[4])

    @property
    def found(self) -> NDArray[np.int16]:
        """int16 [found, slots]: experts ascending, padded with -1."""
        return self._found[: self._state[2]]

    @property
    def values(self) -> NDArray[np.int64]:
        """int64 [found]: their reduced costs, in the order of `found`."""
        return self._values[: self._state[2]]


def scale_for(blocks: BlockRange, prices: NDArray[np.float64]) -> int:
    """The finest scale, a power of two, at which every number of a search at these real prices fits 64 bits."""
    largest = max(int(blocks.alone.max(initial=0)), int(np.abs(blocks.pair).max(initial=0)))
    highest = largest + int(np.abs(prices).max(initial=0)) + 1
    scale = 1
    while scale < 1 << 20 and 2 * scale * highest * blocks.slots * blocks.groups < ROOM:
        scale *= 2
    return scale
