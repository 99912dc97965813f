"""What a fast builder saves: the matrix written directly and handed to a worker, against the way through Pyomo."""

import time
from collections.abc import Iterable
from itertools import combinations

import numpy as np

from benchmarks.suite import experiment
from moeopt.bench_rows import Key, Row, Task
from moeopt.cluster import Cluster
from moeopt.formulation import Separable, Tabulated
from moeopt.matrix import from_pyomo
from moeopt.problem import Problem
from moeopt.solvers.door import Session
from moeopt.statements import named_formulation
from moeopt.trace import Trace

PYOMO_ROWS = 400_000  # Pyomo needs gigabytes and minutes for more


@experiment("builders")
def builders() -> Iterable[Task]:
    """Seconds until a worker holds the cut of all pairs: the fast builder against Pyomo."""
    for experts, gpus in ((64, 8), (128, 16)):
        for name in ("assignment", "pairs"):
            yield building(experts, gpus, name)


def building(experts: int, gpus: int, name: str) -> Task:
    """Build one model both ways."""
    key = Key(f"all pairs, {experts} experts x {gpus} GPUs", None, f"{name}()", 0, "none")
    return Task(key, measure, (key, experts, gpus, name))


def every_pair(experts: int, gpus: int) -> Problem:
    """The cut where every pair of experts is chosen, 1 to 9 times, by tokens of two experts; every slot is needed."""
    pairs = np.array(list(combinations(range(experts), 2)))
    times = np.random.default_rng(0).integers(1, 10, len(pairs))
    trace = Trace(np.repeat(pairs, times, axis=0)[:, None], experts)
    return Problem.from_trace(trace, Cluster.of(gpus=gpus, slots=-(-experts // gpus)), objective="cut")


def measure(key: Key, experts: int, gpus: int, name: str) -> list[Row]:
    """Rows and columns; seconds of the builder, of handing over, of Pyomo; the ratio of the two ways.

    The builder runs twice and its second time counts, as imports are no part of it. Handing over ends when the solver
    in the worker holds the model. Pyomo states every row, also those that the builder leaves to be found on demand.
    """
    try:
        stated = named_formulation(name)
    except ValueError as error:
        return [key.row("skipped", reason=str(error))]
    if not isinstance(stated, Tabulated):
        return [key.row("unsupported", reason=f"{name} has no fast builder")]
    problem = every_pair(experts, gpus)
    small = every_pair(8, 2)
    stated.matrix(small)
    begun = time.perf_counter()
    matrix = stated.matrix(problem)
    build = time.perf_counter() - begun
    with Session() as session:
        session.load(stated.matrix(small))
        begun = time.perf_counter()
        session.load(matrix)
        hand = time.perf_counter() - begun
    (rows, columns), nonzeros = matrix.rows.shape, int(matrix.rows.nnz)
    lazy = experts * (experts - 1) * (experts - 2) // 2 if isinstance(stated, Separable) else 0
    found = {"experts": experts, "gpus": gpus, "formulation": name, "rows": rows, "columns": columns}
    found |= {"nonzeros": nonzeros, "lazy_rows": lazy, "build_seconds": build, "hand_seconds": hand}
    if rows + lazy > PYOMO_ROWS:
        why = f"Pyomo left out: {rows + lazy:,} rows"
        return [key.row("done", status="built", **found, pyomo_seconds=None, ratio=None, message=why)]
    from_pyomo(stated.build(small))
    begun = time.perf_counter()
    model = stated.build(problem)
    middle = time.perf_counter()
    compiled, _ = from_pyomo(model)
    end = time.perf_counter()
    if compiled.rows.shape != (rows + lazy, columns):
        why = f"Pyomo states {compiled.rows.shape}, the builder {(rows + lazy, columns)}"
        return [key.row("done", reason=why, status="disagreement", **found)]
    found |= {"pyomo_build_seconds": middle - begun, "pyomo_compile_seconds": end - middle}
    ratio = (end - begun + hand) / (build + hand)
    return [key.row("done", status="built", **found, pyomo_seconds=end - begun, ratio=ratio, message="")]
