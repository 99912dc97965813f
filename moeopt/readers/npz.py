"""Traces as NumPy archives: one array a field."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from moeopt.array_files import member_names, read_npz
from moeopt.supplement import Supplement
from moeopt.trace import Trace

ARRAYS = (
    "experts",
    "n_experts",
    "sequence",
    "position",
    "phase",
    "family",
    "families",
    "layer_ids",
    "model",
)


@dataclass(frozen=True)
class Npz:
    """Reader of `.npz` archives, compressed or not, without pickled objects.

    | array | holds |
    |---|---|
    | experts | integers [tokens, layers, k] |
    | n_experts | one integer, E |
    | sequence, position, phase, family | integers [tokens]; `sequence` becomes the request |
    | families | names [families]; `family` indexes them |
    | layer_ids | integers [layers] |
    | model | one name |

    Every array must be there, lest a misspelt name pass for a default; others are ignored.
    `limit` bounds the uncompressed size of the arrays read, in bytes; larger archives are refused.
    """

    limit: int = 8 * 2**30

    name: ClassVar[str] = "npz"

    def accepts(self, path: Path, head: bytes) -> bool:
        if not head.startswith(b"PK"):
            return False
        found = member_names(path)  # none of a damaged archive, which `read` says
        return not found or not found.isdisjoint(("experts", "families"))

    def read(self, path: Path, supplement: Supplement) -> Trace:
        found = member_names(path)
        if found and (missing := [name for name in ARRAYS if name not in found]):
            raise ValueError(f"array {missing[0]!r} is missing, found {sorted(found)[:16]}")
        arrays = read_npz(path, ARRAYS, limit=self.limit)
        if not arrays:
            raise ValueError(f"array {ARRAYS[0]!r} is missing, found {sorted(found)}")
        if empty := [name for name in ARRAYS if not arrays[name].size and name != "experts"]:
            raise ValueError(f"array {empty[0]!r} must not be empty, found shape {arrays[empty[0]].shape}")
        trace = Trace(
            arrays["experts"],
            _integer("n_experts", arrays["n_experts"]),
            layer_ids=arrays["layer_ids"],
            families=tuple(_text("families", arrays["families"], axes=1).tolist()),
            family=arrays["family"],
            request=arrays["sequence"],
            position=arrays["position"],
            phase=arrays["phase"],
            model=str(_text("model", arrays["model"], axes=0)),
        )
        return supplement.settled(trace)


def _text(name: str, array: NDArray[Any], *, axes: int) -> NDArray[np.str_]:
    if array.dtype.kind != "U" or array.ndim != axes:
        raise ValueError(
            f"array {name!r} must be text with {axes} axes, found {array.dtype} of shape {array.shape}"
        )
    return array


def _integer(name: str, array: NDArray[Any]) -> int:
    if array.dtype.kind not in "iu" or array.size != 1:
        raise ValueError(f"array {name!r} must be one integer, found {array.dtype} of shape {array.shape}")
    return int(array.item())
