"""The presets are as hard as reality: co-activation saves what it saves on real traces, and nothing else does."""

from itertools import islice

import numpy as np
import pytest

from moeopt.cluster import Cluster
from moeopt.control import null
from moeopt.generator import PRESETS
from moeopt.heuristics.linear import Linear
from moeopt.heuristics.swap import Swap
from moeopt.problem import Problem
from moeopt.stop import Stop
from moeopt.trace import Trace

GPUS = {"synthetic-64": 16, "synthetic-128": 32, "synthetic-256": 64, "synthetic-512": 64}


def swap_reduction(trace: Trace, gpus: int) -> float:
    """What the first local optimum of swap search saves against linear."""
    problem = Problem.from_trace(trace, Cluster.of(gpus=gpus, slots=trace.n_experts // gpus))
    linear = Linear().solve(problem, stop=Stop(seconds=None), seed=0).cost
    rng = np.random.default_rng(0)
    clock = Stop(seconds=None).start()
    (found,) = islice(Swap(restarts=1, kicks=0).search(problem, clock=clock, rng=rng, start=None), 1)
    assert linear is not None
    return 1 - problem.cost(found) / linear


@pytest.mark.parametrize("name", GPUS)
def test_coactivation_saves_as_much_as_on_real_traces_and_its_absence_little(name: str) -> None:
    trace = PRESETS[name].generate()
    layer = trace.layers(trace.layer_ids[:1])
    assert 0.20 <= swap_reduction(layer, GPUS[name]) <= 0.40
    assert swap_reduction(null(layer, seed=0), GPUS[name]) < 0.10
