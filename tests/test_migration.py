"""Moves are counted, renamed away where they can be, and priced."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise, permutations
from typing import Any

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeopt.cluster import Cluster
from moeopt.exact import Exact
from moeopt.figures import draw_front
from moeopt.heuristics.migrate import Migrate
from moeopt.migration import Step, aligned, front, moves
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.stop import Stop
from moeopt.testing import brute_force
from moeopt.trace import Trace
from moeopt_formulations.migration import Migration
from tests.problem_strategies import clusters

matplotlib.use("Agg")
FREELY = Stop(seconds=None)


def problem_of(cluster: Cluster, *, experts: int = 8, layers: int = 2, **changes: Any) -> Problem:
    rng = np.random.default_rng(1)
    ids = np.array([[rng.permutation(experts)[:3] for _ in range(layers)] for _ in range(80)])
    problem = Problem.from_trace(Trace(ids, experts), cluster, **changes)
    seats = np.repeat(np.arange(cluster.gpus), cluster.slots_of)[:experts]
    return replace(problem, incumbent=problem.partition(np.tile(seats, (layers, 1))))


def random_partition(problem: Problem, seed: int) -> Placement:
    seats = np.repeat(np.arange(problem.cluster.gpus), problem.cluster.slots_of)
    rng = np.random.default_rng(seed)
    experts, layers = problem.workload.n_experts, len(problem.workload.layers)
    return problem.partition(np.array([rng.permutation(seats)[:experts] for _ in range(layers)]))


def test_moves_count_copies_where_the_incumbent_has_none() -> None:
    problem = problem_of(Cluster(1, 4, 2))
    assert problem.incumbent is not None
    other = random_partition(problem, 3)
    assert moves(problem.incumbent, problem.incumbent) == [0, 0]
    assert moves(other, problem.incumbent) == problem.moves(other)
    with pytest.raises(ValueError, match="differ in"):
        moves(other.layer(0), problem.incumbent)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_no_renaming_of_alike_gpus_moves_fewer_copies_than_the_aligned_one(data: Any, seed: int) -> None:
    cluster = data.draw(clusters(experts=6, gpus=data.draw(st.sampled_from([2, 4]))))
    problem = problem_of(cluster, experts=6, layers=1)
    assert problem.incumbent is not None
    placement = random_partition(problem, seed)
    found = aligned(placement, problem.incumbent, cluster=cluster)
    assert problem.cost(found) == problem.cost(placement)
    assert problem.violation(found) == ""
    least = []
    for name_of in permutations(range(cluster.gpus)):
        names = np.array(name_of)
        renamed = problem.partition(names[placement.primary[0]])
        apart = cluster.node_of[names].reshape(cluster.nodes, -1)
        whole = not cluster.node_cost or (apart == apart[:, :1]).all()
        if whole and (cluster.slots_of[names] == cluster.slots_of).all():
            least.append(moves(renamed, problem.incumbent)[0])
    assert moves(found, problem.incumbent)[0] == min(least)


def test_a_renamed_incumbent_is_found_again() -> None:
    problem = problem_of(Cluster(2, 2, 2, node_cost=3))
    assert problem.incumbent is not None
    names = np.array([3, 2, 0, 1])  # nodes exchanged, and the GPUs inside one of them
    renamed = problem.partition(names[problem.incumbent.primary])
    assert aligned(renamed, problem.incumbent, cluster=problem.cluster) == problem.incumbent


@pytest.mark.parametrize("cluster", [Cluster(1, 4, 2), Cluster(1, 3, 3), Cluster(2, 2, 2, node_cost=2)])
def test_the_front_is_monotone(cluster: Cluster) -> None:
    problem = problem_of(cluster)
    assert problem.incumbent is not None
    seen: list[int] = []
    steps = front(
        problem,
        [4, 0, 2, 2],
        method=Migrate(kicks=5),
        stop=FREELY,
        on_step=lambda step: seen.append(step.budget),
    )
    assert seen == [step.budget for step in steps] == [0, 2, 4]
    assert steps[0].placement == problem.incumbent
    assert (steps[0].moves, steps[0].saving, steps[0].saving_per_move) == (0, 0.0, 0.0)
    for before, after in pairwise(steps):
        assert after.cost <= before.cost
    for step in steps:
        assert max(problem.moves(step.placement)) <= step.budget
        assert step.cost == problem.cost(step.placement)
        if step.moves:
            assert step.saving_per_move == pytest.approx(step.saving / (step.moves / 2))
        assert "placement" not in step.to_dict()


def test_an_exact_front_starts_from_the_search() -> None:
    problem = problem_of(Cluster(1, 4, 2), layers=1)
    method = Exact(Migration())
    for budget, step in zip((0, 2, 4), front(problem, [0, 2, 4], method=method, stop=FREELY), strict=True):
        within = replace(problem, max_moves=budget)
        assert step.cost == brute_force(within)[0]
        assert step.bound is None or step.bound <= step.cost


def test_a_front_needs_an_incumbent_and_a_placement_within_the_budget() -> None:
    problem = problem_of(Cluster(1, 4, 2))
    with pytest.raises(ValueError, match="needs an incumbent"):
        front(replace(problem, incumbent=None), [1])
    crowded = problem.partition(np.array([[0] * 4 + [1, 2, 3, 3]] * 2))
    with pytest.raises(ValueError, match="no placement within 0 moves a layer is admissible"):
        front(replace(problem, incumbent=crowded), [0], method=Migrate(), stop=FREELY)


def test_a_budget_that_the_method_does_not_treat_is_refused_before_anything_is_solved() -> None:
    problem = problem_of(Cluster(1, 4, 2))
    steps: list[Step] = []

    @dataclass(frozen=True)
    class Timid(Migrate):
        name = "timid"

        def supports(self, problem: Problem) -> str:
            return "too many moves" if (problem.max_moves or 0) > 2 else ""

    with pytest.raises(ValueError, match="method timid does not treat 3 moves a layer: too many moves"):
        front(problem, [1, 3], method=Timid(), stop=Stop(candidates=1), on_step=steps.append)
    assert steps == []


def test_a_front_of_auto_proves_what_it_can() -> None:
    (none, some) = front(problem_of(Cluster(1, 4, 2), layers=1), [0, 2], stop=FREELY)
    assert (none.status, some.status) == ("certified-optimal", "certified-optimal")
    assert some.bound == some.cost <= none.cost


def test_a_bound_holds_for_smaller_budgets() -> None:
    from moeopt.migration import _passed_down

    problem = problem_of(Cluster(1, 4, 2))
    assert problem.incumbent is not None

    def step(budget: int, bound: int | None) -> Step:
        return Step(budget, 0, 9, bound, 0.9, 0.0, 0.0, "feasible", 0.0, problem.incumbent)  # type: ignore[arg-type]

    passed = _passed_down([step(0, None), step(1, 4), step(2, 5), step(3, None)])
    assert [item.bound for item in passed] == [5, 5, 5, None]


def test_the_picture_shows_the_steps() -> None:
    problem = problem_of(Cluster(1, 4, 2))
    steps = front(problem, [0, 2, 4], method=Migrate(kicks=2), stop=FREELY)
    axes: Any = draw_front(steps)
    assert axes.lines[0].get_ydata() == pytest.approx([step.fan_out for step in steps])
    assert axes.lines[0].get_xdata() == pytest.approx([step.moves / 2 for step in steps])
    assert len(axes.lines) == 1
    proved = [replace(step, bound=step.cost) for step in steps]
    axes = draw_front(proved)
    assert axes.lines[1].get_ydata() == pytest.approx([step.fan_out for step in steps])
    import matplotlib.pyplot as plt

    plt.close("all")
