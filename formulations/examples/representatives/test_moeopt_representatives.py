"""The plug-in's own test: brute force, and what it says where it does not apply."""

from __future__ import annotations

from importlib.metadata import entry_points

import numpy as np
import pytest
from moeopt_representatives import Representatives

from moeopt.cluster import Cluster
from moeopt.problem import Problem
from moeopt.testing import check_formulation
from moeopt.trace import Trace


def problem_of(
    experts: int, cluster: Cluster, *, objective: str = "cut", tolerance: str | None = None
) -> Problem:
    rng = np.random.default_rng(experts)
    chosen = np.array([rng.permutation(experts)[:2] for _ in range(40)])
    return Problem.from_trace(
        Trace(experts=chosen[:, None], n_experts=experts),
        cluster,
        objective=objective,
        load_tolerance=tolerance,
    )


def test_it_agrees_with_brute_force() -> None:
    problems = [
        problem_of(6, Cluster(1, 3, 2)),  # every group full
        problem_of(6, Cluster(1, 2, 4)),
        problem_of(6, Cluster(1, 2, 4), tolerance="0.2"),
        problem_of(7, Cluster(1, 3, 3), tolerance="0.3"),
        problem_of(5, Cluster(1, 5, 1)),  # everything apart
        problem_of(4, Cluster(4, 1, 2, gpu_cost=2, node_cost=3)),  # every GPU a node
    ]
    assert check_formulation(Representatives(), problems) == len(problems)


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (problem_of(4, Cluster(1, 2, 2), objective="fan-out"), 'objective="cut"'),
        (problem_of(4, Cluster(1, 2, (3, 1))), '"assignment" for unequal'),
        (problem_of(4, Cluster(1, 2, 2, speeds=(2, 1))), '"assignment" for unequal'),
        (problem_of(4, Cluster(2, 2, 2, node_cost=1)), "node_cost=0"),
    ],
)
def test_it_says_why_it_does_not_apply(problem: Problem, words: str) -> None:
    assert words in Representatives().supports(problem)


def test_values_without_a_group_for_an_expert_stand_for_no_placement() -> None:
    model = Representatives().build(problem_of(4, Cluster(1, 2, 2)))
    for variable in model.x.values():
        variable.set_value(0)
    with pytest.raises(ValueError, match="at most as many groups as GPUs"):
        Representatives().read(model)


def test_the_entry_point_leads_to_the_class() -> None:
    (point,) = entry_points(group="moeopt.formulations", name="representatives")
    assert point.load() is Representatives
