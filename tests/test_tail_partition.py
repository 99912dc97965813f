"""Worst families over set partitions: proved, and never wrong however early the proof ends."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from moeopt import registry
from moeopt.checker import check_layer
from moeopt.exact import Exact
from moeopt.method import Incumbent
from moeopt.mixtures import Mixed
from moeopt.problem import Problem
from moeopt.stop import Stop
from moeopt.tail_partition import prove_tail
from moeopt.tail_prices import TailRelaxation
from moeopt.testing import brute_force
from moeopt_formulations.families import Families
from tests.families_strategies import tail_problems


def weightings(problem: Problem, rng: np.random.Generator) -> list[int]:
    """Random token weights of the families that count, one of them at least."""
    assert problem.risk is not None
    masses = np.array(problem.risk.masses)
    weights = np.where(masses > 0, rng.integers(0, 5, masses.size), 0)
    weights[masses.argmax()] += 1
    return [int(weight) for weight in weights]


@settings(max_examples=60, deadline=None)
@given(problem=tail_problems())
def test_the_least_worst_family_is_found_and_proved(problem: Problem) -> None:
    least, _ = brute_force(problem)
    result = registry.named_method("families").solve(problem, stop=Stop(seconds=None), seed=0)
    if least is None:
        assert result.status == "infeasible-claimed"
        return
    assert (result.status, result.cost, result.bound) == ("certified-optimal", least, least)
    assert result.certificate is not None
    assert result.certificate.proofs[0].kind in ("families", "counting")


@settings(max_examples=60, deadline=None)
@given(problem=tail_problems(), seed=st.integers(0, 2**32 - 1))
def test_no_weighting_claims_more_than_the_worst_families_cost(problem: Problem, seed: int) -> None:
    least, _ = brute_force(problem)
    if least is None:
        return
    assert problem.risk is not None
    weights = weightings(problem, np.random.default_rng(seed))
    mean, _ = brute_force(Mixed.of(problem, weights))
    assert mean is not None
    assert problem.risk.multiple(weights) * mean <= least


@settings(max_examples=60, deadline=None)
@given(problem=tail_problems())
def test_some_weighting_costs_exactly_what_the_worst_families_of_a_placement_do(problem: Problem) -> None:
    _, best = brute_force(problem)
    if best is None:
        return
    assert problem.risk is not None
    families = range(len(problem.risk.masses))
    costs = [Mixed.of(problem, [int(f == g) for g in families]).cost(best) for f in families]
    mixture = problem.risk.mixture([u * cost for u, cost in zip(problem.risk.units, costs, strict=True)])
    weights = [m * u for m, u in zip(mixture, problem.risk.units, strict=True)]
    assert problem.risk.multiple(weights) == Fraction(1)
    assert Mixed.of(problem, weights).cost(best) == problem.cost(best)


@settings(max_examples=40, deadline=None)
@given(problem=tail_problems(), candidates=st.integers(1, 3))
def test_a_proof_that_ends_early_holds(problem: Problem, candidates: int) -> None:
    columns = Families().tail_columns(problem)
    if columns is None or not len(columns):
        return
    clock = Stop(seconds=None, candidates=candidates).start()
    clock.candidates = candidates - 1
    incumbent = Incumbent(problem, clock)
    heard: list[int] = []

    def spend(bound: int) -> None:
        heard.append(bound)
        clock.candidates += 1

    verdict = prove_tail(columns, incumbent=incumbent, clock=clock, seed=0, on_bound=spend)
    least, _ = brute_force(problem)
    if verdict.numbers is None:
        return
    assert least is None or verdict.bound <= least
    proof = Exact(Families())._proof(incumbent, bound=verdict.bound, numbers=verdict.numbers)
    assert check_layer(problem, proof, placement=incumbent.placement) == ""
    assert heard == sorted(heard)


@settings(max_examples=30, deadline=None)
@given(problem=tail_problems())
def test_the_relaxation_is_at_least_every_family_alone(problem: Problem) -> None:
    columns = Families().tail_columns(problem)
    if columns is None or not len(columns) or problem.risk is None:
        return
    relaxed = TailRelaxation(columns, seed=0).solve(Stop(seconds=None).start()).bound
    least, _ = brute_force(problem)
    assert least is None or relaxed <= least
