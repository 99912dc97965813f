"""A formulation of one problem as the solver sees it: matrix, units, the lazy rows known so far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import ceil, gcd, log2
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeopt.formulation import Formulation, LazyRows, Provable, Separable, Tabulated
from moeopt.judged import Judged
from moeopt.matrix import Matrix, from_pyomo

__all__ = ["Statement", "cost_unit"]

_COST_BITS = 20  # of the largest cost a float solver sees: its tolerances are absolute


@dataclass
class Statement:
    """One model, growing by the rows that points break.

    | field | holds |
    |---|---|
    | matrix | the standard form without lazy rows, costs divided by `unit` |
    | unit, divisor | what costs are measured in; the greatest known divisor of every cost |
    | read | the answer that a point stands for, or None |
    | lazy | rows found so far, in the order found |
    """

    formulation: Formulation
    problem: Judged
    matrix: Matrix
    unit: int
    divisor: int
    read: Callable[[NDArray[np.float64]], Any]
    lazy: list[LazyRows] = field(default_factory=list)
    _known: set[tuple[int, ...]] = field(default_factory=set)

    @classmethod
    def of(cls, formulation: Formulation, problem: Judged) -> Statement:
        """By the formulation's own matrix, or compiled from Pyomo where it has none."""
        read: Callable[[NDArray[np.float64]], Any]
        if isinstance(formulation, Tabulated):
            matrix, tabulated = formulation.matrix(problem), formulation

            def read(x: NDArray[np.float64]) -> Any:
                return tabulated.placement(problem, x)
        else:
            model = formulation.build(problem)
            matrix, variables = from_pyomo(model)

            def read(x: NDArray[np.float64]) -> Any:
                return _read(formulation, model, variables, x)

        divisor = 1
        if isinstance(formulation, Provable):
            costs, offset = formulation.costs(problem)
            divisor = gcd(offset, *costs.tolist()) or 1
        largest = float(np.abs(matrix.cost).max(initial=0.0)) / divisor
        unit = divisor * cost_unit(largest)
        scaled = replace(matrix, cost=matrix.cost / unit, offset=matrix.offset / unit)
        return cls(formulation, problem, scaled, unit, divisor, read)

    @property
    def keys(self) -> NDArray[np.int32]:
        """int32 [lazy rows, width]: which rows are known."""
        return np.concatenate([part.keys for part in self.lazy] or [np.zeros((0, 0), np.int32)])

    def separate(self, x: NDArray[np.float64]) -> LazyRows | None:
        """The rows that a point breaks and that are known from now on; None when it breaks no new one."""
        if not isinstance(self.formulation, Separable):
            return None
        found = self.formulation.separate(self.problem, x)
        new = [at for at, key in enumerate(map(tuple, found.keys.tolist())) if key not in self._known]
        if not new:
            return None
        fresh = LazyRows(found.keys[new], found.rows[new], found.lower[new], found.upper[new])
        self._known.update(map(tuple, fresh.keys.tolist()))
        self.lazy.append(fresh)
        return fresh

    def complete(self, *, rows: int | None = None) -> Matrix:
        """The matrix with the lazy rows known so far, or its first `rows` rows."""
        if not self.lazy:
            return self.matrix
        from scipy.sparse import vstack

        return replace(
            self.matrix,
            rows=vstack([self.matrix.rows, *(part.rows for part in self.lazy)], format="csr")[:rows],
            row_lower=np.concatenate([self.matrix.row_lower, *(part.lower for part in self.lazy)])[:rows],
            row_upper=np.concatenate([self.matrix.row_upper, *(part.upper for part in self.lazy)])[:rows],
            row_names=(),
        )


def cost_unit(largest: float) -> int:
    """What to measure costs in, given the largest: a power of two, which leaves every digit as it is."""
    return 1 << (max(0, ceil(log2(largest)) - _COST_BITS) if largest else 0)


def _read(formulation: Formulation, model: Any, variables: list[Any], x: NDArray[np.float64]) -> Any:
    """The answer of a point of a compiled Pyomo model."""
    for variable, value in zip(variables, x.tolist(), strict=True):
        variable.set_value(value, skip_validation=True)
    return formulation.read(model)
