"""What a formulation is: the mathematics of one layer, stated in Pyomo, and what else it may offer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from moeopt.problem import Problem

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from moeopt.matrix import Matrix

__all__ = [
    "ByColumns",
    "ByPricing",
    "Formulation",
    "LazyRows",
    "Provable",
    "Proven",
    "Searched",
    "Separable",
    "Startable",
    "Tabulated",
    "unsupported_extras",
    "unsupported_objective",
]


@runtime_checkable
class Formulation(Protocol):
    """A mixed-integer statement of a problem that judges its own answers (`moeopt.judged.Judged`).

    Of `moeopt.problem.Problem`, placements of experts, it states one layer; an answer is a Placement, or a Plan where
    the dispatch is part of it. A formulation of another problem names it: `states = "moeopt.flow.FlowProblem"`. It
    knows no limit, option or solver and prints nothing. `build` repeats the class docstring line for line.
    `moeopt.testing.check_formulation` holds it, and every optional part it has, to brute force. With whole costs,
    rows and bounds its bounds can be certified.
    """

    name: ClassVar[str]
    summary: ClassVar[str]

    def supports(self, problem: Any) -> str:
        """Why the formulation does not state `problem`, and what to do instead; empty when it does."""

    def build(self, problem: Any) -> Any:
        """A Pyomo ConcreteModel whose minimum is the least cost of an answer."""

    def read(self, model: Any) -> Any:
        """The answer that the values of a model built here stand for."""


@runtime_checkable
class Tabulated(Formulation, Protocol):
    """A formulation that also writes its matrix itself, in milliseconds where Pyomo takes seconds.

    The matrix together with the rows of `Separable.lazy` equals the Pyomo statement, column names included.
    """

    def matrix(self, problem: Any) -> Matrix:
        """The standard form, without rows that `separate` finds on demand."""

    def costs(self, problem: Any) -> tuple[NDArray[np.int64], int]:
        """int64 [columns] and the constant: the objective in exact integers."""

    def placement(self, problem: Any, x: NDArray[np.float64]) -> Any:
        """The answer that a point, whole up to rounding, stands for; None when it stands for none."""


@runtime_checkable
class Startable(Tabulated, Protocol):
    """A formulation whose searches can start from an answer."""

    def values(self, problem: Any, answer: Any) -> NDArray[np.float64]:
        """float [columns]: an answer as a point of the matrix, relabelled where equal GPUs are told apart."""


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

    def separate(self, problem: Any, point: NDArray[np.float64]) -> LazyRows:
        """The most broken lazy rows at a point, most broken first; empty only when every lazy row holds."""

    def lazy(self, problem: Any, keys: NDArray[Any] | None = None) -> LazyRows:
        """The lazy rows of these keys [rows, width], ValueError for a key that is none; without keys, all of them."""


@runtime_checkable
class Provable(Tabulated, Protocol):
    """A formulation whose row multipliers a checker of its own verifies, from a statement of its own."""

    def proof(
        self, problem: Any, *, multipliers: Sequence[int], keys: NDArray[np.int32]
    ) -> Mapping[str, Any]:
        """Integer row multipliers by row family, as the checker of this kind reads them.

        `multipliers` belong to the rows of `matrix`, then to the lazy rows `keys` [rows, width]; positive on
        a lower bound of a row, negative on an upper one.
        """


@dataclass(frozen=True)
class Proven:
    """What a search of a formulation's own proves.

    | field | holds |
    |---|---|
    | kind, numbers | of the proof: which checker takes it, and what it reads |
    | bound | no answer costs less; None when nothing is proved |
    | nodes | visited |
    | impossible | the search has seen that there is no answer |
    """

    kind: str
    bound: int | None
    numbers: Mapping[str, Any]
    nodes: int = 0
    impossible: bool = False


@runtime_checkable
class Searched(Tabulated, Protocol):
    """A formulation with a search of its own, tried before a solver is asked."""

    def unsearchable(self, problem: Any) -> str:
        """Why the search does not take a problem that the formulation states; empty when it does."""

    def passes(self, problem: Any, *, best: Any, clock: Any, session: Any) -> Iterator[Proven]:
        """Offer answers to `best` (`moeopt.judged.Best`), and after each complete pass say what is proved."""


@runtime_checkable
class ByColumns(Formulation, Protocol):
    """A set-partition formulation: every column is a possible content of a GPU."""

    def columns(self, problem: Problem) -> Any:
        """The contents and their exact costs, as `moeopt` prices them."""


@runtime_checkable
class ByPricing(Formulation, Protocol):
    """A set-partition formulation whose columns are too many to list."""

    def block_range(self, problem: Problem) -> Any:
        """The contents and what they cost, as `moeopt.block_range.BlockRange`."""


def unsupported_objective(problem: Problem) -> str:
    """Why a formulation of the cut does not state `problem`; empty when the objective is the cut."""
    if problem.objective != "cut":
        return (
            f'states the cut, not {problem.objective}: use objective="cut", or "blocks" for the exact fan-out'
        )
    return ""


def unsupported_extras(
    problem: object, *, replicas: bool = False, tail: bool = False, moves: bool = False
) -> str:
    """Why a formulation of placements does not state `problem`, given the extras that it states; else empty."""
    if not isinstance(problem, Problem):
        return f"states placements of experts (moeopt.Problem), found {type(problem).__name__}"
    if len(problem.workload.layers) != 1:
        return f"states one layer, found {len(problem.workload.layers)}"
    if problem.objective == "load":
        return 'states what tokens touch, the objective is load: use "auto" or "level", or moeopt.loads'
    if problem.total_replicas is not None:
        return f"knows no budget over all layers, total_replicas is {problem.total_replicas}: use moeopt.allocate"
    if problem.replicas and not replicas:
        return (
            f'states one copy of each expert, replicas are {problem.replicas}: use "covers" or "replicated"'
        )
    if problem.risk is not None and not tail:
        return f'states the mean over families, the tail is {problem.tail}: use "families"'
    if problem.max_moves is not None and not moves:
        return f'counts no moves from an incumbent, max_moves is {problem.max_moves}: use "migration"'
    return ""
