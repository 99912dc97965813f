"""Random tiny instances of every formulation: brute force, two solvers and a certified bound, held together."""

import time
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from importlib.metadata import entry_points
from typing import Any

from benchmarks.instances import instances
from benchmarks.run import RESULTS
from benchmarks.suite import CORES, experiment
from moeopt.agreement import agree
from moeopt.bench_rows import Key, Row, Task
from moeopt.solvers.door import installed
from moeopt.solvers.scaled import ScaledSession
from moeopt.statements import GROUP, named_formulation

TOTAL = 20_000  # instances of all formulations together
CHUNK = 100  # instances of a task
SOLVERS = ("highs", "cpsat")
CASE = "tiny instances"
KEPT = RESULTS / "disagreements"


def formulation_names() -> list[str]:
    """Every registered formulation, by name."""
    return sorted(entry_points(group=GROUP).names)


def shares(total: int, names: list[str]) -> dict[str, int]:
    """Instances of each formulation, spread evenly; they sum to the total."""
    each, rest = divmod(total, len(names))
    return {name: each + (at < rest) for at, name in enumerate(names)}


@experiment("agreement", workers=CORES)
def agreement() -> Iterable[Task]:
    """Brute force, HiGHS, CP-SAT and the certified bound on 20,000 random tiny instances."""
    for name, count in shares(TOTAL, formulation_names()).items():
        for first in range(0, count, CHUNK):
            part = min(CHUNK, count - first)
            key = Key(CASE, None, name, first, f"{part} instances")
            yield Task(key, hold_together, (name, first, part, key))


def hold_together(name: str, first: int, count: int, key: Key) -> list[Row]:
    """One row: how many instances agree, and what was found on the way."""
    formulation = named_formulation(name)
    solvers = [solver for solver in SOLVERS if not installed(solver)]
    found: Counter[str] = Counter()
    reason = ""
    begun = time.perf_counter()
    with ExitStack() as stack:
        sessions = {solver: stack.enter_context(ScaledSession(solver)) for solver in solvers}
        for problem in instances(formulation, count=count, first=first):
            one = agree(formulation, problem, solvers=solvers, sessions=sessions, folder=KEPT)
            reason = reason or one.reason
            found["agreed" if one.status == "agreed" else "disagreements"] += 1
            found["infeasible"] += one.least is None
            found["certified_optimal"] += one.least is not None and one.bound == one.least
            for claim in one.claims:
                found[f"{claim.solver}_refused"] += claim.status == "refused"
    numbers: dict[str, Any] = {
        "status": "disagreement" if found["disagreements"] else "agreed",
        "formulation": name,
        "solvers": solvers,
        "instances": count,
        **{word: found[word] for word in ("agreed", "disagreements", "infeasible", "certified_optimal")},
        "refused": {solver: found[f"{solver}_refused"] for solver in solvers},
        "seconds": time.perf_counter() - begun,
    }
    return [key.row("done", reason=reason, **numbers)]
