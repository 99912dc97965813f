"""Inputs that no benchmark has: heuristics place them, find nothing admissible, or say what they do not treat."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from moeopt.cluster import Cluster
from moeopt.family_graphs import NORMALISERS, FamilyGraphs
from moeopt.heuristics.coactivation import Coactivation
from moeopt.heuristics.frequency import Frequency
from moeopt.heuristics.gesr import SCORERS, SECONDARIES, Gesr, TacgGesr
from moeopt.heuristics.grace import Grace
from moeopt.heuristics.mt_kahypar import MtKahypar
from moeopt.heuristics.random import Random
from moeopt.heuristics.spectral import Spectral
from moeopt.heuristics.tacg import Tacg
from moeopt.kmeans import clusters
from moeopt.method import Heuristic
from moeopt.pair_counts import PairCounts
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.registry import all_methods
from moeopt.result import Result
from moeopt.spectral_partition import spectral_groups
from moeopt.stop import Stop
from moeopt.trace import Trace
from moeopt.workload import Workload

SECONDS = {"anneal": 0.2, "search": 0.3}  # of methods that use what time there is
REPEATABLE = Stop(seconds=None, candidates=3)


def heuristics() -> list[Heuristic]:
    """The registered ones, and settings of the task-aware ones that lead elsewhere."""
    registered = [method for method in all_methods() if isinstance(method, Heuristic)]
    others: list[Heuristic] = [
        *(Tacg(normaliser=name) for name in NORMALISERS[1:]),
        Tacg(pooling="objective", unit_rows=True, alpha=1.0, tau=0.01),
        Spectral(normaliser="uniform", jitter=0.0),
        *(Gesr(Random(), scorer, "lightest") for scorer in SCORERS),
        *(Gesr(Spectral(), "generality", secondary, lambda1=1.0, lambda2=1.0) for secondary in SECONDARIES),
        Gesr(Grace()),
        TacgGesr(normaliser="lift", lambda1=1.0),
        Coactivation(growth="one-by-one"),
        Frequency(order="snake"),
        Grace(deviation=2, rounds=4),
    ]
    return [*registered, *others]


def trace_of(experts: NDArray[Any], n_experts: int, **fields: Any) -> Trace:
    return Trace(experts[:, None, :], n_experts, **fields)


def drawn(*, experts: int, k: int, tokens: int = 24, among: int | None = None) -> NDArray[np.int64]:
    """int64 [tokens, k]: random sets among the first `among` experts."""
    rng = np.random.default_rng(0)
    return np.array([rng.choice(among or experts, k, replace=False) for _ in range(tokens)])


def of_two(tokens: int, *names: str) -> dict[str, Any]:
    """Tokens of the first and the last of these families in turn, none of the others."""
    family = np.arange(tokens) % 2 * (len(names) - 1)
    return {"families": names, "family": family.astype(np.uint8)}


ROOMY = Cluster(1, 3, 5)
CASES: dict[str, Callable[[], tuple[Trace, Cluster]]] = {
    "no families": lambda: (trace_of(drawn(experts=6, k=2), 6), ROOMY),
    "a single family": lambda: (trace_of(drawn(experts=6, k=2), 6, families=("code",)), ROOMY),
    "a family without tokens": lambda: (
        trace_of(drawn(experts=6, k=2), 6, **of_two(24, "code", "silent", "math")),
        ROOMY,
    ),
    "more families than GPUs and tokens": lambda: (
        trace_of(
            drawn(experts=6, k=2, tokens=4), 6, families=tuple("abcdef"), family=np.arange(4, dtype=np.uint8)
        ),
        ROOMY,
    ),
    "families that choose alike": lambda: (
        trace_of(np.repeat(drawn(experts=6, k=2), 2, axis=0), 6, **of_two(48, "code", "math")),
        ROOMY,
    ),
    "families that share no expert": lambda: (
        trace_of(np.array([[0, 1], [4, 5]] * 9), 6, **of_two(18, "code", "math")),
        ROOMY,
    ),
    "more GPUs than experts": lambda: (
        trace_of(drawn(experts=3, k=2), 3, **of_two(24, "code", "math")),
        Cluster(1, 7, 2),
    ),
    "as many nodes as GPUs, more than experts": lambda: (
        trace_of(drawn(experts=3, k=2), 3, **of_two(24, "code", "math")),
        Cluster(5, 1, 2, 1, 3),
    ),
    "GPUs without slots": lambda: (
        trace_of(drawn(experts=6, k=2), 6, **of_two(24, "code", "math")),
        Cluster(2, 2, (0, 6, 3, 0), 1, 2),
    ),
    "one GPU": lambda: (trace_of(drawn(experts=4, k=2), 4, **of_two(24, "code", "math")), Cluster(1, 1, 4)),
    "one expert": lambda: (trace_of(np.zeros((5, 1), int), 1), Cluster(1, 2, 1)),
    "experts that never fire": lambda: (
        trace_of(drawn(experts=9, k=2, among=3), 9, **of_two(24, "code", "math")),
        Cluster(1, 3, 5),
    ),
    "all tokens identical": lambda: (
        trace_of(np.tile([1, 4], (24, 1)), 6, **of_two(24, "code", "math")),
        ROOMY,
    ),
    "one token": lambda: (trace_of(np.array([[2, 3, 5]]), 6), ROOMY),
    "top-1": lambda: (trace_of(drawn(experts=6, k=1), 6, **of_two(24, "code", "math")), ROOMY),
    "top-k is all experts": lambda: (trace_of(drawn(experts=5, k=5), 5, **of_two(24, "code", "math")), ROOMY),
    "top-k is all of many experts": lambda: (
        trace_of(drawn(experts=18, k=18), 18, **of_two(24, "code", "math")),
        Cluster(1, 3, 8),
    ),
    "disjoint sets of one size": lambda: (
        trace_of(np.array([[0, 1], [2, 3], [4, 5]] * 8), 6, **of_two(24, "code", "math")),
        Cluster(1, 4, 3),
    ),
}


@cache
def problems(case: str) -> tuple[Problem, ...]:
    """The case alone, with copies, tolerance, tail, moves, cut, weights, pair counts: what arithmetic allows."""

    trace, cluster = CASES[case]()
    free = Problem.from_trace(trace, cluster)
    seats = np.repeat(np.arange(cluster.gpus), np.minimum(cluster.slots_of, trace.n_experts))
    room = len(seats) - trace.n_experts
    varied: list[dict[str, Any]] = [
        {"replicas": min(room, 3)},
        {"replicas": room},
        {"tail": "0"},
        {"incumbent": free.partition(seats[: trace.n_experts]), "max_moves": 2},
        {"objective": "cut"},
        {"objective": "load"},
        {"objective": "load", "replicas": room},
        {"family_weights": {trace.families[int(trace.family[0])]: 1}},
    ]
    found = [free, *(replace(free, **fields) for fields in varied)]
    for tolerance, replicas in (("0", 0), ("0.4", min(room, 3))):
        with suppress(ValueError):  # arithmetic rules it out
            found.append(replace(free, load_tolerance=tolerance, replicas=replicas))
    known = Workload.from_trace(trace)
    pairs = replace(known, layers=tuple(PairCounts.of_sets(sets) for sets in known.layers))
    return (*found, Problem(pairs, cluster, objective="cut"))


def answered(method: Heuristic, problem: Problem) -> Result | ValueError:
    try:
        seconds = SECONDS.get(method.name, 20.0)
        return method.solve(problem, stop=Stop(seconds=seconds, candidates=3), seed=0)
    except ValueError as error:
        return error


def placed(method: Heuristic, problem: Problem) -> Placement:
    placement = method.solve(problem, stop=REPEATABLE, seed=0).placement
    assert placement is not None
    return placement


def groups(placement: Placement) -> set[frozenset[int]]:
    """Experts whose primary copies share a GPU, whatever its name."""
    gpus = set(placement.primary[0].tolist())
    return {frozenset(np.flatnonzero(placement.primary[0] == gpu).tolist()) for gpu in gpus}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("method", heuristics(), ids=repr)
def test_every_heuristic_places_it_or_finds_nothing_or_refuses_by_a_reason(
    method: Heuristic, case: str
) -> None:
    answers = [(problem, answered(method, problem)) for problem in problems(case)]
    for problem, result in answers:
        if isinstance(result, ValueError):
            assert type(result) is ValueError  # NumPy's LinAlgError is one as well
            assert re.match(
                f"method {re.escape(method.name)} does not treat this problem: .{{10}}", str(result)
            )
        elif result.placement is None:
            assert result.status == "none-found"
            assert problem.load_caps is not None or problem.max_moves is not None
            assert re.match("no admissible placement found: .{10}", result.message)
        else:
            assert result.status == "feasible"
            assert problem.violation(result.placement) == ""
            assert result.cost == problem.cost(result.placement)
    if case == "no families":
        assert not all(isinstance(result, ValueError) for _, result in answers)


@pytest.mark.parametrize("method", heuristics(), ids=repr)
@pytest.mark.parametrize("replicas", [0, 3])
def test_a_family_that_is_named_and_has_no_tokens_changes_nothing(method: Heuristic, replicas: int) -> None:
    experts = drawn(experts=6, k=2)
    objective = method.objectives[0]
    if isinstance(method, MtKahypar):  # its other presets may end in another of several best partitions
        method = replace(method, preset="deterministic")
    known, more = (
        Problem.from_trace(
            trace_of(experts, 6, **of_two(24, *names)), ROOMY, replicas=replicas, objective=objective
        )
        for names in (("code", "math"), ("code", "silent", "math"))
    )
    if not method.supports(known):
        assert placed(method, known) == placed(method, more)
    else:
        assert method.supports(known) == method.supports(more)


@pytest.mark.parametrize("normaliser", NORMALISERS)
@pytest.mark.parametrize("case", ["no families", "a single family"])
def test_without_families_to_tell_apart_task_aware_methods_see_the_pooled_graph(
    case: str, normaliser: str
) -> None:
    problem, copies, *_ = problems(case)
    graphs = FamilyGraphs.of(problem, normaliser=normaliser)
    assert (graphs.preferences(tau=1.0) == 1).all()
    assert (graphs.pooled == graphs.affinity[0]).all()
    alone = groups(placed(Spectral(normaliser=normaliser), problem))
    assert groups(placed(Tacg(normaliser=normaliser), problem)) == alone
    assert groups(placed(TacgGesr(normaliser=normaliser), copies)) == alone


@pytest.mark.parametrize("replicas", [10, 99])
def test_more_replicas_than_slots_are_refused_with_the_numbers(replicas: int) -> None:
    trace, cluster = CASES["a single family"]()
    message = f"replicas {replicas} cannot be placed: 6 experts leave 9 of 15 slots free"
    with pytest.raises(ValueError, match=message):
        Problem.from_trace(trace, cluster, replicas=replicas)


@pytest.mark.parametrize(
    "graph",
    [np.zeros((6, 6)), np.ones((6, 6)), np.eye(6), np.kron(np.eye(2), np.ones((3, 3)))],
    ids=["no edges", "one clique", "loops alone", "two cliques"],
)
@pytest.mark.parametrize("sizes", [[2, 2, 2], [1, 0, 5], [1] * 6, [6], [0, 0, 6, 0]])
def test_clusters_fewer_than_groups_are_repaired_to_exact_sizes(
    graph: NDArray[np.float64], sizes: list[int]
) -> None:
    """Two cliques have two distinct points, no graph of these more than six."""
    for jitter in (0.0, 1e-6):
        for unit_rows in (False, True):
            group = spectral_groups(
                graph,
                sizes=np.array(sizes),
                rng=np.random.default_rng(0),
                jitter=jitter,
                seeds=2,
                unit_rows=unit_rows,
            )
            assert np.bincount(group, minlength=len(sizes)).tolist() == sizes
    labels, centres = clusters(np.zeros((6, 2)), k=4, rng=np.random.default_rng(0))
    assert (labels.tolist(), len(centres)) == ([0] * 6, 1)


def test_an_expert_that_never_fires_has_no_edges_and_no_copies() -> None:
    trace, cluster = CASES["experts that never fire"]()
    problem = Problem.from_trace(trace, cluster, replicas=6)
    for normaliser in ("frequency", "cosine", "lift"):
        graphs = FamilyGraphs.of(problem, normaliser=normaliser)
        assert not graphs.affinity[:, 3:].any()
        assert np.isfinite(graphs.affinity).all()
        assert placed(TacgGesr(normaliser=normaliser, n_rep=3), problem).hosts[0, 3:].sum() == 6
