"""Files of named tensors in the safetensors format, read without its package: the format is a header and bytes.

Layout: 8 bytes, the length of the header, little-endian; the header, a JSON object name -> {"dtype", "shape",
"data_offsets": [begin, end]}, with "__metadata__" beside them; the bytes of all tensors, one after the other, without
gaps. Source: huggingface/safetensors, README.md, section Format.
"""

import json
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

DTYPES = {
    "U8": "u1",
    "I8": "i1",
    "U16": "<u2",
    "I16": "<i2",
    "U32": "<u4",
    "I32": "<i4",
    "U64": "<u8",
    "I64": "<i8",
    "F16": "<f2",
    "F32": "<f4",
    "F64": "<f8",
}
HEADER = 16 * 2**20  # bytes; the format allows 100 MB, which as Python objects are gigabytes
AXES = 32


def read_tensors(path: Path, *, limit: int = 8 * 2**30) -> dict[str, NDArray[Any]]:
    """Arrays by name, read-only. `limit`: bytes that the file may have.

    ValueError names the tensor that has no dtype known here, or bytes that are not its own, all of them and in line.
    """
    if (size := path.stat().st_size) > limit:
        raise ValueError(f"a file of tensors may have {limit} bytes, found {size}")
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(HEADER, size - 8):
            raise ValueError(
                f"the header must have 2 to {min(HEADER, size - 8)} bytes, its length is given as {length}"
            )
        header = _header(file.read(length))
        content = np.frombuffer(file.read(), np.uint8)
    tensors: dict[str, NDArray[Any]] = {}
    end = 0
    for name, about in sorted(header.items(), key=lambda item: _offsets(*item)):
        begin, stop = _offsets(name, about)
        if begin != end:
            raise ValueError(f"tensor {name!r:.80} starts at byte {begin}, the one before ends at {end}")
        tensors[name] = _tensor(name, about, content[begin:stop], declared=stop - begin)
        end = stop
    if end != len(content):
        raise ValueError(f"tensors end at byte {end}, the file at byte {len(content)} behind its header")
    return tensors


def _header(content: bytes) -> dict[str, Any]:
    """What is said of every tensor."""
    if not content.startswith(b"{"):
        raise ValueError(f"the header must be a JSON object, found {content[:8]!r}")
    try:
        header: dict[str, Any] = json.loads(content, object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the header is not JSON of distinct names: {str(error)[:120]}") from error
    header.pop("__metadata__", None)
    return header


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is there twice")
    return found


def _offsets(name: str, about: Any) -> tuple[int, int]:
    """First and last byte of a tensor, the last excluded."""
    match about:
        case {"data_offsets": [int(begin), int(end)]} if 0 <= begin <= end:
            return begin, end
    raise ValueError(f"tensor {name!r:.80} must say data_offsets [begin, end], found none")


def _tensor(name: str, about: Any, content: NDArray[np.uint8], *, declared: int) -> NDArray[Any]:
    form, shape = about.get("dtype"), about.get("shape")
    if not isinstance(form, str) or form not in DTYPES:
        raise ValueError(f"tensor {name!r:.80} must be of dtype {', '.join(DTYPES)}, found {form!r:.40}")
    if (
        not isinstance(shape, list)
        or len(shape) > AXES
        or not all(type(n) is int and 0 <= n < 1 << 46 for n in shape)
    ):
        raise ValueError(f"tensor {name!r:.80} must have a shape of at most {AXES} whole numbers")
    dtype = np.dtype(DTYPES[form])
    if not len(content) == declared == prod(shape) * dtype.itemsize:
        raise ValueError(
            f"tensor {name!r:.80} of shape {shape} needs {prod(shape) * dtype.itemsize} bytes, "
            f"data_offsets give {declared}, the file has {len(content)}"
        )
    if prod(max(n, 1) for n in shape) >= 1 << 46:
        raise ValueError(f"tensor {name!r:.80} must have less than 2^46 elements, found shape {shape}")
    return content.view(dtype).reshape(shape)
