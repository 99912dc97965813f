"""Placements that several experiments judge, made once: by scheme, traffic and seed."""

import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmarks.cases import read_source
from benchmarks.schemes import SCHEMES, Scheme
from moeopt import storage
from moeopt.api import read_placement, solve
from moeopt.bench_rows import versions
from moeopt.cluster import Cluster
from moeopt.evening import even_out
from moeopt.heuristics.gesr import Gesr
from moeopt.method import Method
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.stop import Stop
from moeopt.trace import Trace
from moeopt.workload import Workload

FRACTION = 0.2  # of the requests that a placement does not see


@dataclass(frozen=True)
class Memory:
    """GPUs and slots of a table: `slots` without copies, one more with `replicas` of them in every layer."""

    gpus: int
    slots: int
    replicas: int


MEMORY: Mapping[str, Memory] = MappingProxyType(
    {"deepseek-v2-lite": Memory(16, 4, 16), "gpt-oss-20b": Memory(8, 4, 8)}
)


@dataclass(frozen=True)
class Placed:
    """A placement and how it came about.

    | field | holds |
    |---|---|
    | placement | GPUs renamed so that summed loads come out even, on the traffic it was made from |
    | bounds | verified bound of each layer on that traffic, None without |
    | status, seconds, method | of the result; repr of the method |
    """

    placement: Placement | None
    bounds: tuple[int | None, ...]
    status: str
    seconds: float
    method: str


def split(source: str, seed: int) -> tuple[Trace, Trace]:
    """(seen, held out), by request; `source` as of `benchmarks.cases`."""
    return read_source(source).split(FRACTION, seed=seed)


def problem_for(scheme: Scheme, seen: Trace | Workload, memory: Memory) -> Problem:
    """What the scheme is asked to solve."""
    workload = seen if isinstance(seen, Workload) else Workload.from_trace(seen)
    return Problem(
        workload,
        Cluster.of(gpus=memory.gpus, slots=memory.slots + (1 if scheme.copies else 0)),
        replicas=memory.replicas if scheme.copies else 0,
        load_tolerance=scheme.tolerance,
    )


def method_for(scheme: Scheme, memory: Memory) -> Method:
    """With as many experts copied as the table's memory allows, where the scheme copies by score."""
    method = scheme.method()
    if isinstance(method, Gesr):
        return replace(method, n_rep=memory.replicas // method.k_sec)
    return method


def placed(name: str, source: str, *, seed: int, model: str) -> Placed:
    """What the scheme makes of the requests that the split of this seed shows it; kept in `folder()`."""
    scheme, memory = SCHEMES[name], MEMORY[model]
    method = method_for(scheme, memory)
    identity = repr(
        (name, repr(method), scheme.tolerance, scheme.seconds, source, seed, FRACTION, memory, versions())
    )
    stem = hashlib.sha256(identity.encode()).hexdigest()[:24]
    path, about = folder() / f"{stem}.json", folder() / f"{stem}.about.json"
    if not about.exists():
        made = make(scheme, method, split(source, seed)[0], seed=seed, memory=memory)
        if made.placement is None:
            return made  # tried again the next time
        folder().mkdir(parents=True, exist_ok=True)
        storage.write_bytes(path, json.dumps(made.placement.to_dict(), default=storage.plain).encode())
        facts = {"identity": identity, **_facts(made)}
        storage.write_bytes(about, json.dumps(facts).encode())
    facts = json.loads(about.read_bytes())
    return Placed(
        read_placement(path),
        tuple(facts["bounds"]),
        facts["status"],
        facts["seconds"],
        facts["method"],
    )


def make(scheme: Scheme, method: Method, seen: Trace, *, seed: int, memory: Memory) -> Placed:
    """Solve and rename."""
    problem = problem_for(scheme, seen, memory)
    begun = time.perf_counter()
    result = solve(problem, method, stop=Stop(seconds=scheme.seconds), seed=seed, trace=seen)
    seconds = time.perf_counter() - begun
    if result.status == "interrupted":
        raise KeyboardInterrupt  # what was found so far is not what the scheme makes
    placement = None if result.placement is None else even_out(result.placement, problem.workload)
    return Placed(
        placement,
        tuple(layer.bound for layer in result.layers),
        result.status,
        seconds,
        repr(method),
    )


@cache
def folder() -> Path:
    """Where placements are kept: MOEOPT_PLACEMENTS, or beside the results."""
    return Path(os.environ.get("MOEOPT_PLACEMENTS") or Path(__file__).parent / "placements")


def _facts(made: Placed) -> dict[str, Any]:
    return {
        "bounds": made.bounds,
        "status": made.status,
        "seconds": made.seconds,
        "method": made.method,
    }
