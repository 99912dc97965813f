"""Files of `torch.save` (`.pt`, the zip format of torch 1.6 and later) read without torch, and without running code.

| member | holds |
|---|---|
| <name>/data.pkl | the pickle of the content; see `moeopt.plain_pickle` for what it may say |
| <name>/data/<key> | the bytes of one storage, not compressed |
| <name>/byteorder | "little"; absent before torch 2.1 |

Other members (version, serialization id) are not read. Source: torch 2.x, torch/serialization.py, torch/_utils.py.
"""

import io
import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from moeopt.pickle_machine import Budget, Named
from moeopt.plain_pickle import read_pickle

__all__ = ["opening", "read_archive"]

STORAGES = {
    "ByteStorage": "uint8",
    "CharStorage": "int8",
    "ShortStorage": "int16",
    "IntStorage": "int32",
    "LongStorage": "int64",
    "BoolStorage": "bool",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
}
DTYPES = (*STORAGES.values(), "uint16", "uint32", "uint64")  # the last three are saved untyped
STORED = {"bool": "u1", "bfloat16": "<u2"}  # how NumPy reads what it has no name for
DIRECTORY = 16 * 2**20  # bytes of the list of members, and of one step of reading
LARGEST = 1 << 46  # of a size, stride or offset
AXES = 32
ENCRYPTED = 1
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    IndexError,
    OSError,
    OverflowError,
    RuntimeError,
)
PLAIN = (
    "a file of the torch.save of old, or a plain pickle, runs code when it is read: save it again, with "
    "torch.save(torch.load(path, weights_only=True), path) of torch 1.6 or later"
)


def read_archive(path: Path, *, limit: int = 8 * 2**30) -> Any:
    """What was saved: dicts (OrderedDict too), lists, tuples (torch.Size too), numbers, text, None, tensors as arrays.

    Arrays are read-only, in C order, bfloat16 widened to float32; torch dtypes are text ("torch.int64"). `limit`: bytes
    of memory that all of it may take. ValueError says what else was found: any other name in the pickle, a storage that
    is not as declared, a view outside its storage, members that are compressed, encrypted, repeated or overlap.
    """
    if (size := path.stat().st_size) > limit:
        raise ValueError(f"a torch archive may have {limit} bytes, found {size}")
    with path.open("rb") as start:
        if start.read(2) != b"PK":
            raise ValueError(PLAIN)
    budget = Budget(limit)
    try:
        with _Steps(path) as file, zipfile.ZipFile(file) as archive:
            members = _members(archive)
            root = _root(members)
            if _bytes(archive, members.get(f"{root}/byteorder"), limit=16) not in (b"", b"little"):
                raise ValueError("storages must be little-endian, found another byteorder")
            storages = _Storages(archive, members, root, budget, {})
            program = _bytes(archive, members[f"{root}/data.pkl"], limit=limit)
            budget.charge(len(program))
            return read_pickle(program, names=storages.names(), persistent=storages.find, budget=budget)
    except DAMAGE as error:
        raise ValueError(f"damaged or truncated torch archive: {error}") from error


def opening(path: Path, *, length: int = 65_536) -> bytes:
    """The first bytes of the pickle of a torch archive, nothing of any other file; raises nothing."""
    try:
        with _Steps(path) as file, zipfile.ZipFile(file) as archive:
            for name in archive.namelist():
                if name.partition("/")[2] == "data.pkl":
                    with archive.open(name) as pickled:
                        return pickled.read(length)
    except (*DAMAGE, ValueError):
        pass
    return b""


class _Steps(io.FileIO):
    """A file that is not read in steps larger than a list of members may be."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > DIRECTORY:
            raise ValueError(f"the list of members may have {DIRECTORY} bytes, found {size}")
        return super().read(-1 if size is None else size) or b""


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Members by name: stored as they are, each once, none over another."""
    found: dict[str, zipfile.ZipInfo] = {}
    end = 0
    for info in sorted(archive.infolist(), key=lambda member: member.header_offset):
        name = f"member {info.filename!r:.80}"
        if info.filename in found:
            raise ValueError(f"{name} must be there once, found another")
        if info.flag_bits & ENCRYPTED:
            raise ValueError(f"{name} must not be encrypted")
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise ValueError(
                f"{name} must not be compressed, found {info.file_size} bytes as {info.compress_size}"
            )
        if info.header_offset < end:
            raise ValueError(f"{name} starts at byte {info.header_offset}, inside another that ends at {end}")
        end = info.header_offset + 30 + len(info.filename.encode()) + info.file_size
        found[info.filename] = info
    if end > archive.start_dir:
        raise ValueError(f"members end at byte {end}, inside their list, which starts at {archive.start_dir}")
    return found


def _root(members: dict[str, zipfile.ZipInfo]) -> str:
    """The folder that all members are in."""
    roots = {name.partition("/")[0] for name in members}
    if len(roots) != 1 or f"{(root := roots.pop())}/data.pkl" not in members:
        raise ValueError("a torch archive has one folder with data.pkl in it, found none")
    return root


def _bytes(archive: zipfile.ZipFile, info: zipfile.ZipInfo | None, *, limit: int) -> bytes:
    """A whole member; nothing where it is absent."""
    if info is None:
        return b""
    if info.file_size > limit:
        raise ValueError(f"member {info.filename!r:.80} may have {limit} bytes, found {info.file_size}")
    with archive.open(info) as file:
        return b"".join(iter(partial(file.read, DIRECTORY), b""))


@dataclass(frozen=True)
class _Storage:
    """Bytes of a storage, and the type of what they hold ("" where it says none)."""

    content: NDArray[np.uint8]
    dtype: str


