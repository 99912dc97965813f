"""Tiny random instances of every type of problem, small enough for brute force and the same for a seed everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from math import factorial
from typing import Any

import numpy as np

from benchmarks.ingredients import (
    Rng,
    chance,
    copied_experts,
    family_weights,
    one_layer,
    one_of,
    several_layers,
    shares,
    small_cluster,
)
from moeopt.activation import ActivationProblem
from moeopt.cluster import Cluster
from moeopt.flow import FlowProblem
from moeopt.formulation import Formulation
from moeopt.grouping import GroupingProblem
from moeopt.judged import Judged
from moeopt.labels import MEASURES as LABEL_MEASURES
from moeopt.labels import LabelProblem
from moeopt.loads import MEASURES as LOAD_MEASURES
from moeopt.loads import LoadProblem
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.splitting import SplitProblem
from moeopt.topology import HopsProblem

STATED = ("fan-out", "cut")  # objectives that formulations of placements state
MOST_PLACEMENTS = 300  # of one layer without copies, as brute force counts them
TOLERANCES = (None, None, "0", "0.1", "0.3", "0.6", "1")
TAILS = ("0", "0", "0.1", "1/3", "0.5", "0.8")
LAYERED = ((1, 5, 2), (1, 3, 4), (2, 3, 2), (2, 4, 2), (2, 2, 4), (2, 3, 3), (3, 2, 2), (4, 2, 2))
LABELLED = ((1, 4, 3), (2, 4, 2), (2, 4, 3), (2, 5, 4), (3, 5, 3), (5, 4, 2))
SIZES = ((3, 2), (5, 2), (7, 2), (3, 3), (4, 3), (5, 3), (7, 3), (4, 4), (4, 4), (6, 4))  # experts, GPUs
WITH_COPIES = ((2, 2), (3, 2), (4, 2), (2, 3))
PATIENCE = 20_000  # draws until one is stated


def instances(formulation: Formulation, *, count: int, first: int = 0) -> Iterator[Judged]:
    """Instances `first`, ..., `first + count - 1` that the formulation states, of the types that it states.

    An instance depends on the formulation and its own number alone. ValueError when none is found.
    """
    makers = stated_types(formulation)  # type: ignore[arg-type]  # frozen dataclasses are hashable
    for number in range(first, first + count):
        rng = np.random.default_rng([number, *formulation.name.encode()])
        for _ in range(PATIENCE):
            problem = GENERATORS[makers[number % len(makers)]](rng)
            if not formulation.supports(problem):
                yield problem
                break
        else:
            raise ValueError(f"formulation {formulation.name} states none of {PATIENCE} instances")


@cache
def stated_types(formulation: Any) -> tuple[str, ...]:
    """Names of the generators with instances that a formulation states; ValueError when there are none."""
    found = []
    for name, make in GENERATORS.items():
        rng = np.random.default_rng(0)
        if any(not formulation.supports(make(rng)) for _ in range(500)):
            found.append(name)
    if not found:
        raise ValueError(f"formulation {formulation.name} states no type of problem that has instances")
    return tuple(found)


def placements(rng: Rng) -> Problem:
    """One layer: both objectives, unequal slots and speeds, nodes, family weights, tolerances, and extras.

    Each extra comes in a third of the instances: tails, replicas (fan-out only), an incumbent with a budget of moves.
    What arithmetic rules out (a tolerance, too many replicas) is drawn again.
    """
    while True:
        try:
            problem = _placement(rng)
        except ValueError:
            continue
        if problem.replicas or _partitions(problem) <= MOST_PLACEMENTS:
            return problem


def budgets(rng: Rng) -> Problem:
    """Two or three layers with one budget of copies over all of them; two prices."""
    layers, experts, gpus = one_of(rng, ((2, 2, 2), (2, 3, 2), (3, 2, 2)))
    cluster = small_cluster(rng, experts=experts, gpus=gpus)
    spare = int(np.minimum(cluster.slots_of, experts).sum()) - experts
    if not spare:
        return budgets(rng)
    replicas = int(rng.integers(1, min(spare, 2) + 1))
    return Problem.from_trace(
        several_layers(rng, layers=layers, experts=experts),
        cluster,
        replicas=replicas,
        total_replicas=int(rng.integers(0, layers * replicas + 1)),
    )


def flows(rng: Rng) -> FlowProblem:
    """Tokens that return home or go on, homes known or not, two levels, unequal slots, load caps now and then."""
    layers, experts, gpus = one_of(rng, LAYERED)
    trace = several_layers(rng, layers=layers, experts=experts)
    home = trace.request % gpus if chance(rng, 0.5) else None
    returning, cluster = chance(rng, 0.5), small_cluster(rng, experts=experts, gpus=gpus)
    tolerance = one_of(rng, (None, None, "0.3", "1"))
    try:
        return FlowProblem.from_trace(
            trace, cluster, returning=returning, home=home, load_tolerance=tolerance
        )
    except ValueError:  # one expert alone is too heavy
        return FlowProblem.from_trace(trace, cluster, returning=returning, home=home)


def labels(rng: Rng) -> LabelProblem:
    """Groups of any size within the slots, some without experts; nodes, unequal slots and memory now and then."""
    layers, experts, gpus = one_of(rng, LABELLED)
    trace = several_layers(rng, layers=layers, experts=experts)
    least = -(-experts // gpus)
    slots = tuple([least + 1] * (gpus - 1) + [least])
    nodes = one_of(rng, [n for n in (1, 2, gpus) if gpus % n == 0])
    prices = one_of(rng, ((1, 0), (2, 3), (1, 5), (0, 1)))
    cluster = Cluster(nodes, gpus // nodes, least + 1 if chance(rng, 0.67) else slots, *prices)
    seats = np.repeat(np.arange(gpus), slots)
    groups = np.stack([rng.permutation(seats)[:experts] for _ in range(layers)])
    flow = FlowProblem.from_trace(trace, cluster, returning=False)
    memory = one_of(rng, (None, -(-experts * layers // gpus)))
    return LabelProblem.of(flow.partition(groups), flow, measure=one_of(rng, LABEL_MEASURES), memory=memory)


def hops(rng: Rng) -> HopsProblem:
    """Any activity and hops, equal ones often; unequal slots and memory now and then."""
    layers, experts, gpus = one_of(rng, LAYERED)
    least = -(-experts * layers // gpus)
    return HopsProblem(
        rng.integers(one_of(rng, (1, 3, 50)), size=(layers, experts)),
        rng.integers(one_of(rng, (2, 9)), size=(layers, gpus)),
        small_cluster(rng, experts=experts, gpus=gpus),
        least + int(rng.integers(3)) if chance(rng, 0.5) else None,
    )


def groupings(rng: Rng) -> GroupingProblem:
    """Equal shares or given ones, rows of one request or of several; now and then nothing is admissible."""
    groups, requests, layers, experts = (int(rng.integers(1, most + 1)) for most in (3, 4, 2, 4))
    shape = (requests, layers, experts)
    activations = rng.integers(0, 12, shape) * rng.integers(0, 2, shape)
    sizes = rng.integers(1, 4, requests) if chance(rng, 0.5) else None
    total = requests if sizes is None else int(sizes.sum())
    slots = shares(rng, experts, groups) if chance(rng, 0.5) else None
    quotas = shares(rng, total, groups) if chance(rng, 0.5) else None
    share = -(-total // groups) if quotas is None else max(quotas)
    slack = int(rng.integers(3)) + (0 if sizes is None else max(0, int(sizes.max()) - share))
    return GroupingProblem(activations, groups, slots, quotas, sizes, slack)


def loads(rng: Rng) -> LoadProblem:
    """Equal or unequal slots and speeds; loads with zeros and ties."""
    experts, gpus = one_of(rng, ((1, 1), (1, 3), (4, 2), (6, 2), (3, 3), (5, 3)))
    return LoadProblem(
        rng.integers(0, one_of(rng, (2, 10, 1000)), experts),
        small_cluster(rng, experts=experts, gpus=gpus, speeds=False),
        rng.integers(1, 5, gpus).tolist() if chance(rng, 0.5) else None,
        one_of(rng, LOAD_MEASURES),
        layer_id=int(rng.integers(10)),
    )


def activations(rng: Rng) -> ActivationProblem:
    """Free placements without and with copies, and given ones; some batches activate nothing."""
    experts, gpus = int(rng.integers(1, 5)), int(rng.integers(1, 4))
    cluster = small_cluster(rng, experts=experts, gpus=gpus, speeds=False)
    batches = rng.random((int(rng.integers(1, 5)), experts)) < one_of(rng, (0.2, 0.5, 0.8))
    spare = int(np.minimum(cluster.slots_of, experts).sum()) - experts
    replicas = int(rng.integers(min(spare, 2) + 1))
    placed = copied_experts(rng, cluster, experts=experts, replicas=replicas) if chance(rng, 0.5) else None
    return ActivationProblem(batches, cluster, replicas, placed, worst=chance(rng, 0.5))


def splits(rng: Rng) -> SplitProblem:
    """Some experts with copies, some without tokens; some GPUs empty."""
    experts, gpus = int(rng.integers(1, 5)), int(rng.integers(1, 4))
    hosts = rng.random((experts, gpus)) < one_of(rng, (0.1, 0.5, 0.9))
    hosts[np.arange(experts), rng.integers(0, gpus, experts)] = True
    return SplitProblem(rng.integers(0, 6, experts), hosts)


GENERATORS: dict[str, Callable[[Rng], Judged]] = {
    "placements": placements,
    "budgets": budgets,
    "flows": flows,
    "labels": labels,
    "hops": hops,
    "groupings": groupings,
    "loads": loads,
    "activations": activations,
    "splits": splits,
}


def _two_levels(rng: Rng) -> Problem:
    """Two nodes of two GPUs and their price, no extras: what random draws seldom hit."""
    experts = int(rng.integers(3, 5))
    cluster = Cluster(2, 2, int(rng.integers(1, 4)), one_of(rng, (1, 2)), one_of(rng, (1, 5)))
    trace = one_layer(rng, experts=experts)
    weights, objective = family_weights(rng, trace), one_of(rng, STATED)
    return Problem.from_trace(trace, cluster, family_weights=weights, objective=objective)


def _placement(rng: Rng) -> Problem:
    if chance(rng, 0.1):
        return _two_levels(rng)
    tail, copies, moves = (chance(rng, 1 / 3) for _ in range(3))
    objective = "fan-out" if copies else one_of(rng, STATED)
    experts, gpus = one_of(rng, WITH_COPIES if copies else SIZES)
    cluster = small_cluster(rng, experts=experts, gpus=gpus)
    trace = one_layer(rng, experts=experts, families=int(rng.integers(1, 4)) if tail else 2)
    spare = int(np.minimum(cluster.slots_of, experts).sum()) - experts
    replicas = int(rng.integers(1, 3)) if copies else 0
    incumbent = None
    if moves:
        hosts = copied_experts(rng, cluster, experts=experts, replicas=min(replicas, spare))
        incumbent = Placement(
            hosts[None], hosts.argmax(axis=1)[None], cluster.nodes, cluster.slots, (5,), trace.model
        )
    free = tail and copies  # brute force knows no best dispatch for a tail under a tolerance
    return Problem.from_trace(
        trace,
        cluster,
        replicas=replicas,
        family_weights=family_weights(rng, trace),
        objective=objective,
        load_tolerance=None if free else one_of(rng, TOLERANCES),
        tail=one_of(rng, TAILS) if tail else None,
        incumbent=incumbent,
        max_moves=int(rng.integers(0, experts + replicas + 1)) if moves else None,
    )


def _partitions(problem: Problem) -> float:
    """About how many placements without copies there are, GPUs renamed where they are alike."""
    cluster = problem.cluster
    alike = cluster.equal and not (cluster.node_cost and cluster.nodes > 1) and problem.max_moves is None
    ways: int = cluster.gpus**problem.workload.n_experts
    return ways / factorial(cluster.gpus) if alike else float(ways)
