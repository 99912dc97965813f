"""Semidefinite proofs hold for the checker, stay below every optimum, and end by themselves."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings

from moeopt.certificate import Certificate
from moeopt.checker import check_layer, verify
from moeopt.cluster import Cluster
from moeopt.generator import Generator
from moeopt.partition_lines import Lines, partition_levels
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.relaxations.semidefinite import semidefinite_proof, whole_numbers_of
from moeopt.semidefinite import Relaxation
from moeopt.stop import Clock, Stop
from moeopt.testing import brute_force
from moeopt.trace import Trace
from tests.problem_strategies import problems


def steps(count: int) -> Clock:
    return Stop(seconds=None, candidates=count).start()


@settings(max_examples=100, deadline=None)
@given(problem=problems(unequal=False))
def test_no_placement_costs_less_and_the_checker_agrees(problem: Problem) -> None:
    least, placement = brute_force(problem)
    heard: list[int] = []
    proof = semidefinite_proof(problem, clock=steps(300), seed=0, cost=least, on_bound=heard.append)
    assert proof is not None
    assert least is None or proof.bound <= least
    assert proof.optimal == (proof.bound == least)
    assert heard == sorted(set(heard))
    assert heard[-1] == proof.bound
    assert check_layer(problem, proof, placement=placement) == ""


def small(objective: str, cluster: Cluster | None = None, **options: object) -> Problem:
    trace = Generator(layers=1, experts=12, top_k=4, tokens=400, seed=3).generate()
    return Problem.from_trace(trace, cluster or Cluster(1, 4, 3), objective=objective, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("objective", ["cut", "fan-out"])
@pytest.mark.parametrize("cluster", [Cluster(1, 4, 3), Cluster(1, 3, 5), Cluster(2, 2, 3, 1, 3)])
def test_most_of_the_attainable_saving_is_certified(objective: str, cluster: Cluster) -> None:
    from moeopt.heuristics.swap import Swap
    from moeopt.reference import reference_cost

    problem = small(objective, cluster)
    found = Swap().solve(problem, stop=Stop(seconds=None, candidates=300), seed=0)
    assert found.cost is not None
    proof = semidefinite_proof(problem, clock=steps(3000), seed=0, cost=found.cost)
    assert proof is not None
    reference = float(reference_cost(problem))
    share = (reference - found.cost) / (reference - proof.bound)
    assert share > (0.95 if objective == "cut" else 0.4)  # routing here is nearly random
    assert check_layer(problem, proof, placement=found.placement) == ""


@pytest.mark.parametrize("objective", ["cut", "fan-out"])
def test_a_certificate_survives_its_document(objective: str) -> None:
    trace = Generator(layers=1, experts=12, top_k=4, tokens=400, seed=3).generate()
    problem = Problem.from_trace(trace, Cluster(1, 4, 3), objective=objective)
    proof = semidefinite_proof(problem, clock=steps(200), seed=0, cost=None)
    assert proof is not None
    document = json.loads(json.dumps(Certificate.of_layer(problem, proof, placement=None).to_dict()))
    verdict = verify(document, trace)
    assert verdict.accepted, verdict.reason


@pytest.mark.parametrize("objective", ["cut", "fan-out"])
def test_same_seed_and_steps_give_the_same_proof(objective: str) -> None:
    problem = small(objective)
    first, second = (semidefinite_proof(problem, clock=steps(400), seed=1, cost=None) for _ in range(2))
    assert first == second


def test_it_ends_when_the_cost_is_reached() -> None:
    ids = np.array([[[0, 1]]] * 9 + [[[2, 3]]] * 9 + [[[0, 2]]])
    problem = Problem.from_trace(Trace(ids, 4), Cluster(1, 2, 2), objective="cut")
    clock = Stop(seconds=None).start()
    proof = semidefinite_proof(problem, clock=clock, seed=0, cost=1)
    assert proof is not None
    assert (proof.bound, proof.optimal) == (1, True)
    assert clock.candidates <= 500


def test_without_a_limit_it_ends_when_nothing_is_gained() -> None:
    proof = semidefinite_proof(small("cut"), clock=Stop(seconds=None).start(), seed=0, cost=None)
    assert proof is not None
    assert proof.bound > 0


def test_a_start_is_a_hint_alone() -> None:
    problem = small("fan-out")
    start = problem.partition(np.arange(12) // 3)
    proof = semidefinite_proof(problem, clock=steps(300), seed=0, cost=None, start=start)
    assert proof is not None
    assert check_layer(problem, proof, placement=None) == ""


def test_one_step_is_enough_for_a_proof() -> None:
    for objective in ("cut", "fan-out"):
        problem = small(objective, Cluster(2, 2, 3, 1, 3))
        proof = semidefinite_proof(problem, clock=steps(1), seed=0, cost=None)
        assert proof is not None
        assert check_layer(problem, proof, placement=None) == ""


def test_one_group_costs_nothing_and_other_problems_have_no_such_proof() -> None:
    proof = semidefinite_proof(small("cut", Cluster(1, 1, 12)), clock=steps(5), seed=0, cost=0)
    assert proof is not None
    assert (proof.bound, proof.optimal) == (0, True)
    for problem in (
        small("fan-out", replicas=2, cluster=Cluster(1, 4, 4)),
        small("cut", Cluster(1, 2, (6, 7))),
    ):
        assert semidefinite_proof(problem, clock=steps(5), seed=0, cost=None) is None


def test_a_load_tolerance_is_ignored() -> None:
    problem = small("cut", load_tolerance="0.5")
    free = small("cut")
    bounded, unbounded = (semidefinite_proof(p, clock=steps(200), seed=0, cost=None) for p in (problem, free))
    assert bounded is not None
    assert unbounded is not None
    assert bounded.bound == unbounded.bound
    assert check_layer(problem, bounded, placement=None) == ""


def test_weighted_families_are_bounded_as_well() -> None:
    rng = np.random.default_rng(0)
    ids = np.array([rng.choice(6, 3, replace=False) for _ in range(40)])[:, None, :]
    family = np.append(np.zeros(30), np.ones(10)).astype(np.uint8)
    trace = Trace(ids, 6, families=("a", "b"), family=family)
    for objective in ("cut", "fan-out"):
        problem = Problem.from_trace(
            trace, Cluster(1, 3, 2), family_weights={"a": 0.3, "b": 0.7}, objective=objective
        )
        least, placement = brute_force(problem)
        proof = semidefinite_proof(problem, clock=steps(600), seed=0, cost=least)
        assert proof is not None
        assert isinstance(placement, Placement)
        assert least is not None
        assert 0.8 * least < proof.bound <= least
        assert check_layer(problem, proof, placement=placement) == ""


@pytest.mark.parametrize("shape", [(4, 3), (3, 4), (2, 6)])
def test_rounding_to_whole_numbers_costs_next_to_nothing(shape: tuple[int, int]) -> None:
    problem = small("cut", Cluster(1, *shape))
    (level,) = partition_levels(problem)
    lines = Lines.of(problem, level, references=[])
    relaxation = Relaxation(level.groups, level.slots)
    relaxation.aim(lines.weights.astype(float))
    rng = np.random.default_rng(0)
    for step in range(200):
        relaxation.step()
        if step % 50 == 49:
            relaxation.refine(rng=rng, larger=True)
            dual, numbers = whole_numbers_of(relaxation, lines, level=level)
            proved = dual / (2 * level.groups * numbers["scale"])
            assert proved == pytest.approx(lines.constant - relaxation.bound(), abs=0.5)
