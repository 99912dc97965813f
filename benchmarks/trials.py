"""Every formulation by every solver, the same problems under other names."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.attempts import PRICES, attempt
from benchmarks.models import REPLICAS, REPLICAS_32, SPECS, Spec
from benchmarks.suite import CORES, MINUTE, experiment
from moeopt.bench_rows import Key, Row, Task
from moeopt.solvers.offered import BUILT_IN
from moeopt.stop import Stop

LIMIT = Stop(seconds=8)
FIVE_MINUTES, TEN_MINUTES = Stop(seconds=300), Stop(seconds=600)
SEEDS = range(3)
SOLVERS = tuple(sorted(BUILT_IN, key=("highs", "cpsat", "scip", "gurobi").index))
OVERHEAD = (
    2.0  # seconds of a run besides the solve: its session starts, its size is taken, its proof verified
)


def contradiction(row: Row, others: Sequence[Row]) -> str:
    """How a row contradicts others of the same problem: a bound, claimed or certified, above a cost that was found.

    Two different optima are such a pair; names of experts and formulations play no part.
    """
    mine = row["found"]
    for other in others:
        if other["case"] != row["case"] or other["outcome"] != "done":
            continue
        theirs = other["found"]
        for low, high, whose, found in ((mine, theirs, row, other), (theirs, mine, other, row)):
            for kind in ("bound", "claimed_bound"):
                if low.get(kind) is not None and high.get("cost") is not None and low[kind] > high["cost"]:
                    return (
                        f"{kind} {low[kind]} of {whose['method']}, seed {whose['seed']}, is above the cost "
                        f"{high['cost']} of {found['method']}, seed {found['seed']}"
                    )
    return ""


@experiment("formulations", workers=CORES, contradiction=contradiction)
def formulations() -> Iterable[Task]:
    """Every formulation by every solver on small real problems, experts renamed by seed."""
    for one in SPECS.values():
        for name in one.formulations:
            for solver in solvers(one, name):
                for seed in SEEDS:
                    yield trial(one.name, name, solver=solver, seed=seed)


@experiment("symmetry", workers=CORES, contradiction=contradiction)
def symmetry() -> Iterable[Task]:
    """What telling equal GPUs apart costs: `replicated` with and without its symmetry rows."""
    for one in SPECS.values():
        if "replicated" in one.formulations:
            for broken in (True, False):
                for solver in ("highs", "scip"):
                    for seed in SEEDS:
                        settings = {"symmetry": broken}
                        yield trial(one.name, "replicated", solver=solver, seed=seed, settings=settings)


@experiment("replicas", workers=CORES, contradiction=contradiction)
def replicas() -> Iterable[Task]:
    """Placement and dispatch of replicas together, on layers cut to 12 and 16 experts."""
    for one in REPLICAS.values():
        for name in one.formulations:
            yield trial(one.name, name, stop=TEN_MINUTES if name == "covers" else MINUTE)


@experiment("replicas-32", workers=CORES, contradiction=contradiction)
def replicas_32() -> Iterable[Task]:
    """The same on a whole layer of 32 experts, ten minutes each."""
    for one in REPLICAS_32.values():
        for name in one.formulations:
            yield trial(one.name, name, stop=TEN_MINUTES)


def solvers(one: Spec, formulation: str) -> tuple[str, ...]:
    """The solvers that a formulation of a problem is tried with."""
    known = {"blocks": (PRICES, *SOLVERS), "priced": (PRICES,)}.get(formulation, SOLVERS)
    return tuple(name for name in known if not one.solvers or name in one.solvers)


def trial(
    name: str,
    formulation: str,
    *,
    solver: str = "highs",
    seed: int = 0,
    stop: Stop = LIMIT,
    settings: Mapping[str, Any] | None = None,
) -> Task:
    """One run; `name` is that of a problem in `benchmarks.models`."""
    chosen = ", ".join(f"{field}={value!r}" for field, value in (settings or {}).items())
    key = Key(name, None, f"{formulation}({chosen}) by {solver}", seed, repr(stop))
    return Task(
        key, attempt, (key, formulation, solver, stop, dict(settings or {})), (stop.seconds or 0.0) + OVERHEAD
    )
