"""General graph and hypergraph partitioners against the library's own search, single copies."""

import time
from collections.abc import Iterable
from dataclasses import replace

from benchmarks.cases import NULL, Case, case
from benchmarks.run import shown
from benchmarks.suite import MINUTE, experiment
from moeopt.bench_rows import Key, Row, Task
from moeopt.heuristics.kahip import Kahip
from moeopt.heuristics.linear import Linear
from moeopt.heuristics.metis import Metis
from moeopt.heuristics.mt_kahypar import MtKahypar
from moeopt.heuristics.spectral import Spectral
from moeopt.heuristics.swap import Swap
from moeopt.method import Method
from moeopt.problem import Problem
from moeopt.reference import reference_cost
from moeopt.stop import Stop

RIVALS = (MtKahypar(), MtKahypar(slack=1))  # two threads; the search has one
PEERS: tuple[Method, ...] = (Linear(), Spectral(), Metis(), Kahip(), MtKahypar(preset="default"), *RIVALS)
SEARCH = Swap(restarts=1_000)
HALF, ALONE = "half the time of the faster Mt-KaHyPar", Stop(seconds=1)  # without Mt-KaHyPar a second
SEEDS = range(5)
BOUNDS = ("certified", "bounds", "bounds-large")


def placed() -> list[Case]:
    """One layer each: the presets, two of them on few large GPUs, the recorded models and their nulls."""
    presets = [
        replace(case(name), layers=(0,))
        for name in ("synthetic-64", "synthetic-128", "synthetic-256", "synthetic-512")
    ]
    wide = [
        replace(one, name=f"{one.name} on {gpus} GPUs", gpus=gpus, slots=32)
        for one, gpus in zip(presets[2:], (8, 16), strict=True)
    ]
    recorded = [
        replace(case(prefix + name), layers=(layer,))
        for prefix in ("", NULL)
        for name, layer in (("gpt-oss-20b", 12), ("deepseek-v2-lite", 13))
    ]
    return [*presets, *wide, *recorded]


@experiment("partitioners")
def partitioners() -> Iterable[Task]:
    """Mt-KaHyPar, KaHIP, METIS, spectral clusters and linear against swaps in half the time of Mt-KaHyPar."""
    for one in placed():
        for seed in SEEDS:
            key = Key(one.name, one.layers[0], repr(SEARCH), seed, HALF)
            yield Task(key, compare_partitioners, (one, key))


def compare_partitioners(one: Case, key: Key) -> list[Row]:
    """A row a method, each run once before on a small case; the peers take turns at being first."""
    problem = one.problem()
    bound = stored_bound(key.case, key.layer)
    small = case("sample").first_layer().problem()
    usable = [method for method in PEERS if not method.supports(problem)]
    for method in (*usable, SEARCH):
        method.solve(small, stop=Stop(seconds=1), seed=0)
    rows = {
        method: replace(key, method=repr(method), stop=repr(MINUTE)).row(
            "skipped", reason=method.supports(problem)
        )
        for method in PEERS
    }
    turn = key.seed % max(1, len(usable))
    for method in usable[turn:] + usable[:turn]:
        own = replace(key, method=repr(method), stop=repr(MINUTE))
        rows[method] = timed(own, problem, method, stop=MINUTE, bound=bound)
    faster = [rows[rival]["found"]["seconds"] for rival in RIVALS if rival in usable]
    stop = Stop(seconds=min(faster) / 2) if faster else ALONE
    return [*rows.values(), timed(key, problem, SEARCH, stop=stop, bound=bound)]


def timed(key: Key, problem: Problem, method: Method, *, stop: Stop, bound: int | None) -> Row:
    """The row of one run: cost, judged by the problem, seconds, and the share of the attainable saving."""
    begun = time.perf_counter()
    result = method.solve(problem, stop=stop, seed=key.seed)
    seconds = time.perf_counter() - begun
    reference = reference_cost(problem)
    share = None
    if result.cost is not None and bound is not None and bound < reference:
        share = float((reference - result.cost) / (reference - bound))
    return key.row(
        "done",
        status=result.status,
        cost=result.cost,
        bound=bound,
        share=share,
        reference=float(reference),
        seconds=seconds,
        wall_seconds=seconds,
    )


def stored_bound(name: str, layer: int | None) -> int | None:
    """The largest bound that an experiment has proved and kept for this case and layer; None without one."""
    rows = [row for file in BOUNDS for row in shown(file)]
    proved = [
        row["found"]["bound"]
        for row in rows
        if (row["case"], row["layer"]) == (name, layer) and row["found"].get("bound") is not None
    ]
    return max(proved, default=None)
