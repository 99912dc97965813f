"""Spectral clusters: exact sizes, planted groups found, and the graph that the source describes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeopt.cluster import Cluster
from moeopt.family_graphs import NORMALISERS, FamilyGraphs
from moeopt.heuristics.spectral import Spectral
from moeopt.pair_counts import PairCounts
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.reference import equal_sizes
from moeopt.spectral_partition import embedded, repaired, spectral_groups
from moeopt.stop import Stop
from moeopt.trace import Trace
from moeopt.workload import Workload
from tests.problem_strategies import problems

FREELY = Stop(seconds=None)


def placed(method: Spectral, problem: Problem, seed: int = 0) -> Placement:
    placement = method.solve(problem, stop=FREELY, seed=seed).placement
    assert placement is not None
    return placement


def groups(placement: Placement) -> set[frozenset[int]]:
    """Experts that share a GPU, whatever its name."""
    gpus = set(placement.primary[0].tolist())
    return {frozenset(np.flatnonzero(placement.primary[0] == gpu).tolist()) for gpu in gpus}


def planted(sizes: tuple[int, ...], *, tokens: int = 300, seed: int = 0) -> tuple[Trace, set[frozenset[int]]]:
    """Top-2 tokens that stay inside hidden groups of these sizes, and the groups."""
    rng = np.random.default_rng(seed)
    parts = np.split(rng.permutation(sum(sizes)), np.cumsum(sizes)[:-1])
    chosen = [rng.choice(parts[i % len(parts)], 2, replace=False) for i in range(tokens)]
    return Trace(np.array(chosen)[:, None, :], sum(sizes)), {frozenset(part.tolist()) for part in parts}


@settings(max_examples=60, deadline=None)
@given(problem=problems(), seed=st.integers(0, 9), normaliser=st.sampled_from(NORMALISERS))
def test_groups_have_the_equal_sizes_that_slots_allow(problem: Problem, seed: int, normaliser: str) -> None:
    free = replace(problem, load_tolerance=None)
    placement = placed(Spectral(normaliser=normaliser, seeds=2), free, seed)
    assert free.violation(placement) == ""
    sizes = np.bincount(placement.primary[0], minlength=free.cluster.gpus)
    wanted = equal_sizes(free.workload.n_experts, free.cluster.slots_of)
    assert sizes.tolist() == wanted.tolist()
    assert placed(Spectral(normaliser=normaliser, seeds=2), free, seed) == placement


@pytest.mark.parametrize("unit_rows", [False, True])
@pytest.mark.parametrize(
    ("sizes", "slots"), [((4, 4, 4), 4), ((5, 3, 3), (3, 5, 3)), ((3, 3, 2), 3), ((6, 2, 2), (2, 2, 6))]
)
def test_planted_groups_are_found(
    sizes: tuple[int, ...], slots: int | tuple[int, ...], unit_rows: bool
) -> None:
    trace, hidden = planted(sizes)
    problem = Problem.from_trace(trace, Cluster(1, 3, slots))
    assert groups(placed(Spectral(unit_rows=unit_rows), problem)) == hidden


def test_more_gpus_than_experts_leave_gpus_empty() -> None:
    trace, _ = planted((2, 2))
    placement = placed(Spectral(), Problem.from_trace(trace, Cluster(1, 6, 3)))
    assert sorted(placement.primary[0].tolist()) == [0, 1, 2, 3]


def test_groups_of_one_size_are_numbered_by_their_lowest_expert() -> None:
    trace, hidden = planted((3, 3, 3))
    placement = placed(Spectral(), Problem.from_trace(trace, Cluster(1, 3, 3)))
    named = [frozenset(np.flatnonzero(placement.primary[0] == gpu).tolist()) for gpu in range(3)]
    assert named == sorted(hidden, key=min)


def test_one_gpu_holds_all() -> None:
    trace, _ = planted((2, 3))
    assert placed(Spectral(), Problem.from_trace(trace, Cluster(1, 1, 5))).primary.tolist() == [[0] * 5]


def test_tokens_of_one_expert_make_no_edges_and_still_a_partition() -> None:
    trace = Trace(np.arange(6)[:, None, None], 6)
    for jitter in (0.0, 1e-6):
        placement = placed(Spectral(jitter=jitter), Problem.from_trace(trace, Cluster(1, 3, 2)))
        assert np.bincount(placement.primary[0]).tolist() == [2, 2, 2]


def test_where_the_tolerance_is_broken_a_levelled_placement_follows() -> None:
    trace, _ = planted((4, 4), tokens=40)
    heavy = np.concatenate([trace.experts, np.repeat(trace.experts[:1], 60, axis=0)])
    problem = Problem.from_trace(Trace(heavy, 8), Cluster(1, 2, 4))
    free = placed(Spectral(), problem)
    tight = replace(problem, load_tolerance="0.2")
    assert "serves" in tight.violation(free)
    assert tight.violation(placed(Spectral(), tight)) == ""


def test_the_objective_pools_families_as_it_counts_them() -> None:
    rng = np.random.default_rng(0)
    chosen = np.array([rng.choice(6, 3, replace=False) for _ in range(60)])
    family = np.repeat([0, 1], [45, 15]).astype(np.uint8)
    trace = Trace(chosen[:, None, :], 6, families=("code", "math"), family=family)
    for weights in (None, {"code": 1, "math": 3}):
        problem = Problem.from_trace(trace, Cluster(1, 3, 2), family_weights=weights)
        (sets,) = problem.workload.layers
        pooled = FamilyGraphs.of(problem, pooling="objective").pooled
        wanted = sets.affinity(problem.set_weights(sets))
        assert np.allclose(pooled / pooled.sum(), wanted / wanted.sum())
        equal = FamilyGraphs.of(problem).pooled
        by_family = [sets.affinity(counts) / counts.sum() for counts in sets.counts.T]
        assert np.allclose(equal, sum(by_family) / 2)


def test_the_embedding_holds_the_least_eigenvectors() -> None:
    rng = np.random.default_rng(2)
    graph = rng.random((9, 9)) * 40
    graph = np.triu(graph, 1) + np.triu(graph, 1).T
    points = embedded(graph, dimensions=4, jitter=0.01)
    weights = graph / graph.max() + 0.01 * np.eye(9)
    degree = weights.sum(axis=1)
    laplacian = np.eye(9) - weights / np.sqrt(np.outer(degree, degree))
    values = np.linalg.eigvalsh(laplacian)[:4]
    assert np.allclose(points.T @ points, np.eye(4))
    assert np.allclose(laplacian @ points, points * values)


def test_repair_keeps_the_strongest_and_sends_the_others_to_their_partners() -> None:
    graph = np.zeros((5, 5))
    for (i, j), weight in {(0, 1): 9, (0, 2): 5, (1, 2): 5, (3, 4): 8, (2, 4): 1, (0, 3): 2}.items():
        graph[i, j] = graph[j, i] = weight
    sizes = np.array([2, 3])
    assert repaired(np.array([0, 0, 0, 1, 1]), graph, sizes=sizes).tolist() == [0, 0, 1, 1, 1]
    assert repaired(np.array([0, 0, 0, 0, 0]), graph, sizes=sizes).tolist() == [0, 0, 1, 1, 1]
    exact = np.array([1, 0, 1, 0, 1])
    assert repaired(exact, graph, sizes=sizes).tolist() == exact.tolist()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1000), data=st.data())
def test_repair_always_ends_with_exact_sizes(seed: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    sizes = np.array(data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=5).filter(any)))
    experts = int(sizes.sum())
    labels = rng.integers(0, len(sizes), experts)
    graph = rng.random((experts, experts)) * (rng.random((experts, experts)) < 0.5)
    group = repaired(labels, graph, sizes=sizes)
    assert np.bincount(group, minlength=len(sizes)).tolist() == sizes.tolist()
    held = np.bincount(labels, minlength=len(sizes))
    for own in np.flatnonzero(held <= sizes):
        assert (group[labels == own] == own).all()


def test_sizes_that_miss_an_expert_are_refused() -> None:
    with pytest.raises(ValueError, match="sizes must sum to the 4 experts, found 3"):
        spectral_groups(np.ones((4, 4)), sizes=np.array([2, 1]), rng=np.random.default_rng(0))


def test_pair_counts_are_refused() -> None:
    trace, _ = planted((3, 3))
    known = Workload.from_trace(trace)
    pairs = PairCounts.of_sets(known.layers[0])
    workload = Workload((pairs,), known.layer_ids, known.families, known.tokens)
    problem = Problem(workload, Cluster(1, 2, 3), objective="cut")
    with pytest.raises(ValueError, match="needs expert sets, the workload has pair counts only"):
        Spectral().solve(problem, stop=FREELY, seed=0)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"normaliser": "pmi"}, "normaliser must be one of frequency, cosine, lift, uniform, found 'pmi'"),
        ({"pooling": "sum"}, "pooling must be one of families, objective, found 'sum'"),
        ({"jitter": -1.0}, r"jitter must be finite and not negative, found -1\.0"),
        ({"jitter": float("nan")}, "jitter must be finite and not negative, found nan"),
        ({"seeds": 0}, "seeds must be at least 1, found 0"),
    ],
)
def test_bad_settings_are_named(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Spectral(**asked)
