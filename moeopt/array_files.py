"""Arrays in `.npy` and `.npz` files: a header is held against the bytes there are before anything is allocated."""

import lzma
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

MAGIC = b"\x93NUMPY"
ZIP = b"PK\x03\x04"
FREE, RATIO = 1 << 26, 256  # bytes that any archive may unpack to; of a larger one, for each of its own
KINDS = "biufU"  # of numbers and text; records and pickled objects are none
DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    IndexError,
    MemoryError,
    OverflowError,
)


def array_header(file: IO[bytes], *, name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """(shape, column-major, type) of the `.npy` content that begins here; ValueError names the array."""
    try:
        version = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a header that Python 2 wrote is as good
            shape, fortran, dtype = read(file)
    except (
        ValueError,
        TypeError,
        LookupError,
        SyntaxError,
        RecursionError,
        TokenError,
        MemoryError,
    ) as error:
        raise ValueError(f"array {name!r:.80} has no readable header: {_line(error)}") from error
    if any(isinstance(axis, bool) or axis < 0 for axis in shape):
        raise ValueError(f"array {name!r:.80} has no readable header: shape {shape!r:.60}")
    if dtype.kind not in KINDS:
        raise ValueError(f"array {name!r} must hold numbers or text, not pickled, found dtype {dtype}")
    return shape, fortran, dtype


def array_content(file: IO[bytes], *, name: str, size: int) -> NDArray[Any]:
    """The array of a `.npy` file or member of `size` bytes, read-only; ValueError names what does not fit."""
    shape, fortran, dtype = array_header(file, name=name)
    needed, there = prod(shape) * max(dtype.itemsize, 1), size - file.tell()
    if needed != there:
        raise ValueError(
            f"array {name!r} of shape {shape} and dtype {dtype} needs {needed} bytes, found {there}"
        )
    content = file.read(there + 1)  # to the end, where the checksum of a member is compared
    if len(content) != needed:
        raise ValueError(f"array {name!r} ends after {len(content)} of {needed} bytes")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")


def read_npy(path: Path, *, limit: int) -> NDArray[Any]:
    """The array of a `.npy` file of at most `limit` bytes."""
    with path.open("rb") as file:
        size = path.stat().st_size
        if size > limit:
            raise ValueError(f"a .npy file may have {limit} bytes, found {size}")
        return array_content(file, name=path.name, size=size)


def member_names(path: Path) -> frozenset[str]:
    """Names of the arrays of an archive; none where it is damaged or no archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            return frozenset(_names(archive))
    except (*DAMAGED, ValueError, RuntimeError):
        return frozenset()


def read_npz(path: Path, names: Iterable[str], *, limit: int) -> dict[str, NDArray[Any]]:
    """The arrays of these names that an archive holds; `limit`: bytes that they may unpack to.

    They may take 64 MiB, or 256 times the size of the file: nobody's routes are so alike. Raises ValueError for a
    damaged archive, and names an array that is pickled or of another size than its header says.
    """
    with _archive(path) as archive:
        members = _names(archive)
        wanted = {name: members[name] for name in names if name in members}
        check_unpacked(wanted.values(), packed=path.stat().st_size, limit=limit)
        found = {}
        for name, info in wanted.items():
            with archive.open(info) as file:
                found[name] = array_content(file, name=name, size=info.file_size)
        return found


def check_unpacked(members: Iterable[zipfile.ZipInfo], *, packed: int, limit: int) -> None:
    """ValueError where members of an archive of `packed` bytes would take more than `limit`, or 256 times its size."""
    size, most = sum(info.file_size for info in members), min(limit, max(FREE, RATIO * packed))
    if size > most:
        raise ValueError(f"arrays must unpack to at most {most} bytes, found {size} in {packed}")


def integers(name: str, array: NDArray[Any], *, axes: int) -> NDArray[Any]:
    """The array itself where it holds integers with so many axes; ValueError names it otherwise."""
    if array.dtype.kind not in "iu" or array.ndim != axes:
        raise ValueError(
            f"array {name!r} must be integers with {axes} axes, found {array.dtype} of shape {array.shape}"
        )
    return array


def _line(error: Exception) -> str:
    """The text of an error of NumPy, on one line."""
    return " ".join(str(error).split())[:120]


def _names(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    return {info.filename.removesuffix(".npy"): info for info in archive.infolist()}


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except DAMAGED as error:
        raise ValueError(f"damaged or truncated npz archive: {str(error) or type(error).__name__}") from error
    except RuntimeError as error:  # encrypted, or a compression zipfile does not know
        raise ValueError(f"npz archive cannot be unpacked: {error}") from error
