"""MoETuner: the optimum of its first programme, then of its second, where the solver has the time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

import moeopt as mo
from moeopt.flow import FlowProblem
from moeopt.heuristics.moetuner import MoeTuner
from moeopt.labels import LabelProblem
from moeopt.loads import LoadProblem
from moeopt.reference import equal_sizes
from tests.model_strategies import Case, model_problems

FREELY = mo.Stop(seconds=None)
EXACT = MoeTuner(seconds=None, gap=0)


def placed(problem: mo.Problem, trace: mo.Trace, method: MoeTuner, stop: mo.Stop = FREELY) -> mo.Placement:
    result = mo.solve(problem, method, stop=stop, trace=trace)
    assert result.placement is not None
    return result.placement


def drawn(seed: int, *, layers: int = 3, experts: int = 6) -> mo.Trace:
    return mo.Generator(
        layers=layers, experts=experts, top_k=2, tokens=60, requests=6, groups=2, group_size=3, seed=seed
    ).generate()


def first_programme(problem: mo.Problem, layer: int, *, equal: bool = True) -> LoadProblem:
    cluster = problem.cluster
    if equal:
        sizes = equal_sizes(problem.workload.n_experts, cluster.slots_of)
        cluster = replace(cluster, slots=tuple(sizes.tolist()))
    return LoadProblem.from_workload(problem.workload.layer(layer), cluster, measure="deviation")


def second_programme(problem: mo.Problem, trace: mo.Trace, placement: mo.Placement) -> LabelProblem:
    """Of the groups that a placement has."""
    flow = FlowProblem.from_trace(trace, problem.cluster, returning=False)
    return LabelProblem.of(placement, flow)


@settings(max_examples=25, deadline=None)
@given(case=model_problems())
def test_heuristic_groups_and_labels_keep_sizes_and_slots(case: Case) -> None:
    """What stands before the solver has said anything."""
    problem, trace = case
    first = next(MoeTuner().propose(problem, trace, clock=FREELY.start(), rng=np.random.default_rng(0)))
    assert problem.violation(first) == ""
    assert first.is_partition
    sizes = sorted(equal_sizes(trace.n_experts, problem.cluster.slots_of).tolist())
    for layer in first.primary:
        assert sorted(np.bincount(layer, minlength=problem.cluster.gpus).tolist()) == sizes


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("equal", [True, False])
def test_tiny_models_reach_the_optimum_of_both_programmes(seed: int, equal: bool) -> None:
    trace = drawn(seed)
    problem = mo.Problem.from_trace(trace, mo.Cluster.of(gpus=3, slots=3))
    placement = placed(problem, trace, replace(EXACT, equal_sizes=equal))
    for layer in range(3):
        loads = first_programme(problem, layer, equal=equal)
        least = min(map(loads.cost, loads.candidates()))
        # GPUs are alike, so that their names do not matter here.
        assert LoadProblem.cost(first_programme(problem, layer, equal=False), placement.layer(layer)) == least
    labels = second_programme(problem, trace, placement)
    assert labels.violation(placement) == ""
    assert labels.cost(placement) == min(map(labels.cost, labels.candidates()))


def test_with_a_price_on_nodes_the_solver_finds_the_optimum_of_the_second_programme() -> None:
    trace = drawn(4, layers=3, experts=4)
    problem = mo.Problem.from_trace(trace, mo.Cluster.of(gpus=4, nodes=2, slots=1, node_cost=3))
    placement = placed(problem, trace, EXACT)
    labels = second_programme(problem, trace, placement)
    assert labels.cost(placement) == min(map(labels.cost, labels.candidates()))


def test_models_too_large_for_the_solver_keep_the_labels_of_the_assignments() -> None:
    trace = drawn(4, layers=3, experts=4)
    problem = mo.Problem.from_trace(trace, mo.Cluster.of(gpus=4, nodes=2, slots=1, node_cost=3))
    method = replace(EXACT, columns=0)
    placement = placed(problem, trace, method)
    (first, *_) = method.propose(problem, trace, clock=FREELY.start(), rng=np.random.default_rng(0))
    assert placement == first  # one expert on each GPU: nothing to balance either


def test_free_sizes_balance_no_worse_and_may_differ() -> None:
    experts = np.repeat(np.arange(4), [9, 3, 3, 3])[:, None, None]
    trace = mo.Trace(np.concatenate([experts, experts], axis=1), 4)
    problem = mo.Problem.from_trace(trace, mo.Cluster.of(gpus=2, slots=3))
    free = placed(problem, trace, replace(EXACT, equal_sizes=False))
    assert sorted(np.bincount(free.primary[0]).tolist()) == [1, 3]
    equal = placed(problem, trace, EXACT)
    assert np.bincount(equal.primary[0]).tolist() == [2, 2]


def test_loads_count_relative_to_the_speeds_of_gpus() -> None:
    experts = np.repeat(np.arange(4), [4, 4, 2, 2])[:, None, None]
    trace = mo.Trace(np.concatenate([experts, experts], axis=1), 4)
    problem = mo.Problem.from_trace(trace, mo.Cluster.of(gpus=2, slots=2, speeds=(1, 2)))
    placement = placed(problem, trace, EXACT)
    load = np.bincount(placement.primary[0], weights=problem.workload.layers[0].load)
    assert load.tolist() == [4, 8]


def test_a_moment_is_enough_for_a_placement() -> None:
    trace = drawn(0)
    problem = mo.Problem.from_trace(trace, mo.Cluster.of(gpus=3, slots=2))
    assert problem.violation(placed(problem, trace, MoeTuner(), mo.Stop(candidates=1))) == ""


@pytest.mark.parametrize(
    ("settings_of", "words"),
    [
        ({"seconds": 0}, "seconds must be positive, found 0"),
        ({"gap": 1}, r"gap must lie in \[0, 1\), found 1"),
        ({"columns": -1}, "columns must be at least 0, found -1"),
    ],
)
def test_bad_settings_are_refused(settings_of: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        MoeTuner(**settings_of)


def test_copies_and_single_layers_are_declined() -> None:
    trace = drawn(0)
    problem = mo.Problem.from_trace(trace, mo.Cluster.of(gpus=3, slots=3), replicas=2)
    assert MoeTuner().supports(problem) == "places single copies, MoETuner has none: replicas are 2"
    alone = replace(problem, replicas=0).layer(0)
    assert MoeTuner().supports(alone) == "places all layers together, the problem has one"
    with pytest.raises(ValueError, match="token by token, found none"):
        mo.solve(replace(problem, replicas=0), MoeTuner())
