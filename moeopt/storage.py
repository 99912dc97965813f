"""Documents on disk: JSON with a format and a version, read with named errors, written whole or not at all."""

import json
import os
import re
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

PathLike = str | os.PathLike[str]
LIMIT = 1 << 30  # bytes of a document


def write_bytes(path: PathLike, content: bytes) -> None:
    """Write `content` to a temporary neighbour of `path` and rename it, so that no reader sees half a file.

    Raises ValueError naming the file when it cannot be written.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise ValueError(f"{target}: folder {target.parent} does not exist")
    try:
        _replace(target, content)
    except OSError as error:
        raise ValueError(f"{target}: cannot be written: {error.strerror or error}") from error


def _replace(target: Path, content: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise


def write_json(path: PathLike, document: Mapping[str, Any]) -> None:
    """Write one JSON document, integers exact, NaN refused."""
    write_bytes(path, (json.dumps(document, default=plain, allow_nan=False) + "\n").encode())


def read_json(
    path: PathLike, *, kind: str, version: int = 1, other_kinds: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Read the document of format `kind`, or one of the others; ValueError names the file and what is wrong with it."""
    try:
        about = Path(path).stat()
        if not stat.S_ISREG(about.st_mode) and not stat.S_ISDIR(about.st_mode):
            raise ValueError(f"{path}: a document is a regular file, found something else")
        if about.st_size > LIMIT:
            raise ValueError(f"{path}: a document may have {LIMIT} bytes, found {about.st_size}")
        text = Path(path).read_text(encoding="utf-8-sig")  # some editors write a mark before UTF-8
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not JSON: {error}") from error
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON: {error}") from error
    try:
        found = document.get("format") if isinstance(document, dict) else None
        return expect(document, kind=found if found in other_kinds else kind, version=version)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def expect(document: object, *, kind: str, version: int = 1) -> dict[str, Any]:
    """`document` itself when it is a JSON object of this format and version."""
    if not isinstance(document, dict):
        raise ValueError(f"expected a JSON object of format {kind!r}, found {type(document).__name__}")
    if document.get("format") != kind:
        raise ValueError(f"format must be {kind!r}, found {document.get('format')!r:.80}")
    if type(document.get("version")) is not int or document["version"] != version:
        raise ValueError(f"version of {kind} must be {version}, found {document.get('version')!r:.80}")
    return cast(dict[str, Any], document)


def has_field(content: bytes, name: str) -> bool:
    """Whether a JSON document, or its beginning, names such a field at any depth; a text of that name is none."""
    return re.search(rf'"{re.escape(name)}"\s*:'.encode(), content) is not None


def field(document: Mapping[str, Any], name: str, *, kind: type | tuple[type, ...]) -> Any:
    """One field of a document, its type checked; bool does not pass for int."""
    if name not in document:
        raise ValueError(f"field {name!r} is missing")
    value = document[name]
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise ValueError(
            f"field {name!r} must be {' or '.join(k.__name__ for k in kinds)}, found {value!r:.80}"
        )
    return value


def whole_numbers(document: Mapping[str, Any], name: str, *, dtype: type = np.int64) -> NDArray[Any]:
    """One field of a document, nested lists of whole numbers, as an array; ValueError for anything else."""
    try:
        found = np.array(field(document, name, kind=list))
    except ValueError as error:
        raise ValueError(f"{name} must be lists of one length: {error}") from error
    limits = np.iinfo(dtype)
    if _holds_bool(document[name]):  # NumPy takes them for 0 and 1
        raise ValueError(f"{name} must hold whole numbers, found true or false")
    if found.size and (found.dtype.kind != "i" or found.min() < limits.min or found.max() > limits.max):
        raise ValueError(f"{name} must hold whole numbers of {limits.bits} bits, found dtype {found.dtype}")
    return found.astype(dtype)


def plain(value: object) -> object:
    """NumPy values as the Python values JSON knows."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _holds_bool(value: object) -> bool:
    return isinstance(value, bool) or (isinstance(value, list) and any(map(_holds_bool, value)))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
