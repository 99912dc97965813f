"""Files as `torch.save` writes them, without torch."""

from __future__ import annotations

import io
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

STORAGE_OF = {
    "uint8": "ByteStorage",
    "int8": "CharStorage",
    "int16": "ShortStorage",
    "int32": "IntStorage",
    "int64": "LongStorage",
    "bool": "BoolStorage",
    "float16": "HalfStorage",
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
}


@dataclass(frozen=True)
class Name:
    """What a GLOBAL names."""

    module: str
    name: str

    def __call__(self) -> None:
        """Nothing: pickle wants what it reduces to be callable."""


@dataclass(frozen=True)
class Stored:
    """A storage, by the name of its type and its bytes."""

    kind: Name
    content: bytes
    elements: int


@dataclass(frozen=True)
class Tensor:
    """A view of a storage, right or wrong; `dtype` for those of `_rebuild_tensor_v3`."""

    storage: Any
    offset: Any
    size: Any
    stride: Any
    dtype: str = ""
    metadata: Any = None


def storage(array: NDArray[Any]) -> Stored:
    """The storage of all elements of an array."""
    kind = STORAGE_OF.get(array.dtype.name)
    content = np.ascontiguousarray(array).tobytes()
    if kind is None:
        return Stored(Name("torch.storage", "UntypedStorage"), content, len(content))
    return Stored(Name("torch", kind), content, array.size)


def tensor(array: NDArray[Any]) -> Tensor:
    """An array as torch keeps it: a storage of its own, in C order."""
    strides = tuple(step // array.itemsize for step in np.ascontiguousarray(array).strides)[: array.ndim]
    dtype = "" if array.dtype.name in STORAGE_OF else array.dtype.name
    return Tensor(storage(array), 0, array.shape, strides, dtype)


class _Pickler(pickle._Pickler):
    """Arrays as tensors; storages by persistent id; names that need not exist here."""

    def __init__(self, file: io.BytesIO, protocol: int) -> None:
        super().__init__(file, protocol)
        self.storages: dict[int, tuple[str, Stored]] = {}

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if isinstance(obj, Name):
            self.write(f"c{obj.module}\n{obj.name}\n".encode())  # type: ignore[attr-defined]
        else:
            super().save(obj, save_persistent_id)  # type: ignore[misc]

    def persistent_id(self, obj: Any) -> Any:
        if not isinstance(obj, Stored):
            return None
        key, _ = self.storages.setdefault(id(obj), (str(len(self.storages)), obj))
        return ("storage", obj.kind, key, "cpu", obj.elements)

    def reducer_override(self, obj: Any) -> Any:
        view = tensor(obj) if isinstance(obj, np.ndarray) else obj
        if not isinstance(view, Tensor):
            return NotImplemented
        hooks: Any = Ordered()
        arguments = (view.storage, view.offset, view.size, view.stride, False, hooks)
        tail = () if view.metadata is None else (view.metadata,)
        if view.dtype:
            return Name("torch._utils", "_rebuild_tensor_v3"), (
                *arguments,
                Name("torch", view.dtype),
                *tail,
            )
        return Name("torch._utils", "_rebuild_tensor_v2"), arguments + tail


class Ordered:
    """An empty OrderedDict as pickle writes it."""

    def __reduce__(self) -> Any:
        return Name("collections", "OrderedDict"), ()


def pickled(content: Any, *, protocol: int = 2) -> tuple[bytes, dict[str, bytes]]:
    """The pickle of what torch would save, and the storages by their keys."""
    sink = io.BytesIO()
    pickler = _Pickler(sink, protocol)
    pickler.dump(content)
    return sink.getvalue(), {key: one.content for key, one in pickler.storages.values()}


def write_archive(path: Path, program: bytes, storages: dict[str, bytes], **changes: Any) -> Path:
    """An archive of a pickle and storages; `changes`: other members, or None for one left out; `root`, its folder."""
    root = changes.pop("root", "archive")
    members = {"data.pkl": program, "byteorder": b"little", "version": b"3\n"}
    members |= {f"data/{key}": content for key, content in storages.items()} | changes
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            if content is not None:
                archive.writestr(f"{root}/{name}", content)
    return path


def save(content: Any, path: Path, *, protocol: int = 2) -> Path:
    """`torch.save(content, path)` where arrays stand for tensors."""
    return write_archive(path, *pickled(content, protocol=protocol))
