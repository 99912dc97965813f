"""What a placement made for one family does for the others."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.cases import NULL
from benchmarks.placing import MEMORY, Memory, split
from benchmarks.serving_figures import linear_fan_out
from benchmarks.shifts import families_kept
from benchmarks.suite import CORES, SEEDS, experiment
from moeopt.api import solve
from moeopt.bench_rows import Key, Row, Task
from moeopt.cluster import Cluster
from moeopt.comparison import served_traffic
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.stop import Stop
from moeopt.trace import Trace

NULL_SEEDS = range(3)
METHOD, STOP = "search", Stop(seconds=0.5)
POOLED, EQUAL, WORST = "all requests", "equal families", "worst family"
SECONDS = 240.0


@experiment("transfer", workers=CORES)
def transfer() -> Iterable[Task]:
    """Placements made from one family, from all and for the worst, judged on every family's held-out requests."""
    for prefix, seeds in (("", SEEDS), (NULL, NULL_SEEDS)):
        for seed in seeds:
            for model in MEMORY:
                key = Key(prefix + model, None, f"{METHOD}: {WORST}", seed, repr(STOP))
                yield Task(key, measure_transfer, (prefix + model, model, key), SECONDS)


def measure_transfer(source: str, model: str, key: Key) -> list[Row]:
    """A row for each source of the placement; the last one, for the worst family, bears the key."""
    return transferred(*split(source, key.seed), memory=MEMORY[model], key=key, stop=STOP)


def transferred(seen: Trace, held: Trace, *, memory: Memory, key: Key, stop: Stop) -> list[Row]:
    """As `measure_transfer`, of any split."""
    families, left_out = families_kept(held)
    rows = []
    for origin, problem in problems(seen, families, memory=memory):
        result = solve(problem, METHOD, stop=stop, seed=key.seed)
        own = replace(key, method=f"{METHOD}: {origin}")
        if result.placement is None:
            rows.append(own.row("failed", reason=f"no placement: {result.message}", source=origin))
            continue
        rows.append(
            own.row(
                "done",
                source=origin,
                families=families,
                left_out=left_out,
                made_from=dict(zip(problem.workload.families, problem.workload.tokens.tolist(), strict=True)),
                judged_on={name: int((held.family == held.families.index(name)).sum()) for name in families},
                **reductions(result.placement, held, families),
                seconds=result.seconds,
            )
        )
    return rows


def problems(seen: Trace, families: Sequence[str], *, memory: Memory) -> Iterator[tuple[str, Problem]]:
    """(source of the placement, problem): a family at a time, all requests, equal families, the worst family.

    A family is what `shifts.families_kept` keeps; families left out count in "all requests" only.
    """
    cluster = Cluster.of(gpus=memory.gpus, slots=memory.slots)
    for name in families:
        own = seen.take(seen.family == seen.families.index(name))
        yield name, Problem.from_trace(own, cluster)
    yield POOLED, Problem.from_trace(seen, cluster)
    equal: Mapping[str, float] = dict.fromkeys(families, 1.0)
    yield EQUAL, Problem.from_trace(seen, cluster, family_weights=equal)
    yield WORST, Problem.from_trace(seen, cluster, family_weights=equal, tail=0)


def reductions(placement: Placement, held: Trace, families: Sequence[str]) -> dict[str, Any]:
    """`reduction`: family -> 1 - fan-out over that of linear, of the family's own tokens; `pooled`: of all tokens."""
    traffic = served_traffic(placement, held)
    found = {}
    for name in families:
        own = held.take(held.family == held.families.index(name))
        found[name] = 1 - traffic.family_fan_out[name] / linear_fan_out(own, gpus=placement.gpus)
    values = list(found.values())
    return {
        "reduction": found,
        "mean": float(np.mean(values)),
        "worst": min(values),
        "pooled": 1 - traffic.fan_out / linear_fan_out(held, gpus=placement.gpus),
    }
