"""What baselines of the field have in common: sizes, slots, seeds, replicas refused or kept within the budget."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeopt.cluster import Cluster
from moeopt.heuristics.coactivation import Coactivation
from moeopt.heuristics.eplb import Eplb
from moeopt.heuristics.frequency import Frequency
from moeopt.heuristics.grace import Grace
from moeopt.heuristics.metro import Metro
from moeopt.heuristics.occult import Occult
from moeopt.heuristics.sem_moe import SemMoe
from moeopt.method import Heuristic
from moeopt.pair_counts import PairCounts
from moeopt.problem import Problem
from moeopt.reference import equal_sizes
from moeopt.stop import Stop
from moeopt.trace import Trace
from moeopt.workload import Workload
from tests.problem_strategies import problems
from tests.replica_strategies import replica_problems

FREELY = Stop(seconds=None)
SINGLE: list[Heuristic] = [
    Frequency(),
    Frequency(order="snake"),
    Coactivation(),
    Coactivation(growth="one-by-one"),
    Occult(),
    SemMoe(restarts=2),
    Metro(batch=4, batches=8),
]
COPYING: list[Heuristic] = [Eplb(), Eplb(groups=1), Grace(), Grace(deviation=1, rounds=5)]
FROM_PAIRS: list[Heuristic] = [Frequency(), Coactivation(), Occult(), Eplb(), Grace()]
named = pytest.mark.parametrize("method", [*SINGLE, *COPYING], ids=repr)


@named
@settings(max_examples=15, deadline=None)
@given(problem=problems(), seed=st.integers(0, 9))
def test_without_a_tolerance_every_answer_is_admissible_and_follows_its_seed(
    method: Heuristic, problem: Problem, seed: int
) -> None:
    free = replace(problem, load_tolerance=None)
    result = method.solve(free, stop=FREELY, seed=seed)
    assert result.placement is not None
    assert free.violation(result.placement) == ""
    assert result.placement.is_partition
    assert result.cost == free.cost(result.placement)
    assert method.solve(free, stop=FREELY, seed=seed).placement == result.placement


@pytest.mark.parametrize("method", [*SINGLE, Eplb(groups=1), Grace(deviation=0)], ids=repr)
@settings(max_examples=15, deadline=None)
@given(problem=problems(nodes=False))
def test_sizes_are_as_equal_as_the_slots_allow(method: Heuristic, problem: Problem) -> None:
    free = replace(problem, load_tolerance=None)
    placement = method.solve(free, stop=FREELY, seed=0).placement
    assert placement is not None
    sizes = np.bincount(placement.primary[0], minlength=free.cluster.gpus)
    assert sizes.tolist() == equal_sizes(free.workload.n_experts, free.cluster.slots_of).tolist()


@pytest.mark.parametrize("method", COPYING, ids=repr)
@settings(max_examples=25, deadline=None)
@given(problem=replica_problems(unequal=True, nodes=True, tolerances=(None,)))
def test_copies_stay_within_replicas_and_slots(method: Heuristic, problem: Problem) -> None:
    result = method.solve(problem, stop=FREELY, seed=0)
    assert result.placement is not None
    assert problem.violation(result.placement) == ""


@pytest.mark.parametrize("method", SINGLE, ids=repr)
def test_a_method_of_single_copies_declines_replicas(method: Heuristic) -> None:
    trace = Trace(np.arange(4)[:, None, None], 4)
    problem = Problem.from_trace(trace, Cluster(1, 2, 3), replicas=2)
    assert method.supports(problem).endswith("replicas are 2")
    with pytest.raises(ValueError, match=rf"method {method.name} .*replicas are 2"):
        method.solve(problem, stop=FREELY, seed=0)


@pytest.mark.parametrize("method", COPYING, ids=repr)
def test_copies_of_a_large_top_k_are_declined_for_nobody_could_judge_them(method: Heuristic) -> None:
    trace = Trace(np.arange(17)[None, None], 18)
    problem = Problem.from_trace(trace, Cluster(1, 2, 10), replicas=1)
    assert method.supports(problem) == "top-k must be at most 16 with replicas, found 17"
    assert method.supports(replace(problem, replicas=0)) == ""


@pytest.mark.parametrize("method", [*FROM_PAIRS, SemMoe(), Metro()], ids=repr)
def test_pair_counts_are_enough_for_all_that_need_no_tokens(method: Heuristic) -> None:
    trace = Trace(np.random.default_rng(0).permuted(np.tile(np.arange(6), (40, 1)), axis=1)[:, None, :3], 6)
    whole = Problem.from_trace(trace, Cluster(1, 2, 3), objective="cut")
    pairs = tuple(PairCounts.of_sets(sets) for sets in whole.workload.layers)
    known = whole.workload
    workload = Workload(pairs, known.layer_ids, known.families, known.tokens, known.model)
    problem = replace(whole, workload=workload)
    if type(method) in map(type, FROM_PAIRS):
        found = method.solve(problem, stop=FREELY, seed=0)
        assert found.placement == method.solve(whole, stop=FREELY, seed=0).placement
    else:
        assert "pair counts only" in method.supports(problem)
