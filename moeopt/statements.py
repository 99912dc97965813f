"""Formulations by name, without loading a solver or a method."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points

from moeopt.formulation import Formulation

__all__ = ["GROUP", "named_formulation"]

GROUP = "moeopt.formulations"


@cache
def named_formulation(name: str) -> Formulation:
    """The formulation of this name with its default settings; ValueError lists the known names."""
    known = _known()
    if name not in known:
        raise ValueError(f"no formulation is named {name!r}; known are {', '.join(sorted(known))}")
    made: Formulation = known[name].load()()
    return made


@cache
def _known() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}
