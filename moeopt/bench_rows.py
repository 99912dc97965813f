"""Rows of benchmarks: what was run, by what and where, and what came of it."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from moeopt.parallel import available_cores

__all__ = ["SETTLED", "Absent", "Key", "Outcome", "Row", "Task", "machine", "perform", "versions"]

LIBRARIES = ("numpy", "highspy", "pyomo", "numba", "moeopt")
SETTLED = ("done", "unsupported")  # outcomes that are not tried again

Row = dict[str, Any]
Outcome = Literal["done", "unsupported", "skipped", "failed"]


class Absent(ValueError):
    """What a case is made from is not on this machine: the case is skipped, nothing has failed."""


@dataclass(frozen=True)
class Key:
    """What a row is about; with the versions and the machine, its identity.

    | field | holds |
    |---|---|
    | case | name of the case |
    | layer | absolute id; None: all layers of the case |
    | method | repr of the method, see also `moeopt.own_methods.method_identity`; or what else was run |
    | seed, stop | repr of the stop |
    """

    case: str
    layer: int | None
    method: str
    seed: int
    stop: str

    @classmethod
    def of(cls, row: Row) -> Key:
        """The key of a stored row."""
        return cls(*(row[name] for name in cls.__dataclass_fields__))

    def row(self, outcome: Outcome, *, reason: str = "", **found: Any) -> Row:
        """The row to store: `found` holds what was measured, `reason` why nothing was."""
        return {
            **asdict(self),
            "outcome": outcome,
            "reason": reason,
            "found": found,
            "versions": versions(),
            "machine": machine(),
            "wall_seconds": None,
            "peak_mib": None,
        }


@dataclass(frozen=True)
class Task:
    """Work that gives rows; the last one bears `key`, so that a task is done when its last row is stored.

    `seconds`: what it may take, where that is known beforehand. `name`: of its method as asked for, for the row that
    says why there are no others.
    """

    key: Key
    measure: Callable[..., list[Row]]
    arguments: tuple[Any, ...] = ()
    seconds: float = 0.0
    name: str = ""

    def unanswered(self, outcome: Outcome, *, reason: str) -> Row:
        """The row of a task that gave none."""
        return self.key.row(outcome, reason=reason, **({"method": self.name} if self.name else {}))


def perform(task: Task) -> list[Row]:
    """The rows of a task; whatever goes wrong is a row with its reason."""
    try:
        return task.measure(*task.arguments)
    except Absent as absent:
        return [task.unanswered("skipped", reason=str(absent))]
    except Exception as error:  # a benchmark goes on, and its table says what failed
        return [task.unanswered("failed", reason=f"{type(error).__name__}: {error}")]


def versions() -> dict[str, str]:
    """Of Python and the libraries that numbers depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}


@cache
def machine() -> dict[str, Any]:
    """The processor's name and the cores this process may use."""
    cpu = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        lines = information.read_text().splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
    return {"cpu": cpu, "cores": available_cores()}
