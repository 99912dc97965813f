"""Names for objects: built-ins and plug-ins come through the same entry points."""

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from moeopt.exact import Exact
from moeopt.formulation import Formulation
from moeopt.method import Method
from moeopt.own_methods import own_method
from moeopt.statements import named_formulation

METHODS, FORMULATIONS, ENGINES = "moeopt.methods", "moeopt.formulations", "moeopt.engines"


@cache
def named_method(name: str) -> Method:
    """The method of this name with its default settings; ValueError lists the known names.

    `file.py:Class` and `package.module:Class` are methods that nobody registered, see `moeopt.own_methods`.
    """
    if ":" in name:
        return own_method(name)
    points = _points()
    if name not in points:
        raise ValueError(f"no method is named {name!r}; known are {', '.join(sorted(points))}")
    made = points[name].load()()
    if points[name].group != FORMULATIONS:
        method: Method = made
        return method
    if other := stated_problem(made):
        raise ValueError(
            f"formulation {name} is about another problem, {other}: solve it by moeopt.solve_model"
        )
    return Exact(made)


def all_methods() -> list[Method]:
    """All methods, by name: heuristics, methods of whole models, an exact method for each formulation of placements."""
    others = {formulation.name for formulation in other_formulations()}
    return [named_method(name) for name in sorted(_points().keys() - others)]


def other_formulations() -> list[Formulation]:
    """The formulations of other problems than `moeopt.Problem`, by name."""
    made = (named_formulation(name) for name in sorted(entry_points(group=FORMULATIONS).names))
    return [formulation for formulation in made if stated_problem(formulation)]


def stated_problem(formulation: Formulation) -> str:
    """The problem that a formulation is about, where it is not `moeopt.Problem`; else empty."""
    return str(getattr(formulation, "states", ""))


def named_engine(name: str) -> Any:
    """The exporter of this name; ValueError lists the known names."""
    known = {point.name: point for point in entry_points(group=ENGINES)}
    if name not in known:
        raise ValueError(f"no engine is named {name!r}; known are {', '.join(sorted(known))}")
    return known[name].load()()


@cache
def _points() -> dict[str, EntryPoint]:
    heuristics, formulations = entry_points(group=METHODS), entry_points(group=FORMULATIONS)
    if both := heuristics.names & formulations.names:
        raise RuntimeError(f"a method and a formulation share the name {min(both)!r}")
    return {point.name: point for point in (*heuristics, *formulations)}
