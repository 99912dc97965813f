"""Holds formulations to brute force: one call is the test of your own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeopt.formulation import Formulation, LazyRows
from moeopt.matrix import Matrix, canonical, from_pyomo
from moeopt.placement import Placement
from moeopt.problem import Problem
from moeopt.solvers.door import Session, Status
from moeopt.statement import cost_unit

__all__ = ["brute_force", "check_formulation", "every_partition"]

_MOST_EXPERTS = 8
_FLOAT = 1e-6  # relative error granted to a float solver


def every_partition(problem: Problem) -> Iterator[Placement]:
    """All placements of one layer without copies that keep the slots and the load cap.

    Up to the names of GPUs where these are interchangeable (equal slots, no price on nodes).
    Raises ValueError for more than 8 experts, several layers, or replicas.
    """
    if len(problem.workload.layers) != 1 or problem.workload.n_experts > _MOST_EXPERTS or problem.replicas:
        raise ValueError(
            f"brute force is for one layer of at most {_MOST_EXPERTS} experts without replicas, found "
            f"{len(problem.workload.layers)} layers, {problem.workload.n_experts} experts, "
            f"{problem.replicas} replicas"
        )
    workload, cluster = problem.workload, problem.cluster
    load = workload.layers[0].load.tolist()
    cap = sum(load) if problem.load_cap is None else problem.load_cap
    free, room = cluster.slots_of.tolist(), [cap] * cluster.gpus
    alike = cluster.equal and (cluster.nodes == 1 or not cluster.node_cost)

    def extend(gpu_of: list[int]) -> Iterator[list[int]]:
        if len(gpu_of) == len(load):
            yield gpu_of
            return
        weight = load[len(gpu_of)]
        opened = max(gpu_of, default=-1) + 1  # of interchangeable GPUs only the first unused one is tried
        for gpu in range(min(cluster.gpus, opened + 1) if alike else cluster.gpus):
            if free[gpu] and room[gpu] >= weight:
                free[gpu], room[gpu] = free[gpu] - 1, room[gpu] - weight
                yield from extend([*gpu_of, gpu])
                free[gpu], room[gpu] = free[gpu] + 1, room[gpu] + weight

    for gpu_of in extend([]):
        yield Placement.partition([gpu_of], cluster, layer_ids=workload.layer_ids, model=workload.model)


def brute_force(problem: Problem) -> tuple[int | None, Placement | None]:
    """The least cost and a placement that has it; (None, None) when no placement is admissible.

    Judged by `Problem.violation` and `Problem.cost`; limits and errors are those of `every_partition`.
    """
    best: tuple[int | None, Placement | None] = (None, None)
    for placement in every_partition(problem):
        if broken := problem.violation(placement):
            raise AssertionError(f"the enumeration of partitions is wrong: {broken}")
        cost = problem.cost(placement)
        if best[0] is None or cost < best[0]:
            best = cost, placement
    return best


def check_formulation(
    formulation: Formulation, problems: Iterable[Problem], *, session: Session | None = None
) -> int:
    """Hold a formulation to brute force on small problems; returns how many of them it states.

    The Pyomo statement, compiled and solved, must have the least cost and read as a placement of that cost.
    A fast `matrix`, with all `lazy` rows, must be the same model up to order. Every placement must be a
    feasible point (`values`) worth its cost, and come back from it (`placement`). `costs` must be the
    matrix's own.

    Raises AssertionError with the problem's numbers where one of these fails, ValueError when every problem
    is refused by `supports`.
    """
    own = Session() if session is None else session
    stated = 0
    try:
        for problem in problems:
            if not formulation.supports(problem):
                stated += 1
                _check_one(formulation, problem, own)
    finally:
        if session is None:
            own.close()
    if not stated:
        raise ValueError(f"formulation {formulation.name} states none of the problems")
    return stated


def _check_one(formulation: Formulation, problem: Problem, session: Session) -> None:
    least, _ = brute_force(problem)
    model = formulation.build(problem)
    compiled, variables = from_pyomo(model)
    unit = cost_unit(float(np.abs(compiled.cost).max(initial=0.0)))
    # In units, for family weights make costs of 2^50, whose differences a float solver cannot tell apart.
    outcome = session.solve(replace(compiled, cost=compiled.cost / unit, offset=compiled.offset / unit))
    where = f"{formulation.name} on {problem.fields()}"
    if least is None:
        _require(outcome.status == Status.INFEASIBLE, f"{where}: {outcome.status}, nothing is admissible")
    else:
        _require(outcome.status == Status.OPTIMAL, f"{where}: {outcome.status}, the least cost is {least}")
        assert outcome.x is not None and outcome.objective is not None  # noqa: PT018 - the door promises both
        value = outcome.objective * unit
        _require(_close(value, least, unit=unit), f"{where}: {value}, the least cost is {least}")
        for variable, value in zip(variables, outcome.x.tolist(), strict=True):
            variable.set_value(value, skip_validation=True)
        _check_placement(problem, formulation.read(model), least, where)
    if hasattr(formulation, "matrix"):
        _check_table(formulation, problem, compiled, unit=unit, where=where)


def _check_table(formulation: Any, problem: Problem, compiled: Matrix, *, unit: int, where: str) -> None:
    matrix: Matrix = formulation.matrix(problem)
    lazy: LazyRows | None = formulation.lazy(problem) if hasattr(formulation, "lazy") else None
    whole = matrix if lazy is None else _with_rows(matrix, lazy)
    fast, stated = canonical(whole), canonical(compiled)
    for part in ("offset", "columns", "rows"):
        found, wanted = getattr(fast, part), getattr(stated, part)
        _require(found == wanted, f"{where}: matrix and Pyomo statement differ in {part}: {found}, {wanted}")
    if hasattr(formulation, "costs"):
        costs, offset = formulation.costs(problem)
        # The exact integers may exceed 2^53; the matrix holds their nearest floats.
        same = bool((costs.astype(float) == matrix.cost).all()) and float(offset) == matrix.offset
        _require(same, f"{where}: costs are not those of the matrix")
    if not hasattr(formulation, "values"):
        return
    for placement in every_partition(problem):
        x: NDArray[np.float64] = formulation.values(problem, placement)
        cost = problem.cost(placement)
        _require(whole.violation(x) == 0.0, f"{where}: placement {placement.primary} breaks the matrix")
        _require(
            _close(whole.value(x), cost, unit=unit),
            f"{where}: {placement.primary} has value {whole.value(x)}, cost {cost}",
        )
        back = formulation.placement(problem, x)
        _require(back is not None, f"{where}: the point of {placement.primary} stands for no placement")
        _check_placement(problem, back, cost, where)
        if lazy is not None:
            broken = len(formulation.separate(problem, x).keys)
            _require(broken == 0, f"{where}: {placement.primary} breaks {broken} lazy rows")


def _check_placement(problem: Problem, placement: Placement, cost: int, where: str) -> None:
    broken = problem.violation(placement)
    _require(not broken, f"{where}: {placement.primary} is not admissible: {broken}")
    found = problem.cost(placement)
    _require(found == cost, f"{where}: {placement.primary} costs {found}, wanted {cost}")


def _with_rows(matrix: Matrix, lazy: LazyRows) -> Matrix:
    from scipy.sparse import vstack

    return replace(
        matrix,
        rows=vstack([matrix.rows, lazy.rows], format="csr"),
        row_lower=np.concatenate([matrix.row_lower, lazy.lower]),
        row_upper=np.concatenate([matrix.row_upper, lazy.upper]),
        row_names=(),
    )


def _close(found: float, wanted: int, *, unit: int) -> bool:
    return abs(found - wanted) <= _FLOAT * max(unit, abs(wanted))


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise AssertionError(message)
