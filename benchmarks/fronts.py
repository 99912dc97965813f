"""Copies, hops and load: what more replicas and a looser load tolerance buy on held-out requests."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.papers import on_nulls
from benchmarks.placing import MEMORY, split
from benchmarks.serving_figures import linear_fan_out, summary
from benchmarks.suite import CORES, SEEDS, experiment
from moeopt import registry
from moeopt.api import solve
from moeopt.bench_rows import Key, Row, Task
from moeopt.cluster import Cluster
from moeopt.comparison import served_traffic
from moeopt.evening import even_out
from moeopt.heuristics.gesr import Gesr
from moeopt.heuristics.tacg import Tacg
from moeopt.method import Method
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.stop import Stop
from moeopt.trace import Trace

REPLICAS: Mapping[str, tuple[int, ...]] = {
    "deepseek-v2-lite": (0, 4, 8, 16, 32, 48),
    "gpt-oss-20b": (0, 4, 8, 16),
}
TOLERANCES = (None, "0.05", "0.15")
NULL_TOLERANCES = ("0.15",)  # on traffic without co-activation
GUARDS = ("0.05", "0.15")  # load tolerances of the dispatch, all traffic known
EVERY = 4  # one layer of so many
STOP = Stop(seconds=3)
LAST = "eplb"  # names the task: its rows end with it
SECONDS = 120.0


@dataclass(frozen=True)
class Point:
    """What a row's placements may use.

    | field | holds |
    |---|---|
    | gpus, replicas | of every layer |
    | tolerance | load tolerance that it is placed under |
    """

    gpus: int
    replicas: int
    tolerance: str | None

    def problem(self, seen: Trace) -> Problem:
        """On GPUs with the fewest slots, all alike, that hold experts and replicas."""
        slots = -(-(seen.n_experts + self.replicas) // self.gpus)
        return Problem.from_trace(
            seen,
            Cluster.of(gpus=self.gpus, slots=slots),
            replicas=self.replicas,
            load_tolerance=self.tolerance,
        )

    def methods(self) -> dict[str, Method]:
        """By name; the last one names the task."""
        return {
            "search": registry.named_method("search"),
            "tacg-gesr": Gesr(base=Tacg(), n_rep=self.replicas // 2),
            LAST: registry.named_method("eplb"),
        }


@experiment("replica-fronts", workers=CORES)
def replica_fronts() -> Iterable[Task]:
    """Held-out hops and loads by number of replicas and load tolerance: search, TACG with GESR, EPLB."""
    for prefix, seed in on_nulls(SEEDS):
        for model, counts in REPLICAS.items():
            for replicas in counts:
                for tolerance in NULL_TOLERANCES if prefix else TOLERANCES:
                    point = Point(MEMORY[model].gpus, replicas, tolerance)
                    key = Key(case_name(prefix + model, point), None, LAST, seed, repr(STOP))
                    yield Task(key, trace_front, (prefix + model, point, key), SECONDS)


def case_name(model: str, point: Point) -> str:
    """Of a row."""
    under = "any load" if point.tolerance is None else f"load {float(point.tolerance):.0%}"
    return f"{model}, {point.replicas} replicas, {under}"


def trace_front(model: str, point: Point, key: Key) -> list[Row]:
    """A row a method, on every fourth layer; the last one bears the key."""
    return front(model, *split(model, key.seed), point=point, key=key, stop=STOP)


def front(model: str, seen: Trace, held: Trace, *, point: Point, key: Key, stop: Stop) -> list[Row]:
    """As `trace_front`, of any split. A method without a placement within the tolerance has a reason instead."""
    layers = seen.layer_ids[::EVERY].tolist()
    seen, held = seen.layers(layers), held.layers(layers)
    problem = point.problem(seen)
    rows = []
    for name, method in point.methods().items():
        own = replace(key, method=name)
        result = solve(problem, method, stop=stop, seed=key.seed)
        found: dict[str, Any] = {
            "model": model,
            "scheme": name,
            "replicas": point.replicas,
            "slots": problem.cluster.slots,
            "tolerance": None if point.tolerance is None else float(point.tolerance),
            "placed_by": repr(method),
            "layers": layers,
            "seconds": result.seconds,
        }
        if result.placement is None:
            placed = sum(part.placement is not None for part in result.layers)
            why = f"{placed} of {len(layers)} layers placed: {result.message}"
            rows.append(own.row("done", reason=why, served=None, **found))
            continue
        placement = even_out(result.placement, problem.workload)
        copies = int(placement.hosts.sum()) / len(layers) - placement.n_experts
        rows.append(own.row("done", served=served(placement, held), extra=copies, **found))
    return rows


def served(placement: Placement, held: Trace) -> dict[str, dict[str, Any]]:
    """Figures at the cheapest dispatch and under each guard; the same where no expert has a choice."""
    linear = linear_fan_out(held, gpus=placement.gpus)
    found = {"cover": summary(served_traffic(placement, held), linear=linear)}
    if not placement.is_partition:
        for tolerance in GUARDS:
            traffic = served_traffic(placement, held, load_tolerance=tolerance)
            found[f"guard {tolerance}"] = summary(traffic, linear=linear)
    return found
