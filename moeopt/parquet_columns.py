"""Columns of a trace in Parquet, checked before they are decoded: see `moeopt.readers.parquet` for the layout."""

import json
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from moeopt import storage

__all__ = [
    "FORMAT",
    "KEY",
    "TOKEN_COLUMNS",
    "VERSION",
    "check_pages",
    "check_types",
    "damage_named",
    "layer_columns",
    "lists_of",
    "metadata_of",
    "without_nulls",
]

KEY, FORMAT, VERSION = b"moeopt", "moeopt-trace", 1
TOKEN_COLUMNS = ("request", "position", "phase", "family")
MAGIC = b"PAR1"
FREE = 1 << 23  # values, and bytes divided by 8, that any file may hold; more only in proportion to its size
PER_BYTE = 32  # values of a byte of the file: real ids take half a byte at least
NESTED = 16  # structures of Thrift in one another


@contextmanager
def damage_named() -> Iterator[None]:
    """Errors of pyarrow as ValueErrors; it reports damage as OSError too."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, OverflowError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"damaged or truncated Parquet file: {first[:200]}") from error


def check_pages(path: Path) -> None:
    """Hold what the pages of a file would unpack to against its size, before pyarrow allocates it.

    Footers state sizes that pages need not keep, and a page of a few bytes may stand for 10^9 values, so the header of
    every page is read: 20 microseconds each. ValueError for a damaged one, and for a file that would unpack to more
    than 32 values, or 256 bytes, a byte. Source: apache/parquet-format, parquet.thrift and the compact protocol.
    """
    with path.open("rb") as file:
        if (size := path.stat().st_size) < 12:
            raise ValueError(f"damaged or truncated Parquet file: {size} bytes")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            try:
                values, unpacked = _unpacked(content)
            except (LookupError, TypeError) as error:
                raise ValueError("damaged or truncated Parquet file: footer or page header") from error
    most = max(FREE, PER_BYTE * size)
    if values > most or unpacked > 8 * most:
        raise ValueError(
            f"{size} bytes may unpack to {most} values and {8 * most} bytes, found {values} and {unpacked}"
        )


def _unpacked(content: mmap.mmap) -> tuple[int, int]:
    """(values, bytes) of all pages, by their headers."""
    length = int.from_bytes(content[-8:-4], "little")
    if content[-4:] != MAGIC or length > len(content) - 12:
        raise ValueError(
            f"damaged or truncated Parquet file: a footer of {length} bytes, found {content[-4:]!r}"
        )
    footer, _ = _struct(content, len(content) - 8 - length)
    values = unpacked = walked = 0
    for group in footer.get(4, []):
        for chunk in group[1]:
            about = chunk[3]
            at = min(about[9], about.get(11) or about[9])
            left = about[5]
            while left > 0:
                page, begin = _struct(content, at)
                count = page[5][1] if 5 in page else page[8][1] if 8 in page else 0
                if page[2] < 0 or page[3] < 0 or count < 0:
                    raise ValueError("damaged or truncated Parquet file: a page of negative size")
                values, unpacked, left = values + count, unpacked + page[2], left - count
                walked += begin + page[3] - at
                if walked > len(content):
                    raise ValueError("damaged or truncated Parquet file: pages of two columns overlap")
                at = begin + page[3]
    return values, unpacked


def _struct(content: mmap.mmap, at: int, depth: int = 0) -> tuple[dict[int, Any], int]:
    """(fields by number, end) of a structure of Thrift; IndexError behind the end of the file."""
    fields: dict[int, Any] = {}
    number = 0
    if at < 0 or depth > NESTED:
        raise IndexError(at)
    while (head := content[at]) != 0:
        at += 1
        kind = head & 15
        if head >> 4:
            number += head >> 4
        else:
            number, at = _number(content, at)
        if kind in (1, 2):
            fields[number] = kind == 1
        else:
            fields[number], at = _value(content, at, kind, depth)
    return fields, at + 1


def _value(content: mmap.mmap, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in (1, 2, 3):  # a boolean of a list, or a byte
        return content[at], at + 1
    if kind in (4, 5, 6):
        return _number(content, at)
    if kind == 7:
        return None, _within(content, at + 8)
    if kind == 8:
        size, at = _natural(content, at)
        return None, _within(content, at + size)
    if kind == 9:
        size, inner, at = content[at] >> 4, content[at] & 15, at + 1
        if size == 15:
            size, at = _natural(content, at)
        if depth > NESTED:
            raise IndexError(at)
        _within(content, at + size)  # every member takes a byte at least
        found = []
        for _ in range(size):
            one, at = _value(content, at, inner, depth + 1)
            found.append(one)
        return found, at
    if kind == 12:
        return _struct(content, at, depth + 1)
    raise IndexError(kind)  # sets and maps, of which the format has none


def _within(content: mmap.mmap, end: int) -> int:
    """`end`; IndexError where it lies behind the end of the file."""
    if end > len(content):
        raise IndexError(end)
    return end


def _natural(content: mmap.mmap, at: int) -> tuple[int, int]:
    found = shift = 0
    while (byte := content[at]) & 128:
        found |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if shift > 63:
            raise IndexError(shift)
    return found | byte << shift, at + 1


def _number(content: mmap.mmap, at: int) -> tuple[int, int]:
    found, at = _natural(content, at)
    return (found >> 1) ^ -(found & 1), at


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
