"""Even loads: copies and places of the experts, so that the fullest GPU serves as little as possible."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeopt.eplb_packing import Packing
from moeopt.guard import least_peak, shortfall
from moeopt.method import Heuristic
from moeopt.objectives import least_fullest
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.stop import Clock


@dataclass(frozen=True)
class Level(Heuristic):
    """EPLB's copies and packing on the weighted loads, then a bisection of the cap that copies keep when exchanged.

    Of a cap, the activations above it in the best split over the copies are lowered by the first of these changes that
    does, in random order: a copy on the GPUs that are too full together changes places with one of another GPU, moves
    to a free slot there, or another expert's spare copy there becomes one of it. Which cap is reached decides the next.

    | field | holds |
    |---|---|
    | kicks | further bisections, each from the best with a few pairs of copies exchanged at random |
    """

    kicks: int = 10
    name = "level"
    summary = "even loads: EPLB's start, copies exchanged, exact split over the copies"
    objectives = ("load",)

    def __post_init__(self) -> None:
        if self.kicks < 0:
            raise ValueError(f"kicks must be at least 0, found {self.kicks}")

    def search(
        self, problem: Problem, *, clock: Clock, rng: np.random.Generator, start: Placement | None
    ) -> Iterator[Placement]:
        """What each bisection ends with; none after one that is as even as any placement can be."""
        (sets,) = problem.workload.layers
        load = sets.weighted_load(problem.set_weights(sets))
        slots, least = problem.cluster.slots_of, least_fullest(problem)
        best = Packing.of(problem, load=load).mended().hosts(problem)
        yield _placement(problem, best)
        if start is not None and least_peak(load, start.hosts[0]) < least_peak(load, best):
            best = start.hosts[0].copy()
        for kick in range(self.kicks + 1):
            if least_peak(load, best) == least:
                return
            begun = best if kick == 0 else _disturbed(best, rng)
            found = _bisected(load, begun, slots=slots, least=least, clock=clock, rng=rng)
            if least_peak(load, found) < least_peak(load, best):
                best = found
                yield _placement(problem, best)
            if clock.expired:
                return


def _placement(problem: Problem, hosts: NDArray[np.bool_]) -> Placement:
    workload, cluster = problem.workload, problem.cluster
    primary = hosts.argmax(axis=1)[None]
    return Placement(
        hosts[None].copy(), primary, cluster.nodes, cluster.slots, workload.layer_ids, workload.model
    )


def _bisected(
    load: NDArray[np.int64],
    hosts: NDArray[np.bool_],
    *,
    slots: NDArray[np.int64],
    least: int,
    clock: Clock,
    rng: np.random.Generator,
) -> NDArray[np.bool_]:
    """bool [experts, gpus]: hosts whose fullest GPU serves least among those met."""
    low, high = least, least_peak(load, hosts)
    while low < high and not clock.expired:
        cap = (low + high) // 2
        found = _lowered(load, hosts, slots=slots, cap=cap, clock=clock, rng=rng)
        reached = least_peak(load, found)
        if reached < high:
            hosts, high = found, reached
        if reached > cap:
            low = cap + 1
    return hosts


def _lowered(
    load: NDArray[np.int64],
    hosts: NDArray[np.bool_],
    *,
    slots: NDArray[np.int64],
    cap: int,
    clock: Clock,
    rng: np.random.Generator,
) -> NDArray[np.bool_]:
    """bool [experts, gpus]: hosts changed one by one while that leaves fewer activations above the cap."""
    missing, stuck = shortfall(load, hosts, cap=cap)
    while missing and not clock.expired:
        for changed in _changes(load, hosts, stuck, slots=slots, rng=rng):
            left, others = shortfall(load, changed, cap=cap)
            if left < missing:
                hosts, missing, stuck = changed, left, others
                break
        else:
            return hosts
    return hosts


def _changes(
    load: NDArray[np.int64],
    hosts: NDArray[np.bool_],
    stuck: NDArray[np.bool_],
    *,
    slots: NDArray[np.int64],
    rng: np.random.Generator,
) -> Iterator[NDArray[np.bool_]]:
    """Hosts with one change that takes load off the GPUs `stuck` bool [gpus], in random order."""
    copies, held = hosts.sum(axis=1), hosts.sum(axis=0)
    full, other = np.flatnonzero(stuck), np.flatnonzero(~stuck)
    for g in rng.permutation(full):
        here = np.flatnonzero(hosts[:, g])
        for h in rng.permutation(other):
            there = np.flatnonzero(hosts[:, h] & ~hosts[:, g])
            for a in here[~hosts[here, h]]:
                if held[h] < slots[h]:
                    yield _changed(hosts, (a, g, False), (a, h, True))
                for b in np.flatnonzero(hosts[:, h] & (copies > 1)):
                    yield _changed(hosts, (b, h, False), (a, h, True))
                for b in there[load[there] < load[a]]:
                    yield _changed(hosts, (a, g, False), (a, h, True), (b, h, False), (b, g, True))


def _changed(hosts: NDArray[np.bool_], *seats: tuple[Any, Any, bool]) -> NDArray[np.bool_]:
    found = hosts.copy()
    for expert, gpu, held in seats:
        found[expert, gpu] = held
    return found


def _disturbed(hosts: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Three exchanges of copies, drawn at random, each between two GPUs that do not hold the other's yet."""
    found = hosts.copy()
    for _ in range(3 if hosts.shape[1] > 1 else 0):
        g, h = rng.choice(hosts.shape[1], 2, replace=False)
        own, others = np.flatnonzero(found[:, g] & ~found[:, h]), np.flatnonzero(found[:, h] & ~found[:, g])
        if own.size and others.size:
            a, b = rng.choice(own), rng.choice(others)
            found = _changed(found, (a, g, False), (a, h, True), (b, h, False), (b, g, True))
    return found
