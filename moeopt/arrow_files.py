"""JSONL files as tables of Arrow, and errors of Arrow as ValueErrors."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LONGEST = 1 << 26  # bytes of a line of JSONL


@contextmanager
def translated(kind: str) -> Iterator[None]:
    """Errors of pyarrow as ValueErrors that name the kind of file."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, OverflowError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"not {kind} of one kind: {first[:200]}") from error


def json_table(path: Path, first: Mapping[str, Any]) -> Any:
    """The table of a JSONL file whose objects have the fields and types of the `first` one, lines of 64 MiB at most.

    Raises ValueError for a field that is not in the first object, and for a value of another type.
    """
    import pyarrow as pa
    from pyarrow import json as arrow_json

    schema = pa.schema([(name, _type(name, value)) for name, value in first.items()])
    block = min(path.stat().st_size + 1, LONGEST)
    with translated("JSONL"):
        return arrow_json.read_json(
            path,
            read_options=arrow_json.ReadOptions(block_size=block),
            parse_options=arrow_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error"),
        )


def _type(name: str, value: Any) -> Any:
    """The type of Arrow of a value of JSON."""
    import pyarrow as pa

    if isinstance(value, str):
        return pa.string()
    if isinstance(value, int) and not isinstance(value, bool):
        return pa.int64()
    if isinstance(value, float):
        return pa.float64()
    if isinstance(value, list) and value:
        return pa.list_(_type(name, value[0]))
    raise ValueError(f"field {name!r:.60} must hold numbers, text or lists of them, found {value!r:.60}")
