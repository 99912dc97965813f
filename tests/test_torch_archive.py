"""What torch saves is read as it was; what is hostile is refused by name, soon and in little memory."""

from __future__ import annotations

import pickle
import struct
import time
import tracemalloc
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeopt.torch_archive import opening, read_archive
from tests.torch_files import Name, Stored, Tensor, pickled, save, storage, write_archive

TYPED = ("uint8", "int8", "int16", "int32", "int64", "bool", "float16", "float32", "float64")
DTYPES = (*TYPED, "uint16", "uint32", "uint64")
FLOATS = storage(np.arange(6, dtype=np.float32))


@st.composite
def views(draw: st.DrawFn) -> tuple[np.ndarray[Any, Any], Tensor]:
    """A storage and any view of it that torch allows, strides of 0 and repeated elements included."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    size = draw(st.lists(st.integers(0, 4), max_size=4))
    stride = [draw(st.integers(0, 5)) for _ in size]
    offset = draw(st.integers(0, 3))
    last = offset + sum(max(n - 1, 0) * step for n, step in zip(size, stride, strict=True))
    flat = rng.integers(0, 2, last + 1 + draw(st.integers(0, 2))).astype(dtype)
    view = np.lib.stride_tricks.as_strided(
        flat[offset:], size, [step * dtype.itemsize for step in stride], writeable=False
    )
    held = storage(flat)
    typed = dtype.name if "Untyped" in held.kind.name else ""
    return view, Tensor(held, offset, tuple(size), tuple(stride), typed)


@settings(max_examples=200, deadline=None)
@given(view=views(), protocol=st.integers(2, 5))
def test_any_view_of_any_type_comes_back_as_the_array_it_shows(
    view: tuple[np.ndarray[Any, Any], Tensor], protocol: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    expected, tensor = view
    found = read_archive(
        save([tensor], tmp_path_factory.getbasetemp() / "view.pt", protocol=protocol), limit=1 << 20
    )[0]
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert found.flags.c_contiguous
    assert not found.flags.writeable
    assert np.array_equal(found, expected)


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=300),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.text(max_size=4) | st.integers(0, 9), inner, max_size=4)
        | st.lists(inner, max_size=5).map(tuple)
    ),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None)
@given(content=plain, protocol=st.integers(2, 5))
def test_plain_content_comes_back_as_it_was(
    content: Any, protocol: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "plain.pt"
    assert read_archive(save(content, path, protocol=protocol), limit=1 << 22) == content


def test_long_lists_and_shared_values_come_back(tmp_path: Path) -> None:
    shared = [1, {"a": (2,)}]
    content = {"ids": list(range(70_000)), "twice": [shared, shared], "ordered": OrderedDict(b=1, a=2)}
    found = read_archive(save(content, tmp_path / "x.pt"))
    assert found == content
    assert list(found["ordered"]) == ["b", "a"]


def test_two_views_of_one_storage_share_its_bytes(tmp_path: Path) -> None:
    path = save([Tensor(FLOATS, 0, (6,), (1,)), Tensor(FLOATS, 1, (2,), (2,))], tmp_path / "x.pt")
    whole, part = read_archive(path)
    assert whole.tolist() == [0, 1, 2, 3, 4, 5]
    assert part.tolist() == [1, 3]


def test_bfloat16_is_widened_and_sizes_and_types_are_read(tmp_path: Path) -> None:
    values = np.array([1.0, -2.5, 3e38, np.inf], np.float32)
    half = Stored(Name("torch", "BFloat16Storage"), (values.view(np.uint32) >> 16).astype("<u2").tobytes(), 4)
    program = b"\x80\x02]q\x00(ctorch\nSize\nK\x02K\x03\x86\x85Rctorch\nint64\ne."
    path = write_archive(tmp_path / "x.pt", program, {})
    assert read_archive(path) == [(2, 3), "torch.int64"]
    found = read_archive(save(Tensor(half, 0, (4,), (1,)), path))
    assert found.dtype == np.float32
    assert np.allclose(found, values, rtol=1e-2)


def test_a_file_before_torch_2_1_does_not_say_its_byteorder(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "x.pt", *pickled(np.arange(3)), byteorder=None)
    assert read_archive(path).tolist() == [0, 1, 2]


def test_the_opening_of_a_pickle_is_seen_and_of_other_files_nothing(tmp_path: Path) -> None:
    path = save({"logical_count": 1}, tmp_path / "x.pt")
    assert b"logical_count" in opening(path)
    assert opening(path, length=5) == opening(path)[:5]
    for length in range(0, path.stat().st_size, 7):
        (tmp_path / "cut").write_bytes(path.read_bytes()[:length])
        assert opening(tmp_path / "cut") == b""
    assert opening(tmp_path / "absent") == b""
    assert opening(tmp_path) == b""


SYSTEM = b"cos\nsystem\n"
LIST = b"\x80\x02]"
STRING = b"X\x01\x00\x00\x00a"


def laughs(levels: int) -> bytes:
    """Lists that each hold the one before ten times."""
    program = b"\x80\x02]q\x00"
    for level in range(levels):
        program += b"](" + b"h" + bytes([level])
        program += (b"h" + bytes([level])) * 9 + b"eq" + bytes([level + 1])
    return program + b"."


HOSTILE: dict[str, tuple[bytes, str]] = {
    "a function of the system": (b"\x80\x02" + SYSTEM + b"X\x02\x00\x00\x00id\x85R.", r"found 'os\.system'"),
    "a builtin": (b"\x80\x02cbuiltins\neval\nX\x01\x00\x00\x001\x85R.", r"found 'builtins\.eval'"),
    "one of torch that is not on the list": (b"\x80\x02ctorch\nload\n.", r"found 'torch\.load'"),
    "a dotted way out": (
        b"\x80\x02ctorch\nstorage.os.system\n.",
        r"found 'torch\.storage\.os\.system'",
    ),
    "a name from the stack": (
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02id\x85R.",
        r"found 'os\.system'",
    ),
    "a name from the stack that is none": (b"\x80\x04K\x01K\x02\x93.", "found int in the wrong place"),
    "a call within a call": (b"\x80\x02" + SYSTEM + SYSTEM + b"\x85R\x85R.", r"found 'os\.system'"),
    "a call of a string": (b"\x80\x02" + STRING + b")R.", "may be called, found str"),
    "a call of a storage type": (b"\x80\x02ctorch\nLongStorage\n)R.", r"found torch\.LongStorage"),
    "a call with other arguments": (
        b"\x80\x02ccollections\nOrderedDict\nK\x01\x85R.",
        "OrderedDict takes no 1 arg",
    ),
    "a call without a tuple": (b"\x80\x02ccollections\nOrderedDict\n]R.", "found list in the wrong place"),
    "an instance": (b"\x80\x02(ios\nsystem\n.", r"opcode INST \(0x69\) has no place"),
    "an object": (b"\x80\x02(" + SYSTEM + b"o.", r"found 'os\.system'"),
    "a new object": (b"\x80\x02ccollections\nOrderedDict\n)\x81.", r"opcode NEWOBJ \(0x81\)"),
    "a state": (b"\x80\x02ccollections\nOrderedDict\n)R}b.", r"opcode BUILD \(0x62\)"),
    "an extension": (b"\x80\x02\x82\x01.", r"opcode EXT1 \(0x82\)"),
    "a wider extension": (b"\x80\x02\x84\x01\x00\x00\x00.", r"opcode EXT4 \(0x84\)"),
    "a text persistent id": (b"\x80\x02Pos.system\n.", r"opcode PERSID \(0x50\)"),
    "a duplicate on the stack": (LIST + b"2a.", r"opcode DUP \(0x32\)"),
    "bytes of a terabyte": (b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b".", r"opcode BYTEARRAY8"),
    "a whole number of a gigabyte": (b"\x80\x02\x8b\xff\xff\xff\x3f.", r"opcode LONG4"),
    "a whole number of 255 bytes": (b"\x80\x02\x8a\xff" + b"\x7f" * 255 + b".", "8 bytes, found 255"),
    "a whole number as text": (b"\x80\x02I" + b"9" * 5_000 + b"\n.", r"opcode INT \(0x49\)"),
    "text of 4 GB": (b"\x80\x02X\xff\xff\xff\xffa.", "truncated pickle: 4294967295 bytes are to follow"),
    "text of 2^63 bytes": (b"\x80\x04\x8d" + b"\xff" * 8 + b"a.", "truncated pickle: 18446744073709551615"),
    "a frame of 2^63 bytes": (b"\x80\x04\x95" + b"\xff" * 8 + b".", "a frame of 18446744073709551615"),
    "text that is no text": (b"\x80\x02X\x02\x00\x00\x00\xff\xfe.", "utf-8"),
    "a memo of 4 billion entries": (LIST + b"r\xff\xff\xff\xffj\xfe\xff\xff\xff.", "memo entry 4294967294"),
    "a list within itself": (LIST + b"q\x00h\x00a.", "must not contain itself"),
    "a dict within itself": (b"\x80\x02}q\x00" + STRING + b"h\x00s.", "must not contain itself"),
    "ten to the twelfth": (laughs(12), "content must be of at most 67108864 values in 64 levels"),
    "lists in lists in lists": (
        b"\x80\x02" + b"]" * 1000 + b"a" * 999 + b".",
        "in 64 levels, found 64 in 65",
    ),
    "tuples in tuples": (b"\x80\x02)" + b"\x85" * 1000 + b".", "in 64 levels, found 64 in 65"),
    "a million marks": (b"\x80\x02" + b"(" * 1_000_000 + b".", "at most 2000000 bytes of memory"),
    "a million lists": (b"\x80\x02(" + b"]" * 1_000_000 + b"t.", "at most 2000000 bytes of memory"),
    "a million memo entries": (
        b"\x80\x02N" + b"".join(b"r" + struct.pack("<I", n) for n in range(100_000)) + b".",
        "at most 2000000 bytes of memory",
    ),
    "a key that takes long to hash": (b"\x80\x02}))\x86Ns.", "a key must be str or int, found tuple"),
    "a key without a value": (b"\x80\x02}(Nu.", "must come in pairs"),
    "items of a number": (b"\x80\x02K\x01Na.", "found int in the wrong place"),
    "nothing on the stack": (b"\x80\x02a.", "a value is missing on the stack"),
    "no mark": (LIST + b"e.", "a mark is missing on the stack"),
    "an open mark": (b"\x80\x02(N.", "ends with one value"),
    "two values": (b"\x80\x02NN.", "ends with one value, found 2"),
    "no value": (b"\x80\x02.", "ends with one value, found 0"),
    "no end": (b"\x80\x02N", "truncated pickle"),
    "no pickle": (b"", "truncated pickle"),
    "more after the end": (b"\x80\x02N.N.", "found 2 bytes after it"),
    "an opcode of nobody": (b"\x80\x02\xfe.", r"opcode \? \(0xfe\)"),
    "a protocol to come": (b"\x80\x06N.", "protocol must be 2 to 5, found 6"),
    "a name without end": (b"\x80\x02c" + b"a" * 5_000, "a name must end within 256 bytes"),
    "a persistent id that is none": (b"\x80\x02NQ.", "a persistent id must be of a storage"),
    "a storage of no type": (
        b"\x80\x02(X\x07\x00\x00\x00storageNX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQ.",
        "a persistent id must be of a storage",
    ),
}


def refused(path: Path, message: str, *, limit: int = 2_000_000) -> None:
    """A ValueError with this message, in less than 16 MB and five seconds of computing."""
    tracemalloc.start()
    start = time.process_time()
    try:
        with pytest.raises(ValueError, match=message):
            read_archive(path, limit=limit)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
        assert time.process_time() - start < 5
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_pickle_is_refused_by_name(tmp_path: Path, what: str) -> None:
    program, message = HOSTILE[what]
    refused(write_archive(tmp_path / "x.pt", program, {}), message)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (Tensor(FLOATS, 0, (7,), (1,)), "reaches element 6 of a storage of 6"),
        (Tensor(FLOATS, 6, (1,), (1,)), "reaches element 6 of a storage of 6"),
        (Tensor(FLOATS, 0, (2, 2), (4, 2)), "reaches element 6 of a storage of 6"),
        (Tensor(FLOATS, 5, (2,), (-1,)), "whole numbers from 0"),
        (Tensor(FLOATS, -1, (1,), (1,)), "as many strides, and an offset"),
        (Tensor(FLOATS, 1.5, (1,), (1,)), "as many strides, and an offset"),
        (Tensor(FLOATS, 0, (-1,), (1,)), "whole numbers from 0"),
        (Tensor(FLOATS, 0, (2, 2), (1,)), "a tensor of 2 axes needs as many strides"),
        (Tensor(FLOATS, 0, (1,) * 33, (0,) * 33), "at most 32 whole numbers"),
        (Tensor(FLOATS, 0, 6, (1,)), "at most 32 whole numbers"),
        (Tensor(FLOATS, 0, (2**40,), (0,)), "at most 2000000 bytes of memory"),
        (Tensor(FLOATS, 0, (2**40, 2**40), (0, 0)), r"less than 2\^46 elements"),
        (Tensor(FLOATS, 0, (0, 2**40, 2**40), (0, 0, 0)), r"less than 2\^46 elements"),
        (Tensor(FLOATS, 0, (2**62,), (0,)), "whole numbers from 0"),
        (Tensor(FLOATS, 0, (1,), (1,), metadata={"conj": True}), "neither conjugated nor negated"),
        (Tensor(FLOATS, 0, (1,), (1,), "complex64"), r"found 'torch\.complex64'"),
        (Tensor([1.0], 0, (1,), (1,)), "made of a storage with a type"),
        (
            Tensor(Stored(Name("torch.storage", "UntypedStorage"), b"1234", 4), 0, (1,), (1,)),
            "with a type",
        ),
        (
            Tensor(Stored(Name("torch", "ComplexFloatStorage"), b"12345678", 1), 0, (1,), (1,)),
            "ComplexFloatStorage'",
        ),
        (
            Tensor(Stored(Name("torch", "LongStorage"), b"12345678", 2), 0, (1,), (1,)),
            "2 elements of 8 bytes, found 8",
        ),
        (
            Tensor(Stored(Name("torch", "LongStorage"), b"12345678", 2**60), 0, (1,), (1,)),
            "found 8 bytes",
        ),
        (Tensor(Stored(Name("torch", "LongStorage"), b"1", -1), 0, (1,), (1,)), "found 1 bytes"),
    ],
)
def test_a_tensor_that_is_not_within_its_storage_is_refused(
    tmp_path: Path, tensor: Tensor, message: str
) -> None:
    refused(save(tensor, tmp_path / "x.pt"), message)


def test_a_type_of_nobody_is_refused(tmp_path: Path) -> None:
    program, storages = pickled(np.arange(3, dtype=np.uint16))
    program = program.replace(b"ctorch\nuint16\n", b"X\x03\x00\x00\x00foo")
    refused(write_archive(tmp_path / "x.pt", program, storages), "type must be one of uint8, ")


def test_a_storage_without_a_member_is_refused(tmp_path: Path) -> None:
    program, _ = pickled(np.arange(3))
    refused(write_archive(tmp_path / "x.pt", program, {}), "storage '0' has no member")


def test_a_key_leads_to_no_other_member(tmp_path: Path) -> None:
    program, _ = pickled(Tensor(Stored(Name("torch", "ByteStorage"), b"x" * 14, 14), 0, (14,), (1,)))
    program = program.replace(b"X\x01\x00\x00\x000", b"X\x0b\x00\x00\x00../data.pkl")
    refused(write_archive(tmp_path / "x.pt", program, {}), "has no member")


def test_another_byteorder_is_refused(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "x.pt", *pickled(np.arange(3)), byteorder=b"big")
    refused(path, "storages must be little-endian")
    refused(write_archive(path, *pickled(np.arange(3)), byteorder=b"x" * 99), "may have 16 bytes, found 99")


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, compression: int) -> None:
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("a/data.pkl", b"\x80\x02N.")
        with archive.open("a/data/0", "w") as member:
            for _ in range(64):
                member.write(bytes(1 << 20))
    refused(path, "must not be compressed")


def test_members_that_are_repeated_overlapping_or_encrypted_are_refused(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "x.pt", *pickled(np.arange(1_000)))
    content = path.read_bytes()
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02N.")
    refused(path, "must be there once")
    start = content.rindex(b"PK\x01\x02")  # the entry of the storage: its member starts where another does
    for at, value, message in (
        (start + 42, b"\x08\x00\x00\x00", "inside another that ends at"),
        (start + 8, b"\x01\x00", "must not be encrypted"),
        (start + 20, b"\xff\xff\xff\x7f" * 2, "inside their list"),
        (start + 24, b"\xff\xff\xff\x7f", "must not be compressed, found 2147483647 bytes as 8000"),
    ):
        path.write_bytes(content[:at] + value + content[at + len(value) :])
        refused(path, message)


def test_a_list_of_members_without_end_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    directory = 20 << 20
    with path.open("wb") as file:
        file.write(b"PK\x03\x04")
        file.truncate(directory)
        file.seek(directory)
        file.write(struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 1, 1, directory, 0, 0))
    refused(path, "the list of members may have 16777216 bytes", limit=1 << 30)
    assert opening(path) == b""


def test_an_archive_without_one_folder_and_its_pickle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", b"\x80\x02N.")
    refused(path, "one folder with data.pkl")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02N.")
        archive.writestr("b/data.pkl", b"\x80\x02N.")
    refused(path, "one folder with data.pkl")


def test_plain_pickles_and_the_torch_format_of_old_are_told_how_to_be_saved_again(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    for content in (pickle.dumps([1]), pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2), b"", b"text"):
        path.write_bytes(content)
        refused(path, r"save it again, with torch\.save\(torch\.load\(path, weights_only=True\), path\)")


def test_a_file_past_the_limit_is_refused_unread(tmp_path: Path) -> None:
    path = save(np.zeros(10_000), tmp_path / "x.pt")
    refused(path, "a torch archive may have 9999 bytes, found 8", limit=9_999)
    size = path.stat().st_size
    refused(path, f"content must take at most {size} bytes of memory", limit=size)


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    content = save({"a": np.arange(10), "b": [1, 2]}, tmp_path / "x.pt").read_bytes()
    path = tmp_path / "cut.pt"
    for length in range(2, len(content), 11):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="damaged or truncated torch archive"):
            read_archive(path)


def test_a_changed_byte_never_gives_other_content(tmp_path: Path) -> None:
    good = {"a": np.arange(10), "b": [1, 2]}
    content = save(good, tmp_path / "x.pt").read_bytes()
    path = tmp_path / "changed.pt"
    for place in range(0, len(content), 3):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
        try:
            found = read_archive(path)
        except ValueError:
            continue
        assert found["a"].tolist() == list(range(10))
        assert found["b"] == [1, 2]


def test_what_torch_itself_saves_is_read(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    values = torch.arange(24).reshape(2, 3, 4)
    tensors = {name: values.to(getattr(torch, name)) for name in DTYPES}
    tensors |= {"view": values.flatten()[3:20:7], "turned": values[0].t(), "none": values[:0]}
    tensors |= {"wide": torch.ones(1).expand(5, 5), "one": torch.tensor(3.0), "half": values.bfloat16()}
    path = tmp_path / "expert_distribution_recorder_1700000000.1234567_0.pt"
    for protocol in (2, 5):
        torch.save({"size": torch.Size([2]), **tensors}, path, pickle_protocol=protocol)
        found = read_archive(path)
        assert found.pop("size") == (2,)
        assert list(found) == list(tensors)
        for name, tensor in tensors.items():
            expected = (tensor.float() if name == "half" else tensor).numpy()
            assert found[name].dtype == expected.dtype
            assert found[name].shape == expected.shape
            assert np.array_equal(found[name], expected)
    torch.save([1], path, _use_new_zipfile_serialization=False)
    refused(path, r"save it again, with torch\.save")
    torch.save(torch.nn.Linear(2, 2), path)
    refused(path, r"found 'torch\.nn\.modules\.linear\.Linear'")
