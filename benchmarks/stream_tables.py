"""The tables of streams whose mix of families shifts and of placements made for one family, from stored rows."""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from benchmarks.cases import NULL
from benchmarks.drawing import NONE, drawn, percent
from benchmarks.paper_tables import by_scheme, models, spread
from moeopt.bench_rows import Row

OWN = "search with copies"
OURS = ("search", "search + GESR", OWN)  # no baselines
SHIFTED = ("guard", "priced")
GROUPS: Mapping[str, Callable[[str], bool]] = {
    "balanced": lambda name: name == "balanced",
    "worst heavy stream": lambda name: name.endswith("%") and not name.startswith("bursts of "),
    "phases": lambda name: name.startswith("phases, "),
    "bursts": lambda name: name.startswith("bursts of "),
}

Found = Mapping[str, Any]
Served = tuple[float, float]


def shifts(rows: Sequence[Row]) -> str:
    """A table a model, a line a scheme, a column a group of streams; below, the search against all baselines."""
    parts, counts = [], []
    for model in models(rows):
        found, null = by_scheme(rows, model), by_scheme(rows, NULL + model)
        lines = []
        for name, own in found.items():
            cells = [_grouped(list(own.values()), group, serving) for serving in SHIFTED for group in GROUPS]
            chance = _grouped(list(null.get(name, {}).values()), "balanced", SHIFTED[0])
            lines.append([name, str(len(own)), *cells, chance])
        head = ["scheme", "splits", *(f"{serving}: {group}" for serving in SHIFTED for group in GROUPS)]
        head += [f"null: {SHIFTED[0]}: balanced"]
        parts.append(f"**{model}**\n\n{drawn(head, lines)}\n")
        counts += [[model, serving, *_against_all(found, serving)] for serving in SHIFTED]
    head = [
        "model",
        "serving",
        "streams",
        "saves no less than every baseline",
        "MaxVio no higher than every baseline",
        "both",
        "both, against the baseline that saves most",
    ]
    note = (
        "Saved on linear, MaxVio of loads summed over layers; means over splits. Worst heavy stream: the least saved "
        "and the highest MaxVio of the streams with 60 or 80 % of one family; phases and bursts: means of their "
        "streams. Placements are frozen; single copies leave serving no choice.\n\n"
        f"`{OWN}` in how many streams, all splits together; baselines are all lines but {', '.join(OURS)}.\n\n"
    )
    return "".join(parts) + note + drawn(head, counts)


def transfer(rows: Sequence[Row]) -> str:
    """A table a model: a line a source of the placement, a column a family that it is judged on."""
    parts = []
    for model in models(rows):
        real = _by_source(rows, model)
        null = _by_source(rows, NULL + model)
        families = list(
            dict.fromkeys(name for own in real.values() for one in own for name in one["reduction"])
        )
        lines = []
        for source, own in real.items():
            judged = [
                [one["reduction"][name] for one in own if name in one["reduction"]] for name in families
            ]
            lines.append(
                [
                    source,
                    str(len(own)),
                    *(spread(values, scale=100) for values in judged),
                    *(spread([one[what] for one in own], scale=100) for what in ("mean", "worst", "pooled")),
                    spread([one["pooled"] for one in null.get(source, [])], scale=100),
                ]
            )
        head = ["made from", "splits", *families, "mean", "worst", "all tokens", "null: all tokens"]
        parts.append(f"**{model}**\n\n{drawn(head, lines)}\n")
    return "".join(parts) + (
        "Per cent saved on linear on held-out requests, mean ± standard deviation over splits; columns: the family "
        "whose tokens are judged, mean and worst of the families, all tokens. Single copies by `search`.\n"
    )


def _grouped(own: Sequence[Found], group: str, serving: str) -> str:
    """Saved and MaxVio of a group of streams, means over splits."""
    worst = group.startswith("worst")
    saved, loads = [], []
    for one in own:
        streams = [figures(served, serving) for name, served in one["streams"].items() if GROUPS[group](name)]
        if streams:
            columns = list(zip(*streams, strict=True))
            saved.append(min(columns[0]) if worst else fmean(columns[0]))
            loads.append(max(columns[1]) if worst else fmean(columns[1]))
    return f"{percent(fmean(saved))}, {fmean(loads):.3f}" if saved else NONE


def figures(served: Found, serving: str) -> Served:
    """(reduction, MaxVio) of a way of serving, of the only way where copies leave no choice."""
    one = served.get(serving, served["cover"])
    return one["reduction"], one["max_violation"]


def _against_all(found: Mapping[str, Mapping[int, Found]], serving: str) -> list[str]:
    """Streams, and in how many of them the search with copies is no worse in one or both figures."""
    counts = [0, 0, 0, 0]
    streams = 0
    for seed, mine in found.get(OWN, {}).items():
        rivals = [own[seed]["streams"] for name, own in found.items() if name not in OURS and seed in own]
        for name, served in mine["streams"].items():
            others = [figures(one[name], serving) for one in rivals if name in one]
            if not others:
                continue
            streams += 1
            saved, load = figures(served, serving)
            saves = saved >= max(other for other, _ in others)
            evens = load <= min(other for _, other in others)
            most, least = max(others, key=lambda other: (other[0], -other[1]))
            held = (saves, evens, saves and evens, saved >= most and load <= least)
            counts = [count + one for count, one in zip(counts, held, strict=True)]
    return [str(streams), *map(str, counts)]


def _by_source(rows: Sequence[Row], case: str) -> dict[str, list[Found]]:
    found: dict[str, list[Found]] = {}
    for row in rows:
        if row["case"] == case:
            found.setdefault(row["found"]["source"], []).append(row["found"])
    return found


TABLES: Mapping[str, tuple[str, Callable[[Sequence[Row]], str]]] = {
    "shifts": ("shifts", shifts),
    "transfer": ("transfer", transfer),
}
"""Name of a table to its experiment and how it is drawn."""