@dataclass(frozen=True)
class _Storages:
    """The storages of an archive, each read when the pickle first asks for it."""

    archive: zipfile.ZipFile
    members: dict[str, zipfile.ZipInfo]
    root: str
    budget: Budget
    read: dict[str, NDArray[np.uint8]]

    def find(self, reference: Any) -> _Storage:
        """The storage of ("storage", its type, key, device, number of elements)."""
        match reference:
            case ("storage", Named(name=name), str(key), str(), int(count)) if "Storage" in name:
                dtype = STORAGES.get(name.rpartition(".")[2], "")
            case _:
                raise ValueError("a persistent id must be of a storage, found another")
        member = self.members.get(f"{self.root}/data/{key}")
        if member is None:
            raise ValueError(f"storage {key!r:.40} has no member")
        if member.file_size != count * (width := _stored(dtype).itemsize):
            raise ValueError(
                f"storage {key!r:.40} of {count} elements of {width} bytes, found {member.file_size} bytes"
            )
        if key not in self.read:
            self.read[key] = self._content(member)
        return _Storage(self.read[key], dtype)

    def _content(self, member: zipfile.ZipInfo) -> NDArray[np.uint8]:
        self.budget.charge(member.file_size)
        content = np.empty(member.file_size, np.uint8)
        at = 0
        with self.archive.open(member) as file:
            while step := file.read(DIRECTORY):
                content[at : at + len(step)] = np.frombuffer(step, np.uint8)
                at += len(step)
        if at != len(content):
            raise ValueError(f"member {member.filename!r:.80} of {len(content)} bytes, found {at}")
        return content

    def names(self) -> dict[str, Any]:
        """What a pickle may name."""
        called: dict[str, Callable[..., Any]] = {
            "collections.OrderedDict": _ordered,
            "torch.Size": _size,
            "torch._utils._rebuild_tensor_v2": self.tensor,
            "torch._utils._rebuild_tensor_v3": self.typed_tensor,
        }
        typed = [f"torch.{name}" for name in STORAGES]
        untyped = ["torch.UntypedStorage", "torch.storage.UntypedStorage"]
        return (
            {name: Named(name, call) for name, call in called.items()}
            | {name: Named(name) for name in (*typed, *untyped)}
            | {f"torch.{name}": f"torch.{name}" for name in DTYPES}
        )

    def tensor(
        self, storage: Any, offset: Any, size: Any, stride: Any, *rest: Any, dtype: str = ""
    ) -> NDArray[Any]:
        """A view of a storage; `rest`: requires_grad, hooks and metadata, which are of no matter to an array."""
        if not isinstance(storage, _Storage) or not (dtype or storage.dtype) or len(rest) > 3:
            raise ValueError("a tensor is made of a storage with a type, found another")
        if rest[2:] not in ((), (None,), ({},)):
            raise ValueError("a tensor must be neither conjugated nor negated, found metadata")
        kind = dtype or storage.dtype
        form = _stored(kind)
        shape, steps = _size(size), _size(stride)
        if len(steps) != len(shape) or not _natural(offset):
            raise ValueError(f"a tensor of {len(shape)} axes needs as many strides, and an offset")
        elements = len(storage.content) // form.itemsize
        last = offset + sum((n - 1) * step for n, step in zip(shape, steps, strict=True))
        if (count := prod(shape)) and last >= elements:
            raise ValueError(f"a tensor reaches element {last} of a storage of {elements}")
        if prod(max(n, 1) for n in shape) >= LARGEST:
            raise ValueError(f"a tensor must have less than 2^46 elements, found shape {shape}")
        if not count:
            return _widened(np.empty(shape, form), kind)
        flat = storage.content[: elements * form.itemsize].view(form)
        strides = [step * form.itemsize for step in steps]
        view = np.lib.stride_tricks.as_strided(flat[offset:], shape, strides, writeable=False)
        wide = 4 if kind == "bfloat16" else form.itemsize
        if not view.flags.c_contiguous or kind in STORED:
            self.budget.charge(count * wide)
        return _widened(np.ascontiguousarray(view).reshape(shape), kind)

    def typed_tensor(
        self, storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *rest: Any
    ) -> NDArray[Any]:
        """A view of an untyped storage."""
        if not isinstance(dtype, str) or (name := dtype.removeprefix("torch.")) not in DTYPES:
            raise ValueError(f"a tensor's type must be one of {', '.join(DTYPES)}, found another")
        return self.tensor(storage, offset, size, stride, grad, hooks, *rest, dtype=name)


def _stored(dtype: str) -> np.dtype[Any]:
    """The type in which NumPy reads it; bytes where there is none."""
    return np.dtype(STORED.get(dtype, dtype or "u1")).newbyteorder("<")


def _widened(array: NDArray[Any], dtype: str) -> NDArray[Any]:
    if dtype == "bool":
        array = array != 0
    elif dtype == "bfloat16":
        array = (array.astype(np.uint32) << 16).view(np.float32)
    array.setflags(write=False)
    return array


def _natural(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value < LARGEST


def _size(numbers: Any = ()) -> tuple[int, ...]:
    """Whole numbers from 0 on, one an axis."""
    if not isinstance(numbers, list | tuple) or len(numbers) > AXES or not all(map(_natural, numbers)):
        raise ValueError(f"sizes and strides are at most {AXES} whole numbers from 0 to 2^46, found others")
    return tuple(cast(Sequence[int], numbers))


def _ordered() -> dict[Any, Any]:
    return {}
