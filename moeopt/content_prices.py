"""Reduced costs of the contents of a GPU, from the relaxation of `covers`, in exact integers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from moeopt.branching import scale_of, sparse, without_vertices
from moeopt.formulation import Tabulated
from moeopt.gatherings import Gatherings
from moeopt.multipliers import whole_multipliers
from moeopt.problem import Problem
from moeopt.solvers.door import Status
from moeopt.statement import Statement
from moeopt.whole_model import WholeModel

if TYPE_CHECKING:
    from moeopt.solvers.door import Session

__all__ = ["ContentPrices"]

_LARGEST = 1 << 58


@dataclass(frozen=True, eq=False)
class ContentPrices:
    """What a relaxation proves of contents: scale x objective >= base + sum of `reduced` [2^experts] at their masks."""

    reduced: NDArray[np.int64]
    scale: int
    base: int

    @classmethod
    def of(
        cls, formulation: Tabulated, problem: Problem, *, session: Session, seconds: float | None
    ) -> Self | None:
        """By the row multipliers of `covers` without the load tolerance; None when the relaxation is not solved."""
        relaxed = replace(problem, load_tolerance=None)
        statement = Statement.of(formulation, relaxed)
        outcome = session.solve(
            statement.matrix, relax=True, seconds=seconds, options=without_vertices(statement.matrix)
        )
        if outcome.status != Status.OPTIMAL or outcome.row_duals is None:
            return None
        scale = scale_of(statement.unit)
        numbers = whole_multipliers(statement.matrix, outcome.row_duals, unit=statement.unit, scale=scale)
        model = WholeModel.of(formulation, relaxed)
        total, reduced = model.reduced(sparse(numbers), scale=scale)
        data = Gatherings.of(relaxed)
        listed = data.contents
        rest = reduced[len(listed) :]
        ends = np.where(rest > 0, model.lower[len(listed) :], model.upper[len(listed) :])
        base = total + int((rest * ends.astype(rest.dtype)).sum())
        own = reduced[: len(listed)]
        low = int(own.min())  # every GPU has one content
        base += low * problem.cluster.gpus
        dearest = scale * int(data.weights.sum()) * problem.cluster.gpus
        if max(int(own.max()) - low, abs(base), dearest) >= _LARGEST:
            return None  # 64 bits might not hold the sums
        table = np.zeros(1 << problem.workload.n_experts, np.int64)
        table[[sum(1 << e for e in content) for content in listed]] = np.array(own - low, np.int64)
        return cls(table, scale, base)
