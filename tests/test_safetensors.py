"""Files of safetensors come back as they were; files that lie are refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeopt.safetensors import DTYPES, read_tensors


def encoded(tensors: dict[str, np.ndarray[Any, Any]], **more: Any) -> bytes:
    """A file of safetensors."""
    names = {np.dtype(code): name for name, code in DTYPES.items()}
    header: dict[str, Any] = {}
    content = b""
    for name, array in tensors.items():
        start = len(content)
        content += array.tobytes()
        header[name] = {
            "dtype": names[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [start, len(content)],
        }
    return framed(json.dumps(header | more).encode(), content)


def framed(header: bytes, content: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + content


arrays = st.builds(
    lambda seed, code, shape: np.random.default_rng(seed).integers(0, 9, shape).astype(code),
    st.integers(0, 99),
    st.sampled_from([*DTYPES.values()]),
    st.lists(st.integers(0, 3), max_size=3),
)


@settings(max_examples=100, deadline=None)
@given(tensors=st.dictionaries(st.text(max_size=5), arrays, max_size=4))
def test_tensors_come_back_as_they_were(
    tensors: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "x.safetensors"
    path.write_bytes(encoded(tensors))
    found = read_tensors(path)
    assert {*found} == {*tensors}
    for name, array in tensors.items():
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name], array)
        assert not found[name].flags.writeable


def one(**changes: Any) -> bytes:
    """The header of one tensor of 4 bytes."""
    return json.dumps({"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]} | changes}).encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the header must have 2 to -8 bytes, its length is given as 0"),
        (b"\xff" * 8 + b"{}", "its length is given as 18446744073709551615"),
        (framed(b"[]"), "the header must be a JSON object, found b'\\[\\]'"),
        (framed(b'{"a":'), "the header is not JSON of distinct names"),
        (framed(b'{"a":' * 100_000), "the header is not JSON of distinct names"),
        (framed(b'{"a": 1, "a": 1}'), "a name is there twice"),
        (framed(b'{"a": 1}'), r"tensor 'a' must say data_offsets \[begin, end\]"),
        (framed(one(data_offsets=[0]), b"1234"), "must say data_offsets"),
        (framed(one(data_offsets=[0, 4.0]), b"1234"), "must say data_offsets"),
        (framed(one(data_offsets=[4, 0]), b"1234"), "must say data_offsets"),
        (framed(one(data_offsets=[-4, 0]), b"1234"), "must say data_offsets"),
        (framed(one(data_offsets=[1, 5]), b"12345"), "starts at byte 1, the one before ends at 0"),
        (framed(one(), b"123"), "needs 4 bytes, data_offsets give 4, the file has 3"),
        (framed(one(), b"12345"), "tensors end at byte 4, the file at byte 5"),
        (framed(one(data_offsets=[0, 3]), b"1234"), "needs 4 bytes, data_offsets give 3"),
        (framed(one(data_offsets=[0, 2**62]), b"1234"), "the file has 4"),
        (framed(one(shape=[2**40]), b"1234"), "needs 1099511627776 bytes"),
        (framed(one(shape=[-4]), b"1234"), "shape of at most 32 whole numbers"),
        (framed(one(shape=[4.0]), b"1234"), "shape of at most 32 whole numbers"),
        (framed(one(shape=[1] * 33), b"1234"), "shape of at most 32 whole numbers"),
        (framed(one(shape=None), b"1234"), "shape of at most 32 whole numbers"),
        (framed(one(shape=[0, 2**40, 2**40], data_offsets=[0, 0])), r"less than 2\^46 elements"),
        (framed(one(dtype="F8_E4M3"), b"1234"), "must be of dtype U8, .* found 'F8_E4M3'"),
        (framed(one(dtype=["U8"]), b"1234"), r"found \['U8'\]"),
        (
            framed(
                b'{"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}, '
                b'"b": {"dtype": "U8", "shape": [4], "data_offsets": [2, 6]}}',
                b"123456",
            ),
            "tensor 'b' starts at byte 2, the one before ends at 4",
        ),
    ],
)
def test_files_of_tensors_that_lie_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_tensors(path)


def test_a_file_of_tensors_past_the_limit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(encoded({"a": np.zeros(100, np.int64)}))
    with pytest.raises(ValueError, match="a file of tensors may have 99 bytes, found 8"):
        read_tensors(path, limit=99)


def test_what_the_package_itself_writes_is_read(tmp_path: Path) -> None:
    package = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "x.safetensors"
    tensors = {code: np.arange(6).astype(code).reshape(2, 3) for code in DTYPES.values()}
    package.save_file(tensors, path, metadata={"a": "b"})
    found = read_tensors(path)
    assert {*found} == {*tensors}
    for name, array in tensors.items():
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name], array)
