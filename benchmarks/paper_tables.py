"""The tables of methods on held-out requests, from stored rows: one copy each, and with copies by way of serving."""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from benchmarks.cases import NULL
from benchmarks.drawing import NONE, drawn, percent, seconds
from benchmarks.pairing import Comparison, described, mean_ranks, paired
from benchmarks.placing import FRACTION, MEMORY
from benchmarks.schemes import OPTIMUM, PUBLISHED, SCHEMES
from benchmarks.serving_figures import SERVINGS
from moeopt.bench_rows import Row

REFERENCE = "tacg"  # what single copies are compared with
REFERENCE_COPIES = "TACG + GESR"
SHORT = ("eplb + copies", REFERENCE_COPIES, "search + GESR", "search with copies")
SERVED_AS_PUBLISHED = "published guard"  # how the published figures with copies were served

Found = Mapping[str, Any]
BySeed = Mapping[int, Found]


def single(rows: Sequence[Row]) -> str:
    """A table a model, a line a scheme."""
    parts = []
    for model in models(rows):
        real, null = by_scheme(rows, model), by_scheme(rows, NULL + model)
        saved = {name: served(own, "cover", "reduction") for name, own in real.items()}
        ranks = mean_ranks(saved)
        lines = []
        for name, own in real.items():
            shares = [
                share
                for seed, one in own.items()
                if (share := attained(one, real.get(OPTIMUM, {}).get(seed)))
            ]
            lines.append(
                [
                    name,
                    str(len(own)),
                    spread(served(own, "cover", "comm").values(), digits=2),
                    interval(saved[name].values()),
                    _digits(ranks.get(name), 1),
                    *_against(saved, name, REFERENCE),
                    *_loads(own, "cover"),
                    percent(fmean(total for total, _ in shares) if shares else None),
                    percent(min(worst for _, worst in shares) if shares else None),
                    spread(served(null.get(name, {}), "cover", "reduction").values(), scale=100, unit=" %"),
                    seconds(fmean(one["seconds"] for one in own.values())),
                    PUBLISHED.get(name, NONE),
                ]
            )
        head = [
            "scheme",
            "splits",
            "hops a token",
            "saved on linear, %",
            "rank",
            f"over {REFERENCE}, points",
            "p: t, resampled t, Wilcoxon",
            "Jain",
            "MaxVio",
            "median layer's MaxVio",
            "share of the attainable",
            "its worst layer",
            "null: saved",
            "placed in",
            "published on other data, %",
        ]
        memory = MEMORY[model]
        title = f"**{model}**, {memory.gpus} GPUs with {memory.slots} experts each."
        parts.append(f"{title}\n\n{drawn(head, lines)}\n")
    return "".join(parts) + _note(REFERENCE) + _SHARES


def copied(rows: Sequence[Row]) -> str:
    """A table a model: way by way of serving, a line a scheme."""
    parts = []
    for model in models(rows):
        real, null = by_scheme(rows, model), by_scheme(rows, NULL + model)
        lines = []
        for serving in SERVINGS:
            saved = {name: served(own, serving, "reduction") for name, own in real.items()}
            ranks = mean_ranks({name: own for name, own in saved.items() if own})
            for name, own in real.items():
                if not saved[name]:
                    continue
                lines.append(
                    [
                        serving,
                        name,
                        str(len(saved[name])),
                        interval(saved[name].values()),
                        _digits(ranks.get(name), 1),
                        *_against(saved, name, REFERENCE_COPIES),
                        *_loads(own, serving),
                        f"{fmean(one['extra'] for one in own.values()):.1f}",
                        spread(
                            served(null.get(name, {}), serving, "reduction").values(), scale=100, unit=" %"
                        ),
                        PUBLISHED.get(name, NONE) if serving == SERVED_AS_PUBLISHED else NONE,
                    ]
                )
        head = [
            "serving",
            "scheme",
            "splits",
            "saved on linear, %",
            "rank",
            f"over {REFERENCE_COPIES}, points",
            "p: t, resampled t, Wilcoxon",
            "Jain",
            "MaxVio",
            "median layer's MaxVio",
            "copies a layer",
            "null: saved",
            "published on other data, %",
        ]
        memory = MEMORY[model]
        title = (
            f"**{model}**, {memory.gpus} GPUs with {memory.slots + 1} slots each, at most {memory.replicas} "
            "copies a layer."
        )
        parts.append(f"{title}\n\n{drawn(head, lines)}\n")
    ways = "; ".join(f"{name}: {what}" for name, what in SERVINGS.items())
    return "".join(parts) + _note(f"{REFERENCE_COPIES} served in the same way") + f"Served by {ways}.\n"


def copied_in_short(rows: Sequence[Row]) -> str:
    """A line a model and one of `SHORT`: what each way of serving saves, and the loads under the guard."""
    lines = []
    for model in models(rows):
        schemes = by_scheme(rows, model)
        for name in SHORT:
            own = schemes.get(name, {})
            guarded = [
                [*served(own, "guard", figure).values()] for figure in ("max_violation", "median_layer")
            ]
            loads = [_digits(fmean(values) if values else None, 2) for values in guarded]
            saved = [
                spread([*served(own, way, "reduction").values()], scale=100, unit=" %") for way in SERVINGS
            ]
            lines.append([model, name, str(len(own)), *saved, *loads])
    head = ["traffic", "method", "splits", *(f"saved, {way}" for way in SERVINGS)]
    return drawn([*head, "guard: MaxVio summed", "guard: MaxVio, median layer"], lines)


