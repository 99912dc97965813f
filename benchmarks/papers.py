"""Every method at equal memory on requests that it has not seen: the tables of arXiv 2606.01007 on recorded traffic."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from benchmarks.cases import NULL
from benchmarks.placing import MEMORY, method_for, placed, problem_for, split
from benchmarks.schemes import OPTIMUM, SCHEMES
from benchmarks.serving_figures import figures
from benchmarks.suite import CORES, SEEDS, experiment
from moeopt.bench_rows import Key, Row, Task
from moeopt.reference import reference_cost
from moeopt.stop import Stop

NULL_SEEDS = range(1)  # of traffic without co-activation, where nearly every method finds the same
SLACK = 120.0  # seconds of a task beside its placement


def key_for(name: str, source: str, *, model: str, seed: int) -> Key:
    """The row of one scheme on one split."""
    scheme = SCHEMES[name]
    method = f"{name}: {method_for(scheme, MEMORY[model])!r}"
    return Key(source, None, method, seed, repr(Stop(seconds=scheme.seconds)))


def tasks_of(prefix: str, seeds: Iterable[int], *, copies: bool) -> Iterable[Task]:
    """Every scheme, seed by seed, both models."""
    for seed in seeds:
        for model in MEMORY:
            for name, scheme in SCHEMES.items():
                # There is little to attain on a null, and hardly a set repeats: its optimum would take hours.
                if scheme.copies == copies and not (prefix and name == OPTIMUM):
                    key = key_for(name, prefix + model, model=model, seed=seed)
                    yield Task(key, judge_scheme, (name, prefix + model, model, key), SLACK)


def on_nulls(seeds: Iterable[int]) -> Iterable[tuple[str, int]]:
    """(prefix of the source, seed): the seeds on the recorded models, then the few on their nulls."""
    yield from (("", seed) for seed in seeds)
    yield from ((NULL, seed) for seed in NULL_SEEDS)


@experiment("papers", workers=CORES)
def papers() -> Iterable[Task]:
    """Every method on held-out requests: one copy each, ten splits, and the nulls without co-activation."""
    yield from tasks_of("", SEEDS, copies=False)
    yield from tasks_of(NULL, NULL_SEEDS, copies=False)


@experiment("papers-copies", workers=CORES)
def papers_copies() -> Iterable[Task]:
    """The same with extra copies at equal memory: 25 % more slots, each way of serving them."""
    yield from tasks_of("", SEEDS, copies=True)
    yield from tasks_of(NULL, NULL_SEEDS, copies=True)


def judge_scheme(name: str, source: str, model: str, key: Key) -> list[Row]:
    """One row: what the placement does to the requests set aside, and its costs on those it was made from."""
    scheme = SCHEMES[name]
    problem = problem_for(replace(scheme, tolerance=None), split(source, key.seed)[0], MEMORY[model])
    if reason := _unsupported(name, model, problem):
        return [key.row("unsupported", reason=reason)]
    made = placed(name, source, seed=key.seed, model=model)
    found: dict[str, Any] = {"scheme": name, "model": model, "copies": scheme.copies, "status": made.status}
    found |= {"seconds": made.seconds, "bounds": made.bounds}
    if made.placement is None:
        return [key.row("failed", reason=f"no placement: {made.status}", **found)]
    layers = [problem.layer(index) for index in range(len(problem.workload.layers))]
    parts = [made.placement.layer(index) for index in range(len(layers))]
    found |= {
        "costs": [layer.cost(part) for layer, part in zip(layers, parts, strict=True)],
        "references": [float(reference_cost(layer)) for layer in layers],
        "servings": figures(made.placement, split(source, key.seed)[1]),
        "extra": int(made.placement.hosts.sum()) / len(layers) - made.placement.n_experts,
    }
    return [key.row("done", **found)]


def _unsupported(name: str, model: str, problem: Any) -> str:
    from moeopt.model_method import objection

    method = method_for(SCHEMES[name], MEMORY[model])
    return str(objection(method, problem))
