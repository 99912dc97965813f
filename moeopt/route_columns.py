"""Columns of tables of routes: their names, and their cells as arrays."""

import re
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moeopt.trace import DECODE, PREFILL

NAMES = {
    "request": ("request", "request_id", "sequence", "sequence_id"),
    "position": ("position", "token", "token_index", "step"),
    "phase": ("phase",),
    "family": ("family", "task"),
    "layer": ("layer", "layer_id", "layer_index"),
    "slot": ("slot",),
    "expert": ("expert", "expert_id"),
    "experts": ("experts", "expert_ids", "topk_ids"),
}
IGNORED = ("weight", "weights", "gate", "gates", "score", "scores", "probability", "probabilities")
MEANING = {name: meaning for meaning, names in NAMES.items() for name in names}
NUMBERED = re.compile(r"(?:e|expert_)(\d{1,5})")
OF_LAYER = re.compile(r"layer_(\d{1,5})")
PHASES = {
    "prefill": PREFILL,
    "prompt": PREFILL,
    "0": PREFILL,
    "decode": DECODE,
    "generation": DECODE,
    "1": DECODE,
}


def meaning_of(name: str) -> str:
    """What a column holds: a key of NAMES, `e<i>`, `layer_<id>`, "" where it is ignored; ValueError where unknown."""
    low = name.strip().lower()
    if low in MEANING:
        return MEANING[low]
    if found := NUMBERED.fullmatch(low):
        return f"e{int(found[1])}"
    if found := OF_LAYER.fullmatch(low):
        return f"layer_{int(found[1])}"
    if low in IGNORED or re.fullmatch(r"w\d{1,5}", low):
        return ""
    known = [*MEANING, "e<i>", "expert_<i>", "layer_<id>"]
    raise ValueError(
        f"column {name!r:.60} is unknown; known are {', '.join(known)}, and ignored {', '.join(IGNORED)}, w<i>"
    )


def known_meaning(name: str) -> str:
    """The same, "?" for an unknown column."""
    try:
        return meaning_of(name)
    except ValueError:
        return "?"


def meanings(names: Iterable[str]) -> dict[str, str]:
    """What each column holds, ignored ones left out; ValueError for an unknown one and for two that hold the same."""
    found: dict[str, str] = {}
    named: dict[str, str] = {}
    for name in names:
        if (meaning := meaning_of(name)) == "":
            continue
        if meaning in named:
            raise ValueError(f"columns {named[meaning]!r:.60} and {name!r:.60} both hold {meaning}")
        found[name] = meaning
        named[meaning] = name
    return found


def whole(name: str, column: Any) -> Any:
    """The column of Arrow itself; ValueError where a cell is empty."""
    if column.null_count:
        raise ValueError(f"column {name!r} must have no empty cells, found {column.null_count}")
    return column


def numbers(name: str, column: Any) -> NDArray[np.int64]:
    """int64 [rows] of an Arrow column of integers."""
    found: NDArray[Any] = whole(name, column).to_numpy()
    if found.dtype.kind not in "iu":
        raise ValueError(f"column {name!r} must hold integers, found {found.dtype}")
    return found.astype(np.int64)


def texts(name: str, column: Any) -> tuple[NDArray[np.int64], list[str]]:
    """(int64 [rows], names): each cell as the index of its text, in order of first appearance."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = whole(name, column)
    if pa.types.is_integer(column.type):
        column = column.cast(pa.string())
    if pa.types.is_string(column.type):
        column = pc.dictionary_encode(column)
    if not pa.types.is_dictionary(column.type):
        raise ValueError(f"column {name!r} must hold text or integers, found {column.type}")
    if isinstance(column, pa.ChunkedArray):
        column = column.unify_dictionaries().combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # pyarrow before 20 keeps one chunk
        column = column.chunk(0)
    words = column.dictionary.to_pylist()
    if "" in words:
        raise ValueError(f"column {name!r} must have no empty cells")
    return column.indices.to_numpy(zero_copy_only=False).astype(np.int64), words


def requests(column: Any) -> NDArray[np.int64]:
    """int64 [rows]: request numbers; other names are numbered in order of first appearance."""
    index, names = texts("request", column)
    if all(name.isascii() and name.isdecimal() and len(name) <= 10 for name in names):
        return np.array([int(name) for name in names], np.int64)[index]
    return index


def phases(column: Any) -> NDArray[np.int64]:
    """int64 [rows]: 0 prefill, 1 decode."""
    index, names = texts("phase", column)
    for name in names:
        if name.lower() not in PHASES:
            raise ValueError(f"phase must be one of {', '.join(PHASES)}, found {name!r:.40}")
    return np.array([PHASES[name.lower()] for name in names], np.int64)[index]


def list_lengths(name: str, column: Any) -> NDArray[np.int64]:
    """int64 [rows]: lengths of the lists of an Arrow column; ValueError where it holds something else."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_list(column.type):
        raise ValueError(f"column {name!r} must hold lists, found {column.type}")
    return np.asarray(pc.list_value_length(whole(name, column)).to_numpy(), np.int64)


def lists(name: str, column: Any) -> NDArray[np.int64]:
    """int64 [rows, k] of an Arrow column of lists of integers, or of text such as `3 7` or `[3, 7]`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_string(column.type):
        column = whole(name, column)
        spaced = pc.utf8_trim(pc.replace_substring_regex(column, r"[\[\]()\s,;|]+", " "), " ")
        column = pc.split_pattern(spaced, " ")
    lengths = list_lengths(name, column)
    for row in np.flatnonzero(lengths != lengths[:1])[:1]:
        raise ValueError(
            f"column {name!r}: row {row} has {lengths[row]} experts, the first row has {lengths[0]}"
        )
    try:
        values = whole(name, pc.list_flatten(column)).cast(pa.int64())
    except pa.ArrowException as error:
        raise ValueError(f"column {name!r} must hold integers: {str(error)[:120]}") from error
    return np.asarray(values.to_numpy(), np.int64).reshape(len(lengths), -1)


def nested_lists(name: str, column: Any) -> NDArray[np.int64]:
    """int64 [rows, n, k] of an Arrow column of lists of n lists of k integers."""
    import pyarrow.compute as pc

    lengths = list_lengths(name, column)
    for row in np.flatnonzero(lengths != lengths[:1])[:1]:
        raise ValueError(
            f"column {name!r}: row {row} has {lengths[row]} lists, the first row has {lengths[0]}"
        )
    inner = lists(name, pc.list_flatten(column))
    return inner.reshape(len(lengths), -1, inner.shape[1])
