"""Columns of a trace in Parquet, checked before they are decoded: see `moeopt.readers.parquet` for the layout."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray

from moeopt import storage

__all__ = [
    "FORMAT",
    "KEY",
    "TOKEN_COLUMNS",
    "VERSION",
    "check_types",
    "damage_named",
    "layer_columns",
    "lists_of",
    "metadata_of",
    "without_nulls",
]

KEY, FORMAT, VERSION = b"moeopt", "moeopt-trace", 1
TOKEN_COLUMNS = ("request", "position", "phase", "family")


@contextmanager
def damage_named() -> Iterator[None]:
    """Errors of pyarrow as ValueErrors; it reports damage as OSError too."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, OverflowError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"damaged or truncated Parquet file: {first[:200]}") from error


def metadata_of(metadata: dict[bytes, bytes] | None) -> dict[str, Any]:
    """What the schema metadata says of the trace; ValueError names the key or field that is wrong."""
    if not metadata or KEY not in metadata:
        raise ValueError(
            f"schema metadata must have the key {KEY.decode()!r}, found {sorted(metadata or {})}"
        )
    try:
        document = json.loads(metadata[KEY])
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"schema metadata {KEY.decode()!r} must be JSON: {error}, found {metadata[KEY][:40]!r}"
        ) from error
    about = storage.expect(document, kind=FORMAT, version=VERSION)
    for name, kind in (("model", str), ("n_experts", int), ("families", list), ("layer_ids", list)):
        storage.field(about, name, kind=kind)
    for name, inner in (("families", str), ("layer_ids", int)):
        if wrong := [value for value in about[name] if type(value) is not inner]:
            raise ValueError(f"metadata {name!r} must list {inner.__name__}, found {wrong[0]!r:.80}")
    return about


def layer_columns(schema: Any, layer_ids: list[int]) -> list[str]:
    """Names of the columns of the layers: one a layer of the metadata, no other."""
    named = [f"layer_{layer}" for layer in layer_ids]
    if missing := [name for name in named if name not in schema.names]:
        raise ValueError(f"column {missing[0]!r} is missing, found {schema.names}")
    if extra := [name for name in schema.names if name not in named and name not in TOKEN_COLUMNS]:
        raise ValueError(
            f"column {extra[0]!r} is neither one of {', '.join(TOKEN_COLUMNS)} "
            f"nor layer_<id> of the layers in the metadata: {layer_ids}"
        )
    if not named:
        raise ValueError("empty trace: metadata lists no layers")
    if twice := [name for name in (*named, *TOKEN_COLUMNS) if schema.names.count(name) > 1]:
        raise ValueError(f"column {twice[0]!r} must be there once, found {schema.names.count(twice[0])}")
    return named


def check_types(schema: Any, *, tokens: list[str], layers: list[str]) -> None:
    """Lists of integers, of one type, in the layers; integers in the token columns."""
    import pyarrow.types as kinds

    first = schema.field(layers[0]).type
    for name in layers:
        found = schema.field(name).type
        if not any(
            is_list(found) for is_list in (kinds.is_list, kinds.is_large_list, kinds.is_fixed_size_list)
        ):
            raise ValueError(f"column {name!r} must hold lists of integers, found {found}")
        if not kinds.is_integer(found.value_type):
            raise ValueError(f"column {name!r} must hold lists of integers, found {found}")
        if found.value_type != first.value_type:
            raise ValueError(f"column {name!r} must have the type of {layers[0]!r}, {first}, found {found}")
    for name in tokens:
        if not kinds.is_integer(found := schema.field(name).type):
            raise ValueError(f"column {name!r} must hold integers, found {found}")


def lists_of(name: str, column: Any) -> NDArray[Any]:
    """Integers [rows, k] of a column of lists."""
    import pyarrow.compute as pc

    whole = without_nulls(name, column)
    lengths = pc.list_value_length(whole)
    least, most = pc.min_max(lengths).as_py().values()
    if least != most:
        raise ValueError(f"column {name!r} must hold lists of one length, found {least}..{most}")
    values: NDArray[Any] = without_nulls(name, pc.list_flatten(whole)).to_numpy()
    return values.reshape(len(whole), most or 0)


def without_nulls(name: str, column: Any) -> Any:
    """The column itself; ValueError where a value is missing."""
    if column.null_count:
        raise ValueError(f"column {name!r} must have no nulls, found {column.null_count}")
    return column
