"""The rules of a placement: slots, replica budget, moves, dispatch, load."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from moeopt.dispatch import Plan
from moeopt.placement import Placement
from moeopt.splitting import SplitProblem

if TYPE_CHECKING:
    from moeopt.problem import Problem

__all__ = ["check_shape", "served_loads", "violation_of"]


def violation_of(problem: Problem, candidate: Placement | Plan) -> str:
    """The first rule that a placement or plan breaks, with its numbers; empty when it breaks none."""
    placement = candidate.placement if isinstance(candidate, Plan) else candidate
    check_shape(problem, placement)
    layer_ids = problem.workload.layer_ids
    held, slots = placement.hosts.sum(axis=1), problem.cluster.slots_of
    for layer, gpu in np.argwhere(held > slots)[:1]:
        return f"layer {layer_ids[layer]}: GPU {gpu} holds {held[layer, gpu]} experts, slots are {slots[gpu]}"
    copies = placement.hosts.sum(axis=(1, 2)) - placement.n_experts
    for layer in np.flatnonzero(copies > problem.replicas)[:1]:
        return f"layer {layer_ids[layer]}: {copies[layer]} replicas, the budget is {problem.replicas}"
    if problem.total_replicas is not None and copies.sum() > problem.total_replicas:
        return f"{int(copies.sum())} replicas over all layers, the budget is {problem.total_replicas}"
    if problem.max_moves is not None:
        for name, moved in zip(layer_ids, problem.moves(placement), strict=True):
            if moved > problem.max_moves:
                return f"layer {name}: {moved} copies moved from the incumbent, {problem.max_moves} may"
    if isinstance(candidate, Plan) or placement.is_partition or problem.objective == "load":
        judged = candidate
    else:
        judged = problem.plan(candidate)
    if isinstance(judged, Plan):
        for index, (sets, part) in enumerate(zip(problem.workload.layers, judged.dispatches, strict=True)):
            if broken := part.violation(sets, placement.hosts[index]):
                return f"layer {layer_ids[index]}: {broken}"
    if problem.load_caps is None:
        return ""
    for index, loads in enumerate(served_loads(problem, judged)):
        gpu = int((loads - problem.load_caps).argmax())
        if loads[gpu] > problem.load_caps[gpu]:
            return (
                f"layer {layer_ids[index]}: GPU {gpu} serves {loads[gpu]} activations, "
                f"load tolerance {float(problem.load_tolerance or 0):g} allows {problem.load_caps[gpu]}"
            )
    return ""


def served_loads(problem: Problem, candidate: Placement | Plan) -> NDArray[np.int64]:
    """int64 [layers, gpus]: expert activations that each GPU serves; of a placement with copies, by `Problem.plan`.

    Under the objective "load" copies share their expert's load so that the fullest GPU serves as little as possible.
    """
    gpus = problem.cluster.gpus
    if isinstance(candidate, Placement) and candidate.is_partition:
        loads = np.zeros((len(problem.workload.layers), gpus), np.int64)
        for own, sets, gpu_of in zip(loads, problem.workload.layers, candidate.primary, strict=True):
            np.add.at(own, gpu_of, sets.load)
        return loads
    if isinstance(candidate, Placement) and problem.objective == "load":
        layers = zip(problem.workload.layers, candidate.hosts, strict=True)
        return np.stack([SplitProblem(sets.load, hosts).solve()[0].gpu_loads for sets, hosts in layers])
    plan = candidate if isinstance(candidate, Plan) else problem.plan(candidate)
    return np.stack([part.gpu_loads(gpus) for part in plan.dispatches])


def check_shape(problem: Problem, placement: Placement) -> None:
    """ValueError unless the placement is one of the layers, experts, GPUs and nodes of the problem."""
    for name, found, wanted in (
        ("layers", placement.layer_ids, problem.workload.layer_ids),
        ("experts", placement.n_experts, problem.workload.n_experts),
        ("GPUs", placement.gpus, problem.cluster.gpus),
        ("nodes", placement.nodes, problem.cluster.nodes),
    ):
        if found != wanted:
            raise ValueError(f"placement and problem differ in {name}: {found} and {wanted}")
