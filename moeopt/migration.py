"""Changes to a placement that is in use: how many copies move, and what each move is worth."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeopt.cluster import Cluster
from moeopt.method import Method, refusal
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.stop import Stop

__all__ = ["Step", "aligned", "front", "moves"]


@dataclass(frozen=True)
class Step:
    """The best placement known within one budget of moves; sums over the layers.

    | field | holds |
    |---|---|
    | budget | copies that may move in each layer |
    | moves | copies that do move |
    | cost, bound | exact cost; no placement within the budget costs less than the bound (None: unknown) |
    | fan_out | cost per token and layer, in units of the further GPU |
    | saving | of `fan_out` against the incumbent |
    | saving_per_move | `saving` over the moves of one layer, on average; 0 without moves |
    | status | of the run |
    | seconds | of search and method |
    | placement | found |
    """

    budget: int
    moves: int
    cost: int
    bound: int | None
    fan_out: float
    saving: float
    saving_per_move: float
    status: str
    seconds: float
    placement: Placement

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without the placement."""
        return {name: value for name, value in vars(self).items() if name != "placement"}


def moves(placement: Placement, incumbent: Placement) -> list[int]:
    """Copies of each layer that sit where the incumbent has none."""
    if placement.hosts.shape != incumbent.hosts.shape:
        raise ValueError(
            f"placement and incumbent differ in [layers, experts, GPUs]: {list(placement.hosts.shape)} and "
            f"{list(incumbent.hosts.shape)}"
        )
    return (placement.hosts & ~incumbent.hosts).sum(axis=(1, 2)).tolist()  # type: ignore[no-any-return]


def aligned(placement: Placement, incumbent: Placement, *, cluster: Cluster) -> Placement:
    """The same placement with GPUs and nodes that are alike renamed so that the fewest copies move.

    GPUs are alike when slots and speeds are equal; where nodes have a price, a node moves as a whole. The cost stays.
    Solves an assignment problem a layer, with nodes one for every pair of nodes.
    """
    moves(placement, incumbent)  # same shape
    hosts, primary = placement.hosts.copy(), placement.primary.copy()
    for layer in range(len(hosts)):
        name_of = _names(placement.hosts[layer].astype(np.int64), incumbent.hosts[layer], cluster)
        hosts[layer][:, name_of] = placement.hosts[layer]
        primary[layer] = name_of[placement.primary[layer]]
    return replace(placement, hosts=hosts, primary=primary)


def _names(hosts: NDArray[np.int64], wanted: NDArray[np.bool_], cluster: Cluster) -> NDArray[np.int64]:
    """int64 [gpus]: the name each GPU of `hosts` gets."""
    traits = np.stack([cluster.slots_of, cluster.speeds_of], axis=1)
    alike = (traits[:, None] == traits).all(axis=2)
    never = -float(wanted.sum() + 1) * (cluster.gpus + 1)  # worse than keeping every name
    kept = np.where(alike, hosts.T @ wanted, never)
    per = cluster.gpus_per_node
    if cluster.nodes == 1 or per == 1 or not cluster.node_cost:
        return _matched(kept)[0]
    names = np.zeros((cluster.nodes, cluster.nodes, per), np.int64)
    worth = np.zeros((cluster.nodes, cluster.nodes))
    for old in range(cluster.nodes):
        for new in range(cluster.nodes):
            part = kept[old * per : (old + 1) * per, new * per : (new + 1) * per]
            inside, worth[old, new] = _matched(part)
            names[old, new] = new * per + inside
    return np.concatenate([names[old, new] for old, new in enumerate(_matched(worth)[0].tolist())])


def _matched(worth: NDArray[Any]) -> tuple[NDArray[np.int64], float]:
    """(column of each row in an assignment of the greatest worth, that worth)."""
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(worth, maximize=True)
    return columns.astype(np.int64), float(worth[rows, columns].sum())


def front(
    problem: Problem,
    budgets: Iterable[int],
    *,
    method: str | Method = "auto",
    stop: Stop | None = None,
    seed: int = 0,
    on_step: Callable[[Step], object] = lambda step: None,
) -> list[Step]:
    """The price of each change: the best placement within each budget of moves a layer, ascending.

    Each budget starts from the placement of the one before, improved by the search `migrate`, so the costs never
    rise. `stop` limits each layer and budget, search and method alike. A bound of a larger budget holds for every
    smaller one and is passed down. Raises ValueError without an incumbent or when the method does not treat one of
    the budgets, before anything is solved.
    """
    from moeopt import registry
    from moeopt.api import solve
    from moeopt.heuristics.migrate import Migrate

    if problem.incumbent is None:
        raise ValueError("a front of moves needs an incumbent: the problem has none")
    base = problem.cost(problem.incumbent)
    method = registry.named_method(method) if isinstance(method, str) else method
    problems = {budget: replace(problem, max_moves=budget) for budget in sorted(set(budgets))}
    for budget, within in problems.items():
        for index in range(len(problem.workload.layers)):
            if reason := refusal(method, within.layer(index)):
                raise ValueError(f"method {method.name} does not treat {budget} moves a layer: {reason}")
    searched = not problem.replicas and not isinstance(method, Migrate)
    scale = problem.total_weight * len(problem.workload.layers) * (problem.cluster.gpu_cost or 1)
    best = problem.incumbent
    steps: list[Step] = []
    for budget, within in problems.items():
        opening = solve(within, Migrate(), stop=stop, seed=seed, start=best) if searched else None
        if opening is not None and opening.placement is not None:
            best = opening.placement
        result = solve(within, method, stop=stop, seed=seed, start=best)
        if result.placement is None:
            raise ValueError(f"no placement within {budget} moves a layer is admissible: {result.message}")
        best = result.placement
        cost, moved = within.cost(best), sum(moves(best, problem.incumbent))
        saving = (base - cost) / scale
        per_layer = moved / len(problem.workload.layers)
        steps.append(
            Step(
                budget=budget,
                moves=moved,
                cost=cost,
                bound=result.bound,
                fan_out=cost / scale,
                saving=saving,
                saving_per_move=saving / per_layer if moved else 0.0,
                status=result.status,
                seconds=result.seconds + (0.0 if opening is None else opening.seconds),
                placement=best,
            )
        )
        on_step(steps[-1])
    return _passed_down(steps)


def _passed_down(steps: list[Step]) -> list[Step]:
    """The steps with every bound at least that of the larger budgets."""
    known: int | None = None
    passed = []
    for step in reversed(steps):
        known = max((bound for bound in (step.bound, known) if bound is not None), default=None)
        passed.append(replace(step, bound=known))
    return passed[::-1]
