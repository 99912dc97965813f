"""The library keeps the best admissible proposal, whatever a heuristic proposes and however it ends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeopt.cluster import Cluster
from moeopt.dispatch import Plan
from moeopt.method import Heuristic, Incumbent, check_supported
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.stop import Clock, Stop, interrupt_when
from moeopt.trace import Trace
from tests.problem_strategies import problems

FREELY = Stop(seconds=None)
TRACE = Trace(np.array([[[0, 1]], [[0, 1]], [[2, 3]], [[0, 2]]]), 4, layer_ids=np.array([6]))
PROBLEM = Problem.from_trace(TRACE, Cluster(1, 2, 3))


@dataclass(frozen=True)
class Fixed(Heuristic):
    """Proposes these placements in turn, and presses Ctrl-C at the end when asked to."""

    proposals: tuple[tuple[int, ...], ...] = ()
    interrupt: bool = False
    name = "fixed"
    summary = "for tests"

    def search(
        self, problem: Problem, *, clock: Clock, rng: np.random.Generator, start: Placement | None
    ) -> Iterator[Placement]:
        for gpu_of in self.proposals:
            yield problem.partition(np.array(gpu_of))
        if self.interrupt:
            raise KeyboardInterrupt


@dataclass(frozen=True)
class Drawn(Heuristic):
    """Random labels, admissible or not."""

    count: int = 20
    name = "drawn"
    summary = "for tests"

    def search(
        self, problem: Problem, *, clock: Clock, rng: np.random.Generator, start: Placement | None
    ) -> Iterator[Placement]:
        for _ in range(self.count):
            yield problem.partition(rng.integers(0, problem.cluster.gpus, problem.workload.n_experts))


@settings(max_examples=60, deadline=None)
@given(problem=problems(), seed=st.integers(0, 99))
def test_the_result_is_the_cheapest_admissible_proposal(problem: Problem, seed: int) -> None:
    result = Drawn().solve(problem, stop=FREELY, seed=seed)
    clock, rng = FREELY.start(), np.random.default_rng(seed)
    proposals = list(Drawn().search(problem, clock=clock, rng=rng, start=None))
    costs = [problem.cost(placement) for placement in proposals if not problem.violation(placement)]
    if not costs:
        assert (result.status, result.placement, result.cost) == ("none-found", None, None)
        assert "no admissible placement found" in result.message
        return
    assert result.status == "feasible"
    assert result.placement is not None
    assert result.cost == min(costs) == problem.cost(result.placement)
    assert problem.violation(result.placement) == ""
    assert (result.bound, result.certificate, result.layer_id) == (None, None, 5)


@settings(max_examples=30, deadline=None)
@given(problem=problems(), seed=st.integers(0, 99))
def test_costs_in_the_history_only_fall(problem: Problem, seed: int) -> None:
    result = Drawn().solve(problem, stop=FREELY, seed=seed)
    costs = [event.cost for event in result.history if event.cost is not None]
    assert all(later < earlier for earlier, later in pairwise(costs))
    assert (costs[-1] if costs else None) == result.cost
    moments = [event.seconds for event in result.history]
    assert moments == sorted(moments)


@pytest.mark.parametrize(("candidates", "cost"), [(1, 3), (2, 1), (3, 1), (None, 0)])
def test_a_limit_on_candidates_ends_the_search(candidates: int | None, cost: int) -> None:
    method = Fixed(((0, 1, 0, 1), (0, 0, 1, 1), (0, 1, 1, 0), (0, 0, 0, 0)))
    wide = replace(PROBLEM, cluster=Cluster(1, 2, 4))
    result = method.solve(wide, stop=Stop(seconds=None, candidates=candidates), seed=0)
    assert result.cost == cost


def test_an_interrupt_inside_the_search_keeps_the_best() -> None:
    method = Fixed(((0, 1, 0, 1), (0, 0, 1, 1)), interrupt=True)
    result = method.solve(PROBLEM, stop=FREELY, seed=0)
    assert (result.status, result.cost) == ("interrupted", 1)
    nothing = Fixed((), interrupt=True).solve(PROBLEM, stop=FREELY, seed=0)
    assert (nothing.status, nothing.placement) == ("interrupted", None)


def test_an_interrupt_from_outside_ends_the_search_at_the_next_proposal() -> None:
    try:
        interrupt_when(lambda: True)
        result = Drawn().solve(replace(PROBLEM, cluster=Cluster(1, 2, 4)), stop=FREELY, seed=0)
    finally:
        interrupt_when(bool)
    assert (result.status, len(result.history)) == ("interrupted", 1)


def test_a_start_is_kept_when_nothing_better_is_proposed() -> None:
    start = PROBLEM.partition(np.array([0, 0, 0, 1]))
    worse = Fixed(((0, 1, 0, 1),))
    assert worse.solve(PROBLEM, stop=FREELY, seed=0, start=start).placement == start
    crowded = PROBLEM.partition(np.array([0, 0, 0, 0]))
    assert worse.solve(PROBLEM, stop=FREELY, seed=0, start=crowded).cost == 3


def test_a_start_made_for_other_slots_answers_this_problem() -> None:
    start = Placement.partition([[0, 0, 1, 1]], Cluster(1, 2, 2), layer_ids=(6,))
    result = Fixed().solve(PROBLEM, stop=FREELY, seed=0, start=start)
    assert result.placement is not None
    assert result.placement.slots == 3
    assert (result.placement.hosts == start.hosts).all()


def test_where_no_load_is_low_enough_the_tolerance_reached_is_enough_to_ask_for() -> None:
    problem = replace(PROBLEM, load_tolerance="0")  # loads 3, 2, 2, 1: 4 a GPU
    method = Fixed(((0, 0, 1, 1), (0, 0, 0, 1)))
    result = method.solve(problem, stop=FREELY, seed=0)
    assert (result.status, result.tolerance_reached) == ("none-found", 0.25)
    assert "load tolerance 0 allows 4" in result.message
    again = method.solve(replace(problem, load_tolerance=result.tolerance_reached), stop=FREELY, seed=0)
    assert (again.status, again.tolerance_reached) == ("feasible", None)


@settings(max_examples=80, deadline=None)
@given(problem=problems(), seed=st.integers(0, 99))
def test_the_tolerance_reached_is_met_by_asking_for_it(problem: Problem, seed: int) -> None:
    result = Drawn().solve(problem, stop=FREELY, seed=seed)
    if result.tolerance_reached is None:
        return
    assert Fraction(str(result.tolerance_reached)) > Fraction(problem.load_tolerance or 0)
    asked = replace(problem, load_tolerance=result.tolerance_reached)
    assert Drawn().solve(asked, stop=FREELY, seed=seed).status == "feasible"


def test_a_proposal_that_breaks_another_rule_reaches_no_tolerance() -> None:
    problem = replace(PROBLEM, cluster=Cluster(1, 2, 2), load_tolerance="0.1")
    result = Fixed(((0, 1, 1, 1),)).solve(problem, stop=FREELY, seed=0)  # loads 3 and 5, slots 2
    assert (result.status, result.tolerance_reached) == ("none-found", None)
    assert "slots are 2" in result.message


def test_provenance_is_in_the_result() -> None:
    result = Drawn(3).solve(PROBLEM, stop=FREELY, seed=11)
    assert (result.method, result.seed) == ("Drawn(count=3)", 11)


def test_an_incumbent_accepts_only_what_is_cheaper() -> None:
    best = Incumbent(PROBLEM, FREELY.start())
    assert best.offer(PROBLEM.partition(np.array([0, 0, 1, 1])))
    assert not best.offer(PROBLEM.partition(np.array([1, 1, 0, 0])))
    assert not best.offer(PROBLEM.partition(np.array([0, 1, 0, 1])))
    assert best.cost == 1


def test_a_method_solves_one_layer_and_only_what_it_supports() -> None:
    class Picky(Fixed):
        def supports(self, problem: Problem) -> str:
            return "too fast"

    with pytest.raises(ValueError, match="method fixed does not treat this problem: too fast"):
        Picky().solve(PROBLEM, stop=FREELY, seed=0)
    two = Problem.from_trace(Trace(np.array([[[0, 1], [2, 3]]]), 4), Cluster(1, 2, 2))
    with pytest.raises(ValueError, match="one layer at a time, found 2"):
        check_supported(Fixed(), two)


def copied_problem(tolerance: str = "0") -> Problem:
    """Two copies of expert 0 and a cap that makes the dispatch a choice."""
    return Problem.from_trace(TRACE, Cluster(1, 2, 3), replicas=1, load_tolerance=tolerance)


def plans_of(problem: Problem) -> list[Plan]:
    plans = [plan for plan in problem.candidates() if isinstance(plan, Plan)]
    return sorted(plans, key=problem.cost)


def test_a_plan_is_kept_with_its_own_dispatch() -> None:
    problem = copied_problem()
    best = Incumbent(problem, FREELY.start())
    plans = plans_of(problem)
    assert best.found is None
    assert best.offer(plans[-1])
    assert isinstance(best.found, Plan)
    assert best.found.dispatches == plans[-1].dispatches
    assert best.cost == problem.cost(plans[-1])
    assert best.offer(plans[0]) == (problem.cost(plans[0]) < problem.cost(plans[-1]))
    assert best.cost == problem.cost(plans[0])
    assert not best.offer(plans[0])


def test_a_placement_gets_the_dispatch_of_the_problem() -> None:
    problem = copied_problem("0.5")
    best = Incumbent(problem, FREELY.start())
    placement = plans_of(problem)[0].placement
    assert best.offer(placement)
    assert best.dispatch is None
    assert best.found == placement
    assert best.cost == problem.cost(placement)


def test_a_plan_with_a_wrong_dispatch_is_refused_and_its_reason_kept() -> None:
    problem = copied_problem()
    plan = plans_of(problem)[0]
    best = Incumbent(problem, FREELY.start())
    (dispatch,) = plan.dispatches
    assert not best.offer(Plan(plan.placement, (replace(dispatch, tokens=dispatch.tokens + 1),)))
    assert "tokens of family 0" in best.reason
    crowded = replace(dispatch, gpus=np.zeros_like(dispatch.gpus))
    assert not best.offer(Plan(plan.placement, (crowded,)))
    assert best.found is None


def test_the_incumbent_of_the_problem_is_the_first_candidate() -> None:
    given = PROBLEM.partition(np.array([0, 0, 1, 1]))
    best = Incumbent(replace(PROBLEM, incumbent=given), FREELY.start())
    assert (best.placement, best.cost, len(best.history)) == (given, 1, 1)
    result = Fixed(((0, 1, 0, 1),)).solve(replace(PROBLEM, incumbent=given), stop=FREELY, seed=0)
    assert (result.placement, result.cost) == (given, 1)
    moved = replace(PROBLEM, incumbent=given, max_moves=1)
    result = Fixed(((1, 0, 1, 1), (1, 1, 0, 0))).solve(moved, stop=FREELY, seed=0)
    assert result.placement == given


def test_an_incumbent_that_breaks_a_rule_is_counted_from_and_not_kept() -> None:
    given = PROBLEM.partition(np.zeros(4, int))
    problem = replace(PROBLEM, incumbent=given, max_moves=1)
    best = Incumbent(problem, FREELY.start())
    assert best.found is None
    assert best.reason == "layer 6: GPU 0 holds 4 experts, slots are 3"
    assert best.offer(PROBLEM.partition(np.array([0, 0, 0, 1])))
    assert not best.offer(PROBLEM.partition(np.array([0, 0, 1, 1])))
    assert "2 copies moved from the incumbent, 1 may" in best.reason


def test_an_incumbent_with_copies_that_the_problem_rules_out_is_no_mistake() -> None:
    """Copies, a tolerance and unequal speeds do not go together; an incumbent may have them all the same."""
    hosts = np.array([[[1, 1], [1, 0], [0, 1], [0, 1]]], bool)
    given = Placement(hosts, hosts.argmax(axis=2), 1, 3, (6,))
    cluster = Cluster(1, 2, 3, speeds=(1, 2))
    problem = Problem.from_trace(TRACE, cluster, load_tolerance="1", incumbent=given, max_moves=2)
    best = Incumbent(problem, FREELY.start())
    assert best.found is None
    assert "1 replicas, the budget is 0" in best.reason


def test_the_tolerance_reached_is_measured_by_speed() -> None:
    cluster = Cluster(1, 2, 3, speeds=(1, 3))
    problem = Problem.from_trace(TRACE, cluster, load_tolerance="0.25")
    result = Fixed(((0, 0, 1, 1), (0, 1, 1, 0))).solve(problem, stop=FREELY, seed=0)
    (sets,) = problem.workload.layers
    loads = [
        [int(sets.load[np.array(way) == gpu].sum()) for gpu in (0, 1)] for way in ((0, 0, 1, 1), (0, 1, 1, 0))
    ]
    reached = min(max(Fraction(low * 4, 8), Fraction(high * 4, 24)) - 1 for low, high in loads)
    assert result.tolerance_reached == pytest.approx(float(reached), abs=1e-4)
    assert result.status == "none-found"


def test_a_budget_over_all_layers_is_not_the_business_of_a_method() -> None:
    problem = Problem.from_trace(TRACE, Cluster(1, 2, 3), replicas=2, total_replicas=1)
    with pytest.raises(
        ValueError, match=r"no budget over all layers, found total_replicas: use moeopt.allocate"
    ):
        Drawn().solve(problem, stop=FREELY, seed=0)
