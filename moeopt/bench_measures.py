"""What rows of a sweep add up to: shares of what is attainable, times, profiles of performance, fronts."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import exp, log
from statistics import fmean
from typing import Any

import numpy as np

from moeopt.bench_origins import answers_apart, differing_origins, origin_of, stop_words
from moeopt.bench_rows import Key, Row
from moeopt.result import certified_share

__all__ = [
    "SHIFT",
    "MethodSummary",
    "Place",
    "best_bounds",
    "front",
    "gap_curve",
    "named_rows",
    "performance_profile",
    "saving",
    "shifted_mean",
    "summaries",
    "total_bounds",
]

SHIFT = 10.0  # seconds: what is over at once must not decide a mean
Place = tuple[str, int, int | None]  # case, seed, layer


@dataclass(frozen=True)
class MethodSummary:
    """One method over all cases and seeds of a sweep; None for what no row tells.

    | field | holds |
    |---|---|
    | method | as asked for |
    | runs, failed | of them; without an answer, or with one that the referee refuted |
    | layers, optimal | solved; proved optimal |
    | share | mean over layers of the certified share of the attainable saving, by the best bound any method has |
    | gap | mean over layers of (cost - that bound) / cost |
    | seconds | shifted geometric mean of the runs' |
    | reduction, held_out | mean saving on linear: on the traffic placed for, on requests set aside |
    | max_violation | mean MaxVio of the median layer |
    """

    method: str
    runs: int
    failed: int
    layers: int
    optimal: int
    share: float | None
    gap: float | None
    seconds: float | None
    reduction: float | None
    held_out: float | None
    max_violation: float | None


def summaries(rows: Sequence[Row]) -> list[MethodSummary]:
    """A summary a method, in the order of their first rows."""
    bounds = best_bounds(rows)
    return [_summary(name, own, bounds) for name, own in by_method(rows).items()]


def by_method(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows by the method as asked for; of a run without an answer by its repr."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(name_of(row), []).append(row)
    names = {row["method"]: name for name, own in found.items() for row in own if "method" in row["found"]}
    merged: dict[str, list[Row]] = {}
    for name, own in found.items():
        merged.setdefault(names.get(name, name), []).extend(own)
    return merged


def named_rows(rows: Iterable[Row]) -> list[Row]:
    """The rows told apart, see `answers_apart`, each with the name of its method in `found`, whether it failed or not.

    A name that stands for several settings or stops on one case is followed by those that differ, one with several
    rows of the same key by the machines and versions.
    """
    apart = answers_apart(rows)
    labels: dict[tuple[str, str, str, str], str] = {}
    for name, own in by_method(apart).items():
        cases: dict[str, set[tuple[str, str]]] = {}
        for row in own:
            cases.setdefault(row["case"], set()).add((row["method"], row["stop"]))
        several = any(len(ways) > 1 for ways in cases.values())
        settings = _differing({method for ways in cases.values() for method, _ in ways} if several else ())
        stops = {stop for ways in cases.values() for _, stop in ways} if several else set()
        words = {stop: stop_words(stop) for stop in stops} if len(stops) > 1 else {}
        places = differing_origins(own) if len({Key.of(row) for row in own}) < len(own) else {}
        for row in own:
            more = (settings.get(row["method"]), words.get(row["stop"]), places.get(origin_of(row)))
            labels[_about(row)] = ", ".join(filter(None, (name, *more)))
    return [{**row, "found": {**row["found"], "method": labels[_about(row)]}} for row in apart]


def _about(row: Row) -> tuple[str, str, str, str]:
    return name_of(row), row["method"], row["stop"], origin_of(row)


def name_of(row: Row) -> str:
    """Of the method as asked for; of a run without an answer its repr."""
    return str(row["found"].get("method", row["method"]))


def best_bounds(rows: Iterable[Row]) -> dict[Place, int]:
    """The best verified bound of any method on each layer of a case; seeds differ where requests are held out."""
    found: dict[Place, int] = {}
    for row in rows:
        bound = row["found"].get("bound")
        if bound is not None and row["layer"] is not None:
            place = _place(row)
            found[place] = max(bound, found.get(place, bound))
    return found


def total_bounds(rows: Sequence[Row]) -> dict[tuple[str, int], int]:
    """By case and seed: the best verified bound on all layers, of one run or of the best on each layer."""
    found: dict[tuple[str, int], int] = {}
    parts: dict[tuple[str, int], list[int | None]] = {}
    bounds, places = best_bounds(rows), dict.fromkeys(_place(row) for row in rows)
    for place in places:
        if place[2] is not None:
            parts.setdefault(place[:2], []).append(bounds.get(place))
    for row in rows:
        about, bound = (row["case"], row["seed"]), row["found"].get("bound")
        if bound is not None and row["layer"] is None:
            found[about] = max(bound, found.get(about, bound))
    for about, own in parts.items():
        known = [bound for bound in own if bound is not None]
        if len(known) == len(own):
            found[about] = max(sum(known), found.get(about, sum(known)))
    return found


def gap_curve(
    runs: Sequence[tuple[Sequence[Sequence[Any]], float]], *, times: Sequence[float]
) -> list[float | None]:
    """Mean over runs of (cost at a time - floor) / cost; None until every run has a cost.

    `runs`: steps [seconds, cost or None, bound or None], earliest first, and the floor of each; `times` in seconds.
    """
    if not runs:
        return [None for _ in times]
    total = np.zeros(len(times))
    for steps, least in runs:
        known = [(seconds, cost) for seconds, cost, _ in steps if cost is not None]
        costs = np.array([np.nan, *(cost for _, cost in known)])
        now = costs[np.searchsorted([seconds for seconds, _ in known], times, side="right")]
        total += np.where(now == 0, 0.0, (now - least) / np.where(now == 0, 1.0, now))
    return [None if np.isnan(value) else float(value) for value in total / len(runs)]


def shifted_mean(values: Sequence[float], *, shift: float = SHIFT) -> float | None:
    """Geometric mean of the values plus `shift`, less it; None of none."""
    return exp(fmean(log(value + shift) for value in values)) - shift if values else None


def performance_profile(
    costs: Mapping[str, Mapping[Any, float]], *, ratios: Sequence[float]
) -> dict[str, list[float]]:
    """By method: share of the problems on which it is within each ratio of the best method (Dolan and Moré, 2002).

    `costs` by method and problem, positive; a problem that a method has no cost of counts against it.
    """
    problems = {problem for own in costs.values() for problem in own}
    best = {one: min(own[one] for own in costs.values() if one in own) for one in problems}
    return {
        name: [sum(own[one] <= ratio * best[one] for one in own) / max(len(problems), 1) for ratio in ratios]
        for name, own in costs.items()
    }


def front(points: Sequence[tuple[float, ...]]) -> list[bool]:
    """Which points no other is at least as low as in every coordinate and lower in one."""
    if not points:
        return []
    found = np.asarray(points, float)
    no_higher = (found[:, None] <= found).all(axis=2)
    lower = (found[:, None] < found).any(axis=2)
    beaten = np.any(no_higher & lower, axis=0)
    return [not one for one in beaten]


def saving(found: Mapping[str, Any]) -> float | None:
    """Saved on linear by what a run found; None without a placement, or where linear touches one GPU only."""
    if found.get("fan_out") is None or not found.get("linear_fan_out"):
        return None
    return float(1 - found["fan_out"] / found["linear_fan_out"])


def _differing(texts: Collection[str]) -> dict[str, str]:
    """Of reprs with arguments, the arguments that are not common to all; whole reprs where that tells too little."""
    if len(texts) < 2:
        return {}
    parts = {text: _arguments(text) for text in texts}
    found = {
        text: ", ".join(part for part in own if not all(part in other for other in parts.values()))
        for text, own in parts.items()
    }
    return (
        found
        if len(set(found.values())) == len(found) and all(found.values())
        else {text: text for text in texts}
    )


def _arguments(text: str) -> list[str]:
    """Arguments of a repr, and of a method of one's own its source."""
    own = re.fullmatch(r"(.*\)) \[([0-9a-f]+)\]", text)
    call = text if own is None else own[1].rpartition(":")[2].partition(" ")[2]
    parts = call.partition("(")[2].removesuffix(")").split(", ")
    return parts if own is None else [*parts, f"source {own[2]}"]


