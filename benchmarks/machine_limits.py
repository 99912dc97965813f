"""What one core of this machine does at most in a second: bytes read, numbers looked up, numbers combined."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["READ", "Need", "combine_rate", "limit_of", "lookup_rate", "read_rate"]

READ = 1 << 28  # bytes: well beyond the caches of a processor
PASSES = 5  # the quickest one counts
LOOKUPS = 1 << 22  # of a pass, at least
FEWEST, MOST = (
    1 << 16,
    1 << 22,
)  # indices: few, so that their stream stays near; enough to reach all of a table
NEAR = 1 << 10  # numbers of an array that stays in the first cache
PAIRS = 1 << 24  # of a pass
LINE = 64  # bytes that memory moves at once
KINDS = ("move", "lookup", "combine")


@dataclass(frozen=True)
class Need:
    """Something that work cannot do without, however it is done.

    | field | holds |
    |---|---|
    | kind | "move": bytes that come from memory or go there, once; "lookup": numbers of a table, at places that only
      the data tell; "combine": pairs of numbers in the first cache, on each of which at least one operation is made |
    | amount | how many |
    | table | bytes of the table of a lookup; 0 of the others |

    Raises ValueError for another kind, an amount below 1, a table where none is looked into or none where one is.
    """

    kind: str
    amount: int
    table: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, found {self.kind!r}")
        if self.amount < 1:
            raise ValueError(f"amount must be at least 1, found {self.amount}")
        if (self.table > 0) != (self.kind == "lookup"):
            raise ValueError(f"a lookup has a table, nothing else has: {self.kind} with {self.table} bytes")

    def __str__(self) -> str:
        if self.kind == "move":
            return f"{_short(self.amount)} bytes moved"
        if self.kind == "lookup":
            return f"{_short(self.amount)} lookups in {_short(self.table)} bytes"
        return f"{_short(self.amount)} pairs combined"

    def seconds(self) -> float:
        """What one core takes for it, by its rate as measured now."""
        if self.kind == "move":
            return self.amount / read_rate()  # no machine writes faster than it reads
        return self.amount / (lookup_rate(self.table) if self.kind == "lookup" else combine_rate())


def limit_of(needs: Sequence[Need]) -> tuple[Need, float]:
    """(need, seconds): the one that takes longest, each measured now; together they take no less.

    Raises ValueError without any.
    """
    if not needs:
        raise ValueError("a limit is that of at least one need, found none")
    timed = [(need, need.seconds()) for need in needs]
    return max(timed, key=lambda one: one[1])


def read_rate(size: int = READ) -> float:
    """Bytes a second that a sum over an array of `size` bytes reads."""
    values = np.ones(max(1, size // 8), np.int64)
    return values.nbytes / _quickest(lambda: _summed(values))


def lookup_rate(size: int) -> float:
    """Lookups a second at independent places, drawn beforehand, of a table of `size` bytes."""
    table = np.ones(max(1, size // 4), np.int32)
    count = int(np.clip(4 * size // LINE, FEWEST, MOST))
    places = np.random.default_rng(0).integers(0, len(table), count).astype(np.uint32)
    repeats = -(-LOOKUPS // count)
    return count * repeats / _quickest(lambda: _looked_up(table, places, repeats))


def combine_rate() -> float:
    """Pairs of float64 a second that are multiplied and summed, both arrays in the first cache."""
    first, second = np.ones(NEAR), np.ones(NEAR)
    repeats = PAIRS // NEAR
    return NEAR * repeats / _quickest(lambda: _combined(first, second, repeats))


def _quickest(call: Callable[[], Any]) -> float:
    """CPU seconds of the quickest pass; what else the machine does is not in them."""
    call()  # compiles, and fills the caches
    taken = []
    for _ in range(PASSES):
        begun = time.process_time()
        call()
        taken.append(time.process_time() - begun)
    return max(min(taken), 1e-9)


def _short(number: int) -> str:
    """Three digits and a unit of thousands."""
    value, units = float(number), ["", " k", " M", " G"]
    while value >= 999.5 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.3g}{units[0]}"


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _summed(values: NDArray[np.int64]) -> int:
    total = np.int64(0)
    for value in values:
        total += value
    return int(total)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _looked_up(table: NDArray[np.int32], places: NDArray[np.uint32], repeats: int) -> int:
    total = np.int64(0)
    for _ in range(repeats):
        table[0] += 1  # a pass is not the one before: the compiler may not leave it out
        for place in places:
            total += table[place]
    return int(total)


@njit(cache=True, nogil=True, fastmath=True)  # type: ignore[untyped-decorator]
def _combined(first: NDArray[np.float64], second: NDArray[np.float64], repeats: int) -> float:
    total = 0.0
    for turn in range(repeats):
        first[turn % len(first)] += 1.0  # as above
        for i in range(len(first)):
            total += first[i] * second[i]
    return total
