"""Every change of the table is what the judge says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings

from moeopt.exchanges import Exchanges
from moeopt.problem import Problem
from tests.problem_strategies import problems


@settings(max_examples=40, deadline=None)
@given(problem=problems(objectives=("fan-out",)))
def test_changes_are_differences_of_costs(problem: Problem) -> None:
    free = replace(problem, load_tolerance=None)
    experts, gpus = free.workload.n_experts, free.cluster.gpus
    gpu_of = np.arange(experts) % gpus
    (sets,) = free.workload.layers
    table = Exchanges.of(sets, gpu_of, weights=free.set_weights(sets), cluster=free.cluster)
    before = free.cost(free.partition(gpu_of))
    for e in range(experts):
        for f in range(experts):
            swapped = gpu_of.copy()
            swapped[[e, f]] = gpu_of[[f, e]]
            assert table.swaps[e, f] == free.cost(free.partition(swapped)) - before
        for g in range(gpus):
            moved = gpu_of.copy()
            moved[e] = g
            assert table.moves[e, g] == free.cost(free.partition(moved)) - before
