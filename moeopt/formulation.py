"""What a formulation is: the mathematics of one layer, stated in Pyomo, and what else it may offer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from moeopt.placement import Placement
from moeopt.problem import Problem

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from moeopt.matrix import Matrix

__all__ = [
    "ByColumns",
    "Formulation",
    "LazyRows",
    "Provable",
    "Separable",
    "Tabulated",
    "unsupported_objective",
]


@runtime_checkable
class Formulation(Protocol):
    """A mixed-integer statement of the problem of one layer.

    It knows no limit, option or solver and prints nothing. `build` repeats the class docstring line for line.
    `moeopt.testing.check_formulation` holds it, and every optional part it has, to brute force.
    """

    name: ClassVar[str]
    summary: ClassVar[str]

    def supports(self, problem: Problem) -> str:
        """Why the formulation does not state `problem`, and what to do instead; empty when it does."""

    def build(self, problem: Problem) -> Any:
        """A Pyomo ConcreteModel whose minimum is the least cost of a placement."""

    def read(self, model: Any) -> Placement:
        """The placement that the values of a model built here stand for."""


@runtime_checkable
class Tabulated(Formulation, Protocol):
    """A formulation that also writes its matrix itself, in milliseconds where Pyomo takes seconds.

    The matrix together with the rows of `Separable.lazy` equals the Pyomo statement, column names included.
    """

    def matrix(self, problem: Problem) -> Matrix:
        """The standard form, without rows that `separate` finds on demand."""

    def values(self, problem: Problem, placement: Placement) -> NDArray[np.float64]:
        """float [columns]: a placement without copies as a point of the matrix; admissible or not."""

    def placement(self, problem: Problem, x: NDArray[np.float64]) -> Placement | None:
        """The placement that a point, whole up to rounding, stands for; None when it stands for none."""


@dataclass(frozen=True, eq=False)
class LazyRows:
    """Rows that are added when a point breaks them.

    | field | holds |
    |---|---|
    | keys | int32 [rows, width]: which member of its family each row is, no two alike |
    | rows | csr [rows, columns] |
    | lower, upper | float [rows]: -inf and inf where there is no bound |
    """

    keys: NDArray[np.int32]
    rows: csr_array
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]


@runtime_checkable
class Separable(Tabulated, Protocol):
    """A formulation with more rows than one wants to list."""

    def separate(self, problem: Problem, point: NDArray[np.float64]) -> LazyRows:
        """The most broken lazy rows at a point, most broken first; empty only when every lazy row holds."""

    def lazy(self, problem: Problem) -> LazyRows:
        """Every lazy row: for tests at small sizes."""


@runtime_checkable
class Provable(Tabulated, Protocol):
    """A formulation whose row multipliers an independent checker knows how to verify."""

    def costs(self, problem: Problem) -> tuple[NDArray[np.int64], int]:
        """int64 [columns] and the constant: the objective in exact integers."""

    def proof(
        self, problem: Problem, *, multipliers: Sequence[int], keys: NDArray[np.int32]
    ) -> Mapping[str, Any]:
        """Integer row multipliers by row family, as the checker of this kind reads them.

        `multipliers` belong to the rows of `matrix`, then to the lazy rows `keys` [rows, width]; positive on
        a lower bound of a row, negative on an upper one.
        """


@runtime_checkable
class ByColumns(Formulation, Protocol):
    """A set-partition formulation: every column is a possible content of a GPU."""

    def columns(self, problem: Problem) -> Any:
        """The contents and their exact costs, as `moeopt` prices them."""


def unsupported_objective(problem: Problem) -> str:
    """Why a formulation of the cut does not state `problem`; empty when the objective is the cut."""
    if problem.objective != "cut":
        return (
            f'states the cut, not {problem.objective}: use objective="cut", or "blocks" for the exact fan-out'
        )
    return ""
