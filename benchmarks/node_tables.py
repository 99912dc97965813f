"""The tables of requests and experts on several nodes and of general partitioners, from stored rows."""

from collections.abc import Callable, Mapping, Sequence
from math import log
from statistics import fmean
from typing import Any

from benchmarks.cases import NULL
from benchmarks.drawing import NONE, drawn, seconds
from benchmarks.pairing import compared, paired
from benchmarks.paper_tables import chance, spread
from benchmarks.partitioners import PEERS, RIVALS, SEARCH
from moeopt.bench_rows import Row
from moeopt.method import Method

Found = Mapping[str, Any]


def multi_node(rows: Sequence[Row]) -> str:
    """A table a model: a line a method, a column a number of nodes; means over splits, the null beside them."""
    found: dict[tuple[str, int], dict[str, list[Found]]] = {}
    for row in rows:
        source, _, nodes = row["case"].removesuffix(" nodes").rpartition(", ")
        found.setdefault((source, int(nodes)), {}).setdefault(row["method"], []).append(row["found"])
    counts = sorted({nodes for _, nodes in found})
    parts = []
    for model in dict.fromkeys(source.removeprefix(NULL) for source, _ in found):
        names = dict.fromkeys(
            name for (source, _), own in found.items() if source.removeprefix(NULL) == model for name in own
        )
        lines = []
        for name in names:
            real = [found.get((model, nodes), {}).get(name, []) for nodes in counts]
            null = [found.get((NULL + model, nodes), {}).get(name, []) for nodes in counts]
            lines.append(
                [
                    name,
                    ", ".join(str(len(own)) for own in real),
                    *(spread(known(own, "remote"), digits=3) for own in real),
                    *(_means(real, figure) for figure in ("nodes", "padded")),
                    _means(real, "busiest", digits=2),
                    _means(real, "extra_memory"),
                    _means(null, "remote"),
                ]
            )
        every = ", ".join(map(str, counts))
        head = [
            "method",
            "splits",
            *(f"volume, D = {nodes}" for nodes in counts),
            f"de-duplicated, D = {every}",
            "padded",
            "busiest",
            "extra memory",
            "null: volume",
        ]
        parts.append(f"**{model}**\n\n{drawn(head, lines)}\n")
    return "".join(parts) + (
        "Volume between nodes on held-out requests, 1 = linear placement with mixed batches: expert activations off "
        "the home node, mean ± standard deviation over splits; de-duplicated: nodes a token is sent to; padded: the "
        "same, every message of a batch as long as the largest. Busiest: tokens of the node that is home to most, over "
        "the mean. Extra memory: copies over experts. Several values in a cell: by D.\n"
    )


def partitioners(rows: Sequence[Row]) -> str:
    """A line a case, a column a method; below, the search against the strongest rival over all cases."""
    columns = {repr(method): _title(method) for method in (*PEERS, SEARCH)}
    columns |= {row["method"]: row["method"] for row in rows if row["method"] not in columns}
    lines, apart, wins = [], [], [0, 0, 0]
    for case in dict.fromkeys(row["case"] for row in rows):
        own = [row for row in rows if row["case"] == case and row["found"].get("cost") is not None]
        if not own:
            continue
        best = min(row["found"]["cost"] for row in own)
        cells = []
        for method in columns:
            runs = [row["found"] for row in own if row["method"] == method]
            cells.append(_cost_and_time(runs, best))
        search, rival = _costs(own, SEARCH), _costs(own, *RIVALS)
        versus = paired(search, rival)
        equal = versus.pairs - versus.above - versus.below
        score = NONE
        if versus.pairs:
            score = f"{versus.below}, {equal}, {versus.above} ({chance(versus.student)})"
            wins = [sum(pair) for pair in zip(wins, (versus.below, equal, versus.above), strict=True)]
            common = search.keys() & rival.keys()
            if all(search[seed] > 0 and rival[seed] > 0 for seed in common):
                apart.append(fmean(log(search[seed] / rival[seed]) for seed in common))
        lines.append([case, str(len({row["seed"] for row in own})), *cells, score])
    head = ["case", "seeds", *columns.values(), f"{_title(SEARCH)} against {_title(RIVALS[0])}"]
    overall = compared(apart, [0.0] * len(apart))
    note = (
        "\nMean cost over the best cost that any run of the case found, and mean time. Last column: seeds at which the "
        "search is cheaper, equal, dearer than the cheaper of the rival's runs without and with slack, in brackets "
        "the p-value of the paired t-test. Over all cases: cheaper "
        f"{wins[0]}, equal {wins[1]}, dearer {wins[2]}; Wilcoxon over the {len(apart)} cases, one mean log ratio each: "
        f"p {chance(overall.wilcoxon)}.\n"
    )
    return drawn(head, lines) + note


def known(own: Sequence[Found], figure: str) -> list[float]:
    """The values of a figure that are there."""
    return [one[figure] for one in own if one.get(figure) is not None]


def _means(cells: Sequence[Sequence[Found]], figure: str, *, digits: int = 3) -> str:
    """A mean for every number of nodes."""
    values = [known(own, figure) for own in cells]
    return ", ".join(f"{fmean(one):.{digits}f}" if one else NONE for one in values)


def _title(method: Method) -> str:
    """The name of a method, with its preset and slack where it has them."""
    preset, slack = getattr(method, "preset", ""), getattr(method, "slack", 0)
    return ", ".join([method.name, *([preset] if preset else []), *([f"slack {slack}"] if slack else [])])


def _cost_and_time(runs: Sequence[Found], best: int) -> str:
    if not runs:
        return NONE
    mean = fmean(one["cost"] for one in runs)
    ratio = mean / best if best else 1.0 if not mean else None
    cost = NONE if ratio is None else f"{ratio:.4f}"
    return f"{cost}, {seconds(fmean(one['seconds'] for one in runs))}"


def _costs(own: Sequence[Row], *methods: Method) -> dict[int, float]:
    """seed -> least cost of these methods."""
    named = {repr(method) for method in methods}
    rows = sorted((row for row in own if row["method"] in named), key=lambda row: -row["found"]["cost"])
    return {row["seed"]: float(row["found"]["cost"]) for row in rows}


def search(rows: Sequence[Row]) -> str:
    """A line a model: what the library's search reaches of the attainable saving."""
    lines = []
    for model in dict.fromkeys(row["case"] for row in rows):
        runs = [row["found"] for row in rows if row["case"] == model and row["layer"] is None]
        if not runs:
            continue
        layers = sum(run["layers"] for run in runs)
        cells = [
            f"{100 * fmean(run['share'] for run in runs):.2f} %",
            f"{100 * min(run['worst'] for run in runs):.2f} %",
        ]
        optimal = f"{sum(run['optimal'] for run in runs)} of {layers}"
        longest = seconds(max(run["longest"] for run in runs))
        lines.append([model, str(len(runs)), *cells, optimal, longest])
    head = ["traffic", "seeds", "share of the attainable saving", "worst layer", "optimal layers", "longest"]
    return drawn(head, lines)


TABLES: Mapping[str, tuple[str, Callable[[Sequence[Row]], str]]] = {
    "multi-node": ("multi-node", multi_node),
    "partitioners": ("partitioners", partitioners),
    "search": ("search", search),
}
"""Name of a table to its experiment and how it is drawn."""
