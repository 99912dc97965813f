"""Tiny problems of one layer, small enough for brute force."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from moeopt.cluster import Cluster
from moeopt.problem import Problem
from moeopt.trace import Trace

FAMILIES = ("code", "math")


@st.composite
def problems(
    draw: st.DrawFn,
    *,
    objectives: tuple[str, ...] = ("cut", "fan-out"),
    most_experts: int = 7,
    most_gpus: int = 4,
    unequal: bool = True,
    nodes: bool = True,
) -> Problem:
    """One layer, no replicas; unequal slots and a price on nodes now and then, unless they are excluded.

    A load tolerance that one expert alone rules out is dropped: arithmetic refuses such a problem.
    """
    experts = draw(st.integers(2, most_experts))
    gpus = draw(st.integers(2, most_gpus))
    cluster = draw(clusters(experts=experts, gpus=gpus, unequal=unequal, nodes=nodes))
    k, tokens = draw(st.integers(1, min(experts, 4))), draw(st.integers(1, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    popularity = rng.dirichlet(np.ones(experts)) + 1e-3
    chosen = [rng.choice(experts, k, replace=False, p=popularity / popularity.sum()) for _ in range(tokens)]
    family = rng.integers(0, 2, tokens).astype(np.uint8)
    family[0] = 0
    trace = Trace(
        experts=np.array(chosen)[:, None, :],
        n_experts=experts,
        families=FAMILIES,
        family=family,
        layer_ids=np.array([5], np.int32),
    )
    weights = {"code": draw(st.sampled_from([1, 2, 0.3]))} if draw(st.booleans()) else None
    if weights is not None and family.any():
        weights["math"] = draw(st.sampled_from([0, 1, 1.5]))
    objective = draw(st.sampled_from(objectives))
    tolerance = draw(st.sampled_from([None, None, "0", "0.1", "0.3", "0.6", "1"]))
    try:
        return Problem.from_trace(
            trace, cluster, family_weights=weights, objective=objective, load_tolerance=tolerance
        )
    except ValueError:
        return Problem.from_trace(trace, cluster, family_weights=weights, objective=objective)


@st.composite
def clusters(
    draw: st.DrawFn, *, experts: int, gpus: int, unequal: bool = True, nodes: bool = True
) -> Cluster:
    """Clusters of this many GPUs with a slot for every expert, and seldom many more."""
    on = draw(st.sampled_from([n for n in (1, 2, gpus) if gpus % n == 0])) if nodes else 1
    least = -(-experts // gpus)
    slots: int | tuple[int, ...] = draw(st.integers(least, least + 2))
    if unequal and draw(st.integers(0, 3)) == 0:
        slots = tuple(draw(st.permutations([least + 1] + [least] * (gpus - 1))))
    gpu_cost = draw(st.sampled_from([1, 1, 2, 3]))
    node_cost = draw(st.sampled_from([0, 0, 5])) if nodes else 0
    return Cluster(on, gpus // on, slots, gpu_cost, node_cost)
