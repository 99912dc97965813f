"""What formulations on top of others share: the inner formulation, its matrix and its Pyomo variables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from moeopt.formulation import Separable, Tabulated
from moeopt.statements import GROUP, named_formulation

if TYPE_CHECKING:
    from moeopt.matrix import Matrix
    from moeopt.problem import Problem

__all__ = ["inner_formulation", "inner_matrix", "variables_of"]

LARGEST_WIDTH = 400_000  # columns under an overlay, where the inner formulation can count them beforehand
MOST_EXPERTS = (
    48  # where the lazy rows of the inner formulation are listed: three for every triple of experts
)


def inner_formulation(
    inner: Any,
    problem: Problem,
    *,
    names: Sequence[str],
    accepts: Callable[[Any, Problem], str] = lambda formulation, problem: "",
) -> tuple[Any | None, str]:
    """(formulation, "") that states `problem`, or (None, why the first one does not and which others do not).

    `inner` is a formulation, its name, or "" for the first of the installed `names`; `accepts` gives a further
    reason to refuse one, or "".
    """
    if inner:
        candidates = [named_formulation(inner) if isinstance(inner, str) else inner]
    else:
        known = entry_points(group=GROUP).names
        candidates = [named_formulation(name) for name in names if name in known]
    refused: dict[str, str] = {}
    for formulation in candidates:
        reason = _refusal(formulation, problem) or accepts(formulation, problem)
        if not reason:
            return formulation, ""
        refused[formulation.name] = reason
    if not refused:
        return None, f"none of {', '.join(names)} is installed"
    (name, reason), *others = refused.items()
    nor = f"; nor does {' or '.join(other for other, _ in others)} state it" if others else ""
    return None, f"{name}: {reason}{nor}"


def _refusal(formulation: Any, problem: Problem) -> str:
    if not isinstance(formulation, Tabulated):
        return "offers no matrix with costs"
    if reason := formulation.supports(problem):
        return reason
    width = formulation.width(problem) if hasattr(formulation, "width") else 0
    if width > LARGEST_WIDTH:
        return f"{width:,} columns, the limit is {LARGEST_WIDTH:,}"
    if isinstance(formulation, Separable) and problem.workload.n_experts > MOST_EXPERTS:
        return f"too many lazy rows to list for {problem.workload.n_experts} experts, the limit is {MOST_EXPERTS}"
    return ""


def inner_matrix(formulation: Any, problem: Problem) -> Matrix:
    """The matrix of the inner formulation with all its lazy rows: listed, they can be certified."""
    matrix: Matrix = formulation.matrix(problem)
    if not isinstance(formulation, Separable):
        return matrix
    lazy = formulation.lazy(problem)
    return matrix.extended(lazy.rows, lower=lazy.lower, upper=lazy.upper)


def variables_of(model: Any, names: Sequence[str]) -> list[Any]:
    """The Pyomo variables of these column names, in order."""
    from pyomo.environ import Var

    known = {variable.name: variable for variable in model.component_data_objects(Var)}
    return [known[name] for name in names]
