"""The tables of settings and of how much traffic a placement needs, from stored rows."""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from benchmarks.cases import NULL
from benchmarks.drawing import NONE, drawn
from benchmarks.pairing import paired
from benchmarks.paper_tables import SERVED_AS_PUBLISHED, chances, models, spread
from benchmarks.placing import FRACTION
from moeopt.bench_rows import Row

DEFAULTS = {"alpha": "alpha 0.25", "scorers": "scorer generality", "ablations": "full"}
LAMBDAS, GUARDS = "lambdas", "guards"
SAVED, LOADS = "reduction", "max_violation"

Found = Mapping[str, Any]
BySetting = Mapping[str, Mapping[int, Found]]


def sensitivity(rows: Sequence[Row]) -> str:
    """For every model a table of single settings, one of the two lambdas, and one of the guards."""
    parts = []
    for model in models(rows):
        groups = {
            prefix + group: _by_setting(rows, prefix + model, group)
            for prefix in ("", NULL)
            for group in (*DEFAULTS, LAMBDAS, GUARDS)
        }
        for draw in (_settings, _grid, _guards):
            if drawing := draw(groups):
                parts.append(f"**{model}**\n\n{drawing}\n")
    return "".join(parts) + (
        "Held-out requests; per cent saved on linear, mean ± standard deviation over splits, but for the grid of "
        f"means; settings of TACG and GESR are served by the {SERVED_AS_PUBLISHED}, as published, and by cover. Points "
        "and two-sided p-values (t, resampled t, Wilcoxon) are paired by split against the default of the group. "
        "MaxVio: of loads summed over layers. Guards and tolerances: inf is none.\n"
    )


def calibration(rows: Sequence[Row]) -> str:
    """A table a model: a line a scheme, a column a number of requests that it is made from."""
    parts = []
    for model in models(rows):
        own = [row for row in rows if row["case"] == model]
        sizes = sorted(
            {row["found"]["size"] for row in own}, key=lambda size: float("inf") if size is None else size
        )
        lines = []
        null = [row for row in rows if row["case"] == NULL + model]
        for kind, found in (("", own), ("null: ", null)):
            for scheme in dict.fromkeys(row["found"]["scheme"] for row in found):
                cells = [_learned(found, scheme, size) for size in sizes]
                lines.append([kind + scheme, *cells])
        head = ["scheme", *("all requests" if size is None else f"{size} a family" for size in sizes)]
        requests = [
            fmean(row["found"]["requests"] for row in own if row["found"]["size"] == size) for size in sizes
        ]
        lines.append(["requests in all", *(f"{count:.0f}" for count in requests)])
        parts.append(f"**{model}**\n\n{drawn(head, lines)}\n")
    return "".join(parts) + (
        "Per cent saved on linear on held-out requests, mean ± standard deviation, in brackets over how many splits; "
        "copies are served by the guard that knows all traffic. A dash: no placement within the load tolerance.\n"
    )


def _settings(groups: Mapping[str, BySetting]) -> str:
    """A line a setting."""
    lines = []
    for group, default in DEFAULTS.items():
        found, null = groups[group], groups[NULL + group]
        for name, own in found.items():
            versus = paired(
                _served(own, SERVED_AS_PUBLISHED, SAVED),
                _served(found.get(default, {}), SERVED_AS_PUBLISHED, SAVED),
                held_out=FRACTION,
            )
            compared = [NONE, NONE]
            if name != default and versus.difference is not None:
                points = round(100 * versus.difference, 2) + 0.0
                compared = [f"{points:+.2f}", chances(versus)]
            lines.append(
                [
                    f"{name}, default" if name == default else name,
                    str(len(own)),
                    spread(_served(own, SERVED_AS_PUBLISHED, SAVED).values(), scale=100, digits=2),
                    *compared,
                    spread(_served(own, SERVED_AS_PUBLISHED, LOADS).values(), digits=3),
                    spread(_served(own, "cover", SAVED).values(), scale=100, digits=2),
                    spread(
                        _served(null.get(name, {}), SERVED_AS_PUBLISHED, SAVED).values(), scale=100, digits=2
                    ),
                ]
            )
    head = ["setting", "splits", "saved", "over the default", "p", "MaxVio", "by cover: saved", "null: saved"]
    return drawn(head, lines) if lines else ""


def _grid(groups: Mapping[str, BySetting]) -> str:
    """A line a lambda1, a column a lambda2."""
    found = {tuple(name.split(", ")): own for name, own in groups[LAMBDAS].items()}
    firsts, seconds = (list(dict.fromkeys(name[at] for name in found)) for at in (0, 1))
    lines = []
    for first in firsts:
        cells = [_served(found.get((first, second), {}), SERVED_AS_PUBLISHED, SAVED) for second in seconds]
        lines.append([first, *(f"{100 * fmean(own.values()):.2f}" if own else NONE for own in cells)])
    return drawn(["", *seconds], lines) if lines else ""


def _guards(groups: Mapping[str, BySetting]) -> str:
    """A line a rule."""
    lines = []
    for name, own in groups[GUARDS].items():
        served = [one["served"] for one in own.values()]
        chance = [one["served"][SAVED] for one in groups[NULL + GUARDS].get(name, {}).values()]
        lines.append(
            [
                name,
                next(iter(own.values()))["scheme"],
                str(len(own)),
                spread([one[SAVED] for one in served], scale=100),
                spread([one[LOADS] for one in served], digits=3),
                spread([one["median_layer"] for one in served], digits=2),
                spread(chance, scale=100),
            ]
        )
    head = ["served by", "scheme", "splits", "saved", "MaxVio", "median layer's MaxVio", "null: saved"]
    return drawn(head, lines) if lines else ""


def _learned(own: Sequence[Row], scheme: str, size: int | None) -> str:
    """Saved by a scheme made from so many requests; those that placed nothing are not counted."""
    served = [
        row["found"]["served"]
        for row in own
        if (row["found"]["scheme"], row["found"]["size"]) == (scheme, size) and row["found"]["served"]
    ]
    values = [one.get("guard", one["cover"])[SAVED] for one in served]
    return f"{spread(values, scale=100)} ({len(values)})" if values else NONE


def _by_setting(rows: Sequence[Row], model: str, group: str) -> dict[str, dict[int, Found]]:
    """`[setting][seed]` of one group."""
    found: dict[str, dict[int, Found]] = {}
    for row in rows:
        if (row["case"], row["found"].get("group")) == (model, group):
            found.setdefault(row["found"]["setting"], {})[row["seed"]] = row["found"]
    return found


def _served(own: Mapping[int, Found], serving: str, figure: str) -> dict[int, float]:
    """A figure by seed, of cover where copies leave no choice."""
    return {seed: one["servings"].get(serving, one["servings"]["cover"])[figure] for seed, one in own.items()}


TABLES: Mapping[str, tuple[str, Callable[[Sequence[Row]], str]]] = {
    "sensitivity": ("sensitivity", sensitivity),
    "calibration": ("calibration", calibration),
}
"""Name of a table to its experiment and how it is drawn."""
