"""How far each formulation of the cut gets, by size: real layers cut down to fewer experts."""

import time
from collections.abc import Iterable
from itertools import combinations
from typing import Any

import numpy as np

from benchmarks.cases import Case
from benchmarks.run import Key, Row, Task
from benchmarks.suite import MINUTE, experiment, solved_row
from moeopt import registry
from moeopt.api import solve
from moeopt.problem import Problem
from moeopt.trace import Trace

FORMULATIONS = ("assignment", "pairs", "blocks")
SIZES = (12, 16, 20, 24, 32)


@experiment("formulations")
def formulations() -> Iterable[Task]:
    """The cut of real layers cut down to fewer experts, by every formulation."""
    for source, layer, gpus in (("gpt-oss-20b", 10, 8), ("gpt-oss-20b", 0, 8), ("deepseek-v2-lite", 10, 16)):
        whole = 4 * gpus
        for experts in (*(size for size in SIZES if size < whole and source == "gpt-oss-20b"), whole):
            for name in FORMULATIONS:
                yield _formulation(source, layer, experts, name, "cut")
        yield _formulation(source, layer, whole, "blocks", "fan-out")


def _formulation(source: str, layer: int, experts: int, name: str, objective: str) -> Task:
    label = f"{source}, {experts} experts, {objective}"
    one = Case(name=label, source=source, layers=(layer,), gpus=experts // 4, slots=4, objective=objective)
    key = Key(label, layer, repr(registry.named_method(name)), 0, repr(MINUTE))
    return Task(key, state_and_solve, (one, key, experts, name))


def state_and_solve(one: Case, key: Key, experts: int, name: str) -> list[Row]:
    """Size of the model, seconds to write it, and how far a minute gets."""
    recorded = one.trace()
    if one.objective == "cut":
        recorded = paired(recorded, experts=experts)
    problem = one.problem(recorded)
    method: Any = registry.named_method(name)
    result = solve(problem, method, stop=MINUTE, seed=0)
    size = _size(method.formulation, problem)  # after the solve, when everything is imported and compiled
    row = solved_row(key, problem, result, recorded)
    return [{**row, "found": {**row["found"], **size, "experts": experts, "source": one.source}}]


def paired(recorded: Trace, *, experts: int) -> Trace:
    """One layer among its most loaded experts, every pair that a token chose as a token of its own.

    Sets of experts that lose members differ in size; their pairs do not, and the cut counts pairs. It is the cut
    of the sub-graph that the most loaded experts span, and with all experts that of the layer itself.
    """
    ids = recorded.experts[:, 0].astype(np.int64)
    load = np.bincount(ids.ravel(), minlength=recorded.n_experts)
    kept = np.sort(np.argsort(-load, kind="stable")[:experts])
    name_of = np.full(recorded.n_experts, -1)
    name_of[kept] = np.arange(experts)
    pairs = np.concatenate([name_of[ids[:, both]] for both in combinations(range(ids.shape[1]), 2)])
    pairs = pairs[(pairs >= 0).all(axis=1)]
    return Trace(pairs[:, None], experts, layer_ids=recorded.layer_ids, model=recorded.model)


def _size(formulation: Any, problem: Problem) -> dict[str, Any]:
    """Rows and columns of the model and the seconds to write it; rows that are added on demand counted apart."""
    begun = time.perf_counter()
    if hasattr(formulation, "columns"):
        columns = formulation.columns(problem)
        shape, lazy = (columns.n_experts + 1, len(columns) + 1), 0
        seconds = time.perf_counter() - begun
    else:
        shape = formulation.matrix(problem).rows.shape
        seconds = time.perf_counter() - begun
        lazy = len(formulation.lazy(problem).keys) if hasattr(formulation, "lazy") else 0
    return {"rows": shape[0], "lazy_rows": lazy, "columns": shape[1], "build_seconds": seconds}
