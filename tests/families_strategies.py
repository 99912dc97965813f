"""Tiny problems whose worst families count, and problems that start from an incumbent."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from moeopt.problem import Problem
from tests.problem_strategies import problems


@st.composite
def tail_problems(
    draw: st.DrawFn,
    *,
    objectives: tuple[str, ...] = ("cut", "fan-out"),
    most_experts: int = 6,
    unequal: bool = False,
    nodes: bool = False,
) -> Problem:
    """One layer and a tail, the worst family more often than a share."""
    problem = draw(
        problems(objectives=objectives, most_experts=most_experts, most_gpus=3, unequal=unequal, nodes=nodes)
    )
    return replace(problem, tail=draw(st.sampled_from(["0", "0", "0.1", "1/3", "0.5", "0.8"])))


@st.composite
def move_problems(
    draw: st.DrawFn,
    *,
    objectives: tuple[str, ...] = ("cut", "fan-out"),
    most_experts: int = 6,
    most_gpus: int = 3,
    unequal: bool = True,
    nodes: bool = False,
) -> Problem:
    """One layer, an admissible or overloaded incumbent without copies, and a budget of moves."""
    problem = draw(
        problems(
            objectives=objectives,
            most_experts=most_experts,
            most_gpus=most_gpus,
            unequal=unequal,
            nodes=nodes,
        )
    )
    seats = np.repeat(np.arange(problem.cluster.gpus), problem.cluster.slots_of)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    incumbent = problem.partition(rng.permutation(seats)[: problem.workload.n_experts])
    budget = draw(st.integers(0, problem.workload.n_experts))
    return replace(problem, incumbent=incumbent, max_moves=budget)
