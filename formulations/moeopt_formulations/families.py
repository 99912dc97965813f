"""Worst families: the mean cost over the worst share of the task families, on top of any formulation of the mean."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from math import comb
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from moeopt.formulation import unsupported_extras
from moeopt.overlays import inner_formulation, inner_matrix, variables_of
from moeopt.problem import Problem

if TYPE_CHECKING:
    from moeopt.matrix import Matrix

INNER = ("migration", "blocks", "pairs", "covers", "hyperedge", "two-level", "replicated", "assignment")


@dataclass(frozen=True)
class Families:
    """Any inner formulation; n[f] = cost of the tokens of family f, t = cost of the last family that counts.

    With the inner cost sum_j c[j,f] x[j] + d[f] of the tokens of family f alone, u[f] the weight of one of its
    tokens, masses A[f] and the worst share K (`Problem.risk`):

        minimise    K t + sum_f A[f] v[f]
        counted     n[f] = sum_j c[j,f] x[j] + d[f]     for every f with A[f] > 0
        worst       u[f] n[f] <= t + v[f]               for every f with A[f] > 0; v[f] = 0 where A[f] >= K
                    the rows of the inner formulation

    t and v are bounded by the largest u[f] n[f]. For given n the minimum is the largest sum_f m[f] u[f] n[f] over
    0 <= m[f] <= A[f], sum_f m[f] = K: the dual of a knapsack, whose multipliers of `worst` are the mixture m. A
    mixture is an ordinary weighting of the families, so the optimum is at least that of every mixture.

    Source: R. T. Rockafellar, S. Uryasev, Optimization of conditional value-at-risk, Journal of Risk 2 (2000).

    | field | holds |
    |---|---|
    | inner | the formulation underneath or its name; "": the first that states the problem |
    """

    inner: Any = ""
    name: ClassVar[str] = "families"
    summary: ClassVar[str] = "worst family or mean of the worst families (CVaR) on top of another formulation"

    def supports(self, problem: Problem) -> str:
        if reason := unsupported_extras(problem, replicas=True, tail=True, moves=True):
            return reason
        if problem.risk is None:
            return "states the worst families: the problem has no tail"
        return (
            "" if self._by_blocks(problem) else inner_formulation(self.inner, _mean(problem), names=INNER)[1]
        )

    def _by_blocks(self, problem: Problem) -> bool:
        """Whether the contents of a GPU can be listed underneath: then no rows are needed."""
        from moeopt_formulations.blocks import Blocks

        return (self.inner in ("", "blocks") or isinstance(self.inner, Blocks)) and not Blocks().supports(
            _mean(problem)
        )

    def tail_columns(self, problem: Problem) -> Any:
        """Every content of a GPU with its cost for each family, `moeopt.tail_columns.TailColumns`.

        None where the formulation underneath states no contents, or they are too many to list. 8 bytes a family and
        content.
        """
        from moeopt.mixtures import Mixed
        from moeopt.tail_columns import TailColumns
        from moeopt_formulations.blocks import Blocks

        if problem.risk is None or not self._by_blocks(problem):
            return None
        one = np.eye(len(problem.risk.masses), dtype=np.int64).tolist()
        listed = [Blocks().columns(Mixed.of(problem, weights)) for weights in one]
        return TailColumns(
            listed[0].members,
            np.stack([columns.cost for columns in listed], axis=1),
            np.array([columns.offset for columns in listed], np.int64),
            problem.risk,
            listed[0].n_experts,
            listed[0].groups,
        )

    def build(self, problem: Problem) -> Any:
        import pyomo.environ as pyo

        statement = _stated(self._inner(problem), problem)
        model = statement.inner.build(statement.mean)
        for objective in model.component_data_objects(pyo.Objective, active=True):
            objective.deactivate()
        columns = variables_of(model, statement.matrix.column_names)
        families, largest = statement.families, statement.largest
        model.n = pyo.Var(families, bounds=lambda _, f: (0, statement.most[f]))
        model.t = pyo.Var(bounds=(0, largest))
        model.v = pyo.Var(statement.above, bounds=(0, largest))

        def counted(_: Any, f: int) -> Any:
            terms = zip(statement.costs[f].tolist(), columns, strict=True)
            return model.n[f] == sum(c * x for c, x in terms if c) + statement.constants[f]

        model.counted = pyo.Constraint(families, rule=counted)
        model.worst = pyo.Constraint(
            families,
            rule=lambda _, f: (
                statement.units[f] * model.n[f] <= model.t + (model.v[f] if f in statement.above else 0)
            ),
        )
        model.tail = pyo.Objective(
            expr=statement.total * model.t + sum(statement.masses[f] * model.v[f] for f in statement.above)
        )
        model.under_families = statement.inner
        return model

    def read(self, model: Any) -> Any:
        return model.under_families.read(model)

    def matrix(self, problem: Problem) -> Matrix:
        from scipy.sparse import block_array, csr_array, diags_array, eye_array

        from moeopt.matrix import Matrix

        statement = _stated(self._inner(problem), problem)
        base, families, above = statement.matrix, statement.families, statement.above
        count = len(families)
        excess = csr_array(
            (-np.ones(len(above)), ([families.index(f) for f in above], np.arange(len(above)))),
            shape=(count, len(above)),
        )
        blocks: list[list[Any]] = [
            [base.rows, None, None, None],
            [csr_array(-statement.table), eye_array(count), None, None],
            [None, diags_array(statement.units_of), -np.ones((count, 1)), excess],
        ]
        if not above:
            blocks = [row[:3] for row in blocks]
        if not base.rows.shape[0]:
            blocks = blocks[1:]
        cost, offset = self.costs(problem)
        most = [statement.most[f] for f in families]
        return Matrix(
            cost=cost.astype(float),
            offset=float(offset),
            lower=np.concatenate([base.lower, np.zeros(cost.size - base.cost.size)]),
            upper=np.concatenate([base.upper, most, np.full(1 + len(above), statement.largest)]),
            integer=np.concatenate([base.integer, np.zeros(cost.size - base.cost.size, bool)]),
            rows=block_array(blocks, format="csr"),
            row_lower=np.concatenate([base.row_lower, statement.shift, np.full(count, -np.inf)]),
            row_upper=np.concatenate([base.row_upper, statement.shift, np.zeros(count)]),
            column_names=(
                *base.column_names,
                *(f"n[{f}]" for f in families),
                "t",
                *(f"v[{f}]" for f in above),
            ),
        )

    def costs(self, problem: Problem) -> tuple[NDArray[np.int64], int]:
        statement = _stated(self._inner(problem), problem)
        width, risen = statement.matrix.cost.size, [statement.masses[f] for f in statement.above]
        zero = np.zeros(width + len(statement.families), np.int64)
        return np.concatenate([zero, np.array([statement.total, *risen], np.int64)]), 0

    def values(self, problem: Problem, answer: Any) -> NDArray[np.float64]:
        """float [columns]: an answer as a point of the matrix; nan where the inner formulation has none."""
        statement = _stated(self._inner(problem), problem)
        if not hasattr(statement.inner, "values"):
            return np.full(self.costs(problem)[0].size, np.nan)
        x = statement.inner.values(statement.mean, answer)
        counts = np.rint(statement.table @ x + statement.shift)
        worst = dict(zip(statement.families, (counts * statement.units_of).tolist(), strict=True))
        left, t = statement.total, 0.0
        for family in sorted(worst, key=lambda f: -worst[f]):
            t, left = worst[family], left - statement.masses[family]
            if left <= 0:
                break
        v = [max(0.0, worst[f] - t) for f in statement.above]
        return np.concatenate([x, counts, [t], v])

    def placement(self, problem: Problem, x: NDArray[np.float64]) -> Any:
        inner, mean = self._inner(problem), _mean(problem)
        return inner.placement(mean, x[: _inner_width(x.size, problem)])

    def _inner(self, problem: Problem) -> Any:
        inner, reason = inner_formulation(self.inner, _mean(problem), names=INNER)
        if inner is None:
            raise ValueError(f"no formulation underneath states this problem: {reason}")
        return inner


@dataclass(frozen=True, eq=False)
class _Statement:
    """The letters of the docstring, by family; costs int64 [columns] of one token of each family."""

    inner: Any
    mean: Problem
    matrix: Matrix
    costs: dict[int, NDArray[np.int64]]
    constants: dict[int, int]
    units: dict[int, int]
    masses: dict[int, int]
    total: int
    most: dict[int, int]

    @classmethod
    def of(cls, inner: Any, problem: Problem) -> _Statement:
        mean, risk = _mean(problem), problem.risk
        if risk is None:
            raise ValueError("states the worst families: the problem has no tail")
        families = [f for f, mass in enumerate(risk.masses) if mass]
        present = np.array([int(mass > 0) for mass in risk.masses])
        base, offset = inner.costs(mean)
        costs, constants = {}, {}
        for f in families:
            # Above a mixture of all: formulations leave out what has no weight at all.
            raised, shifted = inner.costs(problem.mixed((present + (np.arange(present.size) == f)).tolist()))
            costs[f] = (raised - base) // risk.units[f]
            constants[f] = int(shifted - offset) // risk.units[f]
        dearest = _dearest(problem)
        return cls(
            inner=inner,
            mean=mean,
            matrix=inner_matrix(inner, mean),
            costs=costs,
            constants=constants,
            units={f: int(risk.units[f]) for f in families},
            masses={f: int(risk.masses[f]) for f in families},
            total=int(risk.total),
            most={f: int(problem.workload.tokens[f]) * dearest for f in families},
        )

    @property
    def families(self) -> list[int]:
        return list(self.costs)

    @property
    def above(self) -> list[int]:
        """Families with a variable v."""
        return [f for f in self.costs if self.masses[f] < self.total]

    @property
    def largest(self) -> int:
        return max(self.units[f] * self.most[f] for f in self.costs)

    @property
    def table(self) -> NDArray[np.float64]:
        """float [families, columns]: c."""
        return np.array(list(self.costs.values()), float)

    @property
    def shift(self) -> NDArray[np.float64]:
        """float [families]: d."""
        return np.array(list(self.constants.values()), float)

    @property
    def units_of(self) -> NDArray[np.float64]:
        """float [families]: u."""
        return np.array(list(self.units.values()), float)


@lru_cache(maxsize=2)
def _stated(inner: Any, problem: Problem) -> _Statement:
    """The numbers of a problem, which is immutable: a run asks for them over and over."""
    return _Statement.of(inner, problem)


def _mean(problem: Problem) -> Problem:
    """The problem whose statement lies underneath: every family that counts weighs the same."""
    if problem.risk is None:
        return replace(problem, tail=None)
    return problem.mixed([int(mass > 0) for mass in problem.risk.masses])


def _dearest(problem: Problem) -> int:
    """No placement costs more for one token."""
    cluster, k = problem.cluster, problem.workload.top_k
    if problem.objective == "cut":
        return max(1, comb(k, 2) * (cluster.gpu_cost + cluster.node_cost))
    further_gpus, further_nodes = min(k, cluster.gpus) - 1, min(k, cluster.nodes) - 1
    return max(1, cluster.gpu_cost * further_gpus + cluster.node_cost * further_nodes)


def _inner_width(width: int, problem: Problem) -> int:
    """Columns of the inner matrix, given those of this one."""
    risk = problem.risk
    if risk is None:
        raise ValueError("states the worst families: the problem has no tail")
    counted = [mass for mass in risk.masses if mass]
    return width - len(counted) - 1 - sum(mass < risk.total for mass in counted)
