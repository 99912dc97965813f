"""A budget of moves from an incumbent placement, on top of any formulation that names the GPUs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from moeopt.formulation import unsupported_extras
from moeopt.overlays import inner_formulation, inner_matrix, variables_of
from moeopt.problem import Problem
from moeopt_formulations.labelled import Labelled

if TYPE_CHECKING:
    from moeopt.matrix import Matrix

INNER = ("assignment", "hyperedge", "replicated")
LABELLED = Labelled()


@dataclass(frozen=True)
class Migration:
    """Any inner formulation with columns x[e,g], expert e is on GPU g; I = the copies (e,g) of the incumbent.

        minimise    the objective of the inner formulation
        moves       sum over (e,g) not in I of x[e,g] <= max_moves
                    the rows of the inner formulation

    An inner formulation that renames alike GPUs cannot count moves, and is refused. Without `inner` the model is
    `labelled`, set partitioning with named GPUs, wherever the cost is additive over GPUs and the budget leaves few
    enough contents: it has the same moves row over its own columns.

    | field | holds |
    |---|---|
    | inner | the formulation underneath or its name; "": labelled, else the first that states the problem |
    """

    inner: Any = ""
    name: ClassVar[str] = "migration"
    summary: ClassVar[str] = (
        "at most so many copies moved from an incumbent; labelled contents or another model"
    )

    def supports(self, problem: Problem) -> str:
        if reason := unsupported_extras(problem, replicas=True, moves=True):
            return reason
        if problem.max_moves is None:
            return "states a budget of moves: the problem has no max_moves"
        return self._chosen(problem)[1]

    def width(self, problem: Problem) -> int:
        """Columns of `matrix`, at most, where they can be counted beforehand; else 0."""
        inner = self._inner(problem)
        return int(inner.width(problem)) if hasattr(inner, "width") else 0

    def build(self, problem: Problem) -> Any:
        import pyomo.environ as pyo

        inner = self._inner(problem)
        if inner is LABELLED:
            model = inner.build(problem)
        else:
            model = inner.build(_free(problem))
            variables = variables_of(model, _away(problem))
            model.moves = pyo.Constraint(expr=pyo.quicksum(variables) <= problem.max_moves)
        model.under_migration = inner
        return model

    def read(self, model: Any) -> Any:
        return model.under_migration.read(model)

    def matrix(self, problem: Problem) -> Matrix:
        from scipy.sparse import csr_array, vstack

        inner = self._inner(problem)
        base = inner_matrix(inner, _below(inner, problem))
        if inner is LABELLED:
            return base
        at = {name: place for place, name in enumerate(base.column_names)}
        away = [at[name] for name in _away(problem)]
        row = csr_array((np.ones(len(away)), ([0] * len(away), away)), shape=(1, base.cost.size))
        return replace(
            base,
            rows=vstack([base.rows, row], format="csr"),
            row_lower=np.append(base.row_lower, -np.inf),
            row_upper=np.append(base.row_upper, float(problem.max_moves or 0)),
            row_names=(),
        )

    def costs(self, problem: Problem) -> tuple[NDArray[np.int64], int]:
        inner = self._inner(problem)
        costs: tuple[NDArray[np.int64], int] = inner.costs(_below(inner, problem))
        return costs

    def values(self, problem: Problem, answer: Any) -> NDArray[np.float64]:
        """float [columns]: an answer as a point of the matrix."""
        inner = self._inner(problem)
        x: NDArray[np.float64] = inner.values(_below(inner, problem), answer)
        return x

    def placement(self, problem: Problem, x: NDArray[np.float64]) -> Any:
        inner = self._inner(problem)
        return inner.placement(_below(inner, problem), x)

    def _inner(self, problem: Problem) -> Any:
        inner, reason = self._chosen(problem)
        if inner is None:
            raise ValueError(f"no formulation underneath states this problem: {reason}")
        return inner

    def _chosen(self, problem: Problem) -> tuple[Any | None, str]:
        refusal = ""
        if self.inner in ("", LABELLED.name) or isinstance(self.inner, Labelled):
            refusal = LABELLED.supports(problem)
            if not refusal:
                return LABELLED, ""
            if self.inner:
                return None, f"{LABELLED.name}: {refusal}"
        inner, reason = inner_formulation(self.inner, _free(problem), names=INNER, accepts=_renames)
        if inner is not None:
            return inner, ""
        return None, "; ".join(part for part in (refusal, reason) if part)


def _free(problem: Problem) -> Problem:
    """The problem without its budget of moves."""
    return replace(problem, max_moves=None)


def _below(inner: Any, problem: Problem) -> Problem:
    return problem if inner is LABELLED else _free(problem)


def _away(problem: Problem) -> list[str]:
    """Names of the columns x[e,g] of copies that the incumbent does not have."""
    if problem.incumbent is None:
        raise ValueError("moves are counted from an incumbent: the problem has none")
    return [f"x[{e},{g}]" for e, g in np.argwhere(~problem.incumbent.hosts[0]).tolist()]


def _renames(formulation: Any, problem: Problem) -> str:
    """Why a formulation does not name the GPUs: no columns x[e,g], or it renames those that are alike."""
    experts, gpus = problem.workload.n_experts, problem.cluster.gpus
    at = {name: place for place, name in enumerate(formulation.matrix(problem).column_names)}
    if not hasattr(formulation, "values"):
        return "offers no values of a placement, which would tell whether it renames GPUs"
    if not all(f"x[{e},{g}]" in at for e in range(experts) for g in range(gpus)):
        return "has no columns x[e,g]"
    columns = np.array([[at[f"x[{e},{g}]"] for g in range(gpus)] for e in range(experts)])
    for g in range(gpus):
        for h in range(gpus):
            gpu_of = np.where(np.arange(experts) == 0, g, h)
            x = formulation.values(problem, problem.partition(gpu_of))
            if (x[columns].argmax(axis=1) != gpu_of).any():
                return "renames GPUs that are alike"
    return ""
