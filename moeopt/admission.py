"""What arithmetic alone rules out of a problem, each rule with the numbers that clash."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from moeopt.tolerance import rounded_up

if TYPE_CHECKING:
    from moeopt.problem import Problem

__all__ = ["check"]


def check(problem: Problem) -> None:
    """Raises ValueError for the first rule that fails."""
    _check_recorded(problem)
    _check_slots(problem)
    _check_total(problem)
    _check_incumbent(problem)
    _check_magnitude(problem)
    _check_loads(problem)


def _check_recorded(problem: Problem) -> None:
    if problem.objective == "load":
        _check_even(problem)
        return
    for layer, sets in zip(problem.workload.layer_ids, problem.workload.layers, strict=True):
        if not sets.paired:
            from moeopt.load_counts import UNPAIRED

            raise ValueError(f"objective {problem.objective!r} cannot be judged: in layer {layer} {UNPAIRED}")
    if problem.objective == "cut":
        return
    for layer, sets in zip(problem.workload.layer_ids, problem.workload.layers, strict=True):
        if not sets.complete:
            from moeopt.pair_counts import UNRECORDED

            asked = f"replicas {problem.replicas}" if problem.replicas else f"objective {problem.objective!r}"
            raise ValueError(f"{asked} cannot be judged: in layer {layer} {UNRECORDED}")


def _check_even(problem: Problem) -> None:
    if problem.load_tolerance is not None:
        raise ValueError(
            f'objective "load" is that of the fullest GPU itself: load_tolerance must be None, found '
            f"{float(problem.load_tolerance):g}"
        )
    if problem.tail is not None:
        raise ValueError(f'objective "load" has no cost by family: tail must be None, found {problem.tail}')
    if problem.family_weights is not None and len(problem.workload.layers) > 1:
        totals = [
            sets.weighted_load(sets.counts).sum(axis=0) for sets in problem.workload.layers if not sets.paired
        ]
        for layer, total in zip(problem.workload.layer_ids, totals, strict=False):
            if (total != totals[0]).any():
                raise ValueError(
                    f"family weights need layers that count the same traffic: layer {layer} counts {total.tolist()} "
                    f"activations by family, layer {problem.workload.layer_ids[0]} {totals[0].tolist()}"
                )
    speeds = problem.cluster.speeds_of
    if speeds.min() != speeds.max():
        raise ValueError(
            f'objective "load" is for GPUs of equal speed, found {_span(speeds.tolist())}: '
            "see moeopt.loads.LoadProblem"
        )


def _check_slots(problem: Problem) -> None:
    experts, gpus = problem.workload.n_experts, problem.cluster.gpus
    slots = np.minimum(problem.cluster.slots_of, experts)
    if slots.sum() < experts:
        raise ValueError(
            f"too few slots: {gpus} GPUs offer {int(slots.sum())} slots a layer for {experts} experts"
        )
    if experts + problem.replicas > slots.sum():
        raise ValueError(
            f"replicas {problem.replicas} cannot be placed: {experts} experts leave "
            f"{int(slots.sum()) - experts} of {int(slots.sum())} slots free"
        )


def _check_total(problem: Problem) -> None:
    total = problem.total_replicas
    if total is None:
        return
    if isinstance(total, bool) or not isinstance(total, int) or total < 0:
        raise ValueError(f"total_replicas must be a whole number, at least 0, found {total!r}")
    if not problem.replicas:
        raise ValueError(f"total_replicas {total} needs replicas, the most copies of one layer, above 0")


def _check_incumbent(problem: Problem) -> None:
    moves, incumbent = problem.max_moves, problem.incumbent
    if moves is not None:
        if isinstance(moves, bool) or not isinstance(moves, int) or moves < 0:
            raise ValueError(f"max_moves must be a whole number, at least 0, found {moves!r}")
        if incumbent is None:
            raise ValueError(f"max_moves {moves} needs an incumbent to count from")
    if incumbent is None:
        return
    workload, cluster = problem.workload, problem.cluster
    for name, found, wanted in (
        ("layers", incumbent.layer_ids, workload.layer_ids),
        ("experts", incumbent.n_experts, workload.n_experts),
        ("GPUs", incumbent.gpus, cluster.gpus),
        ("nodes", incumbent.nodes, cluster.nodes),
    ):
        if found != wanted:
            raise ValueError(f"incumbent and problem differ in {name}: {found} and {wanted}")


def _check_magnitude(problem: Problem) -> None:
    # Pairs of one token bound both objectives; 2^60 leaves room for sums of prices in 64 bits.
    k = problem.workload.top_k
    unit = problem.cluster.gpu_cost + problem.cluster.node_cost
    if problem.total_weight * unit * max(k * (k - 1) // 2, 1) >= 1 << 60:
        raise ValueError(
            f"objective too large for exact 64-bit arithmetic: weight {problem.total_weight}, cost unit {unit}"
        )


def _check_loads(problem: Problem) -> None:
    caps = problem.load_caps
    if caps is None:
        return
    asked, speeds = float(problem.load_tolerance or 0), problem.cluster.speeds_of
    if problem.replicas and speeds.min() != speeds.max():
        raise ValueError(
            f"a load tolerance on GPUs of unequal speed is for placements without replicas, found {problem.replicas}"
        )
    gpus, total = problem.cluster.gpus, problem.load_total
    if caps.sum() < total:
        least = Fraction(-(-total // gpus) * gpus, total) - 1
        if speeds.min() != speeds.max():
            least = Fraction(gpus, total)  # every floor loses less than one activation
        raise ValueError(
            f"load tolerance {asked:g} cannot be met: {gpus} GPUs may serve {_span(caps.tolist())} "
            f"activations each, there are {total}; at least {rounded_up(least)} is needed"
        )
    copies = 1 if problem.replicas == 0 else min(problem.replicas + 1, gpus)
    room = int(np.sort(caps)[-copies:].sum())
    pace = Fraction(int(np.sort(speeds)[-copies:].sum()), int(speeds.sum()))
    for layer, sets in zip(problem.workload.layer_ids, problem.workload.layers, strict=True):
        expert = int(sets.load.argmax())
        if (load := int(sets.load[expert])) > room:
            least = Fraction(load, total) / pace - 1
            raise ValueError(
                f"load tolerance {asked:g} cannot be met: layer {layer}, expert {expert} alone serves {load} "
                f"activations, a GPU may serve {int(caps.max())}; at least {rounded_up(least)} is needed"
            )


def _span(caps: list[int]) -> str:
    return str(caps[0]) if min(caps) == max(caps) else f"{min(caps)} to {max(caps)}"
