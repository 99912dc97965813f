"""The enumeration of placements with copies lists what it says, and its dispatches are the best."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from moeopt import enumeration
from moeopt.cluster import Cluster
from moeopt.dispatch import Dispatch, Plan
from moeopt.enumeration import best_dispatch, every_placement
from moeopt.guard import least_peak
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.trace import Trace
from tests.replica_strategies import replica_problems


def problem_of(sets: list[list[int]], experts: int, cluster: Cluster, **changes: object) -> Problem:
    return Problem.from_trace(Trace(np.array(sets)[:, None, :], experts), cluster, **changes)  # type: ignore[arg-type]


def every_hosts(problem: Problem) -> list[np.ndarray]:
    """Every admissible bool [experts, gpus], by trying all of them."""
    experts, gpus = problem.workload.n_experts, problem.cluster.gpus
    found = []
    for bits in product([False, True], repeat=experts * gpus):
        hosts = np.array(bits).reshape(experts, gpus)
        fits = (hosts.sum(axis=0) <= problem.cluster.slots_of).all() and hosts.any(axis=1).all()
        if fits and hosts.sum() <= experts + problem.replicas:
            found.append(hosts)
    return found


def placed(problem: Problem, hosts: np.ndarray) -> Placement:
    cluster = problem.cluster
    return Placement(
        hosts[None], hosts.argmax(axis=1)[None], cluster.nodes, cluster.slots, problem.workload.layer_ids
    )


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(problem=replica_problems(most_experts=4, unequal=True, nodes=True, tolerances=(None,)))
def test_no_placement_with_fewer_copies_or_other_names_costs_less(problem: Problem) -> None:
    listed = [problem.cost(placement) for placement in every_placement(problem)]
    assert min(listed) == min(problem.cost(placed(problem, hosts)) for hosts in every_hosts(problem))


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(problem=replica_problems(most_experts=4, tolerances=("0", "0.2", "0.5")))
def test_every_listed_answer_is_admissible_and_placements_that_meet_no_cap_are_left_out(
    problem: Problem,
) -> None:
    answers = list(every_placement(problem))
    assert all(problem.violation(answer) == "" for answer in answers)
    if problem.load_cap is not None:
        (sets,) = problem.workload.layers
        possible = any(least_peak(sets.load, hosts) <= problem.load_cap for hosts in every_hosts(problem))
        assert bool(answers) == possible


def test_a_budget_of_moves_lists_placements_with_fewer_copies_and_every_name() -> None:
    problem = problem_of([[0, 1]], 2, Cluster(1, 2, 2), replicas=2)
    incumbent = problem.partition(np.array([0, 1]))
    assert len(list(every_placement(problem))) == 1
    with_moves = replace(problem, incumbent=incumbent, max_moves=1)
    assert len(list(every_placement(with_moves))) == len(every_hosts(problem)) == 9


def test_the_best_dispatch_is_the_cheapest_of_all_dispatches() -> None:
    problem = problem_of([[0, 1], [0, 1], [0, 2]], 3, Cluster(1, 2, 3), replicas=3, load_tolerance="0")
    hosts = np.ones((3, 2), bool)
    best = best_dispatch(problem, hosts)
    assert best is not None
    (sets,) = problem.workload.layers
    least = None
    members = [sets.members[0], sets.members[0], sets.members[1]]
    for choice in product(product(range(2), repeat=2), repeat=3):
        loads = np.bincount(np.array(choice).ravel(), minlength=2)
        if (loads <= 3).all():
            cost = sum(len(set(gpus)) - 1 for gpus in choice)
            least = cost if least is None else min(least, cost)
    assert len(members) == 3
    assert problem.cost(Plan(placed(problem, hosts), (best,))) == least == 1


def test_no_dispatch_meets_a_cap_that_one_gpu_breaks() -> None:
    problem = problem_of([[0, 1], [0, 2]], 3, Cluster(1, 2, 3), replicas=3, load_tolerance="0")
    hosts = np.array([[True, False], [True, False], [True, True]])
    assert best_dispatch(problem, hosts) is None
    assert isinstance(best_dispatch(problem, np.ones((3, 2), bool)), Dispatch)


def test_it_refuses_what_is_too_large_to_list(monkeypatch: pytest.MonkeyPatch) -> None:
    small = problem_of([[0, 1], [1, 2]], 3, Cluster(1, 2, 3), replicas=1)
    two = replace(small, workload=replace(small.workload, layers=small.workload.layers * 2, layer_ids=(0, 1)))
    with pytest.raises(ValueError, match="one layer, found 2"):
        next(every_placement(two))
    with pytest.raises(ValueError, match="for a load tolerance"):
        best_dispatch(small, np.ones((3, 2), bool))
    monkeypatch.setattr(enumeration, "MOST_STATES", 3)
    capped = replace(small, load_tolerance="0.5")
    with pytest.raises(ValueError, match="ends at 3 steps of dispatch"):
        list(every_placement(capped))
    monkeypatch.setattr(enumeration, "MOST_PLACEMENTS", 30)
    with pytest.raises(ValueError, match="ends at 30 tuples of contents, found 36"):
        next(every_placement(small))
    monkeypatch.setattr(enumeration, "MOST_PLACEMENTS", 7)
    with pytest.raises(ValueError, match="ends at 7 contents of a GPU, found 8"):
        next(every_placement(small))
