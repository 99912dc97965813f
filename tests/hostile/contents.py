"""Bytes of the formats that files come in: arrays, archives, tensors, JSON; true ones and, where asked, lying ones."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from typing import Any

import numpy as np

from tests.torch_files import pickled, write_archive

MANY, DEEP = 10_000, 1_000_000  # how often malice repeats itself


def npy(array: np.ndarray[Any, Any], *, allow_pickle: bool = False) -> bytes:
    """A `.npy` file."""
    sink = io.BytesIO()
    np.save(sink, array, allow_pickle=allow_pickle)
    return sink.getvalue()


def npz(**arrays: Any) -> bytes:
    """A `.npz` archive; an array that is bytes is a member as it stands."""
    return zipped(
        {f"{name}.npy": a if isinstance(a, bytes) else npy(np.asarray(a)) for name, a in arrays.items()}
    )


def zipped(members: dict[str, bytes], *, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip archive."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return sink.getvalue()


def header(shape: str, descr: str = "'<i8'", *, content: bytes = bytes(16), version: int = 1) -> bytes:
    """A `.npy` content that declares shape and type, as text of Python."""
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + len(text).to_bytes(2 * version, "little") + text + content


def torch_file(content: Any) -> bytes:
    """What `torch.save` writes."""
    return archived(*pickled(content))


def archived(program: bytes, storages: dict[str, bytes] | None = None, **changes: Any) -> bytes:
    """A torch archive of any pickle."""
    sink = io.BytesIO()
    write_archive(sink, program, storages or {}, **changes)  # type: ignore[arg-type]
    return sink.getvalue()


def tensors(**counts: Any) -> bytes:
    """A file of safetensors, of int64."""
    about: dict[str, Any] = {}
    content = b""
    for name, count in counts.items():
        array = np.array(count, np.int64)
        begin, content = len(content), content + array.tobytes()
        about[name] = {"dtype": "I64", "shape": list(array.shape), "data_offsets": [begin, len(content)]}
    return framed(about, content)


def framed(about: Any, content: bytes = b"", *, length: int | None = None) -> bytes:
    """A file of safetensors with any header."""
    text = about if isinstance(about, bytes) else json.dumps(about).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + content


def encoded(document: Any) -> bytes:
    return json.dumps(document).encode()


def lines(*documents: Any) -> bytes:
    return b"".join(encoded(document) + b"\n" for document in documents)


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()
