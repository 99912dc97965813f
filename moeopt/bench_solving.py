"""The run that sweeps are made of: one method on one problem of a recording, refereed layer by layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from moeopt import registry
from moeopt.api import solve
from moeopt.bench_referee import judge
from moeopt.bench_rows import Key, Row, Task
from moeopt.comparison import evaluate
from moeopt.model_method import objection
from moeopt.options import recorded, stated
from moeopt.own_methods import method_identity
from moeopt.problem import Problem
from moeopt.reference import reference_cost
from moeopt.result import Result
from moeopt.stop import Stop
from moeopt.summary import per_token
from moeopt.trace import Trace

__all__ = ["Question", "Run", "measure", "tasks"]

MOST_STEPS = 200  # improvements kept of a layer: the last ones, and the first placement
PLAIN: Mapping[str, Any] = MappingProxyType(
    {
        "nodes": 1,
        "slots": None,
        "replicas": 0,
        "load_tolerance": None,
        "weights": None,
        "objective": "fan-out",
        "gpu_cost": 1,
        "node_cost": 0,
    }
)
"""Options that need not be given."""


@dataclass(frozen=True)
class Question:
    """A problem of a recording on disk, as the command line states it.

    | field | holds |
    |---|---|
    | path | of the trace |
    | layers | "0-3,7"; None: all |
    | options | by name, what `moeopt.options.stated` takes besides the traffic: gpus, and what differs from `PLAIN` |
    | held_out | share of the requests that placements are judged on and not made from; 0: none |
    """

    path: Path
    layers: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    held_out: float = 0.0

    def trace(self) -> Trace:
        """The layers of the recording; ValueError names the file."""
        return recorded(self.path, self.layers)

    def problem(self, traffic: Trace) -> Problem:
        """The problem on the recording or a part of it; ValueError names the file and the rule."""
        return stated(traffic, path=self.path, **{**PLAIN, **self.options})[0]

    def name(self, traffic: Trace) -> str:
        """Of the case: the model, what differs from the plainest problem, and a digest that tells files apart."""
        problem = self.problem(traffic)
        parts = [traffic.model or self.path.stem, f"{problem.cluster.gpus} GPUs x {problem.cluster.slots}"]
        for name, value in self.options.items():
            if name not in ("gpus", "slots") and value != PLAIN.get(name):
                parts.append(f"{name.replace('_', ' ')} {value}")
        parts += [f"layers {self.layers}"] if self.layers else []
        parts += [f"{100 * self.held_out:.12g} % held out"] if self.held_out else []
        return f"{', '.join(parts)} ({problem.digest[:8]})"


def tasks(question: Question, methods: Sequence[str], *, seeds: Sequence[int], stop: Stop) -> Iterator[Task]:
    """A task a method and seed; ValueError for a method that is not known or does not treat the problem."""
    traffic = question.trace()
    problem, case = question.problem(traffic), question.name(traffic)
    chosen = [registry.named_method(name) for name in methods]
    for method in chosen:
        if reason := objection(method, problem):
            raise ValueError(f"method {method.name} does not treat this problem: {reason}")
    limit = (stop.seconds or 0.0) * len(problem.workload.layers)
    for seed in seeds:
        for name, method in zip(methods, chosen, strict=True):
            key = Key(case, None, method_identity(name, method), seed, repr(stop))
            yield Task(key, measure, (Run(question, name, stop, key),), limit, name)


@dataclass(frozen=True)
class Run:
    """A method, by name, on a question; the key has the seed."""

    question: Question
    method: str
    stop: Stop
    key: Key


def measure(run: Run) -> list[Row]:
    """A row a layer, and one of all layers, which bears the key; ValueError where recording or method have changed."""
    question, method, key = run.question, run.method, run.key
    traffic = question.trace()
    if (now := question.name(traffic)) != key.case:
        raise ValueError(f"{question.path}: holds {now} now, not {key.case}")
    if (found := method_identity(method, registry.named_method(method))) != key.method:
        raise ValueError(f"{method} has changed: it is {found} now, not {key.method}")
    seen, rest = traffic.split(question.held_out, seed=key.seed) if question.held_out else (traffic, None)
    problem = question.problem(seen)
    result = solve(problem, method, stop=run.stop, seed=key.seed, trace=seen)
    rows = []
    for index, part in enumerate(result.layers):
        layer = problem.workload.layer_ids[index]
        own = replace(key, layer=layer)
        rows.append(_layer(own, problem.layer(index), part, method=method, seen=seen.layers([layer])))
    return [*rows, _whole(key, problem, result, rows=rows, method=method, seen=seen, rest=rest)]


def _layer(key: Key, problem: Problem, result: Result, *, method: str, seen: Trace) -> Row:
    verdict = judge(problem, result, recorded=seen)
    first = [event for event in result.history if event.cost is not None][:1]
    events = result.history if len(result.history) <= MOST_STEPS else (*first, *result.history[-MOST_STEPS:])
    steps = [[event.seconds, event.cost, event.bound] for event in events]
    hosts = None
    if result.placement is not None:
        hosts = [np.flatnonzero(gpus).tolist() for gpus in result.placement.hosts[0]]
    return key.row(
        "done",
        reason=verdict.reason,
        method=method,
        status=verdict.status,
        message=result.message,
        cost=verdict.cost,
        bound=verdict.bound,
        reference=float(reference_cost(problem)),
        seconds=result.seconds,
        verify_seconds=verdict.verify_seconds,
        fan_out_bound=per_token(problem, verdict.bound),
        steps=steps,
        hosts=hosts,
        **_judged(problem, result, seen),
    )


def _whole(
    key: Key,
    problem: Problem,
    result: Result,
    *,
    rows: Sequence[Row],
    method: str,
    seen: Trace,
    rest: Trace | None,
) -> Row:
    """The row of all layers: sums of theirs, the placement judged as one."""
    parts = [row["found"] for row in rows]
    refused = next((row for row in rows if row["reason"]), None)
    bounds = [part["bound"] for part in parts]
    bound = None if None in bounds or not bounds else sum(bounds)
    held_out = None
    if rest is not None and result.placement is not None:
        judged = evaluate(result.placement, rest, load_tolerance=problem.load_tolerance)
        held_out = {"fan_out": judged.fan_out, "linear_fan_out": judged.linear_fan_out}
    return key.row(
        "done",
        reason="" if refused is None else refused["reason"],
        method=method,
        status=result.status if refused is None else refused["found"]["status"],
        message=result.message,
        cost=None if result.placement is None else problem.cost(result.placement),
        bound=bound,
        reference=float(reference_cost(problem)),
        seconds=result.seconds,
        verify_seconds=sum(part["verify_seconds"] or 0.0 for part in parts),
        fan_out_bound=per_token(problem, bound),
        held_out=held_out,
        model=seen.model,
        experts=seen.n_experts,
        top_k=seen.top_k,
        layers=len(parts),
        tokens=seen.n_tokens,
        gpus=problem.cluster.gpus,
        nodes=problem.cluster.nodes,
        slots=problem.cluster.slots,
        replicas=problem.replicas,
        **_judged(problem, result, seen),
    )


def _judged(problem: Problem, result: Result, seen: Trace) -> dict[str, Any]:
    """The placement on the traffic it was made from, every token alike."""
    if result.placement is None:
        return {"fan_out": None, "linear_fan_out": None, "max_violation": None}
    judged = evaluate(result.placement, seen, load_tolerance=problem.load_tolerance)
    return {
        "fan_out": judged.fan_out,
        "linear_fan_out": judged.linear_fan_out,
        "max_violation": judged.median_layer,
    }
