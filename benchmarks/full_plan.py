"""A whole model from trace to plan in a minute: 58 layers of 256 experts on 32 GPUs, 32 copies a layer."""

import resource
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from benchmarks.serving_figures import linear_fan_out, summary
from benchmarks.suite import CORES, experiment, peak
from moeopt import parallel, registry
from moeopt.api import solve
from moeopt.bench_rows import Key, Row, Task
from moeopt.cluster import Cluster
from moeopt.comparison import served_traffic
from moeopt.evening import even_out
from moeopt.generator import PRESETS, Generator
from moeopt.heuristics.eplb import Eplb
from moeopt.heuristics.gesr import Gesr
from moeopt.heuristics.spectral import Spectral
from moeopt.method import Method
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.stop import Stop
from moeopt.trace import Trace
from moeopt.workload import Workload

LIMIT = 60.0  # seconds from trace to plan
RESERVE = 14.0  # of them for starting the processes and for renaming GPUs
JUDGED = 1.5  # judgements that a layer takes beside its time
LEAST = 0.2  # seconds a layer, whatever is left
TOLERANCE = "0.1"
EPLB, SEARCH, SPECTRAL = "eplb", "search", "spectral + GESR"
SECONDS = 240.0


@dataclass(frozen=True)
class Size:
    """What is planned.

    | field | holds |
    |---|---|
    | generator | of the trace |
    | gpus, slots, replicas | of every layer |
    """

    generator: Generator
    gpus: int
    slots: int
    replicas: int

    def problem(self, workload: Workload) -> Problem:
        """Under the load tolerance."""
        cluster = Cluster.of(gpus=self.gpus, slots=self.slots)
        return Problem(workload, cluster, replicas=self.replicas, load_tolerance=TOLERANCE)


FULL = Size(replace(PRESETS["synthetic-256"], layers=58, tokens=32_000), gpus=32, slots=9, replicas=32)


def methods(replicas: int) -> dict[str, Method]:
    """By name; the search has what LIMIT leaves and starts from EPLB's placement, the others end by themselves."""
    copies = Gesr(base=Spectral(), n_rep=replicas // 2)
    return {EPLB: Eplb(), SPECTRAL: copies, SEARCH: registry.named_method("search")}


@dataclass
class Stopwatch:
    """Wall seconds of named stages, in order."""

    stages: dict[str, float] = field(default_factory=dict)
    begun: float = field(default_factory=time.perf_counter)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what happens inside."""
        before = time.perf_counter()
        yield
        self.stages[name] = time.perf_counter() - before

    @property
    def elapsed(self) -> float:
        """Seconds since the stopwatch was made."""
        return time.perf_counter() - self.begun


@experiment("full-plan")
def full_plan() -> Iterable[Task]:
    """58 layers of 256 experts on 32 GPUs with 32 copies each: a plan in a minute on two cores, ours and EPLB's."""
    for name in methods(FULL.replicas):
        key = Key("synthetic-256, 58 layers", None, name, 0, repr(Stop(seconds=LIMIT)))
        yield Task(key, measure_plan, (name, FULL, key), SECONDS)


def measure_plan(name: str, size: Size, key: Key) -> list[Row]:
    """One row: seconds of each stage, peak memory, hops and loads."""
    trace = size.generator.generate()
    first = size.problem(Workload.from_trace(trace.layers([0])))
    first.plan(_first(first))  # loads or compiles its kernels before the clock starts
    with parallel.processes(CORES) as executor:
        watch = Stopwatch()
        placement, facts = planned(name, size, trace, executor=executor, watch=watch)
    found = {"scheme": name, "stages": watch.stages, "wall_seconds": facts.pop("total"), **facts}
    found |= {"peak_mib": peak(resource.RUSAGE_SELF), "peak_worker_mib": peak(resource.RUSAGE_CHILDREN)}
    if placement is None:
        return [key.row("done", reason=f"no placement: {facts['message']}", **found)]
    linear = linear_fan_out(trace, gpus=size.gpus)
    cover, guard = (
        served_traffic(placement, trace),
        served_traffic(placement, trace, load_tolerance=TOLERANCE),
    )
    found |= {
        "linear_fan_out": linear,
        "fan_out": guard.fan_out,
        "served": {"cover": summary(cover, linear=linear), "guard": summary(guard, linear=linear)},
    }
    return [key.row("done", **found)]


def planned(
    name: str, size: Size, trace: Trace, *, executor: Any, watch: Stopwatch
) -> tuple[Placement | None, dict[str, Any]]:
    """(placement, facts): workload, start, solving and renaming; a time-limited method has what LIMIT leaves."""
    method = methods(size.replicas)[name]
    with watch.stage("workload"):
        workload = Workload.from_trace(trace)
        problem = size.problem(workload)
    layers = len(workload.layers)
    with watch.stage("one judgement"):
        judged = _timed(lambda: problem.layer(0).plan(_first(problem)))
    seconds = (LIMIT - RESERVE - watch.elapsed) * CORES / layers - JUDGED * judged
    stop = Stop(seconds=max(LEAST, seconds) if name == SEARCH else LIMIT)
    with watch.stage("solving"):
        result = solve(problem, method, stop=stop, seed=0, executor=executor)
    placement = result.placement
    if placement is not None:
        with watch.stage("renaming"):
            placement = even_out(placement, workload)
    total = watch.elapsed
    facts: dict[str, Any] = {
        "total": total,
        "within": total < LIMIT,
        "layer_seconds": stop.seconds,
        "judge_seconds": judged * layers,
        "in_layers": sum(part.seconds for part in result.layers),
        "cost": result.cost,
        "status": result.status,
        "message": result.message,
        "layers": layers,
        "tokens": trace.n_tokens,
        "sets": [len(sets) for sets in workload.layers],
    }
    return placement, facts


def _first(problem: Problem) -> Placement:
    """EPLB's placement of the first layer."""
    one = problem.layer(0)
    clock, rng = Stop(seconds=None).start(), np.random.default_rng(0)
    return next(iter(Eplb().search(one, clock=clock, rng=rng, start=None)))


def _timed(call: Callable[[], object]) -> float:
    """Seconds of a second call: the first one loads kernels."""
    call()
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun
