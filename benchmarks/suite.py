"""The experiments, by name."""

import resource
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from benchmarks.cases import CASES, NULL, Case, case, read_source
from moeopt import parallel, registry
from moeopt.api import solve
from moeopt.bench_referee import Judgement, judge
from moeopt.bench_rows import Key, Row, Task
from moeopt.characteristics import profile
from moeopt.comparison import compare, evaluate, mean_fan_out
from moeopt.exact import Exact
from moeopt.heuristics.linear import Linear
from moeopt.method import Method, refusal
from moeopt.problem import Problem
from moeopt.result import Result
from moeopt.stop import Stop
from moeopt.summary import per_token, share
from moeopt.trace import Trace
from moeopt.traffic import Traffic, max_violation
from moeopt.workload import Workload

CORES = 2  # processes that solve layers in parallel
SMOKE = Stop(seconds=1, candidates=3)
SOLVED_IN_SMOKE = (
    "blocks",
)  # other formulations only say whether they state a case: `benchmarks.tiny` solves them
HEEDLESS = {"kahip": 128}  # experts from where on smoke leaves a method alone that knows no time limit
MINUTE = Stop(seconds=60)
HELD_OUT = Stop(seconds=10)
FRACTION, SEEDS = 0.2, range(10)
METHODS = ("linear", "random", "lpt", "swap-cut", "swap", "blocks")


@dataclass(frozen=True)
class Experiment:
    """A name, the tasks, and how they run; see `moeopt.bench_sweep.sweep` for `workers` and `contradiction`.

    `stored` is False where the rows are for a look and not for keeping.
    """

    name: str
    summary: str
    tasks: Callable[[], Iterable[Task]]
    workers: int = 1
    stored: bool = True
    contradiction: Callable[[Row, Sequence[Row]], str] | None = None


EXPERIMENTS: dict[str, Experiment] = {}


def experiment(
    name: str,
    *,
    workers: int = 1,
    stored: bool = True,
    contradiction: Callable[[Row, Sequence[Row]], str] | None = None,
) -> Callable[[Callable[[], Iterable[Task]]], Callable[[], Iterable[Task]]]:
    """Register a function that lists tasks; the first line of its docstring is the summary."""

    def register(tasks: Callable[[], Iterable[Task]]) -> Callable[[], Iterable[Task]]:
        summary = (tasks.__doc__ or "").partition("\n")[0]
        EXPERIMENTS[name] = Experiment(name, summary, tasks, workers, stored, contradiction)
        return tasks

    return register


@experiment("smoke", workers=CORES, stored=False)
def smoke() -> Iterable[Task]:
    """Every case, its first layer, by every heuristic and the exact methods for real sizes, once and briefly."""
    last = registry.all_methods()[-1]
    for one in sorted(CASES.values(), key=lambda one: -one.gpus * one.slots):  # what takes long begins first
        yield Task(Key(one.name, None, repr(last), 0, repr(SMOKE)), try_methods, (one,))


def try_methods(one: Case) -> list[Row]:
    """A row a method: what it found, that it does not treat the case, or how it failed; see SOLVED_IN_SMOKE."""
    one = one.first_layer()
    recorded = one.trace()
    problem = one.problem(recorded)
    rows = []
    for method in registry.all_methods():
        key = Key(one.name, None, repr(method), 0, repr(SMOKE))
        if reason := refusal(method, problem):
            rows.append(key.row("unsupported", reason=reason))
            continue
        if isinstance(method, Exact) and method.name not in SOLVED_IN_SMOKE:
            continue
        if (most := HEEDLESS.get(method.name)) and problem.workload.n_experts > most:
            rows.append(
                key.row("unsupported", reason=f"knows no time limit: not asked beyond {most} experts")
            )
            continue
        try:
            result = solve(problem, method, stop=SMOKE)
        except Exception as error:  # a row with its reason, and the next method's turn
            rows.append(key.row("failed", reason=f"{type(error).__name__}: {error}"))
            continue
        rows.append(solved_row(key, problem, result, recorded))
    return rows


@experiment("held-out")
def held_out() -> Iterable[Task]:
    """Placements judged on requests they were not made from, on the recorded models and on their nulls."""
    for prefix in ("", NULL):
        for seed in SEEDS:
            for one in (case(prefix + "gpt-oss-20b"), case(prefix + "deepseek-v2-lite")):
                last = registry.named_method(METHODS[-1])
                key = Key(one.name, None, repr(last), seed, repr(HELD_OUT))
                yield Task(key, compare_held_out, (one, key))


def compare_held_out(one: Case, key: Key) -> list[Row]:
    """A row a method, by `moeopt.compare`; every layer's result is judged again before a row counts as certified."""
    recorded = one.trace()
    problem = one.problem(recorded)
    # Swap search is slow on the nulls, whose sets are nearly all distinct; the optimum says more.
    names = [name for name in METHODS if name != "swap" or not one.name.startswith(NULL)]
    methods: list[str | Method] = [registry.named_method(name) for name in names]
    results: list[Result] = []
    with parallel.processes(CORES) as executor:
        compared = compare(
            problem,
            methods,
            seeds=[key.seed],
            stop=HELD_OUT,
            trace=recorded,
            held_out=FRACTION,
            executor=executor,
            on_layer=results.append,
        )
        kept, _ = recorded.split(FRACTION, seed=key.seed)
        seen = one.problem(kept)
        layers = {layer: seen.layer(index) for index, layer in enumerate(seen.workload.layer_ids)}
        parts = {layer: kept.layers([layer]) for layer in layers}
        judgements, _ = parallel.run(
            executor,
            [
                (partial(judge, recorded=parts[part.layer_id]), (layers[part.layer_id], part))
                for part in results
                if part.layer_id is not None
            ],
        )
    rows = []
    for method, row in zip(methods, compared, strict=True):
        own = replace(key, method=repr(method))
        verdicts = [
            verdict
            for verdict, part in zip(judgements, results, strict=True)
            if part.method == own.method and verdict is not None
        ]
        rows.append(_held_out_row(own, asdict(row), verdicts))
    return rows


