"""One statement of one tiny problem on disk, with its least cost: for replay where solvers do not agree."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from moeopt import storage
from moeopt.formulation import Formulation
from moeopt.judged import Judged
from moeopt.matrix import Matrix
from moeopt.solvers.offered import BUILT_IN

__all__ = ["Instance"]

FORMAT = "moeopt-instance"
LIBRARIES = ("moeopt", "numpy", "scipy", "pyomo", *(offer.package for offer in BUILT_IN.values()))
_SIDES = {"lower": -np.inf, "upper": np.inf, "row_lower": -np.inf, "row_upper": np.inf}  # null in JSON


@dataclass(frozen=True, eq=False)
class Instance:
    """What a solver needs to be asked again, and what the answer should be.

    | field | holds |
    |---|---|
    | formulation | repr |
    | problem | JSON-ready: its type, digest, and fields |
    | matrix | the statement, all rows listed, costs unscaled |
    | least | least cost by brute force; None: nothing is admissible |
    | said | JSON-ready: what solvers and checker said |
    | versions | of Python and of what is installed |
    """

    formulation: str
    problem: Mapping[str, Any]
    matrix: Matrix
    least: int | None
    said: Mapping[str, Any]
    versions: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        formulation: Formulation,
        problem: Judged,
        *,
        matrix: Matrix,
        least: int | None,
        said: Mapping[str, Any],
    ) -> Self:
        """With the versions that are installed."""
        described = {"type": type(problem).__name__, "digest": problem.digest, "fields": _plain(problem)}
        return cls(repr(formulation), described, matrix, least, said, _installed())

    def save(self, path: storage.PathLike) -> None:
        """Write one JSON document, whole or not at all."""
        matrix = self.matrix
        document = {
            "format": FORMAT,
            "version": 1,
            "formulation": self.formulation,
            "problem": self.problem,
            "least": self.least,
            "said": self.said,
            "versions": self.versions,
            "matrix": {
                "cost": matrix.cost,
                "offset": matrix.offset,
                **{name: _sides(getattr(matrix, name)) for name in _SIDES},
                "integer": matrix.integer,
                "starts": matrix.rows.indptr,
                "indices": matrix.rows.indices,
                "values": matrix.rows.data,
                "column_names": matrix.column_names,
            },
        }
        storage.write_json(path, document)

    @classmethod
    def load(cls, path: storage.PathLike) -> Self:
        """Inverse of `save`; ValueError names the file and what is wrong with it."""
        document = storage.read_json(path, kind=FORMAT)
        try:
            return cls(
                storage.field(document, "formulation", kind=str),
                storage.field(document, "problem", kind=dict),
                _matrix(storage.field(document, "matrix", kind=dict)),
                storage.field(document, "least", kind=(int, type(None))),
                storage.field(document, "said", kind=dict),
                storage.field(document, "versions", kind=dict),
            )
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def _sides(values: NDArray[np.float64]) -> list[float | None]:
    return [value if np.isfinite(value) else None for value in values.tolist()]


def _matrix(document: Mapping[str, Any]) -> Matrix:
    from scipy.sparse import csr_array

    integer, names = (storage.field(document, name, kind=list) for name in ("integer", "column_names"))
    if not all(isinstance(entry, bool) for entry in integer):
        raise ValueError(f"integer must hold true or false, found {integer!r:.60}")
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"column_names must hold names, found {names!r:.60}")
    starts, indices = (storage.whole_numbers(document, name) for name in ("starts", "indices"))
    values = _numbers(document, "values")
    rows = csr_array((values, indices, starts), shape=(max(0, starts.size - 1), len(integer)))
    rows.check_format(full_check=True)  # otherwise a wrong index is a crash
    sides = {name: _numbers(document, name, missing=side) for name, side in _SIDES.items()}
    return Matrix(
        cost=_numbers(document, "cost"),
        offset=storage.field(document, "offset", kind=(int, float)),
        integer=np.array(integer, bool),
        rows=rows,
        lower=sides["lower"],
        upper=sides["upper"],
        row_lower=sides["row_lower"],
        row_upper=sides["row_upper"],
        column_names=tuple(names),
    )


def _numbers(document: Mapping[str, Any], name: str, *, missing: float | None = None) -> NDArray[np.float64]:
    """A list of numbers; null stands for `missing` where there is something missing."""
    found = storage.field(document, name, kind=list)
    known = [missing if entry is None else entry for entry in found]
    if not all(type(entry) in (int, float) for entry in known):
        raise ValueError(f"{name} must hold numbers, found {found!r:.60}")
    return np.array(known, np.float64)


def _plain(value: Any) -> Any:
    """Any problem as JSON: its own form where it has one, field by field elsewhere."""
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if is_dataclass(value) and not isinstance(value, type):
        return {part.name: _plain(getattr(value, part.name)) for part in fields(value)}
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value if isinstance(value, bool | int | float | str | None) else str(value)


def _installed() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found
