"""Traces as NumPy archives: one array a field."""

import lzma
import zipfile
import zlib
from dataclasses import dataclass
from math import prod
from pathlib import Path
from tokenize import TokenError
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

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
        return head.startswith((b"PK\x03\x04", b"PK\x05\x06"))  # a zip archive with members, or an empty one

    def read(self, path: Path) -> Trace:
        try:
            with zipfile.ZipFile(path) as archive:
                arrays = _arrays(archive, self.limit)
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, IndexError) as error:
            raise ValueError(
                f"damaged or truncated npz archive: {str(error) or type(error).__name__}"
            ) from error
        except RuntimeError as error:  # encrypted, or a compression zipfile does not know
            raise ValueError(f"npz archive cannot be unpacked: {error}") from error
        if empty := [name for name in ARRAYS if not arrays[name].size and name != "experts"]:
            raise ValueError(f"array {empty[0]!r} must not be empty, found shape {arrays[empty[0]].shape}")
        return Trace(
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


def _arrays(archive: zipfile.ZipFile, limit: int) -> dict[str, NDArray[Any]]:
    members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    if missing := [name for name in ARRAYS if name not in members]:
        raise ValueError(f"array {missing[0]!r} is missing, found {sorted(members)[:16]}")
    if (size := sum(members[name].file_size for name in ARRAYS)) > limit:
        raise ValueError(f"arrays must unpack to at most {limit} bytes, found {size}")
    return {name: _array(name, archive, members[name]) for name in ARRAYS}


def _array(name: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    """One member; its header is compared with its size before anything is allocated."""
    with archive.open(info) as file:
        try:
            version = np.lib.format.read_magic(file)
            if version == (1, 0):
                shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            else:
                shape, _, dtype = np.lib.format.read_array_header_2_0(file)
        except (ValueError, TypeError, KeyError, SyntaxError, RecursionError, TokenError) as error:
            raise ValueError(f"array {name!r} has no readable header: {str(error)[:120]}") from error
        if dtype.hasobject:
            raise ValueError(f"array {name!r} must not be pickled, found dtype {dtype}")
        size = prod(shape) * max(dtype.itemsize, 1)
        if size != info.file_size - file.tell():
            raise ValueError(
                f"array {name!r} of shape {shape} and dtype {dtype} needs {size} bytes, "
                f"found {info.file_size - file.tell()}"
            )
    with archive.open(info) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


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
