"""Few moves from an incumbent: a beam of steepest exchanges, the way back from a better placement, kicks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from moeopt.exchanges import Exchanges
from moeopt.expert_sets import ExpertSets
from moeopt.heuristics.swap import Swap, pair_sets
from moeopt.method import Heuristic
from moeopt.migration import aligned
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.stop import Clock

_FREELY = Swap(restarts=1, kicks=30)


@dataclass(frozen=True)
class Migrate(Heuristic):
    """The best placement within a budget of moves from the incumbent, on the exact objective.

    Three ways, one after the other: outward from the incumbent, the `width` best placements of each number of
    exchanges; back from a good placement found without the budget, renamed to be near, by the exchanges that cost
    least for each copy brought home; and kicks, which bring some copies home and spend the budget anew. Load above
    the tolerance costs more than any saving. With a tail the mean over families leads the search.

    | field | holds |
    |---|---|
    | width | placements kept at each distance |
    | kicks | kicks |
    | strength | exchanges of a kick, at most |
    """

    width: int = 6
    kicks: int = 60
    strength: int = 3
    name = "migrate"
    summary = "few moves from an incumbent: beam of exchanges on the exact objective, way back, kicks"

    def supports(self, problem: Problem) -> str:
        """Needs an incumbent and a budget; places one copy of each expert."""
        if problem.replicas:
            return f"moves single copies, replicas are {problem.replicas}"
        if problem.incumbent is None or problem.max_moves is None:
            return "moves from an incumbent within a budget: the problem has no max_moves"
        return ""

    def search(
        self, problem: Problem, *, clock: Clock, rng: np.random.Generator, start: Placement | None
    ) -> Iterator[Placement]:
        """The incumbent, then every placement at the end of a descent that is better than those before."""
        way = _Way.of(problem)
        best = way.home()
        yield problem.partition(best.gpu_of)
        ends = [] if start is None or not start.is_partition else [way.back(way.seated(start), best)]
        for point in (*ends, *self._outward(way, clock)):
            best, better = way.better(point, best)
            if better:
                yield problem.partition(best.gpu_of)
            if clock.expired:
                return
        free = replace(problem, max_moves=None)
        targets = list(_FREELY.search(free, clock=clock, rng=rng, start=problem.partition(best.gpu_of)))
        if targets and problem.incumbent is not None:
            near = aligned(targets[-1], problem.incumbent, cluster=problem.cluster)
            best, better = way.better(way.descend(way.back(way.seated(near), best)), best)
            if better:
                yield problem.partition(best.gpu_of)
        for _ in range(self.kicks):
            if clock.expired:
                return
            trial = best
            for _ in range(int(rng.integers(1, self.strength + 1))):
                trial = way.random_step(trial, rng)
            best, better = way.better(way.descend(way.back(trial, best)), best)
            if better:
                yield problem.partition(best.gpu_of)

    def _outward(self, way: _Way, clock: Clock) -> Iterator[_Point]:
        """Ends of descents along the beam from the incumbent."""
        beam, seen = [way.home()], {way.home().gpu_of.tobytes()}
        for _ in range(max(1, way.budget)):
            grown: list[_Point] = []
            for point in beam:
                for after in way.steps(point, most=self.width):
                    if after.gpu_of.tobytes() not in seen:
                        seen.add(after.gpu_of.tobytes())
                        grown.append(after)
                if clock.expired:
                    return
            grown.sort(key=lambda point: point.value)
            beam = grown[: self.width]
            if not beam:
                return
            yield way.descend(beam[0])


@dataclass(frozen=True, eq=False)
class _Point:
    """gpu_of int64 [experts]; value: cost above the incumbent's, overload included; moved: copies away from home."""

    gpu_of: NDArray[np.int64]
    value: float
    moved: int


