"""Holds a solver behind the door to what the door promises: one call is the test of your own adapter."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from moeopt.conformance import answers, held_models, known_models, refusals, searches
from moeopt.conformance.bench import Bench, Check, Skip

__all__ = ["CHECKS", "Bench", "Report", "check_solver", "run_check"]

CHECKS: Mapping[str, Check] = {
    name: check
    for group in (answers, known_models, held_models, searches, refusals)
    for name, check in group.CHECKS.items()
}


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was checked: names of the checks that hold, and why others do not apply."""

    solver: str
    ran: tuple[str, ...]
    skipped: Mapping[str, str]
    seconds: float


def check_solver(solver: str, *, only: Iterable[str] | None = None, threads: int = 1) -> Report:
    """Run the checks, or those named in `only`, on a session of its own.

    `solver` is what `Session` takes: a name, or the path "package.module:Adapter". Every check is a small
    model, or a hard one cut short, with a known answer.

    Raises
    ------
    AssertionError
        A check fails; the message names solver, check and numbers.
    ValueError
        Nobody offers the solver, it is not installed, or `only` names no check.
    """
    names = list(CHECKS) if only is None else list(only)
    if unknown := [name for name in names if name not in CHECKS]:
        raise ValueError(f"there is no check {unknown[0]!r}; known are {', '.join(CHECKS)}")
    begun = time.monotonic()
    ran: list[str] = []
    skipped: dict[str, str] = {}
    with Bench(solver, threads=threads) as bench:
        for name in names:
            reason = run_check(name, bench)
            if reason:
                skipped[name] = reason
            else:
                ran.append(name)
    return Report(solver=solver, ran=tuple(ran), skipped=skipped, seconds=time.monotonic() - begun)


def run_check(name: str, bench: Bench) -> str:
    """Run one check; returns why it does not apply, empty when it does and holds. AssertionError when it fails."""
    try:
        CHECKS[name](bench)
    except Skip as skip:
        return str(skip)
    except (AssertionError, RuntimeError, ValueError) as error:
        kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
        raise AssertionError(f"{bench.solver}: {name.replace('_', ' ')}: {kind}{error}") from error
    return ""
