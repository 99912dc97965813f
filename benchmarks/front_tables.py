"""The tables of what replicas buy at each load tolerance and of a whole model planned in a minute, from stored rows."""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from benchmarks.drawing import NONE, drawn, percent, seconds
from benchmarks.suite import CORES
from moeopt.bench_rows import Row

SHOWN = ("cover", "guard 0.15")

Found = Mapping[str, Any]


def replica_fronts(rows: Sequence[Row]) -> str:
    """A table a model: a line a tolerance, scheme and way of serving, a column a number of replicas."""
    parts = []
    for model in dict.fromkeys(row["found"]["model"] for row in rows):
        own = [row["found"] for row in rows if row["found"]["model"] == model]
        counts = sorted({one["replicas"] for one in own})
        schemes = dict.fromkeys(one["scheme"] for one in own)
        tolerances = sorted(
            {one["tolerance"] for one in own}, key=lambda found: float("inf") if found is None else found
        )
        lines = []
        for tolerance in reversed(tolerances):
            for scheme in schemes:
                for serving in SHOWN:
                    cells = [_cell(own, tolerance, scheme, serving, count) for count in counts]
                    if set(cells) != {NONE}:
                        lines.append([load(tolerance), scheme, serving, *cells])
        head = ["placed within", "scheme", "served", *(f"{count} replicas" for count in counts)]
        parts.append(f"**{model}**\n\n{drawn(head, lines)}\n")
    return "".join(parts) + (
        "Held-out requests, every fourth layer: saved on linear and MaxVio of loads summed over layers, means, in "
        "brackets over how many splits; a dash: no placement within the load tolerance. Served by the cheapest copies, "
        "or so that no GPU serves more than 15 % above the mean, or as little above it as these copies allow; without "
        "replicas there is no choice. Slots: the fewest, all GPUs alike, that hold experts and replicas.\n"
    )


def full_plan(rows: Sequence[Row]) -> str:
    """A line a scheme: the stages of its plan, memory, and how the plan serves its traffic."""
    lines = []
    for row in rows:
        found = row["found"]
        stages = ", ".join(f"{name} {seconds(value)}" for name, value in found["stages"].items())
        cells = [NONE] * 5
        if found.get("served"):
            guard, cover = found["served"]["guard"], found["served"]["cover"]
            loads = [f"{guard[name]:.3f}" for name in ("max_violation", "median_layer", "worst_layer")]
            cells = [percent(guard["reduction"]), *loads, percent(cover["reduction"])]
        lines.append(
            [
                row["case"],
                found["scheme"],
                seconds(found["wall_seconds"]),
                stages,
                f"{found['peak_mib']:,.0f} + {CORES} × {found['peak_worker_mib']:,.0f}",
                *cells,
            ]
        )
    head = [
        "traffic",
        "scheme",
        "trace to plan",
        "stages",
        "peak memory, MiB",
        "saved on linear",
        "MaxVio",
        "median layer's",
        "worst layer's",
        "by cover: saved",
    ]
    return drawn(head, lines) + (
        "\nThe traffic that the plan is made from, served so that no GPU is above the load tolerance, or as little "
        "above it as these copies allow, and by the cheapest copies. MaxVio: of loads summed over layers, of the "
        "median and of the worst layer. A dash: no plan.\n"
    )


def load(tolerance: float | None) -> str:
    """A load tolerance in words."""
    return "any load" if tolerance is None else f"{100 * tolerance:.0f} %"


def _cell(own: Sequence[Found], tolerance: float | None, scheme: str, serving: str, replicas: int) -> str:
    """Saved, MaxVio and the number of splits; a dash where nothing was placed."""
    wanted = (tolerance, scheme, replicas)
    served = [
        one["served"]
        for one in own
        if (one["tolerance"], one["scheme"], one["replicas"]) == wanted and one["served"]
    ]
    values = [one.get(serving, one["cover"]) for one in served]
    if not values:
        return NONE
    saved = percent(fmean(one["reduction"] for one in values))
    return f"{saved}, {fmean(one['max_violation'] for one in values):.3f} ({len(values)})"


def streaming(rows: Sequence[Row]) -> str:
    """A line a size."""
    head = ["rows, millions", "file, MiB", "plain read (CPU)", "to a workload (CPU)", "ratio (CPU)"]
    head += ["CPU seconds a million rows", "peak, MiB", "tokens kept", "largest error of a load"]
    lines = []
    for one in sorted((row["found"] for row in rows), key=lambda found: found["rows"]):
        millions = one["rows"] / 1e6
        lines.append(
            [
                f"{millions:.0f}",
                f"{one['file_mib']:.0f}",
                f"{seconds(one['read_seconds'])} ({seconds(one['read_cpu'])})",
                f"{seconds(one['seconds'])} ({seconds(one['cpu'])})",
                f"{one['ratio_to_read']:.1f} ({one['cpu_ratio']:.1f})",
                f"{one['cpu'] / millions:.2f}",
                f"{one['peak_mib']:.0f}",
                "all" if one["taken"] == one["tokens"] else f"{one['taken']:,} of {one['tokens']:,}",
                percent(one["load_error"]),
            ]
        )
    return drawn(head, lines)


TABLES: Mapping[str, tuple[str, Callable[[Sequence[Row]], str]]] = {
    "replica-fronts": ("replica-fronts", replica_fronts),
    "full-plan": ("full-plan", full_plan),
    "streaming": ("streaming", streaming),
}
"""Name of a table to its experiment and how it is drawn."""
