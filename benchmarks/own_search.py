"""The library's own search against proved optima: single copies, recorded models, two seconds a layer."""

from collections.abc import Iterable
from dataclasses import replace

from benchmarks.cases import Case, case
from benchmarks.suite import CORES, MINUTE, experiment
from moeopt import registry
from moeopt.api import solve
from moeopt.bench_rows import Key, Row, Task
from moeopt.problem import Problem
from moeopt.reference import reference_cost
from moeopt.stop import Stop

MODELS = ("deepseek-v2-lite", "gpt-oss-20b")
SEEDS = range(3)
LIMIT = Stop(seconds=1.9)


@experiment("search", workers=CORES)
def search() -> Iterable[Task]:
    """How much of the attainable saving the search reaches within two seconds a layer, against the proved optimum."""
    for seed in SEEDS:
        for name in MODELS:
            key = Key(name, None, repr(registry.named_method("search")), seed, repr(LIMIT))
            yield Task(key, measure_model, (case(name), key), 300.0)


def measure_model(one: Case, key: Key) -> list[Row]:
    """A row a layer, then one of all: costs, optima, seconds."""
    problem = one.problem()
    layers = [problem.layer(index) for index in range(len(problem.workload.layers))]
    rows = [
        measure_layer(layer, replace(key, layer=index))
        for index, layer in zip(problem.workload.layer_ids, layers, strict=True)
    ]
    whole = {name: sum(row["found"][name] for row in rows) for name in ("cost", "optimum", "reference")}
    shares = [row["found"]["share"] for row in rows]
    found = {
        **whole,
        "layers": len(rows),
        "share": (whole["reference"] - whole["cost"]) / (whole["reference"] - whole["optimum"]),
        "worst": min(shares),
        "optimal": sum(row["found"]["cost"] == row["found"]["optimum"] for row in rows),
        "longest": max(row["found"]["seconds"] for row in rows),
    }
    return [*rows, key.row("done", **found)]


def measure_layer(problem: Problem, key: Key) -> Row:
    """RuntimeError where the optimum is not proved in a minute."""
    found = solve(problem, registry.named_method("search"), stop=LIMIT, seed=key.seed)
    proved = solve(problem, "auto", stop=MINUTE)
    if found.cost is None or proved.bound is None or proved.bound != proved.cost:
        raise RuntimeError(f"layer {key.layer}: found {found.cost}, proved {proved.status}")
    reference = float(reference_cost(problem))
    attainable = reference - proved.bound
    return key.row(
        "done",
        cost=found.cost,
        optimum=proved.bound,
        reference=reference,
        share=(reference - found.cost) / attainable if attainable else 1.0,
        seconds=found.seconds,
    )
