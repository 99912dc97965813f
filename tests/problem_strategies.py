"""Tiny problems of one layer, small enough for brute force."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from moeopt.cluster import Cluster
from moeopt.placement import Placement
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


@st.composite
def any_problems(
    draw: st.DrawFn,
    *,
    extras: tuple[str, ...] = ("replicas", "speeds", "tail", "moves"),
    most_experts: int = 6,
    most_gpus: int = 3,
) -> Problem:
    """One layer with any of the extras: copies, unequal speeds, worst families, a budget of moves.

    What arithmetic refuses is dropped: the load tolerance first, then the copies.
    """
    chosen = {extra for extra in extras if draw(st.integers(0, 2)) == 0}
    objectives = ("fan-out",) if "replicas" in chosen else ("cut", "fan-out")
    problem = draw(problems(objectives=objectives, most_experts=most_experts, most_gpus=most_gpus))
    gpus, experts = problem.cluster.gpus, problem.workload.n_experts
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    cluster = problem.cluster
    if "speeds" in chosen:
        cluster = replace(
            cluster, speeds=tuple(draw(st.lists(st.integers(1, 3), min_size=gpus, max_size=gpus)))
        )
    fields: dict[str, Any] = {"cluster": cluster}
    spare = int(np.minimum(cluster.slots_of, experts).sum()) - experts
    if "replicas" in chosen:
        fields["replicas"] = min(draw(st.integers(1, 3)), spare)
    if "tail" in chosen:
        fields["tail"] = draw(st.sampled_from(["0", "0", "0.1", "1/3", "0.5", "0.8"]))
    if "moves" in chosen:
        hosts = copies_of(rng, cluster.slots_of, experts=experts, replicas=draw(st.integers(0, spare)))
        most = experts + fields.get("replicas", 0)
        fields["incumbent"] = placement_of(problem, hosts)
        fields["max_moves"] = draw(st.integers(0, most))
    less: dict[str, Any]
    for less in ({}, {"load_tolerance": None}):
        try:
            return replace(problem, **{**fields, **less})
        except ValueError:
            continue
    return replace(problem, **{**fields, "load_tolerance": None, "replicas": 0})


def copies_of(
    rng: np.random.Generator, slots: NDArray[np.int64], *, experts: int, replicas: int
) -> NDArray[np.bool_]:
    """bool [experts, gpus]: one copy each in a random order of the slots, then copies where they fit."""
    hosts = np.zeros((experts, len(slots)), bool)
    seats = rng.permutation(np.repeat(np.arange(len(slots)), slots))
    hosts[np.arange(experts), seats[:experts]] = True
    for gpu in seats[experts:]:
        absent = np.flatnonzero(~hosts[:, gpu])
        if replicas and absent.size:
            hosts[rng.choice(absent), gpu] = True
            replicas -= 1
    return hosts


def placement_of(problem: Problem, hosts: NDArray[np.bool_]) -> Placement:
    """The placement of `hosts` bool [experts, gpus], the first copy primary."""
    workload, cluster = problem.workload, problem.cluster
    return Placement(
        hosts[None],
        hosts.argmax(axis=1)[None],
        cluster.nodes,
        cluster.slots,
        workload.layer_ids,
        workload.model,
    )