def _summary(name: str, rows: Sequence[Row], bounds: Mapping[Place, int]) -> MethodSummary:
    runs = [row for row in rows if row["layer"] is None]
    sound = [
        row for row in rows if row["outcome"] == "done" and not row["reason"]
    ]  # not refuted by the referee
    layers = [row for row in sound if row["layer"] is not None and row["found"].get("cost") is not None]
    shares, gaps = [], []
    for row in layers:
        found, bound = row["found"], bounds.get(_place(row))
        reference = Fraction(found["reference"])
        share = certified_share(reference=reference, cost=found["cost"], bound=bound)
        if share is not None:
            shares.append(share)
        if bound is not None:
            gaps.append((found["cost"] - bound) / found["cost"] if found["cost"] else 0.0)
    done = [row["found"] for row in sound if row["layer"] is None]
    saved = [saving(found) for found in done]
    return MethodSummary(
        method=name,
        runs=len(runs),
        failed=len(runs) - len(done),
        layers=len(layers),
        optimal=sum(row["found"]["status"] == "certified-optimal" for row in layers),
        share=_mean(shares),
        gap=_mean(gaps),
        seconds=shifted_mean([found["seconds"] for found in done]),
        reduction=_mean(saved),
        held_out=_mean([saving(found["held_out"]) for found in done if found.get("held_out")]),
        max_violation=_mean([found["max_violation"] for found in done]),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _place(row: Row) -> Place:
    return row["case"], row["seed"], row["layer"]
