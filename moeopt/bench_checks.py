"""Rules that rows read from a file keep; what breaks them is a ValueError that names the rule."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any, NoReturn, get_args

from moeopt.bench_rows import Outcome, Row

__all__ = ["OUTCOMES", "check_row", "check_sweep_row", "parsed"]

OUTCOMES = get_args(Outcome)
LARGEST = 1e100  # of a number: sums and shares of smaller ones are finite
MANY = 1_000_000  # GPUs, layers, copies
Rule = tuple[str, Callable[[Any], bool]]


def parsed(text: str, *, column: str) -> Any:
    """The value of JSON without NaN and infinity; ValueError names the column."""
    try:
        return json.loads(text, parse_constant=_refused)
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{column} must be JSON, found {_brief(text)}: {error}") from error


def check_row(row: Row) -> None:
    """ValueError for a row whose columns do not hold what they must."""
    for name in ("case", "method", "stop", "reason"):
        _check(name, row[name], TEXT)
    _check("outcome", row["outcome"], (f"one of {', '.join(OUTCOMES)}", lambda value: value in OUTCOMES))
    _check("layer", row["layer"], _optional(INDEX))
    _check("seed", row["seed"], WHOLE)
    _check("versions", row["versions"], VERSIONS)
    _check("machine", row["machine"], MAPPING)
    _check("found", row["found"], MAPPING)
    for name in ("wall_seconds", "peak_mib"):
        _check(name, row[name], _optional(AMOUNT))


def check_sweep_row(row: Row) -> None:
    """ValueError for a row whose `found` does not tell what reports of sweeps read from it."""
    found = row["found"]
    wanted = REQUIRED if row["outcome"] == "done" else {}
    if missing := [name for name in wanted if name not in found]:
        raise ValueError(f"found of a run that is done must have {missing[0]!r}")
    if row["outcome"] == "done" and found.get("cost") is not None and "reference" not in found:
        raise ValueError("found with a cost must have 'reference'")
    for name, rule in (FIELDS | wanted).items():
        if name in found:
            _check(f"{name} of found", found[name], rule)


def _check(name: str, value: object, rule: Rule) -> None:
    words, holds = rule
    if not holds(value):
        raise ValueError(f"{name} must be {words}, found {_brief(value)}")


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _refused(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")


def _whole(value: object, low: float = -LARGEST, high: float = LARGEST) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _amount(value: object) -> bool:
    if isinstance(value, float):
        return isfinite(value) and 0 <= value <= LARGEST
    return _whole(value, 0)


def _optional(rule: Rule) -> Rule:
    words, holds = rule
    return f"{words} or nothing", lambda value: value is None or holds(value)


def _step(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and _amount(value[0])
        and all(part is None or _whole(part) for part in value[1:])
        and (value[1] is None or value[1] >= 0)
    )


def _places(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(gpus, list) and all(_whole(gpu, 0, MANY) for gpu in gpus) for gpus in value
    )


def _fan_outs(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        value.get(name) is None or _amount(value[name]) for name in ("fan_out", "linear_fan_out")
    )


TEXT: Rule = ("text", lambda value: isinstance(value, str))
MAPPING: Rule = ("an object", lambda value: isinstance(value, dict))
VERSIONS: Rule = (
    "an object of texts",
    lambda value: isinstance(value, dict) and all(isinstance(one, str) for one in value.values()),
)
WHOLE: Rule = ("a whole number of 64 bits", lambda value: _whole(value, -(1 << 63), (1 << 63) - 1))
INDEX: Rule = ("a whole number from 0 on, -1 for all layers", lambda value: _whole(value, 0, (1 << 63) - 1))
COUNT: Rule = (f"a whole number from 0 to {MANY:,}", lambda value: _whole(value, 0, MANY))
COST: Rule = ("a whole number from 0 on", lambda value: _whole(value, 0))
BOUND: Rule = ("a whole number", _whole)
AMOUNT: Rule = ("a finite number from 0 on", _amount)
REQUIRED: dict[str, Rule] = {
    "method": TEXT,
    "status": TEXT,
    "seconds": AMOUNT,
    "max_violation": _optional(AMOUNT),
}
FIELDS: dict[str, Rule] = {
    "method": TEXT,
    "status": TEXT,
    "cost": _optional(COST),
    "bound": _optional(BOUND),
    "reference": AMOUNT,
    "seconds": _optional(AMOUNT),
    "max_violation": _optional(AMOUNT),
    "fan_out": _optional(AMOUNT),
    "linear_fan_out": _optional(AMOUNT),
    "held_out": _optional(("an object with two fan-outs", _fan_outs)),
    "steps": (
        "a list of [seconds, cost, bound]",
        lambda value: isinstance(value, list) and all(map(_step, value)),
    ),
    "hosts": _optional(("a list of the GPUs of each expert", _places)),
    "model": _optional(TEXT),
    **{name: _optional(COUNT) for name in ("experts", "layers", "gpus", "nodes", "slots", "replicas")},
}
