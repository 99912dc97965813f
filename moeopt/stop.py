"""When to stop: a description, and the clock that each run starts for itself."""

import time
from collections.abc import Callable
from dataclasses import dataclass

_interrupted: Callable[[], bool] = (
    bool  # bool() is False: nobody interrupts until `interrupt_when` says who may
)


def interrupt_when(asked: Callable[[], bool]) -> None:
    """Let every clock of this process also stop once `asked()` is true; worker processes call this at their start."""
    global _interrupted
    _interrupted = asked


def is_interrupt(error: BaseException) -> bool:
    """Whether an error is Ctrl-C, or what numba makes of one that falls while it hands over an array."""
    return isinstance(error, KeyboardInterrupt) or (
        isinstance(error, SystemError) and isinstance(error.__cause__, KeyboardInterrupt)
    )


@dataclass(frozen=True)
class Stop:
    """Limits of a run of one layer; the first one reached ends it. A proof of optimality always does.

    | field | holds |
    |---|---|
    | seconds | wall time per layer; None: no limit |
    | candidates | placements a heuristic may propose per layer; None: no limit |
    | gap | end when (cost - bound) <= gap x cost |
    """

    seconds: float | None = 60.0
    candidates: int | None = None
    gap: float = 0.0

    def __post_init__(self) -> None:
        if self.seconds is not None and not self.seconds > 0:
            raise ValueError(f"seconds must be positive, found {self.seconds}")
        if self.candidates is not None and self.candidates < 1:
            raise ValueError(f"candidates must be at least 1, found {self.candidates}")
        if not 0 <= self.gap < 1:
            raise ValueError(f"gap must lie in [0, 1), found {self.gap}")

    def start(self) -> "Clock":
        """A clock that starts now."""
        return Clock(self)


class Clock:
    """Time and candidates spent by one run."""

    def __init__(self, stop: Stop) -> None:
        self.stop = stop
        self.candidates = 0
        self._start = time.perf_counter()

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start

    @property
    def left(self) -> float | None:
        """Seconds left, at least 0; None without a limit."""
        return None if self.stop.seconds is None else max(0.0, self.stop.seconds - self.elapsed)

    def part(self, share: float) -> "Clock":
        """A clock that starts now, for a share of what is left; candidates are not shared."""
        left = None if self.left is None else max(self.left * share, 1e-3)
        return Stop(seconds=left, gap=self.stop.gap).start()

    @property
    def interrupted(self) -> bool:
        """Whether the user asked to stop."""
        return _interrupted()

    @property
    def expired(self) -> bool:
        """Whether a limit is reached or the user asked to stop."""
        out_of_candidates = self.stop.candidates is not None and self.candidates >= self.stop.candidates
        return out_of_candidates or self.left == 0.0 or self.interrupted

    def closes(self, cost: int, bound: int) -> bool:
        """Whether the gap asked for is reached."""
        return cost - bound <= self.stop.gap * cost
