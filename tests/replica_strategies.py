"""Tiny problems of one layer with copies, small enough for brute force."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from moeopt.cluster import Cluster
from moeopt.problem import Problem
from moeopt.trace import Trace

FAMILIES = ("code", "math")


@st.composite
def replica_problems(
    draw: st.DrawFn,
    *,
    most_experts: int = 5,
    unequal: bool = False,
    nodes: bool = False,
    tolerances: tuple[str | None, ...] = (None, None, "0", "0.2", "0.5", "1"),
    weighted: bool = True,
) -> Problem:
    """One layer, 0 to 3 replicas, 2 or 3 GPUs; few tokens under a load tolerance, whose dispatches are enumerated.

    A load tolerance that arithmetic rules out is dropped.
    """
    gpus = draw(st.sampled_from([2, 2, 3]))
    experts = draw(st.integers(2, most_experts if gpus == 2 else min(most_experts, 4)))
    least = -(-experts // gpus)
    slots: int | tuple[int, ...] = draw(st.integers(least, least + 1))
    if unequal and draw(st.booleans()):
        slots = tuple(draw(st.permutations([least + 1] + [least] * (gpus - 1))))
    on = draw(st.sampled_from([n for n in (1, 2, gpus) if gpus % n == 0])) if nodes else 1
    gpu_cost = draw(st.sampled_from([1, 1, 2]))
    cluster = Cluster(on, gpus // on, slots, gpu_cost, draw(st.sampled_from([0, 3])) if nodes else 0)
    room = int(np.minimum(cluster.slots_of, experts).sum()) - experts
    replicas = draw(st.integers(0, min(room, 3)))
    tolerance = draw(st.sampled_from(tolerances))
    k = draw(st.integers(1, min(experts, 3)))
    tokens = draw(st.integers(1, 12 if tolerance is None else 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    popularity = rng.dirichlet(np.ones(experts)) + 1e-2
    chosen = [rng.choice(experts, k, replace=False, p=popularity / popularity.sum()) for _ in range(tokens)]
    family = rng.integers(0, 2, tokens).astype(np.uint8)
    family[0] = 0
    trace = Trace(np.array(chosen)[:, None, :], experts, families=FAMILIES, family=family)
    weights = None
    if weighted and family.any() and draw(st.booleans()):
        weights = {"code": draw(st.sampled_from([1, 2])), "math": draw(st.sampled_from([0, 1, 3]))}
    try:
        return Problem.from_trace(
            trace, cluster, replicas=replicas, family_weights=weights, load_tolerance=tolerance
        )
    except ValueError:
        return Problem.from_trace(trace, cluster, replicas=replicas, family_weights=weights)
