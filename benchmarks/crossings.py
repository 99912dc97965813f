"""Every bound against every placement: instances too large for brute force, all methods, nothing may cross."""

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.suite import CORES, experiment
from moeopt import registry
from moeopt.bench_rows import Key, Row, Task
from moeopt.checker import check_layer
from moeopt.cluster import Cluster
from moeopt.exact import Exact
from moeopt.method import Method, refusal
from moeopt.problem import Problem
from moeopt.relaxations.counting import counting_proof
from moeopt.relaxations.semidefinite import semidefinite_proof
from moeopt.relaxations.usage import usage_proof
from moeopt.stop import Stop
from moeopt.trace import Trace

TOTAL, CHUNK = 5_000, 50  # instances, and those of a task
CASE = "middling instances"
SHAPES = ((2, 3), (2, 6), (3, 3), (3, 4), (4, 2), (4, 3), (5, 2), (6, 2))  # GPUs, slots
TOLERANCES = (None, None, None, "0.1", "0.3", "1")
BRIEF = Stop(seconds=None, candidates=8)  # of a search, and steps of a relaxation
FREELY = Stop(seconds=None)
PROVERS = (
    "priced",
    "blocks",
    "two-level-blocks",
    "families",
    "covers",
)  # those that finish such sizes at once

Rng = np.random.Generator


@dataclass(frozen=True)
class Crossing:
    """What all methods say of one instance.

    | field | holds |
    |---|---|
    | costs | of the placements found, by method; exact |
    | bounds | by method, verified by the checker |
    | reason | what crosses, or what was refused; empty when nothing is wrong |
    """

    costs: dict[str, int]
    bounds: dict[str, int]
    reason: str


def middling(rng: Rng) -> Problem:
    """One layer of 6 to 13 experts that mostly keep to groups, on any cluster, with any rule that arithmetic allows."""
    while True:
        try:
            return _middling(rng)
        except ValueError:
            continue


def cross(problem: Problem, *, seed: int) -> Crossing:
    """Let every heuristic search briefly, and whatever proves such sizes at once prove."""
    costs: dict[str, int] = {}
    bounds: dict[str, int] = {}
    reason = ""
    for method in registry.all_methods():
        if isinstance(method, Exact) and not _at_once(method, problem):
            continue
        if method.name == "auto" or refusal(method, problem):
            continue
        stop = FREELY if isinstance(method, Exact) else BRIEF
        result = method.solve(problem, stop=stop, seed=seed)
        if result.status == "disagreement":
            reason = reason or f"{method.name}: {result.message}"
        if result.cost is not None:
            costs[method.name] = result.cost
        if result.bound is not None:
            bounds[method.name] = result.bound
    for name, proof in (
        ("semidefinite", semidefinite_proof(problem, clock=BRIEF.start(), seed=seed, cost=None)),
        ("usage", usage_proof(problem, clock=BRIEF.start(), seed=seed, cost=None)),
        ("counting", counting_proof(problem, cost=None) if problem.objective == "fan-out" else None),
    ):
        if proof is not None:
            bounds[name] = proof.bound
            if refused := check_layer(problem, proof, placement=None):
                reason = reason or f"{name}: refused: {refused}"
    if costs and bounds:
        cheapest, highest = min(costs, key=costs.__getitem__), max(bounds, key=bounds.__getitem__)
        if bounds[highest] > costs[cheapest]:
            reason = f"{highest} proves {bounds[highest]}, {cheapest} costs {costs[cheapest]}"
    return Crossing(costs, bounds, reason)


@experiment("crossings", workers=CORES)
def crossings() -> Iterable[Task]:
    """Every bound crossed with every placement found, on 5,000 instances."""
    for first in range(0, TOTAL, CHUNK):
        key = Key(CASE, None, "all methods", first, f"{CHUNK} instances")
        yield Task(key, cross_all, (first, CHUNK, key))


def cross_all(first: int, count: int, key: Key) -> list[Row]:
    """One row: how many placements and bounds were crossed, and what was wrong."""
    found: Counter[str] = Counter()
    reason = ""
    begun = time.perf_counter()
    for number in range(first, first + count):
        crossing = cross(middling(np.random.default_rng([7, number])), seed=number)
        if crossing.reason:
            reason = reason or f"instance {number}: {crossing.reason}"
            found["crossed"] += 1
        found["placements"] += len(crossing.costs)
        found["bounds"] += len(crossing.bounds)
        found["met"] += bool(crossing.costs) and min(crossing.costs.values()) == max(
            crossing.bounds.values(), default=-1
        )
    numbers: dict[str, Any] = {
        "status": "disagreement" if reason else "agreed",
        "instances": count,
        **{word: found[word] for word in ("crossed", "placements", "bounds", "met")},
        "seconds": time.perf_counter() - begun,
    }
    return [key.row("done", reason=reason, **numbers)]


def _at_once(method: Method, problem: Problem) -> bool:
    """Copies under a load tolerance, and node prices on a dozen experts, take longer than the others together."""
    if method.name not in PROVERS:
        return False
    if problem.replicas:
        return (
            problem.load_tolerance is None and problem.workload.n_experts <= 10 and problem.cluster.gpus <= 4
        )
    return method.name in ("priced", "blocks") or problem.workload.n_experts <= 8


def _middling(rng: Rng) -> Problem:
    gpus, slots = SHAPES[int(rng.integers(len(SHAPES)))]
    experts = gpus * slots - int(rng.choice([0, 0, 0, 1, 2]))
    k, tokens = int(rng.integers(2, min(5, experts))), int(rng.integers(20, 120))
    groups = rng.integers(0, gpus, experts)
    popularity = rng.dirichlet(np.ones(experts)) + 0.02
    rows = []
    for _ in range(tokens):
        weights = popularity * np.where(groups == rng.integers(gpus), 6.0, 1.0)
        rows.append([rng.choice(experts, k, replace=False, p=weights / weights.sum())])
    family = np.append([0, 1], rng.integers(0, 2, tokens - 2)).astype(np.uint8)
    trace = Trace(np.array(rows), experts, families=("code", "math"), family=family)
    nodes = int(rng.choice([1, 1, 2])) if gpus % 2 == 0 else 1
    node_cost = int(rng.choice([0, 3])) if nodes > 1 else 0
    unequal = rng.random() < 0.15 and nodes == 1
    shape: int | tuple[int, ...] = (slots + 1, *[slots] * (gpus - 1)) if unequal else slots
    cluster = Cluster(nodes, gpus // nodes, shape, int(rng.choice([1, 2])), node_cost)
    objective = "cut" if rng.random() < 0.35 else "fan-out"
    replicas = int(rng.integers(1, 3)) if objective == "fan-out" and rng.random() < 0.25 else 0
    return Problem.from_trace(
        trace,
        cluster,
        replicas=min(replicas, int(cluster.slots_of.sum()) - experts),
        objective=objective,
        family_weights={"code": 1.0, "math": float(rng.choice([0.5, 3.0]))} if rng.random() < 0.3 else None,
        load_tolerance=TOLERANCES[int(rng.integers(len(TOLERANCES)))],
        tail="0" if rng.random() < 0.1 and objective == "fan-out" and not replicas else None,
    )
