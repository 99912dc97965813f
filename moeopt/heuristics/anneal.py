"""Annealing over placement and dispatch together, with copies or without, under a load tolerance or without."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING

import numpy as np

from moeopt.heuristics.replicate import Replicate
from moeopt.method import Heuristic
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.stop import Clock

if TYPE_CHECKING:
    from moeopt.annealing import Annealing

SOFT, STIFF = 0.1, 16.0  # stiffness of the load caps when hot and when cold
SETTLED = 0.6  # of a cooling, from where on placements are proposed
LOOKS = 8  # proposals of a cooling from there on
RESERVE = 0.05  # of the time, for the last looks
HARDENINGS = 8  # at most, of the caps, where they are not kept when cold
LAST = 25  # of the moves, one more at the end for each hardening, and one at temperature 0
_EXCHANGES = Replicate(patience=20)


@dataclass(frozen=True)
class Anneal(Heuristic):
    """Simulated annealing of copies on the exact fan-out, every move with the best dispatch of the sets it concerns.

    Two copies change places; a copy gives its slot to another expert's; an expert takes a slot whose copy moves to
    that of a third. The sets concerned are served anew at least cost, GPUs above the load cap asking a price that
    rises with their load. Prices stiffen as the temperature falls. Exchanges judged by the guarded dispatch follow each
    cooling where there are copies under a tolerance. With a tail the mean over families leads.

    | field | holds |
    |---|---|
    | moves | moves of the first cooling; each further one has twice as many, the last one fills the time |
    | coolings | coolings, where there is no time limit |
    | hot, warm, cold | temperature at the start of the first, third, ... and of the other coolings, and at their end |

    Temperature 1 is a hop of all tokens, divided by the slots.
    """

    moves: int = 10_000
    coolings: int = 6
    hot: float = 0.6
    warm: float = 0.3
    cold: float = 0.08
    name = "anneal"
    summary = "annealing of placement and dispatch together, compiled"

    def __post_init__(self) -> None:
        for name in ("moves", "coolings"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, found {getattr(self, name)}")
        if not 0 < self.cold <= self.warm <= self.hot < float("inf"):
            found = f"{self.cold}, {self.warm} and {self.hot}"
            raise ValueError(f"temperatures must have 0 < cold <= warm <= hot, found {found}")

    def supports(self, problem: Problem) -> str:
        """Fan-out only; cheapest covers are known for top-k up to 16."""
        if problem.objective != "fan-out":
            return f"objective must be fan-out, found {problem.objective}"
        if problem.max_moves is not None:
            return "counts no moves from an incumbent: the problem has max_moves"
        if problem.workload.top_k > 16:
            return f"top-k must be at most 16, found {problem.workload.top_k}"
        return ""

    def search(
        self, problem: Problem, *, clock: Clock, rng: np.random.Generator, start: Placement | None
    ) -> Iterator[Placement]:
        """Where each cooling passes and ends; the first one begins at `start`, later ones where one ended best."""
        from moeopt.annealing import Annealing, filled

        free = replace(problem, load_tolerance=None)
        hosts = np.zeros((problem.workload.n_experts, problem.cluster.gpus), bool)
        if start is not None and not free.violation(start):
            hosts = start.hosts[0]
        hosts = filled(hosts, problem, rng=rng)
        best, pace = np.inf, _Pace(clock)
        for cooling in range(self.coolings) if clock.left is None else count():
            state = Annealing.of(problem, hosts)
            hot = self.warm if cooling % 2 else self.hot
            for _ in self._cool(state, pace, rng, moves=self.moves << cooling, hot=hot):
                yield state.placement()
                if clock.expired:
                    return
            found = state.placement()
            if problem.replicas and problem.load_caps is not None:
                for better in _EXCHANGES.search(problem, clock=clock, rng=rng, start=found):
                    yield (found := better)
                    if clock.expired:
                        return
            if not problem.violation(found) and (cost := problem.cost(found)) < best:
                best, hosts = cost, found.hosts[0]

    def _cool(
        self, state: "Annealing", pace: "_Pace", rng: np.random.Generator, *, moves: int, hot: float
    ) -> Iterator[None]:
        """One cooling, hardened at its end until the caps are kept, then quenched; stops where a look is worth it."""
        done, progress, look, stiffness = 0, 0.0, SETTLED, SOFT
        moves = pace.stretched(moves)
        while progress < 1.0:
            temperature = hot * (self.cold / hot) ** progress
            stiffness = SOFT * (STIFF / SOFT) ** progress
            state.move(rng, moves=state.slice, temperature=temperature, stiffness=stiffness)
            done += state.slice
            pace.done(state.slice)
            progress = done / max(done, pace.within(moves, done=done))
            if look <= progress < 1.0 or pace.clock.expired:
                yield
                look = progress + (1.0 - SETTLED) / LOOKS
        slices = 1 + done // state.slice // LAST
        for temperature in [self.cold] * HARDENINGS + [0.0]:
            if temperature and state.kept:
                continue
            stiffness *= 2 if temperature else 1
            for _ in range(slices):
                if pace.clock.expired:
                    break
                state.move(rng, moves=state.slice, temperature=temperature, stiffness=stiffness)
        yield


class _Pace:
    """Moves that fit in the time left, at the rate so far; without a time limit as many as planned."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._begun, self._moves = clock.elapsed, 0

    def done(self, moves: int) -> None:
        """Count `moves` more."""
        self._moves += moves

    def within(self, moves: int, *, done: int) -> int:
        """`moves`, of which `done` are done, or fewer where time is short."""
        if self.clock.left is None or not self._moves:
            return moves
        rate = self._moves / max(self.clock.elapsed - self._begun, 1e-9)
        return min(moves, done + int(rate * max(0.0, self.clock.left - RESERVE * self.clock.elapsed)))

    def stretched(self, moves: int) -> int:
        """All that fit where these and twice as many do not."""
        if self.clock.left is None or not self._moves:
            return moves
        most = self.within(1 << 62, done=0)
        return max(1, most if most < 3 * moves else moves)
