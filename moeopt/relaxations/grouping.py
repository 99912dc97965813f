"""Bounds on the groups of requests and experts from their semidefinite relaxation, as proofs in whole numbers.

From multipliers to a proof as in `moeopt.relaxations.semidefinite`, layer by layer: N takes up where S falls below its
(G - 1)-th least eigenvalue, which comes off the diagonal; then all is rounded, and the diagonal raised by the little
that the checker's own factorisation asks for. What rounding takes from the slack of a pair of requests, summed over
the layers, the first layer gives back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeopt.certificate import Proof
from moeopt.grouping import GroupingProblem
from moeopt.grouping_checker import layer_value, positive_layer, seated
from moeopt.grouping_relaxation import GroupRelaxation, eigen_of_sums_zero
from moeopt.semidefinite import pressed
from moeopt.stop import Clock

__all__ = ["grouping_bound", "whole_layers_of"]

ROUND = 25  # steps between proofs, and between searches for cuts
PLAIN = 1  # rounds without cuts, then as many with triangles alone
GAIN = 1e-5  # of the activations: less a round counts as none
PATIENCE = 3  # rounds without gain
FINE = 64.0  # scale per seat: rounding costs far less than 1
MOST_PAIRS = 5_000_000  # of seats, over all layers: numbers of a proof


def grouping_bound(
    problem: GroupingProblem,
    *,
    clock: Clock,
    seed: int,
    cost: int | None = None,
    on_bound: Callable[[int], None] | None = None,
) -> Proof | None:
    """The best bound on the remote activations that the clock allows, proved by `moeopt.grouping_checker`.

    All layers at once, with common groups of requests; unequal slots or quotas are bounded as if all were the
    largest. A step counts as a candidate of the clock. `cost` is that of the grouping that the proof goes with,
    `on_bound` hears every better bound. None where a row stands for several requests, for a single group, which
    costs nothing, and beyond 5,000,000 pairs of seats over all layers.
    """
    try:
        activations = seated(problem)
    except ValueError:
        return None
    layers, requests, experts = activations.shape
    if problem.groups == 1 or layers * (requests + experts) ** 2 > 2 * MOST_PAIRS:
        return None
    relaxation = GroupRelaxation(activations.astype(float), problem.groups)
    rng = np.random.default_rng(seed)
    best: tuple[int, dict[str, Any]] | None = None
    reached, idle, rounds = -np.inf, 0, 0
    while True:
        for step in range(ROUND):
            if step and clock.expired:
                break
            relaxation.step()
            clock.candidates += 1
        rounds += 1
        numbers = whole_layers_of(relaxation, activations)
        value = numbers["dual"] / (2 * problem.groups * numbers["scale"])
        idle = 0 if value > reached + GAIN * float(activations.sum()) else idle + 1
        reached = max(reached, value)
        bound = max(0, -(-numbers["dual"] // (2 * problem.groups * numbers["scale"])))
        if best is None or bound > best[0]:
            best = bound, numbers
            if on_bound is not None:
                on_bound(bound)
        closed = cost is not None and (best[0] >= cost or clock.closes(cost, best[0]))
        if closed or clock.expired or idle >= PATIENCE:
            break
        if rounds >= PLAIN:
            relaxation.refine(rng=rng, larger=rounds >= 2 * PLAIN)
    bound, numbers = best
    return Proof(
        layer_id=0,
        digest=problem.digest,
        kind="grouping",
        bound=bound,
        cost=cost,
        optimal=cost == bound,
        numbers=numbers,
    )


def whole_layers_of(relaxation: GroupRelaxation, activations: NDArray[np.int64]) -> dict[str, Any]:
    """Numbers as `moeopt.grouping_checker` reads them; activations int64 [layers, requests, experts] with all seats."""
    groups, requests = relaxation.groups, relaxation.requests
    slack = relaxation.slack()
    seats = slack.shape[1]
    upper = np.triu_indices(seats, 1)
    free = upper[1] < requests
    diagonal = np.empty(slack.shape[:2])
    for layer, square in enumerate(slack):
        values, vectors = eigen_of_sums_zero(square, requests=requests)
        lowest, vectors = values[groups - 2], vectors[:, : groups - 1]
        low = (vectors * (lowest - values[: groups - 1])) @ vectors.T
        square -= 0.5 * (np.diag(low) + np.diag(low)[:, None]) - low
        diagonal[layer] = np.diag(square) - lowest
    scale = 1 << int(np.ceil(np.log2(FINE * seats)))
    largest = max(float(np.abs(slack).max()), float(np.abs(diagonal).max())) * relaxation.unit
    while scale > 1 and scale * seats * max(largest, float(activations.max())) > 1 << 46:
        scale //= 2
    fine = scale * relaxation.unit
    parts: list[dict[str, Any]] = []
    for layer, square in enumerate(slack):
        forces = np.rint(relaxation.forces[layer] * fine).astype(np.int64)
        cuts, forces = relaxation.cuts[layer][forces > 0], forces[forces > 0]
        base = -pressed(scale * relaxation.weights[layer], cuts, forces=forces.astype(float))
        above = base[upper] - np.rint(fine * square[upper])
        whole = np.rint(fine * diagonal[layer]).astype(np.int64)
        rows = [[int(i) for i in cut if i] for cut in cuts]
        for row, force in zip(rows, forces.tolist(), strict=True):
            whole[np.abs(row) - 1] += force
        above = np.where(free, above, np.maximum(above, 0.0)).astype(np.int64)
        parts.append({"diagonal": whole, "slack": above, "cuts": rows, "forces": forces.tolist()})
    short = sum(part["slack"] for part in parts)
    parts[0]["slack"] += np.where(free, np.maximum(-short, 0), 0)
    dual = 2 * groups * scale * int(activations.sum())
    for part, found in zip(parts, activations, strict=True):
        dual += _raised(part, found, groups=groups, scale=scale)
        part["diagonal"], part["slack"] = part["diagonal"].tolist(), part["slack"].tolist()
    return {"scale": scale, "layers": parts, "dual": dual}


def _raised(part: dict[str, Any], activations: NDArray[np.int64], *, groups: int, scale: int) -> int:
    """Raise the diagonal of a layer until S is surely positive definite; its part of the dual value."""
    requests, seats = len(activations), sum(activations.shape)
    slack = np.zeros((seats, seats), np.int64)
    slack[np.triu_indices(seats, 1)] = part["slack"]
    rest = {**part, "slack": slack + slack.T}
    raised = 0
    while True:
        value, matrix = layer_value(
            activations, groups, scale=scale, **rest | {"diagonal": part["diagonal"] + raised}
        )
        if raised and positive_layer(matrix, requests=requests):
            part["diagonal"] = part["diagonal"] + raised
            return value
        if raised:
            raised *= 2
        else:
            values, _ = eigen_of_sums_zero(matrix.astype(float), requests=requests)
            raised = 2 + max(0, int(np.ceil(-values[0])))
