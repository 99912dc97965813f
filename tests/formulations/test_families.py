"""Worst families on top of every formulation agree with brute force, and bound as theory says."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from moeopt.cluster import Cluster
from moeopt.exact import Exact
from moeopt.formulation import Separable, Tabulated
from moeopt.problem import Problem
from moeopt.solvers.scaled import ScaledSession
from moeopt.stop import Stop
from moeopt.testing import brute_force, check_formulation
from moeopt.trace import Trace
from moeopt_formulations.assignment import Assignment
from moeopt_formulations.blocks import Blocks
from moeopt_formulations.families import Families
from moeopt_formulations.hyperedge import Hyperedge
from moeopt_formulations.migration import Migration
from moeopt_formulations.pairs import Pairs
from tests.families_strategies import move_problems, tail_problems

SLOW = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def session() -> Iterator[ScaledSession]:
    with ScaledSession() as session:
        yield session


def problem_of(tail: str | None, **changes: Any) -> Problem:
    """Six experts on three GPUs of two slots, two families that want different pairs."""
    ids = np.array([[[0, 1]]] * 4 + [[[2, 3]]] * 2 + [[[0, 2]]] * 3 + [[[4, 5]]] * 1)
    family = np.array([0] * 6 + [1] * 4, np.uint8)
    trace = Trace(ids, 6, families=("code", "math"), family=family)
    return Problem.from_trace(trace, Cluster(1, 3, 2), tail=tail, **changes)


def test_it_is_tabulated_and_lists_every_row() -> None:
    assert isinstance(Families(), Tabulated)
    assert not isinstance(Families(), Separable)


@SLOW
@given(problem=tail_problems())
def test_over_blocks_it_agrees_with_brute_force(session: ScaledSession, problem: Problem) -> None:
    check_formulation(Families("blocks"), [problem], session=session)


@SLOW
@given(problem=tail_problems(objectives=("cut",), most_experts=5))
def test_over_pairs_it_agrees_with_brute_force(session: ScaledSession, problem: Problem) -> None:
    check_formulation(Families(Pairs()), [problem], session=session)


@SLOW
@given(problem=tail_problems(objectives=("cut",), most_experts=5, unequal=True, nodes=True))
def test_over_assignment_it_agrees_with_brute_force(session: ScaledSession, problem: Problem) -> None:
    check_formulation(Families(Assignment()), [problem], session=session)


@SLOW
@given(problem=tail_problems(objectives=("fan-out",), most_experts=5, unequal=True, nodes=True))
def test_over_hyperedge_it_agrees_with_brute_force(session: ScaledSession, problem: Problem) -> None:
    check_formulation(Families(Hyperedge()), [problem], session=session)


@SLOW
@given(problem=move_problems(most_experts=5), tail=st.sampled_from(["0", "0.5"]))
def test_over_migration_it_states_both(session: ScaledSession, problem: Problem, tail: str) -> None:
    check_formulation(Families(Migration()), [replace(problem, tail=tail)], session=session)


@SLOW
@given(problem=tail_problems(), seed=st.integers(0, 2**32 - 1))
def test_the_worst_family_costs_at_least_the_optimum_of_every_mixture(problem: Problem, seed: int) -> None:
    assert problem.risk is not None
    least, _ = brute_force(problem)
    assume(least is not None)
    rng, masses, total = np.random.default_rng(seed), problem.risk.masses, problem.risk.total
    left, mixture = total, [0] * len(masses)
    for family in rng.permutation(len(masses)).tolist():
        mixture[family] = min(masses[family], left)
        left -= mixture[family]
    bound, _ = brute_force(problem.mixed(mixture))
    assert bound is not None
    assert least is not None
    assert bound <= least


@pytest.mark.parametrize("objective", ["fan-out", "cut"])
def test_the_mean_over_fewer_of_the_worst_families_is_no_smaller(
    session: ScaledSession, objective: str
) -> None:
    weights = {"code": 1, "math": 1}
    worth = []
    for tail in ("0", "0.25", "0.5", "0.75", "0.9"):
        problem = problem_of(tail, objective=objective, family_weights=weights)
        worth.append(optimum(Families("blocks"), problem, session) / problem.total_weight)
    for worse, better in itertools.pairwise(worth):
        assert worse >= better * (1 - 1e-9)
    mean = problem_of(None, objective=objective, family_weights=weights)
    least, _ = brute_force(mean)
    assert least is not None
    assert worth[-1] >= least / mean.total_weight * (1 - 1e-9)


def optimum(formulation: Any, problem: Problem, session: ScaledSession) -> int:
    outcome = session.solve(formulation.matrix(problem))
    assert outcome.x is not None
    cost = problem.cost(formulation.placement(problem, outcome.x))
    assert outcome.objective == pytest.approx(cost, rel=1e-6)
    return cost


def test_families_without_weight_do_not_count(session: ScaledSession) -> None:
    problem = problem_of("0", family_weights={"code": 0, "math": 1})
    names = Families("blocks").matrix(problem).column_names
    assert "n[1]" in names
    assert "n[0]" not in names
    assert check_formulation(Families("blocks"), [problem], session=session) == 1


def test_it_says_why_it_does_not_apply() -> None:
    assert "the problem has no tail" in Families().supports(problem_of(None))
    assert "states the cut" in Families("assignment").supports(problem_of("0"))
    assert "offers no matrix with costs" in Families(Bare()).supports(problem_of("0"))
    with pytest.raises(ValueError, match="no formulation is named 'nothing'"):
        Families("nothing").supports(problem_of("0"))
    with pytest.raises(ValueError, match="no formulation underneath states this problem: assignment: states"):
        Families("assignment").matrix(problem_of("0"))
    with pytest.raises(ValueError, match="the problem has no tail"):
        Families("blocks").matrix(problem_of(None))


def test_too_many_columns_are_refused_before_they_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    from moeopt import overlays
    from moeopt_formulations import blocks

    assert Families("blocks").supports(problem_of("0")) == ""
    monkeypatch.setattr(blocks, "LARGEST_WORK", 15)
    assert "too much work" in Families("blocks").supports(problem_of("0"))
    monkeypatch.setattr(blocks, "LARGEST_WORK", 1 << 40)
    monkeypatch.setattr(blocks, "LARGEST_COUNT", 5)
    assert "enumeration ends at 5" in Families("blocks").supports(problem_of("0"))
    tail = problem_of("0", objective="cut")
    monkeypatch.setattr(overlays, "MOST_EXPERTS", 5)
    tail = problem_of("0", objective="cut")
    assert "too many lazy rows to list for 6 experts" in Families(Pairs()).supports(tail)


def test_without_a_name_the_first_that_fits_is_taken() -> None:
    assert Families()._inner(problem_of("0")) == Blocks()


class Bare:
    """A formulation without a matrix."""

    name = "bare"
    summary = ""


@pytest.mark.parametrize(
    ("sets", "family", "experts", "gpus", "least"),
    [
        ([[0], [1], [0], [1]], [0, 0, 1, 1], 2, 2, 0),
        ([[0, 1, 2], [0, 1, 2], [0, 1, 2], [0, 1, 3], [0, 1, 3]], [0, 1, 1, 0, 1], 4, 3, 8),
    ],
)
def test_families_of_equal_weight_are_told_apart_where_their_tokens_compete_for_copies(
    sets: list[list[int]], family: list[int], experts: int, gpus: int, least: int
) -> None:
    trace = Trace(
        np.array(sets)[:, None, :], experts, families=("code", "math"), family=np.array(family, np.uint8)
    )
    cluster = Cluster.of(gpus=gpus, slots=2)
    problem = Problem.from_trace(trace, cluster, replicas=1, load_tolerance="0", tail="0")
    result = Exact(Families("covers")).solve(problem, stop=Stop(seconds=None), seed=0)
    assert (result.status, result.cost, result.bound) == ("certified-optimal", least, least)
