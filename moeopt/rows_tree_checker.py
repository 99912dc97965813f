"""Re-proves bounds of any formulation: a tree of cases, and row multipliers for each case, in exact integers.

The statement is the formulation's own, whole numbers and no solver; tests hold it to brute force. A proof lists
its tree in preorder: a case {"column", "split"} parts the points into column <= split and column >= split + 1,
a leaf {"rows", "numbers"} bounds what is left. `keys` name the rows found on demand that it uses; they follow the
others. `fixing` holds multipliers of the whole model: whole columns of which one step costs `ceiling` stay at their
bound, and the tree is about the columns that are left. No bound may exceed the ceiling or the least of the leaves.
`duals`, the sum over the leaves of what they prove, notices a changed number that leaves the bound as it is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeopt.certificate import Proof
from moeopt.judged import Judged
from moeopt.statements import named_formulation
from moeopt.whole_model import Multipliers, WholeModel

__all__ = ["check_rows"]

_LARGEST = 1 << 160  # of a multiplier
_SCALES = 1 << 64
_MOST_CASES = 4_000_000
_FIELDS = {"formulation", "scale", "duals", "fixing", "keys", "tree"}


def check_rows(problem: Judged, proof: Proof) -> str:
    """Why a proof of kind "rows" does not hold for the problem; empty when it does."""
    try:
        numbers = dict(proof.numbers)
        if set(numbers) != _FIELDS:
            raise ValueError(f"expected {sorted(_FIELDS)}, found {sorted(numbers)}")
        if not isinstance(numbers["formulation"], str):
            raise ValueError(f"a formulation has a name, found {numbers['formulation']!r:.40}")
        formulation = named_formulation(numbers["formulation"])
        if reason := formulation.supports(problem):
            raise ValueError(f"{formulation.name} does not state the problem: {reason}")
        scale = _integer(numbers["scale"], low=1, high=_SCALES)
        model = WholeModel.of(formulation, problem, keys=_keys(numbers["keys"]))
        model, ceiling = _narrowed(model, numbers["fixing"], scale)
        bound, duals = _least(model, numbers["tree"], scale)
        if ceiling is not None:
            bound = min(bound, ceiling)
        if type(numbers["duals"]) is not int or duals != numbers["duals"]:
            raise ValueError(
                f"the leaves prove {duals} together, the certificate says {numbers['duals']!r:.40}"
            )
        if proof.bound > bound:
            raise ValueError(f"bound is {proof.bound}, the tree proves {bound}")
    except ValueError as error:
        return f"rows proof: {error}"
    return ""


def _narrowed(model: WholeModel, fixing: object, scale: int) -> tuple[WholeModel, int | None]:
    """The model of the points below the ceiling of the proof, and that ceiling; the model itself without one."""
    if fixing is None:
        return model, None
    if not isinstance(fixing, dict) or set(fixing) != {"ceiling", "rows", "numbers"}:
        raise ValueError(f"fixing has ceiling, rows and numbers, found {fixing!r:.40}")
    ceiling = _integer(fixing["ceiling"], low=-_LARGEST, high=_LARGEST)
    return model.narrowed(_multipliers(model, fixing), scale=scale, ceiling=ceiling)[0], ceiling


def _multipliers(model: WholeModel, case: dict[str, Any]) -> Multipliers:
    rows, numbers = _list(case["rows"], len(model.row_lower) - 1), _list(case["numbers"], _LARGEST)
    if len(set(rows)) != len(rows) or any(row < 0 for row in rows):
        raise ValueError("a leaf names each row once")
    return np.array(rows, np.int64), numbers


def _least(model: WholeModel, tree: object, scale: int) -> tuple[int, int]:
    """(bound, sum of what the leaves prove); ValueError where the tree is not one."""
    if not isinstance(tree, list) or not 0 < len(tree) <= _MOST_CASES:
        raise ValueError(f"a tree has 1 to {_MOST_CASES} cases")
    open_cases = [(model.lower, model.upper)]
    least: int | None = None
    duals = 0
    for case in tree:
        if not open_cases:
            raise ValueError("the tree goes on after its last leaf")
        lower, upper = open_cases.pop()
        if not isinstance(case, dict):
            raise ValueError(f"a case is an object, found {case!r:.40}")
        if set(case) == {"column", "split"}:
            column = _integer(case["column"], low=0, high=len(lower) - 1)
            split = _integer(case["split"], low=int(lower[column]), high=int(upper[column]) - 1)
            if not model.integer[column]:
                raise ValueError(f"column {column} is not whole: its points cannot be parted at {split}")
            above, below = lower.copy(), upper.copy()
            above[column], below[column] = split + 1, split
            open_cases += [(above, upper), (lower, below)]
            continue
        if set(case) != {"rows", "numbers"}:
            raise ValueError(f"a case has column and split, or rows and numbers, found {sorted(case)}")
        dual = model.dual(_multipliers(model, case), scale=scale, lower=lower, upper=upper)
        duals += dual
        bound = model.bound(dual, scale)
        least = bound if least is None else min(least, bound)
    if open_cases or least is None:
        raise ValueError(f"{len(open_cases)} cases of the tree are not proved")
    return least, duals


def _keys(rows: object) -> NDArray[np.int32]:
    """The lazy rows that the proof names, int32 [rows, width], each once."""
    if not isinstance(rows, list):
        raise ValueError(f"keys must list rows, found {rows!r:.40}")
    if not rows:
        return np.zeros((0, 0), np.int32)
    keys = [_list(row, 1 << 30) for row in rows]
    if len({len(key) for key in keys}) != 1 or len({tuple(key) for key in keys}) != len(keys):
        raise ValueError("keys must be of one length, and name each row once")
    return np.array(keys, np.int32)


def _integer(value: Any, *, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"expected a whole number from {low} to {high}, found {value!r:.40}")
    return value


def _list(values: object, high: int) -> list[int]:
    if not isinstance(values, list):
        raise ValueError(f"expected a list of whole numbers, found {values!r:.40}")
    return [_integer(value, low=-high, high=high) for value in values]
