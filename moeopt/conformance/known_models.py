"""Checks on models that some release of some solver has got wrong."""

from __future__ import annotations

import numpy as np

from moeopt.conformance.bench import INF, Bench, Checks, mixed, whole
from moeopt.matrix import Matrix

__all__ = ["CHECKS"]

CHECKS = Checks()


@CHECKS
def _continuous_columns_may_take_fractions(bench: Bench) -> None:
    bench.least_if_stated(
        mixed([1.0, 1.0], [[2.0, 1.0]], at_least=[2.5], upper=[9.0, 1.0], integer=[False, True]), 1.25
    )


@CHECKS
def _a_continuous_column_beside_a_whole_one_is_not_skipped(bench: Bench) -> None:
    """HiGHS 1.14.0 called (0, 5), worth 15, the optimum."""
    known = mixed([2.0, 3.0], [[1.0, 1.0]], at_least=[4.5], upper=[10.0, 10.0], integer=[False, True])
    bench.least_if_stated(known, 9.0)


@CHECKS
def _ten_switches_beside_ten_amounts_stay_off(bench: Bench) -> None:
    """HiGHS 1.14.0 switched on: 11 for each pair instead of 10."""
    cost, rows = np.tile([2.0, 1.0], 10), np.kron(np.eye(10), [[2.0, 1.0]])
    lower, upper = np.tile([0.0, 9.0], 10), np.tile([1.0, INF], 10)
    known = mixed(
        cost, rows, at_least=np.full(10, 10.0), lower=lower, upper=upper, integer=np.tile([True, False], 10)
    )
    bench.least_if_stated(known, 100.0)


def _placement(generator: np.random.Generator) -> tuple[Matrix, float]:
    """Five things on two or three places, each pair priced when apart: the model, and its optimum."""
    things, places = 5, int(generator.integers(2, 4))
    pairs = [(one, other) for one in range(things) for other in range(one)]
    price = generator.integers(0, 6, len(pairs)).astype(float)
    size = things * places + len(pairs)
    room = -(-things // places)
    rows: list[np.ndarray[tuple[int, ...], np.dtype[np.float64]]] = []
    lower: list[float] = []
    upper: list[float] = []

    def add(entries: dict[int, float], low: float, high: float) -> None:
        row = np.zeros(size)
        row[list(entries)] = list(entries.values())
        rows.append(row)
        lower.append(low)
        upper.append(high)

    for thing in range(things):
        add({thing * places + place: 1.0 for place in range(places)}, 1.0, 1.0)
    for place in range(places):
        add({thing * places + place: 1.0 for thing in range(things)}, -INF, float(room))
    for at, (one, other) in enumerate(pairs):
        for place in range(places):
            split = {one * places + place: 1.0, other * places + place: -1.0, things * places + at: -1.0}
            add(split, -INF, 0.0)
    matrix = whole(np.concatenate([np.zeros(things * places), price]), rows, at_least=lower, at_most=upper)
    best = INF
    for code in range(places**things):
        where = [code // places**thing % places for thing in range(things)]
        if max(where.count(place) for place in range(places)) <= room:
            apart = [where[one] != where[other] for one, other in pairs]
            best = min(best, float(price @ np.array(apart, dtype=float)))
    return matrix, best


@CHECKS
def _small_placements_have_the_optimum_of_enumeration(bench: Bench) -> None:
    """Interchangeable places: PySCIPOpt 6.3.0 with symmetry handling was wrong on 2 of 1,400 such models."""
    generator = np.random.default_rng(2)
    for _ in range(20):
        bench.least(*_placement(generator))