@dataclass(frozen=True, eq=False)
class _Way:
    """The problem as the search sees it; away int64 [experts, gpus]: 1 where the incumbent has no copy."""

    problem: Problem
    sets: ExpertSets
    weights: NDArray[np.int64]
    away: NDArray[np.int64]
    caps: NDArray[np.float64]
    penalty: float
    budget: int

    @classmethod
    def of(cls, problem: Problem) -> _Way:
        sets = problem.workload.layers[0]
        weights, cluster = problem.set_weights(sets), problem.cluster
        if problem.objective == "cut":
            sets, weights = pair_sets(sets, weights)
        if problem.incumbent is None or problem.max_moves is None:
            raise ValueError("moves from an incumbent within a budget: the problem has no max_moves")
        free = np.full(cluster.gpus, np.inf)
        return cls(
            problem=problem,
            sets=sets,
            weights=weights,
            away=(~problem.incumbent.hosts[0]).astype(np.int64),
            caps=free if problem.load_caps is None else problem.load_caps.astype(float),
            penalty=1.0 + float(weights.sum()) * sets.top_k * (cluster.gpu_cost + cluster.node_cost),
            budget=problem.max_moves,
        )

    def home(self) -> _Point:
        """The incumbent, of several copies the primary one."""
        incumbent = self.problem.incumbent
        if incumbent is None:
            raise ValueError("the problem has no incumbent")
        return _Point(incumbent.primary[0].astype(np.int64), 0.0, 0)

    def seated(self, placement: Placement) -> _Point:
        """A placement without copies; its value is that of the cost difference."""
        own = self.home().gpu_of
        free = replace(self.problem, max_moves=None, load_tolerance=None, tail=None)
        gpu_of = placement.primary[0].astype(np.int64)
        change = free.cost(free.partition(gpu_of)) - free.cost(free.partition(own))
        over = self._overload(self._loads(gpu_of)).sum() - self._overload(self._loads(own)).sum()
        return _Point(gpu_of, change + self.penalty * float(over), self._moved(gpu_of))

    def better(self, point: _Point, best: _Point) -> tuple[_Point, bool]:
        """The better of two within the budget, and whether it is the first."""
        wins = point.moved <= self.budget and point.value < best.value
        return (point if wins else best), wins

    def descend(self, point: _Point) -> _Point:
        """The best exchange within the budget while one helps."""
        while True:
            (after,) = self.steps(point, most=1) or [point]
            if after.value >= point.value:
                return point
            point = after

    def back(self, point: _Point, refuge: _Point) -> _Point:
        """Bring copies home, cheapest for each first, until the budget is kept; `refuge` where that fails."""
        while point.moved > self.budget:
            gpu_of, value, moved = self._table(point)
            closer = np.flatnonzero(moved < 0)
            if not closer.size:
                return refuge
            at = closer[np.argmin(value[closer] / -moved[closer])]
            point = self._after(point, gpu_of[at], value[at], moved[at])
        return point

    def random_step(self, point: _Point, rng: np.random.Generator) -> _Point:
        """An exchange that brings a copy home where there is one, any other otherwise; budget or not."""
        gpu_of, value, moved = self._table(point)
        closer = np.flatnonzero(moved < 0)
        choices = closer if closer.size else np.arange(len(value))
        if not choices.size:
            return point
        at = rng.choice(choices)
        return self._after(point, gpu_of[at], value[at], moved[at])

    def steps(self, point: _Point, *, most: int) -> list[_Point]:
        """The best exchanges within the budget, best first."""
        exchange, value, moved = self._table(point)
        fits = np.flatnonzero(point.moved + moved <= self.budget)
        chosen = fits[np.argsort(value[fits], kind="stable")[:most]]
        return [self._after(point, exchange[at], value[at], moved[at]) for at in chosen]

    def _after(self, point: _Point, exchange: NDArray[np.int64], value: float, moved: int) -> _Point:
        e, f, g = exchange.tolist()
        gpu_of = point.gpu_of.copy()
        if f >= 0:
            gpu_of[[e, f]] = gpu_of[[f, e]]
        else:
            gpu_of[e] = g
        return _Point(gpu_of, point.value + float(value), point.moved + int(moved))

    def _table(self, point: _Point) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
        """Every exchange: (expert, other expert or -1, GPU) [exchanges, 3], change of value, change of moves."""
        problem, gpu_of, away = self.problem, point.gpu_of, self.away
        changes = Exchanges.of(self.sets, gpu_of, weights=self.weights, cluster=problem.cluster)
        e, f = np.nonzero(np.triu(gpu_of[:, None] != gpu_of))
        free = problem.cluster.slots_of - np.bincount(gpu_of, minlength=problem.cluster.gpus)
        m, g = np.nonzero((gpu_of[:, None] != np.arange(free.size)) & (free > 0))
        first, target = np.concatenate([e, m]), np.concatenate([gpu_of[f], g])
        load = problem.workload.layers[0].load
        shift = np.concatenate([load[e] - load[f], load[m]])
        loads, source = self._loads(gpu_of), gpu_of[first]
        over = self._overload(loads)
        change = np.concatenate([changes.swaps[e, f], changes.moves[m, g]]).astype(float)
        if np.isfinite(self.caps).any():
            grown = np.maximum(loads[target] + shift - self.caps[target], 0) - over[target]
            grown += np.maximum(loads[source] - shift - self.caps[source], 0) - over[source]
            change += self.penalty * grown
        moved = away[first, target] - away[first, source]
        moved[: e.size] += away[f, gpu_of[e]] - away[f, gpu_of[f]]
        other = np.concatenate([f, np.full(m.size, -1)])
        return np.stack([first, other, target], axis=1), change, moved

    def _loads(self, gpu_of: NDArray[np.int64]) -> NDArray[np.float64]:
        load = self.problem.workload.layers[0].load
        return np.bincount(gpu_of, weights=load, minlength=self.problem.cluster.gpus).astype(float)

    def _overload(self, loads: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.maximum(loads - self.caps, 0)

    def _moved(self, gpu_of: NDArray[np.int64]) -> int:
        return int(self.away[np.arange(gpu_of.size), gpu_of].sum())
