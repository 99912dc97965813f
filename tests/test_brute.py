"""Brute force lists every admissible placement once, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings

from moeopt.brute import every_candidate, every_partition
from moeopt.cluster import Cluster
from moeopt.dispatch import Plan
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.testing import brute_force
from moeopt.trace import Trace
from tests.problem_strategies import any_problems

SMALL = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def by_definition(problem: Problem) -> list[Placement]:
    """Every way to put one copy of each expert on a GPU that breaks no rule."""
    ways = product(range(problem.cluster.gpus), repeat=problem.workload.n_experts)
    return [p for p in (problem.partition(np.array(way)) for way in ways) if not problem.violation(p)]


def renamed(placement: Placement) -> tuple[int, ...]:
    """Groups in the order of their first expert, GPU names gone."""
    first: dict[int, int] = {}
    return tuple(first.setdefault(gpu, len(first)) for gpu in placement.primary[0].tolist())


@SMALL
@given(problem=any_problems(extras=("speeds", "tail", "moves"), most_experts=5))
def test_every_admissible_partition_is_listed_once(problem: Problem) -> None:
    listed, wanted = list(every_candidate(problem)), by_definition(problem)
    cluster = problem.cluster
    named = problem.max_moves is not None or not cluster.equal or (cluster.node_cost and cluster.nodes > 1)
    placements = [one for one in listed if isinstance(one, Placement)]
    assert len(placements) == len(listed)
    if named:
        assert len(set(placements)) == len(listed)
        assert set(placements) == set(wanted)
    else:
        found = [renamed(placement) for placement in placements]
        assert len(set(found)) == len(found)
        assert set(found) == {renamed(placement) for placement in wanted}
    assert all(problem.violation(placement) == "" for placement in placements)


@SMALL
@given(problem=any_problems(extras=("speeds", "tail", "moves"), most_experts=5))
def test_the_least_cost_is_the_least_over_all_partitions(problem: Problem) -> None:
    costs = [problem.cost(placement) for placement in by_definition(problem)]
    assert brute_force(problem)[0] == (min(costs) if costs else None)
    assert brute_force(problem)[0] == min(map(problem.cost, problem.candidates()), default=None)


@settings(SMALL, max_examples=30)
@given(problem=any_problems(extras=("replicas", "moves"), most_experts=4))
def test_copies_are_listed_too(problem: Problem) -> None:
    """Placements by definition: every set of GPUs for every expert; the least cost is that of the cheapest."""
    assume(problem.replicas > 0)
    assume(problem.load_tolerance is None)
    gpus = problem.cluster.gpus
    sets = [[bool(mask >> gpu & 1) for gpu in range(gpus)] for mask in range(1, 1 << gpus)]
    costs = []
    for rows in product(sets, repeat=problem.workload.n_experts):
        hosts = np.array(rows)
        placement = Placement(
            hosts[None],
            hosts.argmax(axis=1)[None],
            problem.cluster.nodes,
            problem.cluster.slots,
            problem.workload.layer_ids,
        )
        if not problem.violation(placement):
            costs.append(problem.cost(placement))
    listed = list(every_candidate(problem))
    assert all(problem.violation(candidate) == "" for candidate in listed)
    assert min(map(problem.cost, listed), default=None) == min(costs, default=None)


@settings(SMALL, max_examples=30)
@given(problem=any_problems(extras=("replicas",), most_experts=4))
def test_under_a_tolerance_copies_come_with_a_dispatch_no_dearer_than_the_guarded_one(
    problem: Problem,
) -> None:
    assume(problem.replicas > 0)
    assume(problem.load_tolerance is not None)
    for candidate in every_candidate(problem):
        assert isinstance(candidate, Plan)
        assert problem.violation(candidate) == ""
        if not problem.violation(candidate.placement):
            assert problem.cost(candidate) <= problem.cost(candidate.placement)


def test_what_is_too_large_is_refused() -> None:
    trace = Trace(np.array([[[0, 8]]]), 9)
    with pytest.raises(ValueError, match="at most 8 experts without replicas, found 1 layers, 9 experts"):
        next(every_partition(Problem.from_trace(trace, Cluster(1, 3, 3))))
    two = Problem.from_trace(Trace(np.array([[[0], [1]]]), 2), Cluster(1, 2, 2))
    with pytest.raises(ValueError, match="found 2 layers"):
        next(every_partition(two))
    with pytest.raises(ValueError, match="1 replicas"):
        next(every_partition(replace(two.layer(0), replicas=1)))


def test_several_layers_share_a_budget_of_copies() -> None:
    ids = np.array([[[0, 1], [0, 2]], [[1, 2], [0, 1]], [[0, 2], [0, 2]]])
    problem = Problem.from_trace(Trace(ids, 3), Cluster(1, 2, 3), replicas=2, total_replicas=3)
    listed = list(problem.candidates())
    assert all(problem.violation(placement) == "" for placement in listed)
    least = []
    for split in ((0, 2), (1, 2), (2, 1), (2, 0), (1, 1)):
        layers = [replace(problem.layer(index), total_replicas=None) for index in (0, 1)]
        least.append(
            sum(
                brute_force(replace(layer, replicas=r))[0] or 0
                for layer, r in zip(layers, split, strict=True)
            )
        )
    assert min(map(problem.cost, listed)) == min(least)
    with pytest.raises(ValueError, match="several layers are listed without a load tolerance"):
        list(replace(problem, load_tolerance=1).candidates())