def _held_out_row(key: Key, found: dict[str, Any], verdicts: list[Judgement]) -> Row:
    refused = next((verdict for verdict in verdicts if verdict.reason), None)
    if refused is not None:
        found["status"] = refused.status
    elif sum(verdict.cost or 0 for verdict in verdicts) != (found["cost"] or 0):
        found["status"] = "disagreement"
    times = [verdict.verify_seconds for verdict in verdicts if verdict.verify_seconds is not None]
    found["verify_seconds"] = sum(times) if times else None
    found["layers"] = len(verdicts)
    found["layers_optimal"] = sum(verdict.status == "certified-optimal" for verdict in verdicts)
    return key.row("done", reason="" if refused is None else refused.reason, **found)


@experiment("presets")
def presets() -> Iterable[Task]:
    """The generator's presets: how skewed, and how much search saves on them and on their nulls."""
    for name in ("synthetic-64", "synthetic-128", "synthetic-256", "synthetic-512"):
        one = case(name)
        key = Key(one.name, None, repr(registry.named_method("swap")), 0, repr(MINUTE))
        yield Task(key, measure_preset, (one, key))


def measure_preset(one: Case, key: Key) -> list[Row]:
    """One row: loads, families, fan-out of linear, reduction by swap, and the same for the null."""
    recorded = one.trace()
    control = read_source(NULL + one.source, layers=one.layers)
    layers = profile(recorded).layers
    correlations = [layer.family_correlation for layer in layers if layer.family_correlation is not None]
    begun = time.perf_counter()
    with parallel.processes(CORES) as executor:
        placed = [
            solve(one.problem(part), registry.named_method("swap"), stop=MINUTE, executor=executor)
            for part in (recorded, control)
        ]
    seconds = time.perf_counter() - begun
    judged = [
        judge(one.problem(part), result, recorded=part)
        for result, part in zip(placed, (recorded, control), strict=True)
    ]
    refused = next((verdict for verdict in judged if verdict.reason), judged[0])
    reductions = [
        None if result.placement is None else evaluate(result.placement, part).reduction
        for result, part in zip(placed, (recorded, control), strict=True)
    ]
    return [
        key.row(
            "done",
            reason=refused.reason,
            status=refused.status,
            layers=len(layers),
            experts=recorded.n_experts,
            top_k=recorded.top_k,
            gpus=one.gpus,
            max_over_mean=float(np.mean([layer.max_over_mean for layer in layers])),
            family_correlation=float(np.mean(correlations)),
            linear_fan_out=linear_fan_out(one.problem(recorded)),
            reduction=reductions[0],
            null_reduction=reductions[1],
            seconds=seconds,
        )
    ]


def solved_row(key: Key, problem: Problem, result: Result, recorded: Trace | Workload) -> Row:
    """The row of one solved problem, judged."""
    judgement = judge(problem, result, recorded=recorded)
    found = {
        **judged(problem, result, judgement),
        "seconds": result.seconds,
        "message": result.message,
        "peak_mib": peak(resource.RUSAGE_SELF),
    }
    return key.row("done", reason=judgement.reason, **found)


def judged(problem: Problem, result: Result, judgement: Judgement) -> dict[str, Any]:
    found: dict[str, Any] = {
        "status": judgement.status,
        "cost": judgement.cost,
        "bound": judgement.bound,
        "claimed_bound": result.claimed_bound,
        "certified_share": share(problem, result) if judgement.bound is not None else None,
        "fan_out": None,
        "fan_out_bound": per_token(problem, judgement.bound),
        "max_violation": None,
        "verify_seconds": judgement.verify_seconds,
    }
    if result.placement is not None and judgement.cost is not None and problem.workload.complete:
        traffic = Traffic.of_placement(problem, result.placement)
        found["fan_out"] = mean_fan_out(problem, result.placement)
        found["max_violation"] = float(np.median([max_violation(loads) for loads in traffic.loads]))
    return found


def linear_fan_out(problem: Problem) -> float:
    """Of consecutive experts, load tolerance aside, weighted as the objective is."""
    free = replace(problem, load_tolerance=None, replicas=0)
    placement = solve(free, Linear()).placement
    if placement is None:
        raise RuntimeError("the linear placement of a feasible problem was refused")
    return mean_fan_out(free, placement)


def peak(who: int) -> float:
    """Peak resident memory in MiB; Linux counts in KiB. Of children: the largest one, so far waited for."""
    return resource.getrusage(who).ru_maxrss / 1024


def trouble(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """A line for every row that failed, contradicts itself or has a certificate that was refused."""
    lines = []
    for row in rows:
        status = row["found"].get("status", row["outcome"])
        if row["outcome"] == "failed" or status in ("disagreement", "rejected", "interrupted"):
            why = row["reason"] or row["found"].get("message", "")
            lines.append(f"{row['case']}, layer {row['layer']}, {row['method']}: {status}: {why}")
    return lines