def by_scheme(rows: Sequence[Row], case: str) -> dict[str, dict[int, Found]]:
    """`[scheme][seed]` of one case, in the order of `SCHEMES`; only schemes and seeds that have rows."""
    found: dict[str, dict[int, Found]] = {}
    for row in rows:
        if row["case"] == case:
            found.setdefault(row["found"]["scheme"], {})[row["seed"]] = row["found"]
    known = list(SCHEMES)
    places = {name: known.index(name) if name in known else len(known) for name in found}
    return {name: dict(sorted(found[name].items())) for name in sorted(found, key=places.__getitem__)}


def served(own: BySeed, serving: str, figure: str) -> dict[int, float]:
    """One figure of one way of serving, by seed; single copies have only the way `cover`."""
    return {seed: one["servings"][serving][figure] for seed, one in own.items() if serving in one["servings"]}


def attained(found: Found, optimum: Found | None) -> tuple[float, float] | None:
    """Shares of the attainable saving on the traffic placed for: of the sum over layers, and of the worst layer.

    (reference - cost) / (reference - optimum), as `moeopt.result.certified_share`, over the layers that `optimum` has
    proved and that leave anything to attain. None without such layers.
    """
    if optimum is None:
        return None
    layers = [
        (reference - cost, reference - best)
        for reference, cost, best, bound in zip(
            found["references"], found["costs"], optimum["costs"], optimum["bounds"], strict=True
        )
        if best == bound and reference > best
    ]
    if not layers:
        return None
    total = sum(saving for saving, _ in layers) / sum(most for _, most in layers)
    return total, min(saving / most for saving, most in layers)


def interval(values: Sequence[float] | Any, *, scale: float = 100, digits: int = 1) -> str:
    """Mean ± standard deviation and the interval of the mean; of one value only itself, a dash without any."""
    known = [scale * value for value in values]
    if not known:
        return NONE
    sample = described(known)
    if sample.deviation is None or sample.low is None or sample.high is None:
        return _digits(sample.mean, digits)
    ends = f"[{_digits(sample.low, digits)}, {_digits(sample.high, digits)}]"
    return f"{_digits(sample.mean, digits)} ± {sample.deviation:.{digits}f} {ends}"


def spread(values: Sequence[float] | Any, *, scale: float = 1, digits: int = 1, unit: str = "") -> str:
    """Mean ± standard deviation; of one value only itself, a dash without any."""
    known = [scale * value for value in values]
    if not known:
        return NONE
    sample = described(known)
    around = "" if sample.deviation is None else f" ± {sample.deviation:.{digits}f}"
    return f"{_digits(sample.mean, digits)}{around}{unit}"


def chances(comparison: Comparison) -> str:
    """The three p-values; a dash where the test says nothing."""
    return ", ".join(map(chance, (comparison.student, comparison.resampled, comparison.wilcoxon)))


def chance(p: float | None) -> str:
    """A p-value to three digits after the point."""
    if p is None:
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _against(saved: Mapping[str, Mapping[int, float]], name: str, reference: str) -> list[str]:
    """Mean difference in points and its p-values, over the seeds of both."""
    if name == reference or reference not in saved:
        return [NONE, NONE]
    comparison = paired(saved[name], saved[reference], held_out=FRACTION)
    if comparison.difference is None:
        return [NONE, NONE]
    return [f"{round(100 * comparison.difference, 1) + 0.0:+.1f}", chances(comparison)]


def _loads(own: BySeed, serving: str) -> list[str]:
    """Jain, MaxVio of the loads summed over layers, and that of the median layer; means over seeds."""
    digits = {"jain": 4, "max_violation": 3, "median_layer": 2}
    return [f"{fmean(served(own, serving, figure).values()):.{n}f}" for figure, n in digits.items()]


def _digits(value: float | None, digits: int) -> str:
    """A number, never minus zero; a dash for None."""
    return NONE if value is None else f"{round(value, digits) + 0.0:.{digits}f}"


def models(rows: Sequence[Row]) -> list[str]:
    """Those with rows on real traffic, in the order of the tables."""
    present = {row["case"] for row in rows}
    return [model for model in MEMORY if model in present]


def _note(reference: str) -> str:
    return (
        f"Each split sets {100 * FRACTION:.0f} % of the requests aside, of which the figures are. Mean ± "
        "standard deviation over splits, [95 % percentile bootstrap interval of the mean]; rank: mean "
        "over the splits that all lines have. Differences and two-sided p-values are paired by split, against "
        f"{reference}: the ordinary t-test takes splits as independent, which they are not, the resampled one counts "
        "their overlap (Nadeau and Bengio, 2003); none is corrected for the number of lines. Hops: further GPUs of a "
        "token, summed over layers. Jain and MaxVio: of loads summed over layers, but for the median layer. Null: "
        "traffic without co-activation. Published: arXiv 2606.01007, tables 1 and 2, other models and other traffic.\n"
    )


_SHARES = (
    f"Share of the attainable: saving on the requests placed for, over that of the {OPTIMUM} of the same split, layers "
    "with a proof summed; worst layer of all splits.\n"
)

TABLES: Mapping[str, tuple[str, Callable[[Sequence[Row]], str]]] = {
    "papers": ("papers", single),
    "papers-copies": ("papers-copies", copied),
    "copies-in-short": ("papers-copies", copied_in_short),
}
"""Name of a table to its experiment and how it is drawn."""
