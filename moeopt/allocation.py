"""One replica budget for all layers: which layer gets how many copies, an exact knapsack over proved layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any

from moeopt import parallel
from moeopt.api import solve
from moeopt.knapsack import split_budget
from moeopt.method import Method
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.result import Result
from moeopt.stop import Stop

__all__ = ["Allocation", "allocate"]

FORMAT = "moeopt-allocation"


@dataclass(frozen=True)
class Allocation:
    """Copies for every layer under one budget.

    | field | holds |
    |---|---|
    | total_replicas | the budget |
    | replicas | copies beyond the first that each layer gets |
    | placement, cost | of all layers together, admissible for the problem |
    | bound | no placement within the budget costs less; None when a layer has no bound |
    | status | the weakest status of the results that the bound rests on; "certified-optimal" when cost = bound |
    | table | results by layer, then by copies 0, 1, ...: what each layer costs with so many copies at most |
    | fields | the problem without its traffic, as `Problem.fields` gives it |
    """

    total_replicas: int
    replicas: tuple[int, ...]
    placement: Placement
    cost: int
    bound: int | None
    status: str
    table: tuple[tuple[Result, ...], ...]
    fields: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: the problem, the choice, the costs and bounds it was made from, and their certificates."""
        parts = [[result.certificate for result in row] for row in self.table]
        return {
            "format": FORMAT,
            "version": 1,
            "problem": dict(self.fields),
            "total_replicas": self.total_replicas,
            "replicas": list(self.replicas),
            "cost": self.cost,
            "bound": self.bound,
            "status": self.status,
            "costs": [[result.cost for result in row] for row in self.table],
            "bounds": [[result.bound for result in row] for row in self.table],
            "placement": self.placement.to_dict(),
            "certificates": [[None if part is None else part.to_dict() for part in row] for row in parts],
        }


def allocate(
    problem: Problem,
    method: str | Method = "auto",
    *,
    stop: Stop | None = None,
    seed: int = 0,
    executor: Executor | None = None,
    on_result: Callable[[Result], object] = lambda result: None,
) -> Allocation:
    """Solve every layer with 0, 1, ... copies at most, and spend `total_replicas` where it saves most.

    Layers couple through the budget alone, so that the best split of it is a multiple-choice knapsack, solved exactly
    by dynamic programming: over the costs for the placement, over the bounds for the bound (CRAFT, arXiv 2603.28768,
    splits by estimated gains in this way). `stop` limits each layer and number of copies.

    Raises ValueError without a budget over all layers, or where a layer has no admissible placement without copies.
    """
    if problem.total_replicas is None:
        raise ValueError("an allocation needs total_replicas, a budget over all layers")
    layers = len(problem.workload.layers)
    most = min(problem.replicas, problem.total_replicas)
    tasks = [
        (_solve, (replace(problem.layer(layer), replicas=copies), method, stop, seed))
        for layer in range(layers)
        for copies in range(most + 1)
    ]
    answers, interrupted = parallel.run(executor, tasks, done=on_result)
    if interrupted:
        raise KeyboardInterrupt
    found = [answer for answer in answers if answer is not None]
    table = [found[layer * (most + 1) : (layer + 1) * (most + 1)] for layer in range(layers)]
    table = [_monotone(row) for row in table]
    costs = [[result.cost for result in row] for row in table]
    if any(row[0] is None for row in costs):
        raise ValueError("a layer has no admissible placement without copies: no split can be compared")
    chosen, cost = split_budget([[c for c in row if c is not None] for row in costs], problem.total_replicas)
    bounds = [[result.bound for result in row if result.bound is not None] for row in table]
    bound = None
    if all(len(row) == most + 1 for row in bounds):
        bound = split_budget(bounds, problem.total_replicas)[1]
    placements = [row[copies].placement for row, copies in zip(table, chosen, strict=True)]
    placement = Placement.join([part for part in placements if part is not None])
    status = "certified-optimal" if cost == bound else Result.join([r for row in table for r in row]).status
    if status == "certified-optimal" and cost != bound:
        status = "certified-gap"
    rows = tuple(tuple(row) for row in table)
    return Allocation(
        problem.total_replicas, tuple(chosen), placement, cost, bound, status, rows, problem.fields()
    )


def _solve(problem: Problem, method: str | Method, stop: Stop | None, seed: int) -> Result:
    return solve(problem, method, stop=stop, seed=seed)


def _monotone(row: Sequence[Result]) -> list[Result]:
    """More copies never cost more: where a search says otherwise, the placement with fewer copies stands in."""
    kept: list[Result] = []
    for result in row:
        before = kept[-1] if kept else None
        if (
            before is not None
            and before.cost is not None
            and (result.cost is None or result.cost > before.cost)
        ):
            result = replace(result, placement=before.placement, cost=before.cost)
        kept.append(result)
    return kept
