"""Annealing over placement and dispatch together, with copies or without, under a load tolerance or without."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from moeopt.heuristics.eplb import Eplb
from moeopt.heuristics.replicate import Replicate
from moeopt.method import Heuristic
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.stop import Clock

if TYPE_CHECKING:
    from moeopt.annealing import Annealing

SOFT, STIFF = 0.1, 2.0  # stiffness of the load caps when hot and when cold
SETTLED = 0.6  # of a cooling, from where on placements are proposed
LOOKS = 2  # proposals of a cooling from there on
OPENING, LONG = 0.05, 0.55  # of the time: the first cooling; of what is left: each further one
FEW = 0.125  # copies an expert, up to which greedy ones are ahead of what a first cooling finds
GREEDY = 0.2  # of the time at most: those greedy ones
SHORT = 4.0  # seconds for which an opening, and judging on the way, would cost more than it gives
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
    | moves, coolings | without a time limit: moves of the first cooling, each further one has twice as many; coolings |
    | hot, warm, cold | temperature at the start of the first, third, ... and of the other coolings, and at their end |

    Temperature 1 is a hop of all tokens, divided by the slots.
    """

    moves: int = 10_000
    coolings: int = 5
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
        """Where each cooling passes and ends; they begin at `start`, or at greedy copies, then where one ended best."""
        from moeopt.annealing import Annealing, filled

        free = replace(problem, load_tolerance=None)
        if problem.load_caps is not None:  # something within them: a judgement may take all the time left
            yield from Eplb().search(problem, clock=clock, rng=rng, start=None)
        elif 0 < problem.replicas <= FEW * problem.workload.n_experts and (
            start is None or free.violation(start)
        ):
            for start in Replicate().search(problem, clock=clock.part(GREEDY), rng=rng, start=None):
                yield start
        hosts = np.zeros((problem.workload.n_experts, problem.cluster.gpus), bool)
        least = np.inf
        if start is not None and not free.violation(start):
            hosts = start.hosts[0]
            least = problem.cost(start) if not problem.violation(start) else np.inf
        hosts = filled(hosts, problem, rng=rng)
        for cooling, pace in enumerate(self._paces(clock)):
            state = Annealing.of(problem, hosts)
            for _ in self._cool(state, pace, rng, hot=self.warm if cooling % 2 else self.hot):
                found = state.placement()
                yield found
                if clock.expired:
                    return
            if problem.replicas and problem.load_caps is not None and not pace.opens:
                for better in _EXCHANGES.search(problem, clock=clock, rng=rng, start=found):
                    found = better
                    yield found
                    if clock.expired:
                        return
            plan = problem.plan(found)
            if not problem.violation(plan) and (cost := problem.cost(plan)) < least:
                least, hosts = cost, found.hosts[0]

    def _paces(self, clock: Clock) -> "Iterator[_Pace]":
        """One for each cooling: a short one for something to show, a long one, then what fits."""
        if clock.left is None:
            yield from (_Pace(clock, moves=self.moves << cooling) for cooling in range(self.coolings))
            return
        if clock.left > SHORT:
            yield _Pace(clock, seconds=OPENING * clock.left, opens=True)
        else:
            yield _Pace(clock, seconds=LONG * clock.left)
        while not clock.expired:
            yield _Pace(clock, seconds=LONG * clock.left)

    def _cool(
        self, state: "Annealing", pace: "_Pace", rng: np.random.Generator, *, hot: float
    ) -> Iterator[None]:
        """One cooling, hardened at its end until the caps are kept, then quenched; stops where a look is worth it."""
        done, progress, look, stiffness = 0, 0.0, SETTLED, SOFT
        while progress < 1.0:
            temperature = hot * (self.cold / hot) ** progress
            stiffness = SOFT * (STIFF / SOFT) ** progress
            state.move(rng, moves=state.slice, temperature=temperature, stiffness=stiffness)
            done += state.slice
            progress = pace.progress(done)
            if (look <= progress < 1.0 and not pace.short) or pace.clock.expired:
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
    """How far a cooling has come, by moves or by time; `opens` the first of several, which only gives a start."""

    def __init__(
        self, clock: Clock, *, moves: int = 1, seconds: float | None = None, opens: bool = False
    ) -> None:
        self.clock, self.opens = clock, opens
        self._moves, self._seconds, self._begun = moves, seconds, clock.elapsed

    @property
    def short(self) -> bool:
        """Whether the cooling is over before a look on the way pays."""
        return self._seconds is not None and self._seconds < SHORT / 2

    def progress(self, done: int) -> float:
        """0 at the start, 1 at the end; `done` moves so far."""
        if self._seconds is None:
            return done / self._moves
        return (self.clock.elapsed - self._begun) / max(self._seconds, 1e-9)
