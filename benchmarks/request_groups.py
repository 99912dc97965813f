"""Requests and experts grouped together at real size: what is found, and how far it is certified."""

import resource
import time
from collections.abc import Iterable

from benchmarks.cases import case, read_source
from benchmarks.suite import experiment, peak
from moeopt.bench_rows import Key, Row, Task
from moeopt.grouping import GroupingProblem
from moeopt.rows import check_answer, solve_model
from moeopt.stop import Stop
from moeopt_formulations.groups import Groups

TWO = Stop(seconds=120)
SLACK = 1_200.0  # seconds beside the limit
MODELS = ("deepseek-v2-lite", "gpt-oss-20b")
GROUPS = (4, 8, 16)
LAYER = 10


@experiment("request-groups")
def request_groups() -> Iterable[Task]:
    """Requests and experts in 4, 8 and 16 groups, one layer and all together: found and proved."""
    for model in MODELS:
        for layers in ((LAYER,), ()):
            for groups in GROUPS:
                scope = f"layer {LAYER}" if layers else "all layers"
                key = Key(f"{model}, {groups} groups, {scope}", None, "groups", 0, repr(TWO))
                yield Task(key, group_requests, (model, layers, groups, key), (TWO.seconds or 0.0) + SLACK)


def group_requests(model: str, layers: tuple[int, ...], groups: int, key: Key) -> list[Row]:
    """One row."""
    problem = GroupingProblem.from_trace(read_source(case(model).source, layers=layers), groups=groups)
    begun = time.perf_counter()
    answer = solve_model(Groups(), problem, stop=TWO, seed=key.seed)
    took = time.perf_counter() - begun
    total = int(problem.activations.sum())
    found = {
        "status": answer.status,
        "cost": answer.cost,
        "bound": answer.bound,
        "random": total * (groups - 1) / groups,
        "requests": problem.n_requests,
        "experts": problem.n_experts,
        "layers": problem.n_layers,
        "seconds": took,
        "peak_mib": peak(resource.RUSAGE_SELF),
    }
    reason = ""
    if answer.proof is not None:
        begun = time.perf_counter()
        reason = check_answer(problem, answer.proof)
        found["verify_seconds"] = time.perf_counter() - begun
    return [key.row("done", reason=reason, **found)]
