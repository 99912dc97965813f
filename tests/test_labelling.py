"""GPUs for groups: exact where all GPUs are equally far apart, never worse by a pass where they are not."""

from __future__ import annotations

from itertools import permutations

import numpy as np
from hypothesis import given, settings

from moeopt.cluster import Cluster
from moeopt.labelling import chained, is_level, relabelled
from moeopt.labels import LabelProblem
from moeopt.links import distances
from moeopt.stop import Stop
from tests.label_strategies import label_problems

CLOCK = Stop(seconds=None).start()


def worth(problem: LabelProblem, gpu_of: np.ndarray[tuple[int, int], np.dtype[np.int64]]) -> int:
    return problem.cost(problem.labelled(gpu_of))


@settings(max_examples=60, deadline=None)
@given(problem=label_problems(one_level=True, memory=False))
def test_on_one_level_the_chain_has_the_least_tail_or_total(problem: LabelProblem) -> None:
    tail = LabelProblem(problem.flow, problem.groups, problem.cluster, layer_ids=problem.layer_ids)
    assert is_level(tail.cluster)
    found = tail.labelled(chained(tail))
    assert tail.violation(found) == ""
    assert tail.cost(found) == min(map(tail.cost, tail.candidates()))


@settings(max_examples=60, deadline=None)
@given(problem=label_problems(one_level=True, memory=False))
def test_of_chains_with_the_least_tail_it_has_the_least_total(problem: LabelProblem) -> None:
    kinds = [
        LabelProblem(problem.flow, problem.groups, problem.cluster, measure, layer_ids=problem.layer_ids)
        for measure in ("tail", "total")
    ]
    found = kinds[0].labelled(chained(kinds[0]))
    best = min(tuple(kind.cost(candidate) for kind in kinds) for candidate in kinds[0].candidates())
    assert tuple(kind.cost(found) for kind in kinds) == best


@settings(max_examples=60, deadline=None)
@given(problem=label_problems(memory=False))
def test_a_pass_never_raises_the_tail_and_keeps_the_rules(problem: LabelProblem) -> None:
    tail = LabelProblem(problem.flow, problem.groups, problem.cluster, layer_ids=problem.layer_ids)
    first = chained(tail)
    better = relabelled(tail, first, clock=CLOCK)
    for labels in (first, better):
        assert tail.violation(tail.labelled(labels)) == ""
    least = min(map(tail.cost, tail.candidates()))
    assert least <= worth(tail, better) <= worth(tail, first)


def least_tail(problem: LabelProblem) -> int:
    """Of three layers, over all permutations, the middle one shared."""
    ways = np.array(list(permutations(range(problem.cluster.gpus))))
    apart = distances(problem.cluster)[ways[:, None, :, None], ways[None, :, None, :]]
    first, second = ((traffic * apart).max(axis=(2, 3)) for traffic in problem.traffic)
    return int((first.min(axis=0) + second.min(axis=1)).min())


def test_a_pass_lowers_one_step_at_the_price_of_another_where_the_sum_falls() -> None:
    """Over drawn problems with a price on nodes it gains somewhere, and mostly reaches the optimum."""
    gained = at_best = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        groups = np.stack([rng.permutation(4) for _ in range(3)])
        problem = LabelProblem(rng.integers(0, 30, (2, 4, 4)), groups, Cluster(2, 2, 1, 1, 3))
        first = chained(problem)
        better = relabelled(problem, first, clock=CLOCK)
        gained += worth(problem, better) < worth(problem, first)
        at_best += worth(problem, better) == least_tail(problem)
    assert gained >= 2
    assert at_best >= 6


def test_levels_are_told_from_prices_nodes_and_slots() -> None:
    assert is_level(Cluster(1, 4, 2, 1, 3))
    assert is_level(Cluster(4, 1, 2, 1, 3))
    assert is_level(Cluster(2, 2, 2, 1, 0))
    assert not is_level(Cluster(2, 2, 2, 1, 3))
    assert not is_level(Cluster(1, 2, (2, 3)))
