"""Which solvers there are, and what must be installed for each: told without importing any of them."""

from __future__ import annotations

from importlib.util import find_spec
from typing import NamedTuple

__all__ = ["BUILT_IN", "Offer", "adapter_path", "installed"]


class Offer(NamedTuple):
    """An adapter of this library: "package.module:Class", the package it imports, the extra that brings it."""

    path: str
    package: str
    extra: str


BUILT_IN = {  # known also where this library runs from its sources
    "cpsat": Offer("moeopt.solvers.cpsat:CpSat", "ortools", "moeopt[cpsat]"),
    "gurobi": Offer("moeopt.solvers.gurobi:Gurobi", "gurobipy", "moeopt[gurobi]"),
    "highs": Offer("moeopt.solvers.highs:Highs", "highspy", "moeopt"),
    "scip": Offer("moeopt.solvers.scip:Scip", "pyscipopt", "moeopt[scip]"),
}


def adapter_path(solver: str) -> str:
    """The "package.module:Adapter" of a solver; ValueError for a name nobody offers."""
    if solver in BUILT_IN:
        return BUILT_IN[solver].path
    if ":" in solver:
        return solver
    from importlib.metadata import entry_points  # 50 ms

    offered = {point.name: point.value for point in entry_points(group="moeopt.solvers")}
    if solver not in offered:
        names = ", ".join(sorted(offered.keys() | BUILT_IN.keys()))
        raise ValueError(f"no solver is named {solver!r}; offered: {names}")
    return offered[solver]


def installed(solver: str) -> str:
    """Why a solver cannot be used here; empty when it can.

    Nothing is imported. Adapters of other packages are taken to bring their solvers with them.
    """
    try:
        path = adapter_path(solver)
    except ValueError as error:
        return str(error)
    for offer in BUILT_IN.values():
        if offer.path == path and find_spec(offer.package) is None:
            return f"{offer.package} is not installed: pip install '{offer.extra}'"
    return ""
