"""Content of engines' files: JSON and NumPy arrays from anybody, sizes checked before anything is allocated."""

import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeopt.array_files import array_content, array_header

MOST_EXPERTS = 1 << 20
MOST_SLOTS = 1 << 27  # layers x slots, where a file's lists are widened to the longest
ARRAY = b"\x93NUMPY"


def document_of(content: bytes) -> Any:
    """What the content says as JSON; ValueError for what is none, for a key given twice, for NaN and infinities."""
    try:
        return json.loads(content, object_pairs_hook=_once, parse_constant=_refused)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from error


def object_with(content: bytes, *keys: str) -> dict[str, Any] | None:
    """The JSON object with these keys and perhaps others; None where the content is none. Never raises."""
    if content[:64].lstrip()[:1] != b"{" or any(f'"{key}"'.encode() not in content for key in keys):
        return None  # before a long text is parsed
    try:
        document = document_of(content)
    except ValueError:
        return None
    return document if isinstance(document, dict) and set(keys) <= set(document) else None


def list_of(content: bytes) -> list[Any] | None:
    """The JSON list; None where the content is none. Never raises."""
    if content[:64].lstrip()[:1] != b"[":
        return None
    try:
        document = document_of(content)
    except ValueError:
        return None
    return document if isinstance(document, list) else None


def only_keys(document: Any, keys: Sequence[str], *, optional: Sequence[str] = ()) -> dict[str, Any]:
    """The document itself when it is an object with exactly these keys; ValueError names what is missing or unknown."""
    if not isinstance(document, dict):
        raise ValueError(f"expected an object with {', '.join(keys)}, found {type(document).__name__}")
    for missing in [key for key in keys if key not in document][:1]:
        raise ValueError(f"key {missing!r} is missing, found {sorted(document)!r:.120}")
    for unknown in [key for key in document if key not in (*keys, *optional)][:1]:
        raise ValueError(f"key {unknown!r:.60} is unknown: known are {', '.join((*keys, *optional))}")
    return document


def whole(value: Any, what: str, *, least: int = 0, most: int = 1 << 31) -> int:
    """A whole number of a document, within limits; ValueError names it."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{what} must be a whole number from {least} to {most}, found {value!r:.40}")
    return value


def distinct_layers(ids: Any, rows: int) -> tuple[int, ...]:
    """Absolute layer ids of a document, one a row; ValueError names what is wrong with them."""
    if not isinstance(ids, list) or len(ids) != rows:
        raise ValueError(f"{rows} layers need a list of as many layer_ids, found {ids!r:.60}")
    found = tuple(whole(layer, "a layer id") for layer in ids)
    if len(set(found)) < len(found):
        raise ValueError(f"layer ids must be distinct, found {ids!r:.60}")
    return found


def experts_in(row: Any, where: str) -> list[int]:
    """A list of experts out of JSON; ValueError names the place and the value that is none."""
    if not isinstance(row, list):
        raise ValueError(f"{where}: experts must be a list, found {row!r:.40}")
    for slot, expert in enumerate(row):
        if isinstance(expert, bool) or not isinstance(expert, int) or not 0 <= expert < MOST_EXPERTS:
            raise ValueError(f"{where}, slot {slot}: an expert is a whole number, found {expert!r:.40}")
    return row


def table_of(rows: Any, name: str = "physical_to_logical_map") -> NDArray[np.int64]:
    """A physical map out of JSON, lists of one length; ValueError names layer and slot that are none."""
    if not isinstance(rows, list) or not rows or not all(isinstance(row, list) and row for row in rows):
        raise ValueError(f"{name} must be a list of lists, found {rows!r:.60}")
    for layer, row in enumerate(rows):
        if len(row) != len(rows[0]):
            raise ValueError(f"all layers need {len(rows[0])} slots as layer 0, layer {layer} has {len(row)}")
        experts_in(row, f"layer {layer}")
    return np.array(rows, np.int64)


def shape_of(content: bytes) -> tuple[int, ...] | None:
    """Shape that an `.npy` content declares; None where it has no readable header. Never raises."""
    try:
        return array_header(io.BytesIO(content), name="")[0]
    except ValueError:
        return None


def array_of(content: bytes, name: str, *, kinds: str = "iu") -> NDArray[np.int64]:
    """An `.npy` content of whole numbers; ValueError where header, size or type do not fit, before allocating."""
    found = array_content(io.BytesIO(content), name=name, size=len(content))
    if found.dtype.kind not in kinds:
        raise ValueError(f"array {name!r} must hold whole numbers, found {found.dtype}")
    return found.astype(np.int64)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key {twice!r:.60} is given twice")
    return document


def _refused(name: str) -> Any:
    raise ValueError(f"{name} is no number of a placement")
