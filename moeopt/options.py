"""Words of the command line turned into numbers; ValueError says what was wrong with which word."""

import math
from collections.abc import Sequence


def layer_list(text: str | None) -> list[int] | None:
    """ "0-3,7" as [0, 1, 2, 3, 7]; None stays None."""
    if text is None:
        return None
    layers: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()) or (dash and int(last) < int(first)):
            raise ValueError(f"--layers must look like 0-3,7, found {part.strip()!r} in {text!r}")
        if int(last or first) > 100_000:
            raise ValueError(f"--layers names layer {last or first}, no model has so many")
        layers.update(range(int(first), int(last or first) + 1))
    return sorted(layers)


def family_shares(text: str | None) -> dict[str, float] | None:
    """ "code=2,math=1" as a dictionary; None stays None."""
    if text is None:
        return None
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, equals, value = part.strip().rpartition("=")
        if not equals or not name:
            raise ValueError(f"--weights must look like code=2,math=1, found {part.strip()!r}")
        if name in weights:
            raise ValueError(f"--weights names family {name!r} twice")
        try:
            weights[name] = float(value)
        except ValueError:
            raise ValueError(f"--weights of family {name!r} must be a number, found {value!r}") from None
        if not math.isfinite(weights[name]):
            raise ValueError(f"--weights of family {name!r} must be finite, found {value!r}")
    return weights


def name_list(text: str) -> list[str]:
    """ "linear,swap" as a list."""
    names = [part.strip() for part in text.split(",")]
    if not all(names):
        raise ValueError(f"--methods must be names separated by commas, found {text!r}")
    return names


def named_families(weights: dict[str, float] | None, families: Sequence[str]) -> str:
    """One line on families that the weights leave out; empty when there are none."""
    if weights is None:
        return ""
    left_out = [name for name in families if not weights.get(name)]
    return f"families without weight: {', '.join(left_out)}" if left_out else ""
