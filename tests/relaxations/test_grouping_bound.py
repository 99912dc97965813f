"""Bounds on groupings hold for the checker, stay below every optimum, and end by themselves."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from moeopt.certificate import Proof
from moeopt.grouping import GroupingProblem
from moeopt.grouping_checker import check_grouping, seated
from moeopt.grouping_relaxation import GroupRelaxation
from moeopt.relaxations.grouping import grouping_bound, whole_layers_of
from moeopt.stop import Clock, Stop
from moeopt.testing import brute_force
from tests.grouping_strategies import grouping_problems


def steps(count: int) -> Clock:
    return Stop(seconds=None, candidates=count).start()


def bounded(problem: GroupingProblem, *, count: int = 300) -> Proof:
    proof = grouping_bound(problem, clock=steps(count), seed=0)
    assert proof is not None
    assert check_grouping(problem, proof) == ""
    return proof


def families(*, layers: int = 2, groups: int = 3, seed: int = 0) -> GroupingProblem:
    """Twelve requests and six experts; requests of a family favour the experts of theirs, and others a little."""
    rng = np.random.default_rng(seed)
    family, experts = np.arange(12) % groups, np.arange(6) % groups
    favoured = family[:, None, None] == experts
    return GroupingProblem(rng.integers(0, 4, (12, layers, 6)) + 9 * favoured, groups)


@settings(max_examples=100, deadline=None)
@given(problem=grouping_problems())
def test_no_grouping_costs_less_and_the_checker_agrees(problem: GroupingProblem) -> None:
    least, _ = brute_force(problem)
    heard: list[int] = []
    proof = grouping_bound(problem, clock=steps(150), seed=0, cost=least, on_bound=heard.append)
    if proof is None:
        assert problem.groups == 1 or problem.size_of.max() > 1
        return
    assert least is None or 0 <= proof.bound <= least
    assert proof.optimal == (proof.bound == least)
    assert heard == sorted(set(heard))
    assert heard[-1] == proof.bound
    assert check_grouping(problem, proof) == ""


@pytest.mark.parametrize("groups", [2, 3])
def test_requests_of_clear_families_are_proved_optimal(groups: int) -> None:
    problem = families(groups=groups)
    family = np.arange(12) % groups
    found = problem.complete(family)
    proof = grouping_bound(problem, clock=steps(2000), seed=0, cost=problem.cost(found))
    assert proof is not None
    assert (proof.bound, proof.optimal) == (problem.cost(found), True)


def test_layers_together_are_bounded_at_least_as_the_sum_of_them() -> None:
    rng = np.random.default_rng(1)
    problem = GroupingProblem(rng.integers(0, 9, (8, 3, 4)), 2)
    alone = [
        bounded(replace(problem, activations=problem.activations[:, [layer]])).bound for layer in range(3)
    ]
    least, _ = brute_force(problem)
    assert least is not None
    assert sum(alone) < bounded(problem).bound <= least


def test_unequal_slots_are_bounded_as_if_all_were_the_largest() -> None:
    activations = np.random.default_rng(2).integers(0, 9, (6, 1, 6))
    uneven = bounded(GroupingProblem(activations, 3, slots=(3, 2, 1)))
    padded = np.concatenate([activations, np.zeros((6, 1, 3), int)], axis=2)
    assert uneven.bound == bounded(GroupingProblem(padded, 3)).bound


def test_a_bound_survives_its_document() -> None:
    proof = bounded(families())
    assert check_grouping(families(), replace(proof, numbers=json.loads(json.dumps(proof.numbers)))) == ""


def test_same_seed_and_steps_give_the_same_proof() -> None:
    assert bounded(families(), count=400) == bounded(families(), count=400)


def test_one_step_is_enough_for_a_proof() -> None:
    bounded(families(), count=1)


def test_nothing_activated_costs_nothing() -> None:
    assert bounded(GroupingProblem(np.zeros((4, 1, 4), int), 2)).bound == 0


def test_it_ends_when_the_cost_is_reached_or_nothing_is_gained() -> None:
    problem = GroupingProblem(np.kron(np.eye(2, dtype=int), np.full((3, 2), 5))[:, None], 2)
    clock = Stop(seconds=None).start()
    proof = grouping_bound(problem, clock=clock, seed=0, cost=0)
    assert proof is not None
    assert (proof.optimal, clock.candidates) == (True, 25)
    assert grouping_bound(families(seed=5), clock=Stop(seconds=None).start(), seed=0) is not None


def test_single_groups_rows_of_several_requests_and_huge_problems_have_no_such_proof() -> None:
    for problem in (
        GroupingProblem(np.ones((4, 1, 4), int), 1),
        GroupingProblem(np.ones((4, 1, 4), int), 2, sizes=np.array([1, 1, 1, 3]), slack=1),
        GroupingProblem(np.ones((4_000, 1, 4), int), 2),
    ):
        assert grouping_bound(problem, clock=steps(1), seed=0) is None


def test_rounding_to_whole_numbers_costs_next_to_nothing() -> None:
    problem = families(seed=3)
    activations = seated(problem)
    relaxation = GroupRelaxation(activations.astype(float), problem.groups)
    rng = np.random.default_rng(0)
    for step in range(200):
        relaxation.step()
        if step % 25 == 24:
            relaxation.refine(rng=rng, larger=step > 100)
            numbers = whole_layers_of(relaxation, activations)
            proved = numbers["dual"] / (2 * problem.groups * numbers["scale"])
            assert proved == pytest.approx(int(activations.sum()) - relaxation.bound(), abs=0.5)
